"""Localization scores against cases worked out by hand and a slow pixel-by-pixel reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from deepavfusion.data.sets.boxes import Box, BoxAnnotation, SourceBoxes
from deepavfusion.metrics.localization import (
    Binarisation,
    MapScores,
    binarise,
    ciou,
    confidence,
    multi_source_scores,
    pixel_average_precision,
    score_maps,
    success_auc,
    upsample,
)


def slow_ciou(scores: Tensor, truth: Tensor, rule: str) -> float:
    """The definition, pixel by pixel, in Python."""
    pixels = list(zip(scores.flatten().tolist(), truth.flatten().double().tolist(), strict=True))
    ordered = sorted(s for s, _ in pixels)
    if rule == "fixed":
        threshold = 0.5
    elif rule == "top50":
        threshold = ordered[len(ordered) // 2]
    else:
        threshold = ordered[len(ordered) - round(sum(g for _, g in pixels))]
    above = [g for s, g in pixels if s >= threshold]
    return sum(above) / (sum(g for _, g in pixels) + sum(1 for g in above if g == 0))


def samples_of(values: list[float], finite: list[bool] | None = None) -> MapScores:
    return MapScores(
        protocol="fixed, bilinear",
        ciou=torch.tensor(values, dtype=torch.float64),
        confidence=torch.zeros(len(values), dtype=torch.float64),
        finite=torch.tensor(finite or [True] * len(values)),
    )


def truth_of(*boxes: list[float], agreement: int = 1) -> torch.Tensor:
    """The truth map of boxes in fractions."""
    source = SourceBoxes(None, tuple(Box.of_corners(*box) for box in boxes))
    return torch.from_numpy(BoxAnnotation("x", (source,), agreement).truth())


def test_ciou_by_hand() -> None:
    scores = torch.tensor([[[0.9, 0.8, 0.1, 0.2], [0.3, 0.6, 0.0, 0.4]]])
    truth = torch.tensor([[[1, 1, 0, 0], [1, 0, 0, 0]]])
    assert binarise(scores, truth, "fixed").int().tolist() == [[[1, 1, 0, 0], [0, 1, 0, 0]]]
    assert ciou(binarise(scores, truth, "fixed"), truth).item() == pytest.approx(2 / (3 + 1))
    # Sorted: 0 .1 .2 .3 .4 .6 .8 .9; index 4 is 0.4, so four pixels are predicted.
    assert ciou(binarise(scores, truth, "top50"), truth).item() == pytest.approx(2 / (3 + 2))
    assert int(binarise(scores, truth, "area").sum()) == 3
    assert ciou(binarise(scores, truth, "area"), truth).item() == pytest.approx(2 / (3 + 1))


def test_soft_truth_enters_as_it_is() -> None:
    predicted = torch.tensor([[[True, True, True, False]]])
    truth = torch.tensor([[[1.0, 0.5, 0.0, 0.5]]])
    assert ciou(predicted, truth).item() == pytest.approx(1.5 / (2 + 1))
    # Area of soft truth is its sum, here 2.
    scores = torch.tensor([[[0.4, 0.3, 0.2, 0.1]]])
    assert binarise(scores, truth, "area").int().tolist() == [[[1, 1, 0, 0]]]


def test_perfect_map_of_a_small_object() -> None:
    truth = (truth_of([0.25, 0.25, 0.5, 0.5]) > 0)[None]  # 1/16 of the picture
    perfect = truth.double() + torch.rand(224, 224, generator=torch.Generator().manual_seed(0)) * 1e-3
    perfect /= perfect.max()
    assert ciou(binarise(perfect, truth, "fixed"), truth).item() == 1
    assert ciou(binarise(perfect, truth, "area"), truth).item() == 1
    assert ciou(binarise(perfect, truth, "top50"), truth).item() == pytest.approx(2 / 16)


def test_constant_map_predicts_the_whole_picture() -> None:
    truth = (truth_of([0.0, 0.0, 0.5, 0.5]) > 0)[None]
    for rule in ("fixed", "top50", "area"):
        result = score_maps(torch.full((1, 14, 14), 0.7), truth, rule)
        assert result.ciou.item() == pytest.approx(1 / 4), rule


@pytest.mark.parametrize("rule", ["fixed", "top50", "area"])
@pytest.mark.parametrize("soft", [False, True])
def test_equals_slow_reference(rule: Binarisation, soft: bool) -> None:
    torch.manual_seed(0)
    scores = torch.rand(6, 23, 31)
    scores[3] = (scores[3] * 4).round() / 4
    truth = torch.rand(6, 23, 31) < 0.2
    values = truth * torch.randint(1, 3, truth.shape) / 2 if soft else truth
    result = ciou(binarise(scores, values, rule), values)
    expected = [slow_ciou(s, g, rule) for s, g in zip(scores, values, strict=True)]
    assert result.tolist() == pytest.approx(expected, abs=1e-12)


def test_upsampling_keeps_corners() -> None:
    maps = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    grid = upsample(maps, (3, 5))
    assert grid[0].tolist() == [[0, 0.25, 0.5, 0.75, 1], [1, 1.25, 1.5, 1.75, 2], [2, 2.25, 2.5, 2.75, 3]]
    torch.manual_seed(0)
    maps = torch.rand(2, 14, 14).half()
    for mode in ("bilinear", "bicubic"):
        grid = upsample(maps, (224, 224), mode)
        assert grid.dtype == torch.float32
        assert torch.allclose(grid[:, [0, 0, -1, -1], [0, -1, 0, -1]], maps[:, [0, 0, -1, -1], [0, -1, 0, -1]].float())
    assert not torch.allclose(upsample(maps, (224, 224), "bicubic"), upsample(maps, (224, 224)))


def test_confidence_is_the_mean_of_the_top_quarter() -> None:
    scores = torch.tensor([[[8.0, 1, 2, 3], [7, 4, 5, 6]], [[-1, -2, -3, -4], [-5, -6, -7, -8]]])
    assert confidence(scores).tolist() == [7.5, -1.5]
    assert confidence(torch.arange(9.0).view(1, 3, 3)).tolist() == [7.0]  # three of nine
    torch.manual_seed(0)
    scores = torch.rand(1, 224, 224)
    count = scores.numel()
    expected = np.sort(scores.double().numpy().flatten())[-count // 4 :].mean()
    assert confidence(scores).item() == pytest.approx(expected, abs=1e-12)


def test_scoring_maps_end_to_end() -> None:
    maps = torch.zeros(4, 14, 14)
    maps[0, :7, :7] = 1
    maps[1] = torch.nan
    maps[2, 0, 0] = torch.inf
    truth = torch.stack([(truth_of([0.0, 0.0, 0.5, 0.5]) > 0)] * 4)
    truth[2] = False
    result = score_maps(maps, truth)
    assert result.protocol == "fixed, bilinear"
    expected = slow_ciou(upsample(maps[:1], (224, 224))[0], truth[0], "fixed")
    assert expected > 0.85
    assert result.ciou[0].item() == pytest.approx(expected, abs=1e-12)
    assert result.ciou[1].item() == 0  # not finite: wrong
    assert result.ciou[2].isnan()  # no truth
    assert result.ciou[3].item() == 0
    assert result.finite.tolist() == [True, False, False, True]
    assert result.confidence[1:3].tolist() == [-math.inf, -math.inf]


def test_flickr_truth_is_soft() -> None:
    truth = truth_of([0, 0, 0.5, 0.5], [0, 0, 0.25, 0.5], agreement=2)[None]  # 112 x 112, left half twice
    result = score_maps(torch.ones(1, 7, 7), truth)
    area = 56 * 112 * (1 + 0.5)
    assert result.ciou.item() == pytest.approx(area / (area + 224 * 224 - 112 * 112))


def test_batches_join_to_the_same_numbers() -> None:
    torch.manual_seed(1)
    maps, truth = torch.rand(7, 5, 5), torch.rand(7, 30, 30) < 0.3
    whole = score_maps(maps, truth, "area", "bicubic")
    split = MapScores.join([score_maps(maps[i : i + 3], truth[i : i + 3], "area", "bicubic") for i in (0, 3, 6)])
    assert torch.equal(whole.ciou, split.ciou)
    assert torch.equal(whole.confidence, split.confidence)
    with pytest.raises(ValueError, match="samples of one protocol"):
        MapScores.join([whole, score_maps(maps, truth, "top50")])


def test_area_under_the_success_rate() -> None:
    auc = success_auc(torch.tensor([0.0, 0.15, 0.3, 0.5, 1.0], dtype=torch.float64))
    # Success at 0: 5/5; to 0.15: 4/5 (3 thresholds); to 0.3: 3/5 (3); to 0.5: 2/5 (4); to 1: 1/5 (10).
    success = [5] + [4] * 3 + [3] * 3 + [2] * 4 + [1] * 10
    assert auc == pytest.approx(0.05 / 5 * (sum(success) - (5 + 1) / 2))
    assert success_auc(torch.ones(3)) == pytest.approx(1.0)
    assert success_auc(torch.zeros(3)) == pytest.approx(0.025)  # 0 reaches the threshold 0


def test_pixel_average_precision() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="compares with scikit-learn")
    torch.manual_seed(2)
    maps = torch.rand(4, 6, 6)
    maps[3, 2, 2] = torch.nan
    truth = (torch.rand(4, 40, 40) < 0.3) * 0.5
    truth[1] = 0
    values = pixel_average_precision(maps, truth)
    assert values[1].isnan()
    assert values[3].item() == 0
    for i in (0, 2):
        scores = upsample(maps[i : i + 1], (40, 40))
        expected = metrics.average_precision_score(truth[i].flatten().numpy() > 0, scores.flatten().numpy())
        assert values[i].item() == pytest.approx(expected, abs=1e-9)


def test_several_sources() -> None:
    samples = samples_of([0.3, 0.1, 0.9, math.nan, 0.29], [True, True, True, True, False])
    pixel_ap = torch.tensor([0.5, 0.7, 0.2, math.nan, 0.0], dtype=torch.float64)
    result = multi_source_scores(samples, pixel_ap, torch.tensor([4, 4, 7, 7, 9]))
    assert result.num_scored == 4
    assert result.left_out == {"no truth": 1}
    assert result.counted_as_wrong == {"map not finite": 1}
    assert result.ciou_at_30 == pytest.approx(2 / 4)
    assert result.piap == pytest.approx((0.5 + 0.7 + 0.2 + 0.0) / 4)
    assert result.cap == pytest.approx((0.6 + 0.2 + 0.0) / 3)
    assert result.num_classes == 3
    assert result.auc == pytest.approx(success_auc(torch.tensor([0.3, 0.1, 0.9, 0.29], dtype=torch.float64)))


def test_what_does_not_fit_is_an_error() -> None:
    truth = torch.ones(1, 8, 8)
    with pytest.raises(ValueError, match=r"scores under fixed binarisation must lie in \[0, 1\], got 0 to 3"):
        score_maps(torch.tensor([[[0.0, 3.0]]]), truth)
    with pytest.raises(ValueError, match=r"truth must lie in \[0, 1\]"):
        score_maps(torch.zeros(1, 2, 2), truth * 255)
    with pytest.raises(ValueError, match="unknown binarisation 'median'"):
        score_maps(torch.zeros(1, 2, 2), truth, "median")  # type: ignore[arg-type]
    nothing = score_maps(torch.zeros(1, 2, 2), truth * 0)
    with pytest.raises(ValueError, match="none of the 1 samples has truth"):
        multi_source_scores(nothing, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.long))
