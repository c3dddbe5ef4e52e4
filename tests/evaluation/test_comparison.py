"""Comparison on common clips, and weighted average precision against scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepavfusion.evaluation.classification.ensemble import average
from deepavfusion.evaluation.classification.evaluator import Labelled
from deepavfusion.evaluation.classification.results import classification_findings, hit_at_1
from deepavfusion.evaluation.comparison import compare, mean_ap_statistic
from deepavfusion.evaluation.config import AverageConfig, CompareConfig
from deepavfusion.evaluation.coverage import ClipSelection, coverage
from deepavfusion.evaluation.loop import Predictions
from deepavfusion.evaluation.record import Record
from deepavfusion.report.results import read_evaluation

CLASSES = ("a", "b", "c")


def write(folder: Path, ids: list[str], scores: np.ndarray, targets: np.ndarray, multi_label: bool = False) -> str:
    values = {"average": scores.astype(np.float32), "average_present": np.ones(len(ids), dtype=bool)}
    predictions = Predictions(np.arange(len(ids)), tuple(ids), values, {})
    selection = ClipSelection("somewhere", "test", (), tuple(ids), (), {}, ())
    labelled = Labelled(CLASSES, targets, multi_label)
    classification_findings(predictions, labelled, selection, "centre window", {}).write(folder)
    return str(folder)


def test_only_common_clips_enter_and_the_count_is_stated(tmp_path: Path) -> None:
    labels = np.eye(3, dtype=bool)[[0, 1, 2, 0, 1, 2]]
    right = labels.astype(float)
    wrong = np.roll(right, 1, axis=1)
    a = write(tmp_path / "a", list("uvwxy"), right[:5], labels[:5])
    b = write(tmp_path / "b", list("zyxw"), np.stack([right[5], right[4], wrong[3], wrong[2]]), labels[[5, 4, 3, 2]])
    found = compare(CompareConfig(a, b, out=str(tmp_path / "c.json")))
    assert (found.num_common, found.num_only_a, found.num_only_b) == (3, 2, 1)  # w, x, y
    assert (found.score_a, found.score_b) == (1.0, pytest.approx(1 / 3))
    assert found.interval.difference == pytest.approx(2 / 3)
    assert found.metric == "top1"
    assert "on 3 common clips (2 only in A, 1 only in B)" in found.line()
    assert "3 common clips" in (tmp_path / "c.json").read_text()
    same = compare(CompareConfig(a, a))
    assert (same.interval.difference, same.interval.low, same.interval.high) == (0, 0, 0)


def test_several_seeds_are_averaged(tmp_path: Path) -> None:
    labels = np.eye(3, dtype=bool)[[0, 1, 2, 0]]
    right, wrong = labels.astype(float), np.roll(labels, 1, axis=1).astype(float)
    ids = list("wxyz")
    one = write(tmp_path / "1", ids, right, labels)
    two = write(tmp_path / "2", ids, np.where(np.arange(4)[:, None] < 2, right, wrong), labels)
    other = write(tmp_path / "3", ids, wrong, labels)
    found = compare(CompareConfig(f"{one},{two}", f"{other},{other}"))
    assert found.score_a == pytest.approx(0.75)
    assert found.interval.seed_differences == pytest.approx((1.0, 0.5))


def test_values_of_other_tasks_compare_sample_by_sample(tmp_path: Path) -> None:
    for name, values in (("a", [0.5, 0.75, np.nan, 1.0]), ("b", [0.25, 0.25, 0.5, np.nan])):
        selection = ClipSelection("somewhere", "test", (), tuple("wxyz"), (), {}, ())
        record = Record("t", "localization", "area", coverage(selection, list("wxyz"), {}), 4, {})
        record.write(tmp_path / name, list("wxyz"), {"ciou": np.array(values)})
    found = compare(CompareConfig(str(tmp_path / "a"), str(tmp_path / "b")))
    assert (found.metric, found.num_common, found.num_only_a, found.num_only_b) == ("ciou", 2, 1, 1)
    assert found.interval.difference == pytest.approx((0.25 + 0.5) / 2)
    assert found.line().startswith("ciou: A 0.62, B 0.25, difference +0.38")
    with pytest.raises(ValueError, match=r"metric auc: .* has ciou"):
        compare(CompareConfig(str(tmp_path / "a"), str(tmp_path / "b"), metric="auc"))


def test_baselines_are_paired_on_common_samples(tmp_path: Path) -> None:
    labels = np.eye(3, dtype=bool)[[0, 1, 2, 0]]
    right, wrong = labels.astype(float), np.roll(labels, 1, axis=1).astype(float)
    b = write(tmp_path / "b", list("zyxw"), np.stack([right[3], wrong[2], wrong[1], right[0]]), labels[::-1])
    values = {"average": right.astype(np.float32), "average_present": np.ones(4, dtype=bool)}
    selection = ClipSelection("somewhere", "test", (), tuple("wxyz"), (), {}, ())
    truth = Labelled(CLASSES, labels, False)
    predictions = Predictions(np.arange(4), tuple("wxyz"), values, {})
    classification_findings(predictions, truth, selection, "centre window", {}, {"half": b}).write(tmp_path / "a")
    shown = read_evaluation(tmp_path / "a" / "results.json")
    half = shown.baselines["half"]["top1 average"]
    assert (shown.scores["top1 average"].value, half.score.value) == (1.0, 0.5)
    assert half.difference is not None
    assert half.difference.value == 0.5
    with pytest.raises(ValueError, match=r"baseline none: .*no values of an evaluation"):
        classification_findings(predictions, truth, selection, "", {}, {"none": str(tmp_path / "x")})


def test_the_mean_of_logits_scores_as_by_hand(tmp_path: Path) -> None:
    labels = np.eye(3, dtype=bool)[[0, 1, 2, 0]]
    one = np.array([[2.0, 1, 0], [0, 2, 1], [2, 0, 1], [0, 3, 0]])
    two = np.array([[0.0, 0.5, 0], [0, 0, 0.5], [0, 0, 1.5], [1, 0, 0]])
    a = write(tmp_path / "a", list("wxyz"), one, labels)
    b = write(tmp_path / "b", list("zyx"), two[[3, 2, 1]], labels[[3, 2, 1]])
    found = average(AverageConfig((a, b), str(tmp_path / "mean")))
    with np.load(tmp_path / "mean" / "predictions.npz") as saved:
        assert saved["ids"].tolist() == list("xyz")
        np.testing.assert_allclose(saved["average"], (one + two)[1:] / 2)
    assert found.record.scores["top1 average"].value == pytest.approx(2 / 3)  # x and y; z goes to the wrong class
    assert found.record.coverage.missing == ("w",)
    with pytest.raises(ValueError, match="must name at least two"):
        AverageConfig((a,), "x")


def test_what_does_not_compare_is_named(tmp_path: Path) -> None:
    labels = np.eye(3, dtype=bool)
    a = write(tmp_path / "a", list("xyz"), labels.astype(float), labels)
    b = write(tmp_path / "b", list("xyz"), labels.astype(float), np.roll(labels, 1, axis=0))
    c = write(tmp_path / "c", list("uvw"), labels.astype(float), labels)
    with pytest.raises(ValueError, match="x has other labels in"):
        compare(CompareConfig(a, b))
    with pytest.raises(ValueError, match="have no clip in common"):
        compare(CompareConfig(a, c))
    with pytest.raises(ValueError, match="no predictions of an evaluation"):
        compare(CompareConfig(a, str(tmp_path / "nothing")))
    with pytest.raises(ValueError, match=r"head image: .* has average"):
        compare(CompareConfig(a, c, head="image"))


def test_mean_average_precision_of_resamples_is_that_of_repeated_clips(tmp_path: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, size=(30, 3)).astype(np.float32)  # many equal scores
    targets = rng.random((30, 3)) < 0.3
    weights = rng.integers(0, 4, size=(5, 30)).astype(float)
    found = mean_ap_statistic(scores, targets)(weights)
    for row, value in zip(weights.astype(int), found, strict=True):
        s, t = np.repeat(scores, row, axis=0), np.repeat(targets, row, axis=0)
        expected = np.mean([metrics.average_precision_score(t[:, c], s[:, c]) for c in range(3)])
        assert value == pytest.approx(expected, abs=1e-12)
    a = write(tmp_path / "a", [str(i) for i in range(30)], scores, targets, multi_label=True)
    b = write(tmp_path / "b", [str(i) for i in range(30)], targets.astype(float), targets, multi_label=True)
    result = compare(CompareConfig(a, b, num_resamples=200))
    assert (result.metric, result.score_b) == ("mean_ap", 1.0)
    assert result.score_a == pytest.approx(
        np.mean([metrics.average_precision_score(targets[:, c], scores[:, c]) for c in range(3)])
    )


def test_a_prediction_that_is_not_finite_hits_nothing() -> None:
    scores = np.array([[1, 0], [np.nan, 1], [0, np.inf]], dtype=np.float32)
    targets = np.array([[True, False], [False, True], [False, True]])
    assert hit_at_1(scores, targets).tolist() == [1, 0, 0]
