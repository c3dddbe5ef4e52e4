"""Scores of binary audio-visual segmentation (AVSBench S4 and MS3): the pixels of what sounds.

Incompatible families of numbers circulate; one accumulator gives all of them from the same predictions:

- `avsbench`: IoU of each frame at probability > 0.5, mean over frames; a frame with empty truth scores the share of
  pixels empty in both. F with beta^2 = 0.3 at 255 thresholds linspace(0, 1 - 1e-10), averaged over the frames with
  truth, then the largest. The public code averages inside batches of 4 videos first: `videos_per_batch`.
- `pooled`: intersection and union summed over the data set before dividing, F of the pooled precision and recall.
- `with_background`: IoU of the foreground and of the background, each averaged over the frames with truth, then their
  mean; largest F of each such frame over 256 thresholds, averaged (evaluation code of DeepAVFusion). A frame that is
  foreground throughout, in truth and prediction, has no background IoU.

A prediction that is not finite counts as wrong: as if every pixel were predicted wrongly.

Shapes: `B` frames, `H W` pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from deepavfusion.metrics.frame_records import FrameRecords, Rows, sums_by
from deepavfusion.metrics.tally import Tally, by_cause

BETA2 = 0.3
"""Weight of recall in F: (1 + beta^2) P R / (beta^2 P + R)."""
_AVSBENCH_THRESHOLDS, _BACKGROUND_THRESHOLDS = (np.linspace(0, 1 - 1e-10, n) for n in (255, 256))


@dataclass(frozen=True, eq=False)
class BinaryScores(Tally):
    """In [0, 1], higher is better. `num_scored` and `left_out` count frames."""

    miou: float
    f_score: float
    class_iou: dict[str, float]
    """`foreground`, and `background` where the protocol has it."""


@dataclass(frozen=True, eq=False)
class ClipSums:
    """Sums over the frames of each clip, from which `avsbench` of any selection of clips follows.

    `miou` and `f_score` are statistics for `intervals.paired_statistic_interval`.
    """

    clips: NDArray[np.int64]
    """`(n,)` clip numbers, ascending."""
    iou: NDArray[np.float64]
    """`(n,)` sum of IoU."""
    num_frames: NDArray[np.int64]
    f_curve: NDArray[np.float64]
    """`(n, 255)` sum of the F curves of frames with truth."""
    num_frames_with_truth: NDArray[np.int64]

    def miou(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """mIoU `(R,)` of selections that hold each clip `weights` `(R, n)` times."""
        return weights @ self.iou / (weights @ self.num_frames)

    def f_score(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """F `(R,)` of selections that hold each clip `weights` `(R, n)` times; NaN without a frame with truth."""
        with np.errstate(invalid="ignore"):
            return (weights @ self.f_curve).max(axis=1) / (weights @ self.num_frames_with_truth)


def at_mask_size(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring predictions to the size of the stored masks, before any threshold.

    Args:
        logits: `(B, h, w)`, or `(B, C, h, w)` for classes.
        size: height and width of the masks.

    Returns:
        `(B, H, W)` or `(B, C, H, W)`, bilinear with pixel areas aligned, in float32 or better.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if logits.ndim == 3:
        return at_mask_size(logits[:, None], size)[:, 0]
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


class BinarySegmentation:
    """Accumulates frames; any batch size, order and number of processes gives the same results."""

    def __init__(self) -> None:
        self._records = FrameRecords()

    def update(
        self,
        probabilities: Tensor,
        truth: Tensor,
        clips: Tensor,
        frames: Tensor,
        labelled: Tensor | None = None,
    ) -> None:
        """Add frames.

        Args:
            probabilities: `(B, H, W)` in [0, 1], at the size of the masks.
            truth: bool or 0/1 `(B, H, W)`.
            clips: int `(B,)`, number of each frame's clip in the official list.
            frames: int `(B,)`, number of the frame in its clip.
            labelled: bool `(B,)`, false for padding and for frames without a mask, which do not count; default all.

        Raises:
            ValueError: shapes that do not fit, probabilities outside [0, 1] (logits?), truth other than 0 and 1.
        """
        if probabilities.ndim != 3 or truth.shape != probabilities.shape:
            raise ValueError(f"expected two times (B, H, W), got {probabilities.shape} and {truth.shape}")
        probabilities, truth, clips, frames = self._records.labelled(labelled, probabilities, truth, clips, frames)
        finite = probabilities.isfinite().flatten(1).all(dim=1)
        _check(probabilities[finite], truth)
        truth = truth.bool()
        # All wrong: foreground where there is none and none where there is.
        predicted = torch.where(finite[:, None, None], probabilities.double(), (~truth).double())
        chosen = predicted > 0.5
        num_true = truth.flatten(1).sum(dim=1)
        true_positives, positives = _counts_above(predicted, truth, _AVSBENCH_THRESHOLDS)
        f_score = _f_score(*_counts_above(predicted, truth, _BACKGROUND_THRESHOLDS), num_true[:, None])
        self._records.add(
            clips,
            frames,
            intersection=(chosen & truth).flatten(1).sum(dim=1),
            num_predicted=chosen.flatten(1).sum(dim=1),
            num_true=num_true,
            num_pixels=torch.full_like(num_true, truth.shape[1] * truth.shape[2]),
            true_positives=true_positives,
            positives=positives,
            best_f=f_score.max(dim=1).values,
            not_finite=~finite,
        )

    def merge(self, other: BinarySegmentation) -> None:
        """Take over the frames of another process."""
        self._records.extend(other._records)

    def result(self) -> dict[str, BinaryScores]:
        """All protocols by name. Raises ValueError without a frame, or if one came twice."""
        return {
            "avsbench": self.avsbench(),
            "pooled": self.pooled(),
            "with_background": self.with_background(),
        }

    def avsbench(self, videos_per_batch: int | None = None) -> BinaryScores:
        """Scores of the public AVSBench code.

        Args:
            videos_per_batch: average inside batches of so many clips, in the order of their numbers, then over
                batches, as the public code does with 4; the value depends on it. A batch without truth has F = 0.
                None: no batches.

        Raises:
            ValueError: no frame, a frame that came twice, or fewer than one video in a batch.
        """
        rows = self._records.rows()
        iou, curve, with_truth = _frame_iou(rows), _f_curve(rows), rows["num_true"] > 0
        if videos_per_batch is None:
            miou, f_score = float(iou.mean()), _best(curve[with_truth])
            name = "avsbench"
        else:
            if videos_per_batch < 1:
                raise ValueError(f"videos_per_batch must be at least 1, got {videos_per_batch}")
            batch = np.unique(rows["clip"], return_inverse=True)[1] // videos_per_batch
            members = [batch == b for b in range(batch[-1] + 1)]
            miou = float(np.mean([iou[m].mean() for m in members]))
            f_score = float(np.mean([_best(curve[m & with_truth]) if (m & with_truth).any() else 0 for m in members]))
            name = f"avsbench, batches of {videos_per_batch} videos"
        return self._scores(name, rows, miou, f_score, {"foreground": miou}, {})

    def clip_sums(self) -> ClipSums:
        """What intervals and best-to-worst pictures need of `avsbench`."""
        rows = self._records.rows()
        curve, with_truth = _f_curve(rows), rows["num_true"] > 0
        curve[~with_truth] = 0
        clips, iou = sums_by(rows["clip"], _frame_iou(rows))
        return ClipSums(
            clips=clips,
            iou=iou,
            num_frames=sums_by(rows["clip"], np.ones(len(curve), np.int64))[1],
            f_curve=sums_by(rows["clip"], curve)[1],
            num_frames_with_truth=sums_by(rows["clip"], with_truth.astype(np.int64))[1],
        )

    def pooled(self) -> BinaryScores:
        """Scores of the pixels of all frames taken together; NaN if nothing sounds and nothing is predicted."""
        rows = self._records.rows()
        intersection, predicted, true = (int(rows[c].sum()) for c in ("intersection", "num_predicted", "num_true"))
        union = predicted + true - intersection
        iou = intersection / union if union else float("nan")
        # F = (1 + b) P R / (b P + R) with P = I / predicted and R = I / true.
        weight = BETA2 * true + predicted
        f_score = (1 + BETA2) * intersection / weight if weight else float("nan")
        return self._scores("pooled", rows, iou, f_score, {"foreground": iou}, {})

    def with_background(self) -> BinaryScores:
        """Scores of DeepAVFusion's code, over frames with truth; NaN without one."""
        rows = self._records.rows()
        kept = rows["num_true"] > 0
        used = {name: column[kept] for name, column in rows.items()}
        union = used["num_predicted"] + used["num_true"] - used["intersection"]
        background = used["num_pixels"] - used["intersection"]  # pixels that are background in truth or prediction
        some = background > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            ious = {
                "foreground": float((used["intersection"] / union).sum() / np.float64(kept.sum())),
                "background": float(((used["num_pixels"] - union) / background)[some].sum() / np.float64(some.sum())),
            }
            f_score = float(used["best_f"].sum() / np.float64(kept.sum()))
        # The public code leaves out a class that no frame has.
        miou = float(np.mean([iou for iou in ious.values() if not np.isnan(iou)])) if kept.any() else float("nan")
        return self._scores("with_background", used, miou, f_score, ious, by_cause(empty_truth=int((~kept).sum())))

    def _scores(
        self, name: str, rows: Rows, miou: float, f_score: float, ious: dict[str, float], left_out: Mapping[str, int]
    ) -> BinaryScores:
        return BinaryScores(
            protocol=name,
            num_scored=len(rows["clip"]),
            left_out={**left_out, **by_cause(unlabelled=self._records.num_unlabelled)},
            counted_as_wrong=by_cause(prediction_not_finite=int(rows["not_finite"].sum())),
            miou=miou,
            f_score=f_score,
            class_iou=ious,
        )


