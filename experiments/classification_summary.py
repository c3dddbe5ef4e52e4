"""From evaluations to the small result file of classification: means over seeds, paired intervals, look and timbre."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepavfusion.atomic import write_text
from deepavfusion.evaluation.classification.results import SavedPredictions, read_predictions
from deepavfusion.metrics.intervals import paired_interval

REFERENCES = ("streams", "early")
"""Arms that all others are compared with: the whole encoder, and what its fusion tokens know alone."""


class Cell(NamedTuple):
    """A cell of the table."""

    name: str
    """Set of clips."""
    labels: str
    recipe: str


def summarize_cells(cells: Mapping[Cell, Mapping[str, Mapping[int, Path]]], out: Path) -> None:
    """Write what is done; a cell whose seeds are not all there says how many are.

    Args:
        cells: by cell, arm and seed, the folder of the evaluation, which need not be there.
        out: the result file; left alone if nothing is done.
    """
    rows = []
    for cell, arms in cells.items():
        found = {arm: _done(folders) for arm, folders in arms.items()}
        rows += [_row(cell, arm, found) for arm in found if found[arm]]
    if rows:
        write_text(
            out, json.dumps({"protocol": "single label, centre window, test split", "rows": rows}, indent=1) + "\n"
        )


def _done(folders: Mapping[int, Path]) -> dict[int, SavedPredictions]:
    return {seed: read_predictions(str(f)) for seed, f in folders.items() if (f / "results.json").is_file()}


def _row(cell: Cell, arm: str, found: Mapping[str, Mapping[int, SavedPredictions]]) -> dict[str, Any]:
    own = found[arm]
    hits = {seed: _hits(saved) for seed, saved in own.items()}
    row: dict[str, Any] = {
        "set": cell.name,
        "labels": cell.labels,
        "recipe": cell.recipe,
        "arm": arm,
        "num_seeds": len(own),
        "num_clips": len(next(iter(hits.values()))["class"]),
        **{part: float(np.mean([h[part].mean() for h in hits.values()])) for part in next(iter(hits.values()))},
    }
    for reference in REFERENCES:
        both = sorted(set(own) & set(found[reference]))
        if arm != reference and both:
            ours = np.stack([_hits(found[reference][seed])["class"] for seed in both])
            theirs = np.stack([hits[seed]["class"] for seed in both])
            interval = paired_interval(ours, theirs)
            difference = {"value": interval.difference, "low": interval.low, "high": interval.high}
            row[f"{reference}_minus_arm"] = {**difference, "num_seeds": len(both)}
    return row


def _hits(saved: SavedPredictions) -> dict[str, NDArray[np.float64]]:
    """Per test clip in the order of ids: whether the class, and of solos the look and the timbre, are right."""
    order = np.argsort(np.array(saved.ids))
    predicted = saved.values["average"].argmax(axis=1)[order]
    true = saved.labelled.numbers[order]
    found = {"class": (predicted == true).astype(float)}
    if all("-" in label for label in saved.labelled.classes):
        for place, part in ((0, "look"), (1, "timbre")):
            parts = np.array([label.split("-")[place] for label in saved.labelled.classes])
            found[part] = (parts[predicted] == parts[true]).astype(float)
    return found
