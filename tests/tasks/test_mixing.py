"""Mixup, modality dropout and smoothing against values worked out by hand."""

import pytest
import torch

from deepavfusion.tasks.mixing import LabelledInputs, draw_mixing, drop_modalities, mix, smooth


def batch(image_present: list[bool], audio_present: list[bool]) -> LabelledInputs:
    size = len(image_present)
    values = torch.arange(1.0, size + 1)
    return LabelledInputs(
        image=values.view(-1, 1, 1, 1).expand(-1, 3, 2, 2),
        audio=10 * values.view(-1, 1, 1, 1).expand(-1, 1, 2, 4),
        image_present=torch.tensor(image_present),
        audio_present=torch.tensor(audio_present),
        targets=torch.eye(size),
    )


def test_one_weight_mixes_picture_sound_and_target() -> None:
    mixed = mix(batch([True] * 3, [True] * 3), torch.tensor([0.75, 0.5, 0.1]))
    # Partners are the other ends: 1 with 3, 2 with itself.
    expected = torch.tensor([0.75 * 1 + 0.25 * 3, 2.0, 0.1 * 3 + 0.9 * 1])
    torch.testing.assert_close(mixed.image[:, 0, 0, 0], expected)
    torch.testing.assert_close(mixed.audio[:, 0, 1, 3], 10 * expected)
    torch.testing.assert_close(mixed.targets, torch.tensor([[0.75, 0, 0.25], [0, 1, 0], [0.9, 0, 0.1]]))


def test_unlike_partners_stay_as_they_are() -> None:
    given = batch([True, True, True, False], [True, True, True, True])
    mixed = mix(given, torch.full((4,), 0.5))
    torch.testing.assert_close(mixed.image[:, 0, 0, 0], torch.tensor([1.0, 2.5, 2.5, 4.0]))
    torch.testing.assert_close(mixed.targets[[0, 3]], given.targets[[0, 3]])
    torch.testing.assert_close(mixed.targets[1], torch.tensor([0, 0.5, 0.5, 0]))


def test_weights_come_from_the_beta_distribution_and_the_seed() -> None:
    torch.manual_seed(0)
    uniform, tight = draw_mixing(1.0, 20_000), draw_mixing(8.0, 20_000)
    assert uniform.mean() == pytest.approx(0.5, abs=0.01)
    assert uniform.var() == pytest.approx(1 / 12, abs=0.002)  # Beta(1, 1) is uniform
    assert tight.var() == pytest.approx(1 / (4 * 17), abs=0.001)  # 1 / (4 (2 a + 1))
    torch.manual_seed(0)
    assert torch.equal(draw_mixing(1.0, 20_000), uniform)


def test_smoothing_moves_a_share_to_all_classes() -> None:
    smoothed = smooth(torch.tensor([[0.0, 1.0, 0.0, 0.0]]), 0.1)
    torch.testing.assert_close(smoothed, torch.tensor([[0.025, 0.925, 0.025, 0.025]]))
    assert smooth(torch.rand(3, 5).softmax(1), 0.3).sum(1).tolist() == pytest.approx([1, 1, 1])


def test_dropout_hides_one_of_two_and_never_the_only_one() -> None:
    image, audio = torch.tensor([True, True, True, True, False]), torch.tensor([True, True, True, False, True])
    draws = torch.tensor([0.1, 0.3, 0.4, 0.0, 0.0])
    kept_image, kept_audio = drop_modalities(image, audio, draws, 0.4)
    assert kept_image.tolist() == [False, True, True, True, False]
    assert kept_audio.tolist() == [True, False, True, False, True]
