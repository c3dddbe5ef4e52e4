"""What an evaluation leaves behind: one folder with the scores, every prediction, the per-class table and a picture.

results.json      protocol, scores of every head, coverage with all names
predictions.npz   ids, classes, targets, and of every head its logits and where it is present
classes.csv       one row per class, of the average of the heads
confusion.png     where each class may have one label per clip
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepavfusion.atomic import replacing, write_text
from deepavfusion.data.features import save_arrays
from deepavfusion.evaluation.class_figures import confusion_figure
from deepavfusion.evaluation.classification import (
    AVERAGE,
    HeadScores,
    Labelled,
    Scores,
    heads_of,
    numbers_of,
    score_heads,
)
from deepavfusion.evaluation.coverage import ClipSelection, Coverage, coverage
from deepavfusion.evaluation.loop import Predictions
from deepavfusion.metrics.classification import MultiLabelScores, SingleLabelScores

RESULTS, PREDICTIONS = "results.json", "predictions.npz"


@dataclass(frozen=True)
class ClassificationResult:
    """Scores of a classifier over the clips of a selection."""

    out: Path
    """Folder of the files."""
    protocol: str
    """Name of the protocol with everything that could be done otherwise."""
    heads: dict[str, HeadScores]
    """By head, the average first."""
    coverage: Coverage

    @property
    def numbers(self) -> dict[str, float]:
        """Scores of the average of the heads, by name."""
        return numbers_of(self.heads[AVERAGE].scores)


def write_results(
    out: Path,
    predictions: Predictions,
    labelled: Labelled,
    selection: ClipSelection,
    protocol: str,
    settings: Mapping[str, Any],
) -> ClassificationResult:
    """Score predictions and write the folder.

    Args:
        out: the folder; files of an earlier evaluation there are replaced.
        predictions: of the selection's clips.
        labelled: truth of the predicted clips, row by row.
        selection: the clips that were to be scored.
        protocol: how windows and modalities were chosen.
        settings: what else the record should tell.

    Raises:
        ValueError: not one clip could be predicted.
    """
    covered = coverage(selection, predictions.ids, predictions.failed)
    if not predictions.ids:
        raise ValueError(f"{selection.source}: not one clip could be classified; {covered.line()}")
    heads = score_heads(predictions, labelled)
    scores = heads[AVERAGE].scores
    result = ClassificationResult(out, f"{scores.protocol}, {protocol}", heads, covered)
    record = {
        "task": "classification",
        "protocol": result.protocol,
        "coverage": {"line": covered.line(), **asdict(covered)},
        "heads": {head: _head_record(own) for head, own in heads.items()},
        **settings,
    }
    out.mkdir(parents=True, exist_ok=True)
    save_arrays(
        out / PREDICTIONS,
        {
            "ids": np.array(predictions.ids),
            "classes": np.array(labelled.classes),
            "targets": labelled.targets,
            "multi_label": np.array(labelled.multi_label),
            "protocol": np.array(result.protocol),
            **predictions.values,
        },
    )
    _write_table(out / "classes.csv", scores, labelled.classes)
    if isinstance(scores, SingleLabelScores):
        with replacing(out / "confusion.png") as temporary:
            figure = confusion_figure(scores.confusion.numpy(), labelled.classes, f"top-1 {scores.top1:.3f}")
            figure.savefig(temporary, format="png")
    write_text(out / RESULTS, json.dumps(_jsonable(record), indent=1) + "\n")
    return result


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
        with np.load(path) as file:
            content = dict(file)
        labelled = Labelled(
            tuple(content.pop("classes").tolist()), content.pop("targets"), bool(content.pop("multi_label"))
        )
        ids, protocol = tuple(content.pop("ids").tolist()), str(content.pop("protocol"))
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{folder}: no predictions of an evaluation in it ({error})") from error
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


def _jsonable(value: Any) -> Any:
    """JSON knows no NaN, and no tuples."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
