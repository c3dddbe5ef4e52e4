"""Evaluation of localization: a model's maps of where the sound comes from, against masks or boxes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deepavfusion.data.sets.pairs import read_sounding_pairs
from deepavfusion.data.sounding_truth import read_box_annotations
from deepavfusion.evaluation.coverage import ClipSelection, coverage, select_clips
from deepavfusion.evaluation.frame import Findings, Printed, TaskEvaluation
from deepavfusion.evaluation.localization.config import EvaluateLocalizationConfig
from deepavfusion.evaluation.localization.evaluator import RULES, SOUNDS_HEARD, LocalizationEvaluator
from deepavfusion.evaluation.localization.items import (
    Item,
    annotated_items,
    boxed_items,
    paired_items,
    with_foreign_sounds,
)
from deepavfusion.evaluation.localization.pictures import film_drawings, picture_drawings
from deepavfusion.evaluation.localization.scores import CONDITIONS, Table, against, as_scores, score_table
from deepavfusion.evaluation.localization.sound_mapper import SoundMapper, load_mapper
from deepavfusion.evaluation.loop import Exchange, Predictions, Progress
from deepavfusion.evaluation.record import Record
from deepavfusion.metrics.localization import Binarisation


@dataclass(frozen=True)
class Selection:
    """The items to be scored and what the official list is."""

    items: list[Item]
    clips: ClipSelection
    failed: dict[str, str]
    """Clips without usable annotation, with the cause."""
    empty: list[str]
    """Clips whose boxes cover no pixel."""


class LocalizationEvaluation(TaskEvaluation[EvaluateLocalizationConfig]):
    """A localizer, or a bare encoder by a method without training, beside others on the same items."""

    def __init__(
        self, config: EvaluateLocalizationConfig, exchange: Exchange, progress: Progress | None = None
    ) -> None:
        super().__init__(config, exchange, progress)
        self.mapper, self.selection = self._mapper(config.run), select_items(config)
        self.rivals = {name: self._mapper(run) for name, run in config.places.items()}
        self.headline: Binarisation = "area" if config.boxes is None else "top50"

    def _mapper(self, run: str) -> SoundMapper:
        config, mine = self.config, run == self.config.run
        return load_mapper(
            run,
            config.method if mine or config.method != "head" else "auto",
            config.layers if mine else (),
            device=self.device,
            untrained=config.untrained and mine,
            shifts=config.shifts,
            dtype=self.dtype,
            seed=config.seed,
        )

    def predict(self) -> None:
        self.found, *others = (self._maps(mapper) for mapper in (self.mapper, *self.rivals.values()))
        self.rivals_found = dict(zip(self.rivals, others, strict=True))

    def _maps(self, mapper: SoundMapper) -> Predictions:
        config = self.config
        found = self.ask(LocalizationEvaluator(mapper, self.selection.items, config.upsampling, config.seed))
        found.check_some(config.data.source)
        return found

    def findings(self) -> Findings:
        config, found, items, selection = self.config, self.found, self.selection.items, self.selection
        record = Record(
            title="Visual sound localization",
            task="localization",
            protocol=protocol_name(config, self.mapper),
            coverage=coverage(selection.clips, found.ids, {**selection.failed, **found.failed}),
            num_scored=0,
            scores={},
        )
        samples: dict[str, NDArray[np.float64]] = {}
        if config.truth:
            record, samples = self._scored(record)
        other = tuple(f" {rule}" for rule in RULES if rule != self.headline)
        drawings = picture_drawings(items, found, self.mapper, self.headline)
        drawings |= film_drawings(items, config.overlay, self.mapper, self.device)
        return Findings(
            record,
            found.ids,
            samples,
            Printed(tuple(name for name in record.scores if not name.endswith(other)), (f"cIoU@0.5 {self.headline}",)),
            drawings=drawings,
            num_without_numbers=found.num_without_numbers,
        )

    def _scored(self, record: Record) -> tuple[Record, dict[str, NDArray[np.float64]]]:
        """The record with scores, and their values by sample."""
        config, found, items = self.config, self.found, self.selection.items
        scenes = [items[i].scene for i in found.positions]
        sounding = ~np.isnan(np.asarray(found.values["ciou_area_own"], np.float64))
        if not sounding.any():
            raise ValueError(f"{config.data.source}: nothing sounds in the frame of any of {len(found.ids)} clips")
        table = score_table(found.values, scenes, self.headline)
        tables = {
            name: score_table(found.values, scenes, self.headline, condition) for name, condition in CONDITIONS.items()
        }
        for name, other in self.rivals_found.items():
            own = score_table(other.values, [items[i].scene for i in other.positions], self.headline)
            tables[name] = _aligned(own, other, found)
        scores, empty = as_scores(table), self.selection.empty
        still = {"nothing in the picture sounds (in the extended scores alone)": int((~sounding).sum())}
        left_out = {**still, "boxes cover no pixel": len(empty)}
        wrong = int((~np.asarray(found.values["finite_own"], bool) & sounding).sum())
        heard = {"confidence" if name == "own" else f"confidence {name}": f"confidence_{name}" for name in SOUNDS_HEARD}
        confidences = {name: np.asarray(found.values[value], np.float64) for name, value in heard.items()}
        record = replace(
            record,
            num_scored=int(sounding.sum()),
            scores=scores,
            left_out={cause: count for cause, count in left_out.items() if count},
            counted_as_wrong={"map not finite": wrong} if wrong else {},
            baselines={name: against(table, own) for name, own in tables.items()},
            details={
                "settings": asdict(config),
                "headline": self.headline,
                "scenes": {kind: scenes.count(kind) for kind in sorted(set(scenes))},
                "lower_is_better": [name for name in scores if name.startswith("false positives")],
                "without_truth": empty,
                "without_foreign_sound": int(np.isnan(found.values["confidence_foreign"]).sum()),
            },
        )
        return record, {**table.samples, **confidences}

    def folder_name(self) -> list[str]:
        config = self.config
        method = self.mapper.name.removesuffix(", untrained").replace(" of layers ", "-").replace(" of layer ", "-")
        name = ["localization", self.source_name, self.selection.clips.split, method.replace(", ", "_")]
        name += ["untrained"] if config.untrained else []
        name += [config.boxes_format] if config.boxes else []
        name += [f"{config.shifts}shifts"] if config.shifts > 1 else []
        return name


def select_items(config: EvaluateLocalizationConfig) -> Selection:
    """The items of the clips and boxes that a configuration names.

    Raises:
        ValueError: there is nothing to score.
    """
    chosen = select_clips(config.data.source, config.data.split, needs_label=False)
    if not config.truth:
        items = [Item(clip.id, clip, clip, "clips", frozenset()) for clip in chosen.clips]
        return Selection(with_foreign_sounds(items, config.seed), chosen, {}, [])
    if config.boxes is None:
        items, failed = annotated_items(chosen.clips)
        if not items:
            name, cause = next(iter(failed.items()))
            raise ValueError(f"{name}: {cause}; give --boxes, or --truth false for figures and videos only")
        return Selection(with_foreign_sounds(items, config.seed), chosen, failed, [])
    boxes = read_box_annotations(config.boxes, config.boxes_format, config.boxes_folder)
    items, empty = boxed_items(chosen.clips, boxes)
    if not items:
        raise ValueError(f"{config.boxes}: none of its {len(boxes)} clips is in {config.data.source}")
    there = {clip.id for clip in chosen.clips}
    missing, official = [name for name in boxes if name not in there], list(boxes)
    if config.pairs is not None:
        pairs = [pair for pair in read_sounding_pairs(config.pairs) if not pair.sounding]
        found, lacking = paired_items(chosen.clips, pairs)
        items, missing = items + found, missing + lacking
        official += [f"{pair.image_id}+{pair.audio_id}" for pair in pairs]
    selected = replace(
        chosen,
        official=tuple(official),
        missing=tuple(name for name in missing if name not in chosen.quarantined),
        quarantined={name: cause for name, cause in chosen.quarantined.items() if name in boxes},
    )
    return Selection(with_foreign_sounds(items, config.seed), selected, {}, empty)


def protocol_name(config: EvaluateLocalizationConfig, mapper: SoundMapper) -> str:
    """Everything about maps and truth that could be done otherwise."""
    truth = "sounding masks" if config.boxes is None else f"boxes ({config.boxes_format})"
    parts = [mapper.name, "whole picture, centre window", f"{config.upsampling} to 224 x 224"]
    parts += [f"{config.shifts} x {config.shifts} shifts"] if config.shifts > 1 else []
    parts += [truth if config.truth else "without truth"]
    parts += ["with non-sounding pairs"] if config.pairs else []
    return ", ".join(parts)


def _aligned(table: Table, own: Predictions, reference: Predictions) -> Table:
    """A table's rows in the order of other predictions; NaN for samples that it lacks."""
    places = {name: place for place, name in enumerate(own.ids)}
    chosen = np.array([places.get(name, -1) for name in reference.ids])

    def row(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(chosen >= 0, values[np.maximum(chosen, 0)], np.nan)

    return Table({name: row(values) for name, values in table.samples.items()}, table.pooled)
