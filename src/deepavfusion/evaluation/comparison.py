"""`compare`: the difference of two models on the clips that both have scored, with its interval.

Shapes: `n` common clips, `C` classes, `R` resamples.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepavfusion.atomic import write_text
from deepavfusion.evaluation.classification.results import (
    PREDICTIONS,
    SavedPredictions,
    heads_of_saved,
    hit_at_1,
    read_predictions,
)
from deepavfusion.evaluation.config import CompareConfig
from deepavfusion.evaluation.record import SAMPLES, read_samples
from deepavfusion.metrics.intervals import Interval, Statistic, paired_interval, paired_statistic_interval

MEAN_AP_RESAMPLES = 1000
"""Most resamples of mean average precision, every one of which ranks all clips in all classes."""


@dataclass(frozen=True)
class Comparison:
    """A minus B on their common clips."""

    metric: str
    head: str
    """Of a classifier; empty for other tasks."""
    score_a: float
    """On the common clips, seeds averaged."""
    score_b: float
    interval: Interval
    num_common: int
    """Clips that all evaluations scored; nothing else enters."""
    num_only_a: int
    """Clips that every evaluation of A scored and not every one of B."""
    num_only_b: int
    protocols: tuple[str, ...]
    """Those of the evaluations; more than one means that they were not made alike."""

    def line(self) -> str:
        """The result in one line."""
        scale = 100 if self.head else 1  # a classifier's shares in percent; other values in their own units
        low, high = scale * self.interval.low, scale * self.interval.high
        outside = f" ({self.num_only_a} only in A, {self.num_only_b} only in B)"
        name = f"{self.metric} of {self.head}" if self.head else self.metric
        return (
            f"{name}: A {scale * self.score_a:.2f}, B {scale * self.score_b:.2f}, difference "
            f"{scale * self.interval.difference:+.2f} [{low:+.2f}, {high:+.2f}] ({self.interval.confidence:.0%}, "
            f"{self.interval.method}) on {self.num_common} common clips"
            + (outside if self.num_only_a or self.num_only_b else "")
        )


def compare(config: CompareConfig) -> Comparison:
    """Compare two models, each evaluated once or with several seeds.

    Classifiers are compared by their predictions, other tasks by one value per sample.

    Raises:
        ValueError: folders without predictions, evaluations that do not belong to one task, no common clip, or a
            common clip with another truth.
    """
    a, b = ([folder.strip() for folder in side.split(",")] for side in (config.a, config.b))
    is_classifier = (Path(a[0]) / PREDICTIONS).is_file() or not (Path(a[0]) / SAMPLES).is_file()
    result = _compare_predictions(config, a, b) if is_classifier else _compare_samples(config, a, b)
    if config.out is not None:
        write_text(config.out, json.dumps({"line": result.line(), **asdict(result)}, indent=1) + "\n")
    return result


def _compare_samples(config: CompareConfig, folders_a: list[str], folders_b: list[str]) -> Comparison:
    """By the values of one score per sample, whatever the task."""
    a, b = ([read_samples(folder) for folder in side] for side in (folders_a, folders_b))
    every = [*a, *b]
    metric = config.metric if config.metric != "auto" else next(iter(every[0][1]))
    for folder, (_, values, _) in zip([*folders_a, *folders_b], every, strict=True):
        if metric not in values:
            raise ValueError(f"metric {metric}: {folder} has {', '.join(values)}")
    named = [dict(zip(ids, values[metric], strict=True)) for ids, values, _ in every]
    scored = [{name for name, value in own.items() if not np.isnan(value)} for own in named]
    both_a, both_b = set.intersection(*scored[: len(a)]), set.intersection(*scored[len(a) :])
    common = sorted(both_a & both_b)
    if not common:
        raise ValueError(f"{config.a} and {config.b} have no sample in common")
    rows = np.array([[own[name] for name in common] for own in named])
    interval = paired_interval(
        rows[: len(a)],
        rows[len(a) :],
        num_resamples=config.num_resamples,
        confidence=config.confidence,
        paired_seeds=config.paired_seeds,
    )
    return Comparison(
        metric=metric,
        head="",
        score_a=float(rows[: len(a)].mean()),
        score_b=float(rows[len(a) :].mean()),
        interval=interval,
        num_common=len(common),
        num_only_a=len(both_a - both_b),
        num_only_b=len(both_b - both_a),
        protocols=tuple(sorted({protocol for _, _, protocol in every})),
    )


def _compare_predictions(config: CompareConfig, folders_a: list[str], folders_b: list[str]) -> Comparison:
    """By the logits of classifiers."""
    a, b = ([read_predictions(folder) for folder in side] for side in (folders_a, folders_b))
    every = [*a, *b]
    multi_label = every[0].labelled.multi_label
    for saved in every:
        if saved.labelled.classes != every[0].labelled.classes or saved.labelled.multi_label != multi_label:
            raise ValueError(f"{saved.folder}: was scored on other classes than {every[0].folder}")
        if config.head not in heads_of_saved(saved):
            raise ValueError(f"head {config.head}: {saved.folder} has {', '.join(heads_of_saved(saved))}")
    both_a, both_b = (set.intersection(*(_scored(saved, config.head) for saved in side)) for side in (a, b))
    common = sorted(both_a & both_b)
    if not common:
        raise ValueError(f"{config.a} and {config.b} have no clip in common")
    rows = [_rows(saved, common) for saved in every]
    targets = every[0].labelled.targets[rows[0]]
    for saved, own in zip(every, rows, strict=True):
        differing = (saved.labelled.targets[own] != targets).any(axis=1)
        if differing.any():
            raise ValueError(f"{common[int(differing.argmax())]} has other labels in {saved.folder}: not comparable")
    metric = config.metric if config.metric != "auto" else "mean_ap" if multi_label else "top1"
    if metric not in ("top1", "mean_ap", "hit_at_1") or (metric == "top1" and multi_label):
        raise ValueError(f"metric {metric}: compare {'' if multi_label else 'top1, '}mean_ap or hit_at_1")
    scores = [saved.values[config.head][own] for saved, own in zip(every, rows, strict=True)]
    settings: dict[str, Any] = {"confidence": config.confidence, "paired_seeds": config.paired_seeds}
    if metric == "mean_ap":
        count = min(config.num_resamples, MEAN_AP_RESAMPLES)
        statistics = [mean_ap_statistic(s, targets) for s in scores]
        interval = paired_statistic_interval(
            statistics[: len(a)], statistics[len(a) :], len(common), num_resamples=count, **settings
        )
        values = [float(f(np.ones((1, len(common))))[0]) for f in statistics]
    else:
        hits = np.stack([hit_at_1(s, targets) for s in scores])
        interval = paired_interval(hits[: len(a)], hits[len(a) :], num_resamples=config.num_resamples, **settings)
        values = [float(own.mean()) for own in hits]
    return Comparison(
        metric=metric,
        head=config.head,
        score_a=float(np.mean(values[: len(a)])),
        score_b=float(np.mean(values[len(a) :])),
        interval=interval,
        num_common=len(common),
        num_only_a=len(both_a - both_b),
        num_only_b=len(both_b - both_a),
        protocols=tuple(sorted({saved.protocol for saved in every})),
    )


def mean_ap_statistic(scores: NDArray[np.float32], targets: NDArray[np.bool_]) -> Statistic:
    """Macro mean average precision as a function of how often each clip was drawn.

    Average precision with weights is that of a list in which each clip occurs as often as its weight says; equal
    scores are retrieved together (scikit-learn's definition). Classes without a positive in a resample are left out.

    Args:
        scores: `(n, C)`; a clip that is not finite ranks last in every class.
        targets: `(n, C)`.
    """
    finite = _finite(scores)
    scores = np.where(finite[:, None], scores, -np.inf)
    ranked = []
    for column in np.flatnonzero(targets.any(axis=0)):
        order = np.argsort(-scores[:, column], kind="stable")
        values = scores[order, column]
        ends = np.flatnonzero(np.append(values[1:] != values[:-1], True))  # last of each group of equal scores
        ranked.append((order, targets[order, column].astype(np.float64), ends))

    def mean_ap(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        total, count = np.zeros(len(weights)), np.zeros(len(weights))
        for order, positive, ends in ranked:
            drawn = weights[:, order]
            found = np.cumsum(drawn * positive, axis=1)[:, ends]  # (R, groups)
            retrieved = np.cumsum(drawn, axis=1)[:, ends]
            precision = found / np.maximum(retrieved, 1e-12)
            step = np.diff(found, axis=1, prepend=0.0)
            all_found = found[:, -1]
            there = all_found > 0
            total += np.where(there, (step * precision).sum(axis=1) / np.where(there, all_found, 1.0), 0.0)
            count += there
        return np.where(count > 0, total / np.maximum(count, 1), 0.0)

    return mean_ap


def _finite(scores: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(scores).all(axis=1))


def _scored(saved: SavedPredictions, head: str) -> set[str]:
    present = saved.values[f"{head}_present"]
    return {name for name, is_present in zip(saved.ids, present, strict=True) if is_present}


def _rows(saved: SavedPredictions, names: Sequence[str]) -> NDArray[np.int64]:
    places = {name: place for place, name in enumerate(saved.ids)}
    return np.array([places[name] for name in names])
