"""Separation scores against mir_eval, cases by hand, and what silence does to them."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from deepavfusion.metrics.separation import MixtureScores, score_systems, separation_scores, si_sdr

NUM_SAMPLES = 6000


def score_mixtures(references: torch.Tensor, estimates: torch.Tensor, mixture: torch.Tensor) -> MixtureScores:
    """Scores of one system."""
    return score_systems(references, {"": estimates}, mixture)[""]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, NUM_SAMPLES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tones() -> Tensor:
    """Two decaying chords, quantised to 16 bit as in a wav file."""
    time = torch.arange(NUM_SAMPLES, dtype=torch.float64) / 16000
    chords = [
        sum(torch.sin(2 * math.pi * hertz * time + hertz) * torch.exp(-6 * time) for hertz in chord)
        for chord in ((220, 440, 660), (330, 990))
    ]
    return (torch.stack([torch.as_tensor(chord) for chord in chords]) * 0.2 * 32768).round() / 32768


@pytest.mark.parametrize("kind", ["noise", "tones", "three"])
def test_equals_mir_eval(kind: str) -> None:
    separation = pytest.importorskip("mir_eval.separation", reason="compares with mir_eval")
    references = {"noise": noise(2), "tones": tones(), "three": noise(3)}[kind]
    estimates = references + 0.2 * references.flip(0) + 0.02 * references.std() * noise(len(references), seed=1)
    estimates[0] = 0.7 * estimates[0].roll(5)  # a gain and a delay that BSS-eval forgives
    mixture = references.sum(dim=0)
    result = score_mixtures(references[None], estimates[None], mixture[None])
    for ratios, signals in ((result.estimate, estimates), (result.mixture, mixture.expand_as(references))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            expected = separation.bss_eval_sources(references.numpy(), signals.numpy(), False)[:3]
        for values, wanted in zip((ratios.sdr, ratios.sir, ratios.sar), expected, strict=True):
            finite = np.abs(wanted) < 100  # beyond, both are round-off
            assert np.allclose(values[0].numpy()[finite], wanted[finite], atol=1e-6, rtol=0)
            assert (values[0].numpy()[~finite] == 100).all()


def test_si_sdr_by_hand() -> None:
    target = torch.tensor([1.0, -1.0, 1.0, -1.0]) * 3
    error = torch.tensor([1.0, 1.0, -1.0, -1.0])  # orthogonal to it, no mean
    for gain, offset in ((1.0, 0.0), (0.1, 0.0), (5.0, 7.0)):
        value = si_sdr(target + 2, gain * (target + error) + offset)
        assert value.item() == pytest.approx(10 * math.log10(9), abs=1e-9)
    assert si_sdr(target, -target).item() == 100  # scale may be negative; no finite ratio
    assert si_sdr(target, error).item() == -100
    assert si_sdr(target, torch.ones(4)).item() == -30  # nothing but a mean
    assert si_sdr(target, torch.zeros(4)).item() == -30


def test_improvement_over_the_mixture() -> None:
    references = noise(3, 2)
    mixture = references.sum(dim=1)
    estimates = references + 0.1 * references.flip(1)
    result = separation_scores(score_mixtures(references, estimates, mixture))
    assert result.num_scored == 3
    assert result.left_out == result.counted_as_wrong == {}
    assert result.estimate.sdr == pytest.approx(20, abs=1.0)
    assert result.mixture.sdr == pytest.approx(0.3, abs=0.5)  # 512 taps catch a little of the other
    assert result.mixture.si_sdr == pytest.approx(0, abs=0.3)
    for name in ("sdr", "sir", "si_sdr"):
        gain = getattr(result.estimate, name) - getattr(result.mixture, name)
        assert getattr(result.improvement, name) == pytest.approx(gain)
    assert result.sdr.mean().item() == pytest.approx(result.estimate.sdr)
    assert result.sdr_improvement.mean().item() == pytest.approx(result.improvement.sdr)
    unprocessed = separation_scores(score_mixtures(references, mixture[:, None].expand(-1, 2, -1), mixture))
    assert unprocessed.improvement.sdr == pytest.approx(0, abs=1e-9)


def test_sources_are_kept_in_order() -> None:
    references = noise(1, 2)
    swapped = separation_scores(score_mixtures(references, references.flip(1), references.sum(dim=1)))
    assert swapped.estimate.sdr < -5


def test_unusable_predictions_count_as_wrong() -> None:
    references = noise(2, 2)
    mixture = references.sum(dim=1)
    estimates = references + 0.1 * references.flip(1)
    good = score_mixtures(references, estimates, mixture)
    estimates[0, 1] = 4e-5 * noise(1, seed=3)[0] * NUM_SAMPLES**-0.5  # energy 1.6e-9
    estimates[1, 0, 17] = math.nan
    scores = score_mixtures(references, estimates, mixture)
    assert scores.silent.tolist() == [[False, True], [False, False]]
    assert scores.not_finite.tolist() == [[False, False], [True, False]]
    for i, j in ((0, 1), (1, 0)):
        assert scores.estimate.sdr[i, j].item() == -30
        assert scores.estimate.si_sdr[i, j].item() == -30
        assert scores.estimate.sir[i, j].isnan()
        assert scores.estimate.sar[i, j].isnan()
    for i, j in ((0, 0), (1, 1)):  # the neighbours are not touched
        for name in ("sdr", "sir", "sar", "si_sdr"):
            assert getattr(scores.estimate, name)[i, j].item() == pytest.approx(getattr(good.estimate, name)[i, j])
    result = separation_scores(scores)
    assert result.num_scored == 2
    assert result.counted_as_wrong == {"silent prediction": 1, "prediction not finite": 1}
    assert result.num_without_sir_sar == 2
    kept = good.estimate
    assert result.estimate.sdr == pytest.approx(float((kept.sdr[0, 0] + kept.sdr[1, 1]) / 4 - 15))
    assert result.estimate.sir == pytest.approx(float((kept.sir[0, 0] + kept.sir[1, 1]) / 2))


def test_energy_just_about_the_limit_of_silence() -> None:
    references = noise(2, 1)
    unit = noise(1, seed=5)[0]
    unit /= unit.square().sum().sqrt()
    estimates = torch.stack([unit * 0.999e-5**0.5, unit * 1.001e-5**0.5])[:, None]
    scores = score_mixtures(references, estimates, references[:, 0])
    assert scores.silent[:, 0].tolist() == [True, False]


def test_only_a_silent_reference_leaves_a_mixture_out() -> None:
    references = noise(2, 2)
    references[1, 0] = 0
    scores = score_mixtures(references, references + 0.1 * noise(2, 2, seed=1), references.sum(dim=1))
    assert scores.reference_silent.tolist() == [False, True]
    assert scores.estimate.sdr[1].isnan().all()
    assert scores.mixture.si_sdr[1].isnan().all()
    result = separation_scores(scores)
    assert (result.num_scored, result.left_out) == (1, {"silent reference": 1})
    assert result.scored.tolist() == [0]
    assert result.estimate.sdr == pytest.approx(scores.estimate.sdr[0].mean().item())
    references[0, 0] = 0
    with pytest.raises(ValueError, match="all of the 2 mixtures have a silent reference"):
        separation_scores(score_mixtures(references, references, references.sum(dim=1)))


def test_one_clean_source_has_no_interference() -> None:
    references = noise(1, 1)
    result = separation_scores(score_mixtures(references, 0.9 * references, references[:, 0]))
    assert math.isnan(result.estimate.sir)
    assert result.estimate.sdr == result.estimate.si_sdr == 100
    assert result.num_at_limit == 1


def test_references_that_are_copies_are_counted() -> None:
    separation = pytest.importorskip("mir_eval.separation", reason="compares with mir_eval")
    references = noise(1, 1).expand(1, 2, NUM_SAMPLES).contiguous()
    estimates = references + 0.1 * noise(1, 2, seed=1)
    result = score_mixtures(references, estimates, references.sum(dim=1))
    assert result.singular.tolist() == [True]
    assert separation_scores(result).num_singular == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        expected = separation.bss_eval_sources(references[0].numpy(), estimates[0].numpy(), False)
    assert np.allclose(result.estimate.sdr[0], expected[0], atol=1e-5)


def test_batches_join_to_the_same_numbers() -> None:
    references, estimates = noise(3, 2), noise(3, 2) + 0.3 * noise(3, 2, seed=1)
    whole = score_mixtures(references, estimates, references.sum(dim=1))
    parts = [score_mixtures(references[i:j], estimates[i:j], references[i:j].sum(dim=1)) for i, j in ((0, 1), (1, 3))]
    split = MixtureScores.join(parts)
    assert torch.equal(whole.estimate.sdr, split.estimate.sdr)
    assert torch.equal(whole.mixture.si_sdr, split.mixture.si_sdr)
    assert torch.equal(whole.reference_silent, split.reference_silent)


def test_what_does_not_fit_is_an_error() -> None:
    references = noise(1, 2)
    with pytest.raises(ValueError, match="expected references and estimates"):
        score_mixtures(references, references[:, :1], references.sum(dim=1))
    with pytest.raises(ValueError, match="more than 512 samples, got 512"):
        score_mixtures(references[..., :512], references[..., :512], references[:, 0, :512])
    with pytest.raises(ValueError, match="no numbers"):
        score_mixtures(references * math.nan, references, references.sum(dim=1))
