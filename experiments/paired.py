"""Scores of several arms over seeds, with paired intervals where samples have them, from the files of evaluations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepavfusion.evaluation.record import OF_BASELINE, RESULTS, SAMPLES, read_samples
from deepavfusion.metrics.intervals import paired_interval


def paired_rows(
    folders: Mapping[str, Mapping[int, Path]], scores: Sequence[str], reference: str, baselines: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """One row per score and arm: the mean over seeds, and the reference arm's minus it with its interval.

    Args:
        folders: by arm, then seed, the folder of its evaluation; those that are not there are left out.
        scores: names in samples.npz.
        reference: the arm that the others are compared with.
        baselines: of the reference's own evaluations, compared like arms.
    """
    found = {
        arm: {seed: _values(folder) for seed, folder in own.items() if (folder / SAMPLES).is_file()}
        for arm, own in folders.items()
    }
    sources = {arm: (arm, "") for arm in folders} | {name: (reference, f"{OF_BASELINE}{name}") for name in baselines}
    rows = []
    for score in scores:
        ours = {seed: own[score] for seed, own in found[reference].items() if score in own}
        for arm, (evaluated, suffix) in sources.items():
            key = score + suffix
            values = {seed: own[key] for seed, own in found[evaluated].items() if key in own}
            if values:
                rows.append(_row(score, arm, values, {} if arm == reference else ours))
    return rows


def whole_rows(
    folders: Mapping[str, Mapping[int, Path]], scores: Sequence[str], reference: str, baselines: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Rows as of `paired_rows`, without intervals, of scores that no single sample has, from results.json."""
    found = {
        arm: [json.loads((folder / RESULTS).read_text()) for folder in own.values() if (folder / RESULTS).is_file()]
        for arm, own in folders.items()
    }
    sources = {arm: [record["scores"] for record in records] for arm, records in found.items()}
    sources |= {name: [record["baselines"].get(name, {}) for record in found[reference]] for name in baselines}
    rows = []
    for score in scores:
        for arm, tables in sources.items():
            seeds = [table[score]["value"] for table in tables if score in table]
            if seeds:
                num_samples = found[reference][0]["num_scored"]
                mean = float(np.mean(seeds))
                rows.append({"score": score, "arm": arm, "value": mean, "seeds": seeds, "num_samples": num_samples})
    return rows


def with_kept(rows: Sequence[dict[str, Any]], out: Path, by: Sequence[str]) -> list[dict[str, Any]]:
    """The rows, and after them those that a result file has of sets that none of them is of, run elsewhere.

    Args:
        rows: newly computed.
        out: the result file, if there is one yet.
        by: the keys that name a set.
    """
    kept = json.loads(out.read_text(encoding="utf-8"))["rows"] if out.is_file() else []
    new = {tuple(row[key] for key in by) for row in rows}
    return [*rows, *(row for row in kept if tuple(row[key] for key in by) not in new)]


def _row(
    score: str, arm: str, values: dict[int, dict[str, float]], ours: dict[int, dict[str, float]]
) -> dict[str, Any]:
    means = [float(np.mean(list(by.values()))) for by in values.values()]
    row: dict[str, Any] = {
        "score": score,
        "arm": arm,
        "value": float(np.mean(means)),
        "seeds": means,
        "num_samples": len(next(iter(values.values()))),
    }
    both = sorted(set(values) & set(ours))
    if both:
        names = sorted(set.intersection(*(set(values[s]) & set(ours[s]) for s in both)))
        a, b = (np.array([[by[seed][name] for name in names] for seed in both]) for by in (ours, values))
        interval = paired_interval(a, b)
        row["reference_minus_arm"] = {"value": interval.difference, "low": interval.low, "high": interval.high}
    return row


def _values(folder: Path) -> dict[str, dict[str, float]]:
    """By score, the value of every sample that has one."""
    ids, values, _ = read_samples(str(folder))
    return {name: _present(ids, row) for name, row in values.items()}


def _present(ids: Sequence[str], row: NDArray[np.float64]) -> dict[str, float]:
    return {name: float(value) for name, value in zip(ids, row, strict=True) if not np.isnan(value)}