def _counts_above(predicted: Tensor, truth: Tensor, thresholds: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """int32 `(B, K)`: true positives and positives of each frame at probability >= each threshold."""
    num = len(thresholds)
    levels = torch.as_tensor(thresholds, device=predicted.device)
    reached = torch.searchsorted(levels, predicted.flatten(1), right=True)  # how many thresholds a pixel reaches
    frame = torch.arange(len(truth), device=truth.device)[:, None]
    cell = (frame * 2 + truth.flatten(1)) * (num + 1) + reached
    counts = cell.flatten().bincount(minlength=len(truth) * 2 * (num + 1)).view(-1, 2, num + 1)
    at_least = counts.flip(-1).cumsum(dim=-1).flip(-1)[..., 1:]
    return at_least[:, 1].int(), at_least.sum(dim=1).int()


def _f_score(true_positives: Tensor, positives: Tensor, num_true: Tensor) -> Tensor:
    """float64 F of counts; 0 where nothing is found."""
    weight = BETA2 * num_true.double() + positives
    return torch.where(true_positives > 0, (1 + BETA2) * true_positives.double() / weight, 0.0)


def _f_curve(rows: Rows) -> NDArray[np.float64]:
    found, positives, true = (torch.from_numpy(rows[name]) for name in ("true_positives", "positives", "num_true"))
    return _f_score(found, positives, true[:, None]).numpy()


def _frame_iou(rows: Rows) -> NDArray[np.float64]:
    union = rows["num_predicted"] + rows["num_true"] - rows["intersection"]
    empty = rows["num_true"] == 0
    shared = np.where(empty, rows["num_pixels"] - union, rows["intersection"])
    return shared / np.where(empty, rows["num_pixels"], union)


def _best(curves: NDArray[np.float64]) -> float:
    """Largest value of the mean curve; NaN of none."""
    return float(curves.mean(axis=0).max()) if len(curves) else float("nan")


def _check(probabilities: Tensor, truth: Tensor) -> None:
    if probabilities.numel() and not (float(probabilities.min()) >= 0 and float(probabilities.max()) <= 1):
        low, high = float(probabilities.min()), float(probabilities.max())
        raise ValueError(f"probabilities must lie in [0, 1], got {low:g} to {high:g} (logits?)")
    if truth.dtype != torch.bool and bool(((truth != 0) & (truth != 1)).any()):
        raise ValueError(f"truth must be 0 or 1, got values {truth.unique()[:5].tolist()}")
