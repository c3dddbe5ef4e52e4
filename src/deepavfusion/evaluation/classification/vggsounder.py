"""VGGSounder: VGGSound's test clips scored by labels of what is really heard and seen in them.

The predictions come from ordinary evaluations of a VGGSound model; only the labels differ, so no model is run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from deepavfusion.data.locations import write_json
from deepavfusion.data.sets.vggsounder import ModalAnnotation, read_annotations
from deepavfusion.evaluation.classification.evaluator import numbers_of
from deepavfusion.evaluation.classification.results import SavedPredictions, heads_of_saved, read_predictions
from deepavfusion.evaluation.config import VggsounderConfig
from deepavfusion.evaluation.coverage import ClipSelection, Coverage, coverage
from deepavfusion.metrics.classification import (
    ModalityConfusion,
    MultiLabelScores,
    modality_confusion,
    multi_label_scores,
)

SUBSETS: dict[str, tuple[str, ...]] = {
    "all": ("A", "V", "AV"),
    "audible": ("A", "AV"),
    "visible": ("V", "AV"),
    "audible only": ("A",),
    "visible only": ("V",),
    "both": ("AV",),
}
"""Labels by modality."""


@dataclass(frozen=True)
class VggsounderScores:
    """Scores on every subset of labels, and the modality confusion if it was asked for."""

    subsets: Mapping[str, MultiLabelScores]
    """By subset; without those that no scored clip has a label of."""
    confusion: ModalityConfusion | None
    coverage: Coverage
    """All models scored the clips that count as scored."""


def score_vggsounder(config: VggsounderConfig) -> VggsounderScores:
    """Score the clips that all given evaluations predicted.

    Raises:
        ValueError: files that are not there, a model without one of the labels' classes, or no clip in common.
    """
    annotations = {item.id: item for item in read_annotations(config.annotations)}
    folders = [folder for folder in (config.both, config.image, config.audio) if folder is not None]
    saved = [read_predictions(folder) for folder in folders]
    classes = saved[0].labelled.classes
    for own in saved:
        if own.labelled.classes != classes:
            raise ValueError(f"{own.folder}: was scored on other classes than {folders[0]}")
        if config.head not in heads_of_saved(own):
            raise ValueError(f"head {config.head}: {own.folder} has {', '.join(heads_of_saved(own))}")
    scored = set.intersection(*(set(own.ids) for own in saved))
    names = [name for name in annotations if name in scored]
    if not names:
        raise ValueError(f"{config.both}: predicts none of the {len(annotations)} clips of {config.annotations}")
    scores = [_scores(own, config.head, names) for own in saved]
    items = [annotations[name] for name in names]
    subsets = {}
    for subset, modalities in SUBSETS.items():
        targets = _targets(items, modalities, classes, config.annotations)
        if targets.any():
            subsets[subset] = multi_label_scores(scores[0], targets)
    confusion = None
    if len(scores) == 3:
        everything = _targets(items, SUBSETS["all"], classes, config.annotations)
        confusion = modality_confusion(scores[1], scores[2], scores[0], everything)
    known = set(names)
    missing = tuple(name for name in annotations if name not in known)
    selection = ClipSelection(config.annotations, "test", (), tuple(annotations), missing, {}, ())
    result = VggsounderScores(subsets, confusion, coverage(selection, names, {}))
    if config.out is not None:
        write_json(config.out, _record(result))
    return result


def show(result: VggsounderScores, console: Console | None = None) -> None:
    """Print the coverage line, a row per subset of labels and the modality confusion."""
    console = console or Console(markup=False, emoji=False)
    console.print(result.coverage.line(), soft_wrap=True)
    rows = {name: numbers_of(own) for name, own in result.subsets.items()}
    columns = list(next(iter(rows.values())))
    table = Table(title="VGGSounder", title_justify="left")
    table.add_column("labels")
    for column in (*columns, "clips"):
        table.add_column(column.replace("_", " "), justify="right")
    for name, numbers in rows.items():
        clips = str(result.subsets[name].num_scored)
        table.add_row(name, *(f"{100 * numbers[column]:.2f}" for column in columns), clips)
    console.print(table)
    if result.confusion is not None:
        for name, value in asdict(result.confusion).items():
            console.print(f"{name.replace('_', ' ')}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")


def _scores(saved: SavedPredictions, head: str, names: list[str]) -> Tensor:
    places = {name: place for place, name in enumerate(saved.ids)}
    return torch.from_numpy(saved.values[head][[places[name] for name in names]])


def _targets(items: list[ModalAnnotation], modalities: tuple[str, ...], classes: tuple[str, ...], place: str) -> Tensor:
    numbers = {name: number for number, name in enumerate(classes)}
    targets = np.zeros((len(items), len(classes)), dtype=bool)
    for row, item in enumerate(items):
        for label in item.labels_of(*modalities):
            if label not in numbers:
                raise ValueError(f"{place}: the model has no class {label!r}; train it with --classes vggsound")
            targets[row, numbers[label]] = True
    return torch.from_numpy(targets)


def _record(result: VggsounderScores) -> dict[str, object]:
    subsets = {
        name: {**numbers_of(own), "num_scored": own.num_scored, "left_out": dict(own.left_out)}
        for name, own in result.subsets.items()
    }
    confusion = None if result.confusion is None else asdict(result.confusion)
    covered = {"line": result.coverage.line(), **asdict(result.coverage)}
    return {"task": "vggsounder", "coverage": covered, "subsets": subsets, "modality_confusion": confusion}
