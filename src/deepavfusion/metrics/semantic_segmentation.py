"""Scores of semantic audio-visual segmentation (AVSBench AVSS): every pixel of what sounds with its class.

- `avss`: per-class IoU and F (beta^2 = 0.3) of each frame, summed and divided by the number of frames in which the
  class occurs in truth or prediction; mean over all classes, background included, absent ones counting 0.
- `pooled`: intersection and union of each class summed over the data set before dividing, F of the pooled precision
  and recall; mean over the classes that occur.

Frames beyond a video's own count and frames without labels do not count; nor do single pixels with a negative label.
A pixel without a usable prediction counts as wrong: it is in the truth of its class and in no prediction.

Shapes: `B` frames, `C` classes, `H W` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepavfusion.metrics.frame_records import FrameRecords, Rows, sums_by
from deepavfusion.metrics.segmentation import BETA2
from deepavfusion.metrics.tally import Tally, by_cause

NUM_CLASSES = 71
"""Classes of AVSS, background (0) included."""


@dataclass(frozen=True, eq=False)
class SemanticScores(Tally):
    """In [0, 1], higher is better. `num_scored` and `left_out` count frames."""

    miou: float
    f_score: float
    class_iou: NDArray[np.float64]
    """`(C,)`; an absent class has 0 under `avss`, NaN under `pooled`."""
    class_f_score: NDArray[np.float64]
    num_frames_of_class: NDArray[np.int64]
    """`(C,)`: frames in which the class occurs in truth or prediction."""
    num_absent_classes: int


@dataclass(frozen=True, eq=False)
class SemanticClipSums:
    """Sums over the frames of each clip, from which `avss` of any selection of clips follows.

    `miou` and `f_score` are statistics for `intervals.paired_statistic_interval`.
    """

    clips: NDArray[np.int64]
    """`(n,)` clip numbers, ascending."""
    iou: NDArray[np.float64]
    """`(n, C)`."""
    f: NDArray[np.float64]
    num_frames: NDArray[np.int64]
    """`(n, C)`: frames in which the class occurs in truth or prediction."""

    def miou(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """mIoU `(R,)` of selections that hold each clip `weights` `(R, n)` times."""
        return _mean_over_frames(weights @ self.iou, weights @ self.num_frames).mean(axis=1)

    def f_score(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """F `(R,)` of selections that hold each clip `weights` `(R, n)` times."""
        return _mean_over_frames(weights @ self.f, weights @ self.num_frames).mean(axis=1)


def semantic_labels(scores: Tensor) -> Tensor:
    """The best class of each pixel: scores `(B, C, H, W)` to int64 `(B, H, W)`, -1 where a score is not finite."""
    return torch.where(scores.isfinite().all(dim=1), scores.argmax(dim=1), -1)


class SemanticSegmentation:
    """Accumulates frames; any batch size, order and number of processes gives the same results."""

    def __init__(self, num_classes: int = NUM_CLASSES) -> None:
        self.num_classes = num_classes
        self._records = FrameRecords()

    def update(
        self, predicted: Tensor, truth: Tensor, clips: Tensor, frames: Tensor, labelled: Tensor | None = None
    ) -> None:
        """Add frames.

        Args:
            predicted: int `(B, H, W)`, classes 0..C-1, -1 for none (`semantic_labels`).
            truth: int `(B, H, W)`, classes 0..C-1, negative where unlabelled.
            clips: int `(B,)`, number of each frame's clip in the official list.
            frames: int `(B,)`, number of the frame in its clip.
            labelled: bool `(B,)`, false for padding and for frames without labels, which do not count. By default,
                and beside it, frames without a labelled pixel do not count.

        Raises:
            ValueError: shapes that do not fit, or a class that is none (labels counted from 1?).
        """
        if predicted.ndim != 3 or truth.shape != predicted.shape:
            raise ValueError(f"expected two times (B, H, W), got {predicted.shape} and {truth.shape}")
        predicted, truth, clips, frames = self._records.labelled(labelled, predicted, truth, clips, frames)
        for name, labels in (("predicted", predicted), ("true", truth)):
            if labels.numel() and int(labels.max()) >= self.num_classes:
                raise ValueError(f"{name} class {int(labels.max())} is none of 0..{self.num_classes - 1}")
        predicted, truth = predicted.flatten(1).long(), truth.flatten(1).long()
        counted = truth >= 0
        predicted, truth, clips, frames, counted = self._records.labelled(
            counted.any(dim=1), predicted, truth, clips, frames, counted
        )
        self._records.add(
            clips,
            frames,
            intersection=self._areas(predicted, counted & (predicted == truth)),
            num_predicted=self._areas(predicted, counted & (predicted >= 0)),
            num_true=self._areas(truth, counted),
            not_finite=(counted & (predicted < 0)).any(dim=1),
        )

    def merge(self, other: SemanticSegmentation) -> None:
        """Take over the frames of another process."""
        self._records.extend(other._records)

    def result(self) -> dict[str, SemanticScores]:
        """All protocols by name. Raises ValueError without a frame, or if one came twice."""
        return {"avss": self.avss(), "pooled": self.pooled()}

    def avss(self) -> SemanticScores:
        """Scores of the public AVSS code."""
        rows = self._records.rows()
        iou, f_score, occurs = _frame_scores(rows)
        count = occurs.sum(axis=0)
        class_iou = _mean_over_frames(iou.sum(axis=0), count)
        class_f = _mean_over_frames(f_score.sum(axis=0), count)
        return self._scores("avss", rows, class_iou, class_f, count)

    def pooled(self) -> SemanticScores:
        """Scores of the pixels of all frames taken together, class by class."""
        rows = self._records.rows()
        pooled = {name: rows[name].sum(axis=0, keepdims=True) for name in ("intersection", "num_predicted", "num_true")}
        iou, f_score, occurs = (values[0] for values in _frame_scores(pooled))
        class_iou, class_f = np.where(occurs, iou, np.nan), np.where(occurs, f_score, np.nan)
        return self._scores("pooled", rows, class_iou, class_f, _frame_scores(rows)[2].sum(axis=0))

    def clip_sums(self) -> SemanticClipSums:
        """What intervals need of `avss`."""
        rows = self._records.rows()
        iou, f_score, occurs = _frame_scores(rows)
        clips, iou = sums_by(rows["clip"], iou)
        return SemanticClipSums(
            clips=clips,
            iou=iou,
            f=sums_by(rows["clip"], f_score)[1],
            num_frames=sums_by(rows["clip"], occurs.astype(np.int64))[1],
        )

    def _areas(self, classes: Tensor, chosen: Tensor) -> Tensor:
        """int64 `(B, C)`: chosen pixels of each class in each frame."""
        num_frames = len(classes)
        cell = torch.arange(num_frames, device=classes.device)[:, None] * self.num_classes + classes
        return cell[chosen].bincount(minlength=num_frames * self.num_classes).view(num_frames, self.num_classes)

    def _scores(
        self,
        name: str,
        rows: Rows,
        class_iou: NDArray[np.float64],
        class_f: NDArray[np.float64],
        count: NDArray[np.int64],
    ) -> SemanticScores:
        return SemanticScores(
            protocol=f"{name}, {self.num_classes} classes",
            num_scored=len(rows["clip"]),
            left_out=by_cause(unlabelled=self._records.num_unlabelled),
            counted_as_wrong=by_cause(prediction_not_finite=int(rows["not_finite"].sum())),
            miou=float(np.nanmean(class_iou)),
            f_score=float(np.nanmean(class_f)),
            class_iou=class_iou,
            class_f_score=class_f,
            num_frames_of_class=count,
            num_absent_classes=int((count == 0).sum()),
        )


def _frame_scores(rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """IoU and F of each class in each frame, 0 where it does not occur, and whether it does: `(n, C)` each."""
    shared, predicted, true = rows["intersection"], rows["num_predicted"], rows["num_true"]
    union = predicted + true - shared
    occurs = union > 0
    # F = (1 + b) P R / (b P + R) with P = shared / predicted and R = shared / true.
    iou = np.divide(shared, union, where=occurs, out=np.zeros(union.shape))
    f_score = np.divide((1 + BETA2) * shared, BETA2 * true + predicted, where=occurs, out=np.zeros(union.shape))
    return iou, f_score, occurs


def _mean_over_frames(sums: NDArray[np.float64], counts: NDArray) -> NDArray[np.float64]:
    """0 where there is no frame."""
    return np.divide(sums, counts, where=counts > 0, out=np.zeros(sums.shape))
