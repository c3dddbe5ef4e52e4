"""`evaluate segmentation`: the pixels of what sounds, against the truth, against baselines, and without the sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from deepavfusion.configuration import TrainingConfig
from deepavfusion.data.truth import Truth
from deepavfusion.evaluation.config import named_places
from deepavfusion.evaluation.localization.sound_mapper import UNTRAINED, load_mapper
from deepavfusion.evaluation.loop import Predictions, Progress, predict_all
from deepavfusion.evaluation.record import SAMPLES, Score
from deepavfusion.evaluation.segmentation.config import EvaluateSegmentationConfig
from deepavfusion.evaluation.segmentation.evaluator import VALUES, MaskModel, MaskScores, SegmenterEvaluator
from deepavfusion.evaluation.segmentation.localizer import LocalizerMasks, ScoreSurvey, ThresholdSearch, scale_of
from deepavfusion.evaluation.segmentation.pictures import PictureSelection, Sound, mask_truth, select_pictures
from deepavfusion.evaluation.segmentation.report import Scored, SegmentationReport, SegmentationResult
from deepavfusion.models.segmenter import Segmenter
from deepavfusion.storage.trained_models import open_models
from deepavfusion.training.processes import Processes, autocast_dtype

FOREIGN_SOUNDS: tuple[Sound, ...] = ("silence", "noise", "foreign")
"""What is heard in place of the picture's own sound."""


def evaluate_segmentation(
    config: EvaluateSegmentationConfig, progress: Progress | None = None
) -> SegmentationResult | None:
    """Score a segmenter on labelled pictures, in one process or under torchrun.

    Args:
        config: which model on which pictures.
        progress: is told how many pictures this process has done, for every kind of sound anew.

    Returns:
        The scores; None in every process but the first, which writes the files.

    Raises:
        ValueError: no such model or pictures, masks of other classes, or not one picture that can be read.
    """
    processes = Processes(TrainingConfig(device=config.device))
    result = _evaluate(config, processes, progress)
    processes.close()
    return result


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


def _load_baseline(place: str, device: torch.device) -> Segmenter | LocalizerMasks:
    """A segmenter, or of any other model its localization map."""
    if not place.startswith(UNTRAINED) and "segmentation" in open_models(place).tasks:
        return load_segmenter(place).to(device)
    return LocalizerMasks(load_mapper(place, device=device))


class _Runner:
    """Runs models over the pictures of one evaluation."""

    def __init__(
        self,
        config: EvaluateSegmentationConfig,
        selection: PictureSelection,
        truth: Truth,
        processes: Processes,
        progress: Progress | None,
    ) -> None:
        self.config, self.selection, self.truth = config, selection, truth
        self.processes, self.progress = processes, progress

    def with_best_threshold(self, masks: LocalizerMasks) -> LocalizerMasks:
        """A map on its own scale, at the threshold with the highest mean IoU on the pictures."""
        survey = self._predictions(ScoreSurvey(masks, self.selection.pictures, self.truth))
        if not survey.ids:
            return masks
        search = ThresholdSearch(masks, self.selection.pictures, self.truth)
        search.thresholds = scale_of(survey.values["scores"])
        found = self._predictions(search)
        return LocalizerMasks(masks.mapper, search.thresholds, int(found.values["iou"].mean(axis=0).argmax()))

    def _predictions(self, evaluator: SegmenterEvaluator) -> Predictions:
        batch_size, num_workers = self.config.batch_size, self.config.data.num_workers
        return predict_all(evaluator, self.processes, batch_size, num_workers, self.progress)

    def __call__(self, model: MaskModel, sound: Sound = "own", noise_rms: float = 0.0, counted: bool = True) -> Scored:
        config, processes, pictures = self.config, self.processes, self.selection.pictures
        evaluator = SegmenterEvaluator(
            model,
            pictures,
            self.truth,
            sound,
            noise_rms,
            config.flips,
            autocast_dtype(config.precision, processes.device.type),
            config.seed,
            counted,
        )
        found = self._predictions(evaluator)
        values = {name: np.full(len(pictures), np.nan) for name in VALUES}
        for name in found.values:
            values[name][found.positions] = found.values[name]
        scores: dict[int, MaskScores] = {}
        constants: dict[str, dict[int, MaskScores]] = {}
        for own, others in processes.gather((evaluator.scores, evaluator.constants)):
            scores |= own
            for name, parts in others.items():
                constants.setdefault(name, {}).update(parts)
        return Scored(values, found.failed, scores, constants, found.num_without_numbers)


def _evaluate(
    config: EvaluateSegmentationConfig, processes: Processes, progress: Progress | None
) -> SegmentationResult | None:
    model = load_segmenter(config.run, config.image_size).to(processes.device)
    classes = model.config.classes
    selection = select_pictures(config.data.source, config.data.split)
    truth = mask_truth(selection.videos.clips, classes)
    places = named_places(config.baselines)
    others = {
        name: _load_baseline(place, processes.device)
        for name, place in places.items()
        if not (Path(place) / SAMPLES).is_file()
    }
    for name, other in others.items():
        if other.config.classes != classes:
            raise ValueError(f"baseline {name}: {places[name]} was trained on other classes than {config.run}")
    run = _Runner(config, selection, truth, processes, progress)
    own = run(model)
    heard: dict[str, Scored] = {}
    if config.listening and model.config.hears:
        levels = own.values["level"]
        noise_rms = float(np.nanmean(levels)) if np.isfinite(levels).any() else 0.0
        for sound in FOREIGN_SOUNDS:
            heard[sound] = run(model, sound, noise_rms, counted=sound == "silence")
    compared = {}
    for name, other in others.items():
        if isinstance(other, LocalizerMasks):
            other, name = run.with_best_threshold(other), f"{name} (map, best threshold)"
        compared[name] = run(other)
    if not processes.first:
        return None
    return SegmentationReport(config, model, selection, truth, own, heard, compared).write()


def show(result: SegmentationResult, console: Console | None = None) -> None:
    """Print the coverage line and a table: a row per score, the differences from every baseline beside it."""
    console = console or Console(markup=False, emoji=False)
    console.print(result.coverage.line(), soft_wrap=True)
    table = Table(title=f"{result.protocol} ({result.out})", title_justify="left")
    for column in ("score", "model", *result.baselines):
        table.add_column(column, justify="left" if column == "score" else "right")
    for name, own in result.scores.items():
        cells = [_percent(own)]
        for entries in result.baselines.values():
            cells.append(_percent(entries[name].score) if name in entries else "")
        table.add_row(name, *cells)
    console.print(table)
    for what, cause in result.not_drawn.items():
        console.print(f"no drawing of {what}: {cause}", soft_wrap=True, markup=False)
    for name, entries in result.baselines.items():
        for key in ("avsbench miou", "avsbench f_score", "avss miou", "foreground miou"):
            found = entries[key].difference if key in entries else None
            if found is not None:
                low, high = 100 * found.low, 100 * found.high
                console.print(
                    f"{key} minus {name}: {100 * found.difference:+.2f} [{low:+.2f}, {high:+.2f}]", soft_wrap=True
                )


def _percent(found: Score) -> str:
    if found.low is None or found.high is None:
        return f"{100 * found.value:.2f}"
    return f"{100 * found.value:.2f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
