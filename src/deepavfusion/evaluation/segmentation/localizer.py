"""A localizer's map as a mask: a baseline for segmenters.

A map has no scale and no threshold for pixels. Its scores become probabilities by their ranks among the scores of all
frames, and the threshold is the one with the highest mean IoU on the scored frames themselves, which no model could
know: this favours the baseline.

Shape legend: `B` batch, `H W` pixels, `Q` quantiles.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from deepavfusion.evaluation.localization.sound_mapper import SoundMapper
from deepavfusion.evaluation.loop import Outcome
from deepavfusion.evaluation.segmentation.evaluator import SegmenterEvaluator, segment
from deepavfusion.evaluation.segmentation.pictures import PictureBatch
from deepavfusion.metrics.segmentation import at_mask_size
from deepavfusion.models.segmenter_config import SegmenterConfig

NUM_QUANTILES = 99
"""Thresholds that are tried."""
_SMALLEST = 1e-6
"""Least probability, so that logits are finite."""


class LocalizerMasks:
    """A sound mapper that answers as a segmenter does."""

    def __init__(self, mapper: SoundMapper, scale: NDArray[np.float64] | None = None, threshold: int = 0) -> None:
        """
        Args:
            mapper: what makes the maps.
            scale: ascending scores that divide those of all pictures evenly; None leaves scores in [0, 1] as they are.
            threshold: number of the one at which the probability is 0.5.
        """
        self.mapper, self.scale, self.threshold = mapper, scale, threshold
        self.config = SegmenterConfig(encoder=mapper.encoder)

    def __call__(
        self,
        image: Tensor,
        audio: Tensor | None,
        image_present: Tensor | None = None,
        audio_present: Tensor | None = None,
    ) -> Tensor:
        """Logits `(B, 1, H, W)` float32 at the picture's size; of several maps the largest score counts."""
        assert audio is not None
        scores = self.mapper(image, audio).amax(dim=1, keepdim=True)
        scores = F.interpolate(scores, size=image.shape[-2:], mode="bilinear", align_corners=False)
        if self.scale is not None:
            ranks = np.linspace(0, 1, len(self.scale) + 2)
            ranks = np.interp(ranks, [0, ranks[self.threshold + 1], 1], [0, 0.5, 1])
            places = np.concatenate([[min(0.0, self.scale[0])], self.scale, [max(1.0, self.scale[-1])]])
            ranked = np.interp(scores.double().cpu().numpy(), places, ranks)
            scores = torch.from_numpy(ranked).to(scores)
        return scores.clamp(_SMALLEST, 1 - _SMALLEST).logit()


class ScoreSurvey(SegmenterEvaluator):
    """How the scores of every picture are distributed: `scores` `(b, Q)`, evenly spaced quantiles."""

    def predict(self, batch: PictureBatch, device: torch.device) -> Outcome:
        rows = [np.quantile(scores, _levels()) for scores in self.scores_of(batch, device)]
        return Outcome({"scores": torch.from_numpy(np.stack(rows))}, failures(batch))

    def scores_of(self, batch: PictureBatch, device: torch.device) -> list[NDArray[np.float64]]:
        """Scores of every picture, `(H, W)` of its mask."""
        flags = (batch.image_present.to(device), batch.audio_present.to(device))
        logits = segment(self.model, batch.image.to(device), batch.waveform.to(device), *flags)
        sizes = [(sample.mask.shape[0], sample.mask.shape[1]) for sample in batch.samples]
        return [
            at_mask_size(own[None], size)[0, 0].double().sigmoid().cpu().numpy()
            for own, size in zip(logits, sizes, strict=True)
        ]


class ThresholdSearch(ScoreSurvey):
    """IoU of every picture at every threshold, as `avsbench` has it: `iou` `(b, Q)`."""

    thresholds: NDArray[np.float64]

    def predict(self, batch: PictureBatch, device: torch.device) -> Outcome:
        pairs = zip(self.scores_of(batch, device), batch.samples, strict=True)
        rows = [iou_above(scores, sample.mask > 0, self.thresholds) for scores, sample in pairs]
        return Outcome({"iou": torch.from_numpy(np.stack(rows))}, failures(batch))


def iou_above(
    scores: NDArray[np.float64], truth: NDArray[np.bool_], thresholds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """IoU of `scores > t` with truth, both `(H, W)`, at ascending thresholds `(Q,)`; of empty truth the share of pixels
    that are empty in both."""
    passed = np.searchsorted(thresholds, scores, side="left")  # how many thresholds lie below a score

    def above(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        counts = np.bincount(passed[chosen], minlength=len(thresholds) + 1)
        return np.asarray(counts[::-1].cumsum()[::-1][1:])

    shared, predicted = above(truth), above(np.ones_like(truth))
    union = predicted + truth.sum() - shared
    return np.asarray(shared / union if truth.any() else (truth.size - union) / truth.size)


def scale_of(quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantiles of all pictures' scores `(Q,)` or, where many are equal, fewer, from those of each `(n, Q)`."""
    return np.unique(np.quantile(quantiles, _levels()))


def failures(batch: PictureBatch) -> dict[int, str]:
    """Pictures of a batch that could not be read."""
    return {i: sample.failure for i, sample in enumerate(batch.samples) if sample.failure is not None}


def _levels() -> NDArray[np.float64]:
    return np.arange(1, NUM_QUANTILES + 1) / (NUM_QUANTILES + 1)
