"""Metrics of audio-event classification, single- and multi-label.

Protocols: VGGSound (top-1, top-5), AudioSet (macro mean average precision), VGGSounder (mAP, F1, hit@k and modality
confusion; definitions of its public benchmark code). A clip whose prediction is not finite always counts as wrong: it
hits nothing and ranks last in every class. Of equal scores the class with the lower number comes first, so top-1 is the
diagonal of the confusion matrix.

Shapes: `N` clips, `C` classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from deepavfusion.metrics.average_precision import average_precision
from deepavfusion.metrics.tally import Tally, by_cause


@dataclass(frozen=True)
class F1:
    """Harmonic mean of precision and recall of a table of yes-or-no labels, in [0, 1]."""

    micro: float
    """Of the counts added up over all classes."""
    macro: float
    """Unweighted mean over all classes; a class neither in truth nor predicted counts 0 (VGGSounder's code)."""
    macro_present: float
    """Unweighted mean over the classes with a positive."""


@dataclass(frozen=True)
class ClassScore:
    """One line of the per-class table; shares in [0, 1], NaN where nothing is there to be counted."""

    number: int
    num_clips: int
    num_predicted: int
    top1: float
    """Share of the class's clips that are given this class (its recall)."""
    precision: float
    f1: float
    average_precision: float
    confused_with: int | None
    """The other class that most of its clips are given; None if there is none."""


@dataclass(frozen=True, eq=False)
class SingleLabelScores(Tally):
    """One label per clip; shares in [0, 1], higher is better."""

    top1: float
    top5: float | None
    """None with fewer than 5 classes."""
    mean_ap: float
    """Unweighted mean of the classes' average precision."""
    num_classes_without_clips: int
    """Classes left out of `mean_ap`."""
    correct: Tensor
    """bool `(N,)`: top-1, clip by clip."""
    confusion: Tensor
    """int64 `(C, C + 1)`: rows are true classes, columns predicted ones, the last column is no usable prediction."""
    table: tuple[ClassScore, ...]


@dataclass(frozen=True, eq=False)
class MultiLabelScores(Tally):
    """Any number of labels per clip; shares in [0, 1], higher is better."""

    mean_ap: float
    """Unweighted mean of the classes' average precision (AudioSet)."""
    class_ap: Tensor
    """float64 `(C,)`; NaN for a class without a positive."""
    num_classes_without_positives: int
    """Classes left out of `mean_ap`."""
    f1: dict[int, F1]
    """By k: the k best classes of a clip taken as its labels."""
    hit: dict[int, float]
    """By k: share of clips with at least one true label among the k best classes."""
    scored: Tensor
    """int64: places of the scored clips in the input."""
    hit_at_1: Tensor
    """bool: clip by clip, in the order of `scored`."""


@dataclass(frozen=True, eq=False)
class ModalityConfusion(Tally):
    """Shares of clips that one modality alone gets right and both together get wrong; in [0, 1], lower is better."""

    audio: float
    image: float
    both: float
    """Each of the two modalities alone is right."""
    either: float
    """At least one of them alone is right."""
    num_confused: int
    """Clips in `either`."""


def finite_rows(scores: Tensor) -> Tensor:
    """bool `(N,)`: clips all of whose scores are finite numbers."""
    return scores.isfinite().all(dim=1)


def top_k_labels(scores: Tensor, k: int) -> Tensor:
    """Take the `k` best classes of each clip as its labels.

    Args:
        scores: `(N, C)`, any monotone range.
        k: how many.

    Returns:
        bool `(N, C)`; nothing is set in a row with a score that is not finite.

    Raises:
        ValueError: `k` not in 1..C.
    """
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"cannot take the {k} best of {scores.shape[1]} classes")
    best = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, best, True) & finite_rows(scores)[:, None]


def hits_at(scores: Tensor, targets: Tensor, k: int) -> Tensor:
    """bool `(N,)`: whether one of the clip's labels (`targets`, bool `(N, C)`) is among its `k` best classes."""
    return (top_k_labels(scores, k) & targets.bool()).any(dim=1)


