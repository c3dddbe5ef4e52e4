"""The files of a classifier's evaluation: scores, every prediction, the per-class table and a figure.

results.json      see `record`; scores are named by metric and head, such as `top1 average`
samples.npz       see `record`
predictions.npz   ids, classes, targets, and for every head its logits and where it is present
classes.csv       one row per class, for the average of the heads
confusion.png     the confusion matrix, where each clip has one label
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepavfusion.atomic import replacing
from deepavfusion.data.features import read_arrays, save_arrays
from deepavfusion.drawing.classification import confusion_figure
from deepavfusion.evaluation.classification.evaluator import (
    AVERAGE,
    HeadScores,
    Labelled,
    Scores,
    heads_of,
    numbers_of,
    score_heads,
)
from deepavfusion.evaluation.coverage import ClipSelection, coverage
from deepavfusion.evaluation.frame import Findings, Printed, picture_drawing
from deepavfusion.evaluation.loop import Predictions
from deepavfusion.evaluation.record import PictureEntry, Record, Score, mean_score, paired_baselines
from deepavfusion.metrics.classification import MultiLabelScores, SingleLabelScores

PREDICTIONS = "predictions.npz"


def classification_findings(
    predictions: Predictions,
    labelled: Labelled,
    selection: ClipSelection,
    protocol: str,
    details: Mapping[str, Any],
    baselines: Mapping[str, str] = {},
    title: str = "Classification",
) -> Findings:
    """What the predictions of a classifier are worth.

    Args:
        predictions: of the selection's clips.
        labelled: truth of the predicted clips, row by row.
        selection: the clips that were to be scored.
        protocol: how windows and modalities were chosen.
        details: what else the record should tell.
        baselines: by name, folders of earlier evaluations to compare with clip by clip.
        title: headline in a report.

    Raises:
        ValueError: not one clip could be predicted, or a baseline's folder holds no evaluation of these clips.
    """
    covered = coverage(selection, predictions.ids, predictions.failed)
    if not predictions.ids:
        raise ValueError(f"{selection.source}: no clip could be classified; {covered.line()}")
    heads = score_heads(predictions, labelled)
    scores = heads[AVERAGE].scores
    samples = sample_values(predictions.values, labelled)
    numbers = {f"{name} {head}": value for head, own in heads.items() for name, value in numbers_of(own.scores).items()}
    shown = {name: value for name, value in numbers.items() if not name.startswith("f1_") and math.isfinite(value)}
    record = Record(
        title=title,
        task="classification",
        protocol=f"{scores.protocol}, {protocol}",
        coverage=covered,
        num_scored=scores.num_scored,
        scores={name: mean_score(samples[name]) if name in samples else Score(v) for name, v in shown.items()},
        counted_as_wrong=dict(scores.counted_as_wrong),
        baselines=paired_baselines(predictions.ids, samples, baselines),
        details={"heads": {head: _head_record(own) for head, own in heads.items()}, **details},
    )

    def write_tables(out: Path) -> None:
        save_arrays(
            out / PREDICTIONS,
            {
                "ids": np.array(predictions.ids),
                "classes": np.array(labelled.classes),
                "targets": labelled.targets,
                "multi_label": np.array(labelled.multi_label),
                "protocol": np.array(record.protocol),
                **predictions.values,
            },
        )
        _write_table(out / "classes.csv", scores, labelled.classes)

    drawings = {}
    if isinstance(scores, SingleLabelScores):
        figure = partial(confusion_figure, scores.confusion.numpy(), labelled.classes, f"top-1 {scores.top1:.3f}")
        caption = "Shares of each true class's clips by predicted class."
        drawings["confusion.png"] = picture_drawing(PictureEntry("confusion.png", "confusion matrix", caption), figure)
    lines = [f"{head}: nothing to read in {own.num_absent} clips" for head, own in heads.items() if own.num_absent]
    printed = Printed(
        tuple(record.scores), tuple(name for name in samples if name.endswith(AVERAGE)), lines=tuple(lines)
    )
    return Findings(record, predictions.ids, samples, printed, write_tables, drawings, predictions.num_without_numbers)


def sample_values(values: Mapping[str, NDArray[Any]], labelled: Labelled) -> dict[str, NDArray[np.float64]]:
    """Per clip whether the best class is a label of it, of every head; NaN where the head had nothing to read.

    Named as the score that is its mean: `top1 HEAD`, or `hit_at_1 HEAD` where clips have several labels.
    """
    name = "hit_at_1" if labelled.multi_label else "top1"
    return {
        f"{name} {head}": np.where(values[f"{head}_present"], hit_at_1(values[head], labelled.targets), np.nan)
        for head in heads_of(values)
    }


def hit_at_1(scores: NDArray[np.float32], targets: NDArray[np.bool_]) -> NDArray[np.float64]:
    """1 where the best class `(n, C)` is a label of the clip, else 0: `(n,)`. A prediction not finite hits nothing."""
    finite = np.asarray(np.isfinite(scores).all(axis=1))
    best = np.where(finite[:, None], scores, 0.0).argmax(axis=1)
    return (targets[np.arange(len(targets)), best] & finite).astype(np.float64)


@dataclass(frozen=True)
class SavedPredictions:
    """Predictions read back."""

    folder: str
    ids: tuple[str, ...]
    labelled: Labelled
    values: dict[str, NDArray[Any]]
    protocol: str


def read_predictions(folder: str) -> SavedPredictions:
    """Read `predictions.npz` of an evaluation folder.

    Raises:
        ValueError: there is none, or it is none.
    """
    path = Path(folder) / PREDICTIONS
    try:
        content = read_arrays(path)
        labelled = Labelled(
            tuple(content.pop("classes").tolist()), content.pop("targets"), bool(content.pop("multi_label"))
        )
        ids, protocol = tuple(content.pop("ids").tolist()), str(content.pop("protocol"))
    except (KeyError, ValueError) as error:
        raise ValueError(f"{folder}: has no predictions of an evaluation ({error})") from error
    return SavedPredictions(folder, ids, labelled, content, protocol)


def heads_of_saved(saved: SavedPredictions) -> list[str]:
    """Names of the heads, the average first."""
    return heads_of(saved.values)


def _head_record(own: HeadScores) -> dict[str, Any]:
    scores = own.scores
    left_out = {**scores.left_out, **({"nothing to read": own.num_absent} if own.num_absent else {})}
    record: dict[str, Any] = {
        **numbers_of(scores),
        "num_scored": scores.num_scored,
        "left_out": left_out,
        "counted_as_wrong": dict(scores.counted_as_wrong),
    }
    if isinstance(scores, SingleLabelScores):
        record["num_classes_without_clips"] = scores.num_classes_without_clips
    else:
        record["num_classes_without_positives"] = scores.num_classes_without_positives
    return record


def _write_table(path: Path, scores: Scores, classes: tuple[str, ...]) -> None:
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if isinstance(scores, MultiLabelScores):
            writer.writerow(("class", "average_precision"))
            writer.writerows((name, _cell(float(ap))) for name, ap in zip(classes, scores.class_ap, strict=True))
            return
        columns = ("num_clips", "num_predicted", "top1", "precision", "f1", "average_precision")
        writer.writerow(("class", *columns, "confused_with"))
        for row in scores.table:
            rival = "" if row.confused_with is None else classes[row.confused_with]
            writer.writerow((classes[row.number], *(_cell(getattr(row, name)) for name in columns), rival))


def _cell(value: float) -> str:
    """A number for a table; empty where there is nothing to count."""
    return "" if math.isnan(value) else f"{value:.6g}"
