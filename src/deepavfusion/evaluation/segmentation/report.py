"""The files of a segmenter's evaluation, in one folder.

results.json   scores of every protocol, kinds of scenes separately, baselines with paired differences, mask areas
samples.npz    the IoU of every frame, which `compare` pairs
classes.csv    of semantic masks: IoU and F of every class
overlays.png   the best, the middle and the worst frames; overlay_ID.mp4 with --videos
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepavfusion.atomic import replacing
from deepavfusion.data.truth import Truth
from deepavfusion.evaluation.coverage import coverage
from deepavfusion.evaluation.frame import Draw, Findings, Printed, picture_drawing
from deepavfusion.evaluation.record import Baseline, PictureEntry, Record, paired_baselines
from deepavfusion.evaluation.segmentation.config import EvaluateSegmentationConfig
from deepavfusion.evaluation.segmentation.drawings import draw_overlays, film_drawings
from deepavfusion.evaluation.segmentation.evaluator import VALUES, MaskScores
from deepavfusion.evaluation.segmentation.numbers import (
    Number,
    baseline,
    mean_number,
    numbers_of,
    ratio_number,
    score,
)
from deepavfusion.evaluation.segmentation.pictures import PictureSelection
from deepavfusion.metrics.semantic_segmentation import SemanticSegmentation
from deepavfusion.models.segmenter import Segmenter

HEADLINES = ("avsbench miou", "avsbench f_score", "avss miou", "foreground miou")


@dataclass(frozen=True)
class Scored:
    """What one model does with all pictures beside one kind of sound."""

    values: dict[str, NDArray[np.float64]]
    """By name as `SegmenterEvaluator.predict` says, one per picture; NaN where there is no prediction."""
    failed: dict[str, str]
    """Pictures without a prediction, with the cause."""
    scores: dict[int, MaskScores]
    """Counts by picture; empty if they were not wanted."""
    constants: dict[str, dict[int, MaskScores]]
    num_without_numbers: int = 0
    """Pictures for which the model's answer is not finite."""