def f1_scores(predicted: Tensor, targets: Tensor) -> F1:
    """F1 of labels, micro and macro: 2 TP / (2 TP + FP + FN), 0 where that is 0 / 0.

    Args:
        predicted: bool `(N, C)`.
        targets: bool `(N, C)`.
    """
    predicted, targets = predicted.bool(), targets.bool()
    true_positives = (predicted & targets).sum(dim=0).double()
    errors = (predicted ^ targets).sum(dim=0).double()
    per_class = _f1(true_positives, errors)
    present = targets.any(dim=0)
    return F1(
        micro=float(_f1(true_positives.sum(), errors.sum())),
        macro=float(per_class.mean()),
        macro_present=float(per_class[present].mean()),
    )


def _f1(true_positives: Tensor, errors: Tensor) -> Tensor:
    twice = 2 * true_positives
    return torch.where(twice > 0, twice / (twice + errors), 0.0)


def class_average_precision(scores: Tensor, targets: Tensor) -> Tensor:
    """Average precision of each class over clips; a clip that is not finite ranks last in every class.

    Args:
        scores: `(N, C)`.
        targets: bool `(N, C)`.

    Returns:
        float64 `(C,)`, NaN for a class without a positive.
    """
    return average_precision(scores.masked_fill(~finite_rows(scores)[:, None], -torch.inf), targets)


def single_label_scores(scores: Tensor, labels: Tensor) -> SingleLabelScores:
    """Score one-label-per-clip predictions (VGGSound).

    Args:
        scores: `(N, C)`, logits or probabilities.
        labels: int `(N,)`, classes 0..C-1.

    Raises:
        ValueError: no clips, shapes that do not fit, or a label outside 0..C-1.
    """
    if scores.ndim != 2 or not len(scores) or labels.shape != scores.shape[:1]:
        raise ValueError(f"expected scores (N, C) and labels (N,), got {scores.shape} and {labels.shape}")
    num_classes = scores.shape[1]
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if len(outside):
        raise ValueError(f"label {int(outside[0])} is not among the {num_classes} classes 0..{num_classes - 1}")
    targets = F.one_hot(labels.long(), num_classes).bool()
    finite = finite_rows(scores)
    correct = hits_at(scores, targets, 1)
    confusion = confusion_matrix(scores, labels)
    class_ap = class_average_precision(scores, targets)
    return SingleLabelScores(
        protocol="single label",
        num_scored=len(scores),
        left_out={},
        counted_as_wrong=by_cause(prediction_not_finite=int((~finite).sum())),
        top1=float(correct.double().mean()),
        top5=float(hits_at(scores, targets, 5).double().mean()) if num_classes >= 5 else None,
        mean_ap=float(class_ap.nanmean()),
        num_classes_without_clips=int(class_ap.isnan().sum()),
        correct=correct,
        confusion=confusion,
        table=class_table(confusion, class_ap),
    )


def confusion_matrix(scores: Tensor, labels: Tensor) -> Tensor:
    """Count clips by true class (row) and best class (column); the last column is predictions that are not finite.

    Args:
        scores: `(N, C)`.
        labels: int `(N,)`, classes 0..C-1.

    Returns:
        int64 `(C, C + 1)`; a row adds up to the clips of the class.
    """
    num_classes = scores.shape[1]
    best = scores.argsort(dim=1, descending=True, stable=True)[:, 0]
    best = torch.where(finite_rows(scores), best, num_classes)
    cells = labels.long() * (num_classes + 1) + best
    return cells.bincount(minlength=num_classes * (num_classes + 1)).view(num_classes, num_classes + 1)


def class_table(confusion: Tensor, class_ap: Tensor) -> tuple[ClassScore, ...]:
    """The per-class table of a confusion matrix `(C, C + 1)` and the classes' average precision `(C,)`."""
    square = confusion[:, :-1]
    right = square.diagonal().double()
    clips, predicted = confusion.sum(dim=1), square.sum(dim=0)
    wrong = square - torch.diag(square.diagonal())
    most, rival = wrong.max(dim=1)
    recall, precision, f1 = right / clips, right / predicted, 2 * right / (clips + predicted)
    return tuple(
        ClassScore(
            number=c,
            num_clips=int(clips[c]),
            num_predicted=int(predicted[c]),
            top1=float(recall[c]),
            precision=float(precision[c]),
            f1=float(f1[c]),
            average_precision=float(class_ap[c]),
            confused_with=int(rival[c]) if most[c] > 0 else None,
        )
        for c in range(len(square))
    )


