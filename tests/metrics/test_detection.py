"""The extended protocol and the listening test against cases by hand and a slow walk over thresholds."""

from __future__ import annotations

import math

import pytest
import torch

from deepavfusion.metrics.detection import extended_scores, listening_scores
from deepavfusion.metrics.localization import MapScores


def samples_of(ciou: list[float], confidence: list[float], finite: list[bool] | None = None) -> MapScores:
    return MapScores(
        protocol="fixed, bilinear",
        ciou=torch.tensor(ciou, dtype=torch.float64),
        confidence=torch.tensor(confidence, dtype=torch.float64),
        finite=torch.tensor(finite or [True] * len(ciou)),
    )


def slow_point(ciou: list[float], conf: list[float], sounding: list[bool], threshold: float) -> tuple[float, float]:
    """Precision and recall at one confidence, sample by sample."""
    tp = fp = fn = 0
    for overlap, value, sounds in zip(ciou, conf, sounding, strict=True):
        if value >= threshold:
            if sounds and overlap >= 0.5:
                tp += 1
            else:
                fp += 1
        elif sounds:
            fn += 1
    return (tp / (tp + fp) if tp + fp else 1.0), (tp / (tp + fn) if tp + fn else 1.0)


def slow_scores(ciou: list[float], conf: list[float], sounding: list[bool], sweep: str) -> tuple[float, float]:
    """AP and max-F1, threshold by threshold."""
    down = sorted(conf)[:-1][::-1]
    f1_at = down
    if sweep == "slavc":
        down = down[:: max(1, len(conf) // 200)]
        f1_at = sorted(conf)[:: max(1, len(conf) // 10)]
    points = [slow_point(ciou, conf, sounding, t) for t in down]
    ap = 0.0
    for i in range(len(points) - 1):
        ap += max(p for p, _ in points[i:]) * (points[i + 1][1] - points[i][1])
    f1 = [2 * p * r / (p + r) if p + r else 0.0 for p, r in (slow_point(ciou, conf, sounding, t) for t in f1_at)]
    return ap, max(f1)


def test_by_hand() -> None:
    # confidence down:  5 right, 4 silent, 3 right, 2 wrong place, 1 right
    result = extended_scores(
        samples_of([0.6, math.nan, 0.5, 0.4, 0.9], [5, 4, 3, 2, 1]), torch.tensor([True, False, True, True, True])
    )
    # t = 4: TP 1 FP 1 FN 3; 3: TP 2 FP 1 FN 2; 2: TP 2 FP 2 FN 1; 1: TP 3 FP 2 FN 0
    assert result.average_precision == pytest.approx(
        2 / 3 * (1 / 2 - 1 / 4) + 2 / 3 * (2 / 3 - 1 / 2) + 3 / 5 * (1 - 2 / 3)
    )
    assert result.max_f1 == pytest.approx(2 * (3 / 5) * 1 / (3 / 5 + 1))
    assert result.precision == pytest.approx(3 / 4)
    assert (result.num_scored, result.num_sounding, result.num_silent) == (5, 4, 1)
    assert result.protocol == "extended, fixed, bilinear, full sweep"


@pytest.mark.parametrize("sweep", ["full", "slavc"])
@pytest.mark.parametrize("count", [2, 9, 57, 640])
def test_equals_slow_walk(sweep: str, count: int) -> None:
    torch.manual_seed(count)
    sounding = torch.rand(count) < 0.6
    sounding[0] = True
    ciou = torch.rand(count, dtype=torch.float64)
    conf = torch.rand(count, dtype=torch.float64) + 0.3 * sounding
    conf = (conf * 50).round()  # ties
    result = extended_scores(samples_of(ciou.tolist(), conf.tolist()), sounding, sweep)  # type: ignore[arg-type]
    ap, f1 = slow_scores(ciou.tolist(), conf.tolist(), sounding.tolist(), sweep)
    assert result.average_precision == pytest.approx(ap, abs=1e-12)
    assert result.max_f1 == pytest.approx(f1, abs=1e-12)


def test_unusable_maps_are_the_worst() -> None:
    sounding = torch.tensor([True, True, False, False])
    good = extended_scores(samples_of([0.9, 0.9, math.nan, math.nan], [4, 3, 2, 1]), sounding)
    result = extended_scores(
        samples_of([0.9, 0.0, math.nan, math.nan], [4, -math.inf, 2, -math.inf], [True, False, True, False]), sounding
    )
    assert result.counted_as_wrong == {"map not finite": 2}
    assert result.num_scored == 4
    # A silent sample that is not finite is detected at every threshold, a sounding one at none but -inf.
    ap, f1 = slow_scores([0.9, 0.0, 0, 0], [4, -math.inf, 2, math.inf], sounding.tolist(), "full")
    assert result.average_precision == pytest.approx(ap)
    assert result.max_f1 == pytest.approx(f1)
    assert result.max_f1 < good.max_f1 == 1


def test_sounding_samples_without_truth_are_left_out() -> None:
    samples = samples_of([0.9, math.nan, 0.1, math.nan], [4, 3, 2, 1])
    result = extended_scores(samples, torch.tensor([True, True, True, False]))
    assert result.left_out == {"sounding without truth": 1}
    assert (result.num_sounding, result.num_silent) == (2, 1)
    with pytest.raises(ValueError, match="0 sounding samples with truth"):
        extended_scores(samples, torch.tensor([False, True, False, False]))
    with pytest.raises(ValueError, match="unknown sweep 'deciles'"):
        extended_scores(samples, torch.ones(4, dtype=torch.bool), "deciles")  # type: ignore[arg-type]


def test_false_positives_at_a_recall() -> None:
    sounding = torch.arange(1.0, 11.0)  # 0.9 recall keeps 2..10
    result = listening_scores(
        sounding, {"silence": torch.tensor([0.0, 1.5, 2.5, 11.0]), "noise": torch.tensor([0.5, 2.0])}
    )
    assert result.threshold == 2
    assert result.false_positive_rate == {"silence": 0.5, "noise": 0.5}  # 2.0 stands at the threshold, fully used
    assert result.num_pairs == {"silence": 4, "noise": 2}
    assert result.num_scored == 16


@pytest.mark.parametrize("count", [7, 10, 33])
def test_a_map_that_ignores_the_sound_scores_the_recall(count: int) -> None:
    torch.manual_seed(0)
    image_only = torch.rand(count, dtype=torch.float64)
    constant = torch.full((count,), 0.3)
    tied = (image_only * 3).round()
    for values in (image_only, constant, tied):
        result = listening_scores(values, {"noise": values})
        assert result.false_positive_rate["noise"] == pytest.approx(0.9)


def test_unusable_confidences_count_as_wrong() -> None:
    sounding = torch.tensor([1.0, 2.0, 3.0, torch.nan])
    result = listening_scores(sounding, {"silence": torch.tensor([-math.inf, 0.5])}, recall=0.75)
    assert result.threshold == 1
    assert result.false_positive_rate == {"silence": 0.5}
    assert result.counted_as_wrong == {"map not finite": 2}
    with pytest.raises(ValueError, match="'silence': 0"):
        listening_scores(sounding, {"silence": torch.tensor([])})