class SegmentationReport:
    """Everything that one evaluation found."""

    def __init__(
        self,
        config: EvaluateSegmentationConfig,
        model: Segmenter,
        selection: PictureSelection,
        truth: Truth,
        own: Scored,
        heard: dict[str, Scored],
        compared: dict[str, Scored],
        earlier: Mapping[str, str],
    ) -> None:
        """Raises ValueError if not one video could be read whole."""
        self.config, self.model, self.selection, self.truth = config, model, selection, truth
        self.own, self.heard, self.compared, self.earlier = own, heard, compared, earlier
        self.pictures, self.classes = selection.pictures, model.config.classes
        failed: dict[str, list[str]] = {}
        for picture in self.pictures:
            if picture.clip.id in own.failed:
                failed.setdefault(selection.video_of(picture), []).append(own.failed[picture.clip.id])
        causes = {name: found[0] for name, found in failed.items()}
        self.kept = [i for i, p in enumerate(self.pictures) if selection.video_of(p) not in failed]
        videos = list(dict.fromkeys(selection.video_of(self.pictures[i]) for i in self.kept))
        self.coverage = coverage(selection.videos, videos, causes)
        if not self.kept:
            raise ValueError(f"{config.data.source}: no video could be segmented; {self.coverage.line()}")
        self.videos = np.array([self.pictures[i].video for i in self.kept])
        self.main = "foreground miou" if self.classes else "avsbench miou"

    def findings(self) -> Findings:
        """What it is worth, and what is to be drawn."""
        numbers = self._numbers(self.own) | self._listening()
        total = self._total(self.own.scores, self.kept)
        samples = self._samples()
        ids = [self.pictures[i].clip.id for i in self.kept]
        left_out = {
            "missing videos": len(self.coverage.missing),
            "failed videos": len(self.coverage.failed),
            "unlabelled pictures": self.selection.num_unlabelled,
        }
        record = Record(
            title="Audio-visual segmentation",
            task="segmentation",
            protocol=self._protocol(),
            coverage=self.coverage,
            num_scored=len(self.kept),
            scores={name: score(number) for name, number in numbers.items()},
            left_out={name: count for name, count in left_out.items() if count},
            counted_as_wrong=total.binary.avsbench().counted_as_wrong,
            baselines=self._baselines(numbers, ids, samples),
            details=self._details(),
        )
        semantic = total.semantic
        return Findings(
            record,
            ids,
            samples,
            Printed(tuple(record.scores), HEADLINES),
            None if semantic is None else lambda out: _write_classes(out / "classes.csv", self.classes, semantic),
            self._drawings(),
            self.own.num_without_numbers,
        )

    def _samples(self) -> dict[str, NDArray[np.float64]]:
        """By score, one value per frame whose mean is the score; NaN where a frame has none."""
        samples = self._samples_of(self.own)
        samples["mask area, own sound"] = self._column("area")
        for sound, found in self.heard.items():
            samples[f"mask area, {sound}"] = found.values["area"][self.kept]
        return samples

    def _samples_of(self, found: Scored) -> dict[str, NDArray[np.float64]]:
        """Those of one model that are not of its mask areas alone."""
        samples: dict[str, NDArray[np.float64]] = {}
        for ending, members in {"": self.kept, **{f", {name}": own for name, own in self._groups().items()}}.items():
            inside = np.isin(self.kept, members)
            samples[f"{self.main}{ending}"] = np.where(inside, found.values["iou"][self.kept], np.nan)
            if not self.classes:
                samples[f"avsbench f_score{ending}"] = self._f_scores(found, inside)
        samples["twins told apart"] = self._told_apart(found)
        return {name: values for name, values in samples.items() if not np.isnan(values).all()}

    def _f_scores(self, found: Scored, inside: NDArray[np.bool_]) -> NDArray[np.float64]:
        """F of the pictures `inside` at the threshold that is best for them together; NaN where nothing sounds."""
        values = np.full(len(self.kept), np.nan)
        sums = {n: found.scores[i].binary.clip_sums() for n, i in enumerate(self.kept) if i in found.scores}
        counted = [n for n, own in sums.items() if inside[n] and own.num_frames_with_truth[0] > 0]
        if counted:
            curves = np.concatenate([sums[n].f_curve for n in counted])
            values[counted] = curves[:, curves.sum(axis=0).argmax()]
        return values

    def _told_apart(self, found: Scored) -> NDArray[np.float64]:
        """Of twins, 1 where the mean probability is higher on the one that sounds, 1/2 where they are equal."""
        margin = found.values["twin_margin"][self.kept]
        return np.where(np.isnan(margin), np.nan, (margin > 0) + 0.5 * (margin == 0))

    def _numbers(self, found: Scored) -> dict[str, Number]:
        """All scores of one model, kinds of scenes apart."""
        numbers = numbers_of(self._total(found.scores, self.kept), self.config.videos_per_batch)
        for group, members in self._groups().items():
            total = self._total(found.scores, members).binary
            sums = total.clip_sums()
            numbers[f"{self.main}, {group}"] = Number(total.avsbench().miou, sums.clips, sums.miou)
            if not self.classes and not math.isnan(f_score := total.avsbench().f_score):
                numbers[f"avsbench f_score, {group}"] = Number(f_score, sums.clips, sums.f_score)
        if (twins := mean_number(self._told_apart(found), self.videos)) is not None:
            numbers["twins told apart"] = twins
        return numbers

    def _listening(self) -> dict[str, Number]:
        """Mask areas beside each sound, of all and of each kind of scene, and what is left without the own one."""
        own, numbers = self._column("area"), {}
        areas = {"own sound": own} | {name: found.values["area"][self.kept] for name, found in self.heard.items()}
        for name, area in areas.items():
            if (mean := mean_number(area, self.videos)) is not None:
                numbers[f"mask area, {name}"] = mean
            if name != "own sound" and (left := ratio_number(area, own, self.videos)) is not None:
                numbers[f"mask area left, {name}"] = left
        for group, members in self._groups().items():
            inside = np.isin(self.kept, members)
            if (mean := mean_number(np.where(inside, own, np.nan), self.videos)) is not None:
                numbers[f"mask area, {group}"] = mean
        return numbers

    def _baselines(
        self, numbers: dict[str, Number], ids: Sequence[str], samples: Mapping[str, NDArray[np.float64]]
    ) -> dict[str, dict[str, Baseline]]:
        found = {name: self._numbers(scored) for name, scored in self.compared.items()}
        if "silence" in self.heard:
            found["the same, hearing silence"] = self._numbers(self.heard["silence"])
        nothing = {name: np.full(len(self.pictures), np.nan) for name in VALUES}
        for name, scores in self.own.constants.items():
            found[name] = self._numbers(Scored(nothing, {}, scores, {}))
        values = {name: self._samples_of(scored) for name, scored in self.compared.items()}
        compared = {
            name: {
                key: replace(baseline(numbers[key], other), values=values.get(name, {}).get(key))
                for key, other in own.items()
                if key in numbers
            }
            for name, own in found.items()
        }
        return compared | paired_baselines(ids, samples, self.earlier)

    def _groups(self) -> dict[str, list[int]]:
        """Places of the pictures of each kind of scene; empty where all are of one kind."""
        groups: dict[str, list[int]] = {}
        for i in self.kept:
            for name in self.pictures[i].groups:
                groups.setdefault(name, []).append(i)
        return {name: groups[name] for name in sorted(groups) if len(groups[name]) < len(self.kept)}

    def _total(self, scores: dict[int, MaskScores], places: Sequence[int]) -> MaskScores:
        return MaskScores.merged((scores[i] for i in places if i in scores), len(self.classes))

    def _column(self, name: str) -> NDArray[np.float64]:
        return self.own.values[name][self.kept]

    def _protocol(self) -> str:
        """Everything that could be done otherwise."""
        height, width = self.model.config.encoder.image_size
        kind = f"semantic, {len(self.classes)} classes" if self.classes else "binary, threshold 0.5"
        parts = [kind, f"split {self.selection.videos.split}", f"whole pictures at {height} x {width}"]
        parts += ["positions resampled"] if self.config.image_size is not None else []
        parts += ["image alone"] if not self.model.config.hears else []
        parts += ["flips averaged"] if self.config.flips else []
        return ", ".join([*parts, "scored at the size of the masks"])

    def _details(self) -> dict[str, Any]:
        true_area = self._column("true_area")
        return {
            "split": self.selection.videos.split,
            "true_area": float(true_area.mean()),
            "num_pictures_without_truth": int((true_area == 0).sum()),
            "kinds_of_scenes": {name: len(members) for name, members in self._groups().items()},
            "classes": list(self.classes),
            "settings": asdict(self.config),
        }

    def _drawings(self) -> dict[str, Draw]:
        """Overlays and films."""
        config = self.config
        films = film_drawings(self.model, self.pictures, self.kept, config.videos, config.flips)
        chosen = _ranked(self.kept, self.own.values["iou"], self.own.values["true_area"], config.pictures)
        if not chosen:
            return films
        entry = PictureEntry(
            "overlays.png",
            "Pictures with true and predicted masks",
            "What sounds, as it is and as predicted, in the best, the middle and the worst pictures.",
        )
        silence, title = "silence" in self.heard, self._protocol()
        figure = partial(draw_overlays, self.model, self.pictures, self.truth, chosen, silence, title)
        return {entry.file: picture_drawing(entry, figure), **films}


