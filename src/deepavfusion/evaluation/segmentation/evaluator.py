"""Masks that a segmenter predicts for labelled frames, scored frame by frame.

The model sees the whole frame, resized to its input size; its logits are resized bilinearly to the size of the stored
mask before any threshold. Each frame has its own accumulator of exact counts. Any selection of frames is scored by
merging theirs, so that no score depends on batches or processes.

Shape legend: `B` batch, `C` logits per pixel, `H W` pixels of the model's input, `h w` those of a stored mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from deepavfusion.audio import log_mel
from deepavfusion.data.loading import ClipLoader, evaluation_loader
from deepavfusion.data.truth import Truth
from deepavfusion.data.views import CentreView
from deepavfusion.evaluation.loop import Outcome
from deepavfusion.evaluation.segmentation.pictures import Picture, PictureBatch, PictureSample, PictureSet, Sound
from deepavfusion.images import normalize
from deepavfusion.metrics.segmentation import BinarySegmentation, at_mask_size
from deepavfusion.metrics.semantic_segmentation import SemanticSegmentation, semantic_labels
from deepavfusion.models.no_numbers import without_numbers
from deepavfusion.models.segmenter_config import SegmenterConfig

VALUES = ("iou", "area", "true_area", "level", "twin_margin")


class MaskModel(Protocol):
    """What gives masks: a segmenter, or what answers as one does."""

    @property
    def config(self) -> SegmenterConfig: ...

    def __call__(
        self,
        image: Tensor,
        audio: Tensor | None,
        image_present: Tensor | None = None,
        audio_present: Tensor | None = None,
    ) -> Tensor: ...


@dataclass
class MaskScores:
    """Accumulators of some pictures."""

    binary: BinarySegmentation
    """What sounds against what does not; of semantic masks, any class against the background."""
    semantic: SemanticSegmentation | None
    """Class by class; None for binary masks."""

    @classmethod
    def empty(cls, num_classes: int) -> MaskScores:
        """`num_classes` is 0 for binary masks."""
        return cls(BinarySegmentation(), SemanticSegmentation(num_classes) if num_classes else None)

    @classmethod
    def merged(cls, parts: Iterable[MaskScores], num_classes: int) -> MaskScores:
        """All of several, which stay as they are."""
        total = cls.empty(num_classes)
        for part in parts:
            total.binary.merge(part.binary)
            if total.semantic is not None and part.semantic is not None:
                total.semantic.merge(part.semantic)
        return total

    def add(self, predicted: Tensor, mask: Tensor, picture: Picture) -> None:
        """Add one picture.

        Args:
            predicted: probabilities float `(h, w)`; of semantic masks class numbers int `(h, w)`, -1 for none.
            mask: `(h, w)` numbers as stored.
            picture: which it is.
        """
        video, number = (torch.tensor([n], device=mask.device) for n in (picture.video, picture.number))
        if self.semantic is not None:
            self.semantic.update(predicted[None], mask[None].long(), video, number)
            predicted = torch.where(predicted < 0, torch.nan, (predicted > 0).float())
        self.binary.update(predicted[None], mask[None] > 0, video, number)


class SegmenterEvaluator:
    """What the evaluation loop asks, for a segmenter. Counts are kept in `scores`, by the picture's place.

    `constants` holds, by name, those of predictions that look at nothing: the empty picture and the whole one.
    """

    def __init__(
        self,
        model: MaskModel,
        pictures: Sequence[Picture],
        truth: Truth,
        sound: Sound = "own",
        noise_rms: float = 0.0,
        flips: bool = False,
        dtype: torch.dtype | None = None,
        seed: int = 0,
        counted: bool = True,
    ) -> None:
        """
        Args:
            model: in evaluation mode, on its device.
            pictures: what to segment.
            truth: their masks, of the model's classes.
            sound: what is heard beside each.
            noise_rms: root mean square of the noise, if that is heard.
            flips: average the logits of picture and mirrored picture.
            dtype: of the forward pass under autocast; None is plain float32.
            seed: of noise and foreign sounds.
            counted: keep counts in `scores`; otherwise there are only the values of `predict`.
        """
        self.model, self.pictures, self.truth = model, pictures, truth
        self.sound, self.noise_rms, self.flips, self.dtype, self.seed = sound, noise_rms, flips, dtype, seed
        self.counted, self.num_classes = counted, len(model.config.classes)
        self.scores: dict[int, MaskScores] = {}
        # Which class a whole picture would be is nothing that a constant knows.
        values = {"empty picture": 0} if self.num_classes else {"empty picture": 0, "whole picture": 1}
        self.constants: dict[str, dict[int, MaskScores]] = {name: {} for name in values if self.counted}
        self._constant_values = values

    @property
    def ids(self) -> Sequence[str]:
        return [picture.clip.id for picture in self.pictures]

    def loader(self, positions: Sequence[int], batch_size: int, num_workers: int, device: torch.device) -> ClipLoader:
        """Batches of whole frames with the sound that they are combined with."""
        config = self.model.config.encoder
        view = CentreView.from_config(config, whole=True)
        pictures = PictureSet(self.pictures, positions, view, self.truth, self.sound, self.noise_rms, self.seed)
        return evaluation_loader(pictures, batch_size, num_workers, device, join=PictureBatch.join)

    def predict(self, batch: PictureBatch, device: torch.device) -> Outcome:
        """By picture, `(b,)` each.

        `iou`: as `avsbench` has it; `area`, `true_area`: predicted and true share of the picture; `level`: root mean
        square of the sound, NaN without; `twin_margin`: mean probability on the sounding twin minus that on the silent
        one, NaN where there are none.
        """
        logits = segment(
            self.model,
            batch.image.to(device),
            batch.waveform.to(device),
            batch.image_present.to(device),
            batch.audio_present.to(device),
            self.flips,
            self.dtype,
        )
        rows, failed = [], {}
        for i, sample in enumerate(batch.samples):
            if sample.failure is None:
                rows.append(self._score(logits[i], sample))
            else:
                failed[i] = sample.failure
                rows.append([float("nan")] * len(VALUES))
        columns = torch.tensor(rows, dtype=torch.float64).T
        return Outcome(dict(zip(VALUES, columns, strict=True)), failed, without_numbers(logits) - failed.keys())

    def _score(self, logits: Tensor, sample: PictureSample) -> list[float]:
        mask = torch.from_numpy(sample.mask).to(logits.device)
        resized = at_mask_size(logits[None], (mask.shape[0], mask.shape[1]))  # (1, C, h, w)
        if self.num_classes:
            predicted = semantic_labels(resized)[0]
            chosen, probability = predicted != 0, 1 - resized.softmax(dim=1)[0, 0]
        else:
            predicted = probability = resized[0, 0].sigmoid()
            chosen = probability > 0.5
        scores = MaskScores.empty(self.num_classes)
        scores.add(predicted, mask, self.pictures[sample.place])
        if self.counted:
            self.scores[sample.place] = scores
        for name, own in self.constants.items():
            own[sample.place] = MaskScores.empty(self.num_classes)
            constant = torch.full_like(predicted, self._constant_values[name])
            own[sample.place].add(constant, mask, self.pictures[sample.place])
        margin = float("nan")
        if sample.twins is not None:
            twins = torch.from_numpy(sample.twins).to(logits.device)
            sounding, silent = (twins == value for value in (1, 2))
            if sounding.any() and silent.any():
                margin = float(probability[sounding].mean() - probability[silent].mean())
        level = float(np.sqrt(np.square(sample.waveform).mean())) if sample.audio_present else float("nan")
        iou = float(scores.binary.clip_sums().iou[0])
        return [iou, float(chosen.double().mean()), float((mask > 0).double().mean()), level, margin]


def segment(
    model: MaskModel,
    image: Tensor,
    waveform: Tensor,
    image_present: Tensor | None = None,
    audio_present: Tensor | None = None,
    flips: bool = False,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Logits `(B, C, H, W)` of 8-bit pictures and their sounds.

    Args:
        model: in evaluation mode.
        image: uint8 `(B, 3, H, W)` of the model's size, of several frames `(B, T, 3, H, W)`.
        waveform: float32 `(B, S)` of the model's length.
        image_present, audio_present: bool `(B,)`; None if all are.
        flips: average the logits of picture and mirrored picture.
        dtype: of the forward pass under autocast; None is plain float32.
    """
    audio = log_mel(waveform, model.config.encoder.audio_size[0])
    pictures = [normalize(image)]
    if flips:
        pictures.append(pictures[0].flip(-1))
    with torch.autocast(image.device.type, dtype=dtype, enabled=dtype is not None):
        found = [model(picture, audio, image_present, audio_present) for picture in pictures]
    return (found[0] + found[1].flip(-1)) / 2 if flips else found[0]
