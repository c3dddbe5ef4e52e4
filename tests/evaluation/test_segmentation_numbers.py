"""Scores with intervals over videos, maps as masks, and overlays: each by hand or by a slow way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepavfusion.data.clips import Clip
from deepavfusion.data.sets.masks import palette
from deepavfusion.drawing.segmentation import Overlay, outline, overlay, overlay_figure
from deepavfusion.evaluation.localization.sound_mapper import SoundMapper
from deepavfusion.evaluation.segmentation.evaluator import MaskScores
from deepavfusion.evaluation.segmentation.localizer import LocalizerMasks, iou_above, scale_of
from deepavfusion.evaluation.segmentation.numbers import baseline, mean_number, numbers_of, ratio_number, score
from deepavfusion.evaluation.segmentation.pictures import Picture
from deepavfusion.evaluation.segmentation.report import _ranked
from deepavfusion.models import EarlyFusionConfig


def counts(probability: float, videos: int = 6) -> MaskScores:
    """Two pictures a video: in the first half of each something sounds in all pixels, predicted alike everywhere."""
    total = MaskScores.empty(0)
    for video in range(videos):
        for number in range(2):
            mask = torch.zeros(4, 4, dtype=torch.uint8)
            mask[:, : 1 + video % 3] = 1 - number * (video % 2)
            predicted = torch.full((4, 4), probability)
            total.add(predicted, mask, Picture(Clip(f"{video}#{number}", "x"), video, number))
    return total


def test_numbers_are_those_of_the_accumulator_and_pair_by_video() -> None:
    full, none = numbers_of(counts(0.9), 4), numbers_of(counts(0.1), 4)
    assert full["avsbench miou"].value == counts(0.9).binary.avsbench().miou
    assert full["avsbench miou, batches of 4 videos"].value == counts(0.9).binary.avsbench(4).miou
    own = score(full["avsbench miou"])
    assert own.low is not None
    assert own.high is not None
    assert own.low < own.value < own.high
    found = baseline(full["avsbench miou"], none["avsbench miou"])
    assert found.difference is not None
    assert found.difference.difference == pytest.approx(full["avsbench miou"].value - none["avsbench miou"].value)
    assert baseline(full["pooled miou"], none["pooled miou"]).difference is None
    fewer = numbers_of(counts(0.1, 5), 4)
    assert baseline(full["avsbench miou"], fewer["avsbench miou"]).difference is None  # other videos do not pair
    same = baseline(full["avsbench f_score"], full["avsbench f_score"]).difference
    assert same is not None
    assert (same.low, same.high) == (0, 0)


def test_means_and_ratios_over_pictures() -> None:
    videos, values = np.array([0, 0, 1, 2]), np.array([0.5, 0.1, np.nan, 0.3])
    mean = mean_number(values, videos)
    assert mean is not None
    assert mean.value == pytest.approx(0.3)
    assert mean.videos is not None
    assert mean.videos.tolist() == [0, 2]
    assert mean.statistic is not None
    assert mean.statistic(np.array([[2.0, 1.0]])).tolist() == pytest.approx([1.5 / 5])
    ratio = ratio_number(np.array([0.1, 0.0, 9.0, 0.2]), values, videos)
    assert ratio is not None
    assert ratio.value == pytest.approx(0.3 / 0.9)  # the ratio of sums, not a mean of ratios
    assert mean_number(np.full(4, np.nan), videos) is None
    assert ratio_number(values, np.zeros(4), videos) is None


def test_pictures_are_ranked_where_something_sounds() -> None:
    iou, area = np.array([0.9, 1.0, 0.1, 0.5, 0.3]), np.array([0.2, 0.0, 0.2, 0.2, 0.2])
    assert _ranked(range(5), iou, area, 1) == {0: "best, IoU 0.90", 4: "middle, IoU 0.30", 2: "worst, IoU 0.10"}
    assert list(_ranked([1], iou, area, 3)) == [1]
    assert _ranked(range(5), iou, area, 0) == {}


def test_thresholds_of_maps_by_a_slow_way() -> None:
    rng = np.random.default_rng(0)
    scores, thresholds = rng.integers(0, 12, (9, 7)) / 12, np.array([0.0, 0.2, 0.25, 0.5, 0.9])
    for truth in (rng.random((9, 7)) < 0.3, np.zeros((9, 7), bool)):
        found = iou_above(scores, truth, thresholds)
        for threshold, value in zip(thresholds, found, strict=True):
            chosen = scores > threshold
            slow = (~chosen).mean() if not truth.any() else (chosen & truth).sum() / (chosen | truth).sum()
            assert value == pytest.approx(slow)


def test_maps_become_probabilities_by_rank_and_keep_their_order() -> None:
    narrow = 0.4 + 0.01 * torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    mapper = SoundMapper(lambda image, audio: narrow, EarlyFusionConfig(image_size=(32, 32)), (), "fixed", 16)
    image, audio = torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)
    scale = scale_of(np.quantile(narrow.numpy(), np.linspace(0.01, 0.99, 99))[None])
    for place in (10, 80):
        masks = LocalizerMasks(mapper, scale, place)
        probabilities = masks(image, audio).sigmoid().flatten()
        assert bool((probabilities.diff() >= 0).all())
        assert (probabilities > 0.5).float().mean().item() == pytest.approx(1 - (place + 1) / 100, abs=0.03)
        assert probabilities.max() > 0.9  # on the whole range, so that F sees every threshold
    torch.testing.assert_close(LocalizerMasks(mapper)(image, audio).sigmoid(), narrow)
    assert scale_of(np.full((3, 99), 0.5)).tolist() == [0.5]  # a constant map has one threshold
    assert LocalizerMasks(mapper, np.array([0.5]), 0)(image, audio).isfinite().all()


def test_overlays_by_hand() -> None:
    mask = np.zeros((5, 5), np.uint8)
    mask[1:4, 1:4] = 1
    assert outline(mask).sum() == 8  # the ring of the square of nine
    assert not outline(np.ones((5, 5), np.uint8)).any()  # the picture's border is none
    picture = np.full((5, 5, 3), 100, np.uint8)
    drawn = overlay(picture, mask)
    assert drawn[0, 0].tolist() == [45, 45, 45]
    assert drawn[1, 1].tolist() == [255, 255, 255]
    assert drawn[2, 2].tolist() == [round(0.45 * 100 + 0.55 * c) for c in (255, 64, 32)]
    semantic = overlay(picture, 2 * mask, num_classes=3)
    assert semantic[2, 2].tolist() == [round(0.2 * 100 + 0.8 * c) for c in palette(3)[2]]
    figure = overlay_figure([Overlay("a", picture, {"truth": mask})], ("background", "dog", "cat"), "title")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["dog"]
    with pytest.raises(ValueError, match="at least one frame"):
        overlay_figure([])