def _ranked(
    kept: Sequence[int], iou: NDArray[np.float64], true_area: NDArray[np.float64], count: int
) -> dict[int, str]:
    """Places of the best, middle and worst pictures by IoU, `count` each, and what to write beside them.

    Only pictures in which something sounds are ranked, unless there are none.
    """
    ranked = sorted((i for i in kept if true_area[i] > 0), key=lambda i: -iou[i]) or list(kept)
    middle = max(0, len(ranked) // 2 - count // 2)
    chosen: dict[int, str] = {}
    for name, places in (
        ("best", ranked[:count]),
        ("middle", ranked[middle : middle + count]),
        ("worst", ranked[len(ranked) - min(count, len(ranked)) :]),
    ):
        for i in places:
            chosen.setdefault(i, f"{name}, IoU {iou[i]:.2f}")
    return chosen


def _write_classes(path: Path, classes: Sequence[str], counts: SemanticSegmentation) -> None:
    avss, pooled = counts.avss(), counts.pooled()
    columns = (avss.num_frames_of_class, avss.class_iou, avss.class_f_score, pooled.class_iou, pooled.class_f_score)
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("class", "num_pictures", "avss_iou", "avss_f_score", "pooled_iou", "pooled_f_score"))
        for name, *cells in zip(classes, *columns, strict=True):
            writer.writerow((name, *("" if math.isnan(cell) else f"{cell:.6g}" for cell in cells)))