def multi_label_scores(scores: Tensor, targets: Tensor, ks: Sequence[int] = (1, 3, 5, 10)) -> MultiLabelScores:
    """Score multi-label predictions (AudioSet, VGGSounder).

    For VGGSounder's subsets (audible, visible, both) pass the labels of the subset as targets: clips without a label
    in it are left out and counted, as its benchmark drops them. F1 takes the k best classes as a clip's labels, k
    fixed for all clips, as the benchmark does for models that give scores.

    Args:
        scores: `(N, C)`, logits or probabilities.
        targets: bool or 0/1 `(N, C)`.
        ks: the k of F1 and hit@k; those above C are passed over.

    Raises:
        ValueError: shapes that do not fit, or no clip has a label.
    """
    if scores.ndim != 2 or scores.shape != targets.shape:
        raise ValueError(f"expected scores and targets of one shape (N, C), got {scores.shape} and {targets.shape}")
    targets = targets.bool()
    labelled = targets.any(dim=1)
    if not bool(labelled.any()):
        raise ValueError(f"none of the {len(targets)} clips has a label")
    num_clips = len(scores)
    scores, targets = scores[labelled], targets[labelled]
    class_ap = class_average_precision(scores, targets)
    ks = [k for k in ks if k <= scores.shape[1]]
    return MultiLabelScores(
        protocol="multi-label",
        num_scored=len(scores),
        left_out=by_cause(no_label=num_clips - len(scores)),
        counted_as_wrong=by_cause(prediction_not_finite=int((~finite_rows(scores)).sum())),
        mean_ap=float(class_ap.nanmean()),
        class_ap=class_ap,
        num_classes_without_positives=int(class_ap.isnan().sum()),
        f1={k: f1_scores(top_k_labels(scores, k), targets) for k in ks},
        hit={k: float(hits_at(scores, targets, k).double().mean()) for k in ks},
        scored=labelled.nonzero()[:, 0],
        hit_at_1=hits_at(scores, targets, 1),
    )


def modality_confusion(
    image_scores: Tensor, audio_scores: Tensor, joint_scores: Tensor, targets: Tensor, k: int = 1
) -> ModalityConfusion:
    """How often adding the other modality turns a right answer into a wrong one (VGGSounder).

    Right is a hit@k. Clips without a label are left out and counted.

    Args:
        image_scores: `(N, C)` of the model given the picture alone.
        audio_scores: `(N, C)` of the model given the sound alone.
        joint_scores: `(N, C)` of the model given both.
        targets: bool or 0/1 `(N, C)`.
        k: how many best classes may hit; 1 in the benchmark.

    Raises:
        ValueError: shapes that differ, or no clip has a label.
    """
    shapes = {tuple(t.shape) for t in (image_scores, audio_scores, joint_scores, targets)}
    if len(shapes) != 1:
        raise ValueError(f"image, audio, joint scores and targets differ in shape: {sorted(shapes)}")
    labelled = targets.bool().any(dim=1)
    if not bool(labelled.any()):
        raise ValueError(f"none of the {len(targets)} clips has a label")
    each = [scores[labelled] for scores in (image_scores, audio_scores, joint_scores)]
    image, audio, joint = (hits_at(scores, targets[labelled], k) for scores in each)
    unusable = ~torch.stack([finite_rows(scores) for scores in each]).all(dim=0)
    either = (image | audio) & ~joint
    return ModalityConfusion(
        protocol=f"modality confusion, hit@{k}",
        num_scored=int(labelled.sum()),
        left_out=by_cause(no_label=int((~labelled).sum())),
        counted_as_wrong=by_cause(prediction_not_finite=int(unusable.sum())),
        audio=float((audio & ~joint).double().mean()),
        image=float((image & ~joint).double().mean()),
        both=float((audio & image & ~joint).double().mean()),
        either=float(either.double().mean()),
        num_confused=int(either.sum()),
    )
