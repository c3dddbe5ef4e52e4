"""Classification scores against scikit-learn and cases worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from deepavfusion.metrics.classification import (
    class_average_precision,
    f1_scores,
    hits_at,
    modality_confusion,
    multi_label_scores,
    single_label_scores,
    top_k_labels,
)


def test_single_label_by_hand() -> None:
    scores = torch.tensor(
        [
            [3.0, 2.0, 1.0],  # 0, right
            [3.0, 2.0, 1.0],  # 1 taken for 0
            [0.0, 5.0, 1.0],  # 1, right
            [0.0, 5.0, 1.0],  # 1, right
            [0.0, 1.0, math.nan],  # 1, unusable
        ]
    )
    result = single_label_scores(scores, torch.tensor([0, 1, 1, 1, 1]))
    assert result.top1 == pytest.approx(3 / 5)
    assert result.top5 is None
    assert result.correct.tolist() == [True, False, True, True, False]
    assert result.confusion.tolist() == [[1, 0, 0, 0], [1, 2, 0, 1], [0, 0, 0, 0]]
    assert result.counted_as_wrong == {"prediction not finite": 1}
    assert result.num_scored == 5
    assert result.num_classes_without_clips == 1
    # Class 0: two clips tie at 3, one is right: 1/2. Class 1: ranks 5, 5 | 2, 2 | unusable: 2/2, 2/2, 3/4, 4/5.
    assert result.mean_ap == pytest.approx((1 / 2 + (1 + 1 + 3 / 4 + 4 / 5) / 4) / 2)
    first, second, third = result.table
    assert (first.num_clips, first.num_predicted, first.top1, first.precision) == (1, 2, 1.0, 0.5)
    assert (second.num_clips, second.num_predicted, second.top1, second.precision) == (4, 2, 0.5, 1.0)
    assert second.f1 == pytest.approx(2 / 3)
    assert (first.confused_with, second.confused_with, third.confused_with) == (None, 0, None)
    assert math.isnan(third.top1)


def test_top5_and_ties() -> None:
    scores = torch.zeros(7, 7)
    result = single_label_scores(scores, torch.arange(7))  # all equal: the lower numbers come first
    assert result.top1 == pytest.approx(1 / 7)
    assert result.top5 == pytest.approx(5 / 7)
    assert int(result.confusion.diagonal().sum()) == result.correct.sum()


def test_single_label_equals_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="compares with scikit-learn")
    torch.manual_seed(1)
    scores, labels = torch.randn(300, 12), torch.randint(0, 12, (300,))
    result = single_label_scores(scores, labels)
    names = list(range(12))
    for k, value in ((1, result.top1), (5, result.top5)):
        expected = metrics.top_k_accuracy_score(labels.numpy(), scores.numpy(), k=k, labels=names)
        assert value == pytest.approx(expected, abs=1e-12)
    best = scores.argmax(dim=1).numpy()
    assert (result.confusion[:, :-1].numpy() == metrics.confusion_matrix(labels.numpy(), best, labels=names)).all()
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(labels.numpy(), best, labels=names)
    assert [c.precision for c in result.table] == pytest.approx(precision.tolist(), abs=1e-12)
    assert [c.top1 for c in result.table] == pytest.approx(recall.tolist(), abs=1e-12)
    assert [c.f1 for c in result.table] == pytest.approx(f1.tolist(), abs=1e-12)


def test_multi_label_equals_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="compares with scikit-learn")
    torch.manual_seed(2)
    scores = (torch.randn(200, 15) * 4).round() / 4
    targets = torch.rand(200, 15) < 0.15
    targets[:, 3] = False
    targets[torch.arange(200), torch.randint(4, 15, (200,))] = True
    result = multi_label_scores(scores, targets)
    present = [c for c in range(15) if c != 3]
    expected = metrics.average_precision_score(targets[:, present].numpy(), scores[:, present].numpy(), average="macro")
    assert result.mean_ap == pytest.approx(expected, abs=1e-7)
    assert result.num_classes_without_positives == 1
    for k in (1, 3, 5, 10):
        predicted = top_k_labels(scores, k)
        assert (predicted.sum(dim=1) == k).all()
        for average in ("micro", "macro"):
            value = metrics.f1_score(targets.numpy(), predicted.numpy(), average=average, zero_division=0)
            assert getattr(result.f1[k], average) == pytest.approx(value, abs=1e-12)
        value = metrics.f1_score(targets[:, present].numpy(), predicted[:, present].numpy(), average="macro")
        assert result.f1[k].macro_present == pytest.approx(value, abs=1e-12)
        assert result.hit[k] == pytest.approx((targets & predicted).any(dim=1).double().mean().item())


def test_multi_label_by_hand() -> None:
    scores = torch.tensor([[4.0, 3.0, 2.0], [1.0, 2.0, 3.0], [0.0, torch.inf, 0.0], [9.0, 8.0, 7.0]])
    targets = torch.tensor([[1, 0, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0]])
    result = multi_label_scores(scores, targets, ks=(1, 2, 5))
    assert result.num_scored == 3
    assert result.left_out == {"no label": 1}
    assert result.counted_as_wrong == {"prediction not finite": 1}
    assert result.scored.tolist() == [0, 1, 2]
    assert result.hit == {1: pytest.approx(1 / 3), 2: pytest.approx(1 / 3)}
    assert result.hit_at_1.tolist() == [True, False, False]
    # k = 1: predicted 0 (true), 2 (false), nothing; 4 true labels.
    assert result.f1[1].micro == pytest.approx(2 / (2 + 1 + 3))
    # Class 0: TP 1, FN 1; class 1: nothing at all, 0; class 2: FP 1, FN 2.
    assert result.f1[1].macro == pytest.approx((2 / 3) / 3)
    assert result.f1[1].macro_present == pytest.approx((2 / 3) / 2)
    # Class 0: ranks 4, 1: 1/1, 2/2. Class 2: 3 (no), 2 (yes), last the unusable one (yes).
    assert result.class_ap.tolist()[::2] == pytest.approx([1.0, (1 / 2 + 2 / 3) / 2])


def test_an_unusable_clip_ranks_last() -> None:
    scores = torch.tensor([[0.1], [0.2], [torch.nan]])
    assert class_average_precision(scores, torch.tensor([[0], [0], [1]])).item() == pytest.approx(1 / 3)
    assert class_average_precision(scores, torch.tensor([[1], [1], [0]])).item() == pytest.approx(1.0)
    assert hits_at(scores, torch.ones(3, 1), 1).tolist() == [True, True, False]


def test_f1_of_thresholded_labels() -> None:
    predicted = torch.tensor([[1, 1], [0, 0], [1, 0]]).bool()
    targets = torch.tensor([[1, 0], [1, 0], [1, 1]]).bool()
    result = f1_scores(predicted, targets)
    assert result.micro == pytest.approx(4 / (4 + 1 + 2))
    assert result.macro == pytest.approx((4 / 5 + 0) / 2)


def test_modality_confusion() -> None:
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    # audio alone right, image alone right, both alone right, joint right, nobody right, joint unusable, no label
    image = torch.tensor([wrong, right, right, right, wrong, right, right])
    audio = torch.tensor([right, wrong, right, right, wrong, wrong, right])
    joint = torch.tensor([wrong, wrong, wrong, right, wrong, [torch.nan, 1.0], wrong])
    targets = torch.tensor([[1, 0]] * 6 + [[0, 0]])
    result = modality_confusion(image, audio, joint, targets)
    assert (result.audio, result.image) == (pytest.approx(2 / 6), pytest.approx(3 / 6))
    assert (result.both, result.either) == (pytest.approx(1 / 6), pytest.approx(4 / 6))
    assert (result.num_confused, result.num_scored) == (4, 6)
    assert result.left_out == {"no label": 1}
    assert result.counted_as_wrong == {"prediction not finite": 1}
    assert modality_confusion(image, audio, joint, targets, k=2).either == pytest.approx(1 / 6)  # only the unusable


def test_what_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="label 3 is not among the 3 classes"):
        single_label_scores(torch.zeros(2, 3), torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="expected scores"):
        single_label_scores(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="none of the 2 clips has a label"):
        multi_label_scores(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="4 best of 3"):
        top_k_labels(torch.zeros(2, 3), 4)
