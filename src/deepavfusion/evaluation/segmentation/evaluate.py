"""Evaluation of segmentation: masks of what sounds, baselines, and the same frames with other sounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from deepavfusion.evaluation.frame import Findings, TaskEvaluation
from deepavfusion.evaluation.localization.sound_mapper import UNTRAINED, load_mapper
from deepavfusion.evaluation.loop import Exchange, Progress
from deepavfusion.evaluation.record import SAMPLES
from deepavfusion.evaluation.segmentation.config import EvaluateSegmentationConfig
from deepavfusion.evaluation.segmentation.evaluator import VALUES, MaskModel, MaskScores, SegmenterEvaluator
from deepavfusion.evaluation.segmentation.localizer import LocalizerMasks, ScoreSurvey, ThresholdSearch, scale_of
from deepavfusion.evaluation.segmentation.pictures import Sound, mask_truth, select_pictures
from deepavfusion.evaluation.segmentation.report import Scored, SegmentationReport
from deepavfusion.models.segmenter import Segmenter
from deepavfusion.storage.trained_models import open_models

FOREIGN_SOUNDS: tuple[Sound, ...] = ("silence", "noise", "foreign")
"""What is heard in place of the picture's own sound."""


class SegmentationEvaluation(TaskEvaluation[EvaluateSegmentationConfig]):
    """A segmenter on labelled pictures, beside other sounds than their own and beside other models."""

    def __init__(
        self, config: EvaluateSegmentationConfig, exchange: Exchange, progress: Progress | None = None
    ) -> None:
        super().__init__(config, exchange, progress)
        self.model = load_segmenter(config.run, config.image_size).to(self.device)
        classes = self.model.config.classes
        self.selection = select_pictures(config.data.source, config.data.split)
        self.truth = mask_truth(self.selection.videos.clips, classes)
        self.earlier = {name: place for name, place in config.places.items() if (Path(place) / SAMPLES).is_file()}
        places = {name: place for name, place in config.places.items() if name not in self.earlier}
        self.rivals = {name: _load_rival(place, self.device) for name, place in places.items()}
        for name, other in self.rivals.items():
            if other.config.classes != classes:
                raise ValueError(f"baseline {name}: {places[name]} was trained on other classes than {config.run}")

    def predict(self) -> None:
        self.own = self._scored(self.model)
        self.heard: dict[str, Scored] = {}
        if self.config.listening and self.model.config.hears:
            levels = self.own.values["level"]
            noise_rms = float(np.nanmean(levels)) if np.isfinite(levels).any() else 0.0
            for sound in FOREIGN_SOUNDS:
                self.heard[sound] = self._scored(self.model, sound, noise_rms, counted=sound == "silence")
        self.compared: dict[str, Scored] = {}
        for name, other in self.rivals.items():
            if isinstance(other, LocalizerMasks):
                other, name = self._with_best_threshold(other), f"{name} (map, best threshold)"
            self.compared[name] = self._scored(other)

    def _scored(self, model: MaskModel, sound: Sound = "own", noise_rms: float = 0.0, counted: bool = True) -> Scored:
        """What a model does with all pictures beside one kind of sound."""
        pictures, config = self.selection.pictures, self.config
        evaluator = SegmenterEvaluator(
            model, pictures, self.truth, sound, noise_rms, config.flips, self.dtype, config.seed, counted
        )
        found = self.ask(evaluator)
        values = {name: np.full(len(pictures), np.nan) for name in VALUES}
        for name in found.values:
            values[name][found.positions] = found.values[name]
        scores: dict[int, MaskScores] = {}
        constants: dict[str, dict[int, MaskScores]] = {}
        for own, others in self.exchange.gather((evaluator.scores, evaluator.constants)):
            scores |= own
            for name, parts in others.items():
                constants.setdefault(name, {}).update(parts)
        return Scored(values, found.failed, scores, constants, found.num_without_numbers)

    def _with_best_threshold(self, masks: LocalizerMasks) -> LocalizerMasks:
        """A map on its own scale, at the threshold with the highest mean IoU on the pictures."""
        survey = self.ask(ScoreSurvey(masks, self.selection.pictures, self.truth))
        if not survey.ids:
            return masks
        search = ThresholdSearch(masks, self.selection.pictures, self.truth)
        search.thresholds = scale_of(survey.values["scores"])
        found = self.ask(search)
        return LocalizerMasks(masks.mapper, search.thresholds, int(found.values["iou"].mean(axis=0).argmax()))

    def findings(self) -> Findings:
        return SegmentationReport(
            self.config, self.model, self.selection, self.truth, self.own, self.heard, self.compared, self.earlier
        ).findings()

    def folder_name(self) -> list[str]:
        config = self.config
        name = [self.source_name, self.selection.videos.split]
        name += ["x".join(map(str, config.image_size))] if config.image_size is not None else []
        name += ["flips"] if config.flips else []
        return name


def load_segmenter(place: str, image_size: tuple[int, int] | None = None) -> Segmenter:
    """A trained segmenter, made to take pictures of another size if one is given.

    Raises:
        ValueError: there is none, or the patch size does not divide the size.
    """
    model = open_models(place).load("segmentation")
    assert isinstance(model, Segmenter)
    if image_size is not None and image_size != model.config.encoder.image_size:
        model.set_image_size(image_size)
    return model


def _load_rival(place: str, device: torch.device) -> Segmenter | LocalizerMasks:
    """A segmenter, or of any other model its localization map."""
    if not place.startswith(UNTRAINED) and "segmentation" in open_models(place).tasks:
        return load_segmenter(place).to(device)
    return LocalizerMasks(load_mapper(place, device=device))
