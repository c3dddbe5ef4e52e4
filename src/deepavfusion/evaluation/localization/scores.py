"""From values per sample to the scores of every protocol, for the model and the baselines.

Names of scores: `cIoU@0.5 area`, `cIoU@0.3 area`, `AUC area`, the same for `fixed` and `top50`; `source chosen`; both
followed by `, SCENE` for one kind of scene; `extended AP area`, `extended max-F1 area`, `extended precision area`;
`false positives, KIND` (lower is better); `CIoU@0.3 classes`, `AUC classes`, `PIAP`, `CAP` of a model with classes.

Shape legend: `N` samples, `K` classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepavfusion.evaluation.localization.evaluator import RULES
from deepavfusion.evaluation.record import Baseline, Score, mean_baseline, mean_score
from deepavfusion.metrics.detection import extended_scores, listening_scores
from deepavfusion.metrics.localization import Binarisation, MapScores, multi_source_scores

Values = Mapping[str, NDArray[Any]]

IMAGE_ONLY, FOREIGN, CENTRE, WHOLE = "image only (silence)", "foreign sound", "centre prior", "whole image"
CONDITIONS = {IMAGE_ONLY: "silence", FOREIGN: "foreign", CENTRE: "centre", WHOLE: "whole"}
"""Baselines that come with every model, and which values they are."""
RECALL = 0.9
"""Recall at which false positives are counted."""
_THRESHOLDS = np.arange(21) / 20
_LISTENING = "listening_"
"""Kinds of scenes that are one picture with several sounds; `own` is the true one."""


@dataclass(frozen=True)
class Table:
    """Scores of one model or baseline."""

    samples: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """By score, `(N,)`: values whose mean is the score; NaN where a sample does not take part."""
    pooled: dict[str, float] = field(default_factory=dict)
    """Scores that are no mean over samples."""


def score_table(values: Values, scenes: Sequence[str], headline: Binarisation, condition: str = "own") -> Table:
    """All scores of a condition.

    Args:
        values: of `LocalizationEvaluator`, `(N, ...)`.
        scenes: kind of every sample's scene.
        headline: rule whose scores come first and are told by scene.
        condition: `own`, another sound or a prior.
    """
    table, kinds = Table(), np.array(scenes)
    rules = (headline, *(rule for rule in RULES if rule != headline))
    for rule in rules:
        table.samples.update(_successes(values[f"ciou_{rule}_{condition}"], rule))
    chosen = np.asarray(values[f"chosen_{condition}"], np.float64)
    if not np.isnan(chosen).all():
        table.samples["source chosen"] = chosen
    told = [f"cIoU@0.5 {headline}", f"AUC {headline}", "source chosen"]
    for kind in sorted(set(scenes)) if len(set(scenes)) > 1 else ():
        for name in told:
            own = np.where(kinds == kind, table.samples.get(name, np.nan), np.nan)
            if not np.isnan(own).all():
                table.samples[f"{name}, {kind}"] = own
    if condition != "foreign":
        table.pooled.update(_extended(values, condition, rules))
        table.pooled.update(_listening(values, kinds, condition))
    if condition == "own" and "pixel_ap" in values:
        table.samples.update(_pairs_by_sample(values))
        table.pooled.update(_pairs(values))
    return table


def as_scores(table: Table) -> dict[str, Score]:
    """Means with intervals, then the others."""
    return {name: mean_score(row) for name, row in table.samples.items()} | {
        name: Score(value) for name, value in table.pooled.items()
    }


def against(model: Table, baseline: Table) -> dict[str, Baseline]:
    """The baseline's scores that the model has too, and the paired differences of means."""
    found = {
        name: mean_baseline(model.samples[name], row) for name, row in baseline.samples.items() if name in model.samples
    }
    found |= {name: Baseline(Score(value)) for name, value in baseline.pooled.items() if name in model.pooled}
    return found


def _successes(ciou: NDArray[Any], rule: str) -> dict[str, NDArray[np.float64]]:
    """Per sample: success at 0.5 and 0.3, and its own area under the success rate, a step function's trapezoids."""
    ciou = np.asarray(ciou, np.float64)
    reached = (ciou[:, None] >= _THRESHOLDS).astype(np.float64)
    auc = ((reached[:, 1:] + reached[:, :-1]) / 2 * np.diff(_THRESHOLDS)).sum(axis=1)
    found = {f"cIoU@0.5 {rule}": ciou >= 0.5, f"cIoU@0.3 {rule}": ciou >= 0.3, f"AUC {rule}": auc}
    return {name: np.where(np.isnan(ciou), np.nan, row) for name, row in found.items()}


def _extended(values: Values, condition: str, rules: Sequence[str]) -> dict[str, float]:
    """Scores with silent and off-screen scenes, where there are any."""
    found: dict[str, float] = {}
    for rule in rules:
        ciou = torch.from_numpy(np.asarray(values[f"ciou_{rule}_{condition}"], np.float64))
        sounding = ~ciou.isnan()
        if bool(sounding.all()) or not bool(sounding.any()):
            return {}
        samples = MapScores(
            protocol=rule,
            ciou=ciou,
            confidence=torch.from_numpy(np.asarray(values[f"confidence_{condition}"], np.float64)),
            finite=torch.from_numpy(np.asarray(values[f"finite_{condition}"], bool)),
        )
        scores = extended_scores(samples, sounding)
        found |= {
            f"extended AP {rule}": scores.average_precision,
            f"extended max-F1 {rule}": scores.max_f1,
            f"extended precision {rule}": scores.precision,
        }
    return found


def _listening(values: Values, kinds: NDArray[Any], condition: str) -> dict[str, float]:
    """False positives of sounds put under the sounding pictures, and of scenes in which nothing seen sounds."""
    own = np.asarray(values[f"confidence_{condition}"], np.float64)
    sounding = ~np.isnan(np.asarray(values["ciou_area_own"], np.float64))
    found: dict[str, float] = {}

    def add(mine: NDArray[np.bool_], others: Mapping[str, NDArray[np.float64]]) -> None:
        usable = {name: torch.from_numpy(row[~np.isnan(row)]) for name, row in others.items()}
        usable = {name: row for name, row in usable.items() if len(row)}
        if usable and mine.any():
            rates = listening_scores(torch.from_numpy(own[mine]), usable, RECALL).false_positive_rate
            found.update({f"false positives, {name}": rate for name, rate in rates.items()})

    swapped = {
        name: np.asarray(values[f"confidence_{name if condition == 'own' else condition}"], np.float64)[sounding]
        for name in ("silence", "noise", "foreign")
    }
    add(sounding, swapped)
    still = {kind: own[(kinds == kind) & ~sounding] for kind in sorted(set(kinds[~sounding].tolist()))}
    add(sounding, {kind: row for kind, row in still.items() if not kind.startswith(_LISTENING)})
    true = sounding & (kinds == f"{_LISTENING}own")
    add(true, {kind: row for kind, row in still.items() if kind.startswith(_LISTENING)})
    return found


def _pairs_by_sample(values: Values) -> dict[str, NDArray[np.float64]]:
    """Pixel average precision of each sample, the mean over its classes."""
    rows = np.asarray(values["pixel_ap"], np.float64)
    count = (~np.isnan(rows)).sum(axis=1)
    return {"pixel AP by picture": np.where(count, np.nansum(rows, axis=1) / np.maximum(count, 1), np.nan)}


def _pairs(values: Values) -> dict[str, float]:
    """Scores over pairs of sample and class."""
    pixel_ap, ciou = (torch.from_numpy(np.asarray(values[name], np.float64)) for name in ("pixel_ap", "class_ciou"))
    there = ~pixel_ap.isnan()
    if not bool(there.any()):
        return {}
    ciou = ciou[there]
    samples = MapScores("area", ciou, torch.zeros_like(ciou), torch.ones_like(ciou, dtype=torch.bool))
    scores = multi_source_scores(samples, pixel_ap[there], there.nonzero()[:, 1])
    return {
        "CIoU@0.3 classes": scores.ciou_at_30,
        "AUC classes": scores.auc,
        "PIAP": scores.piap,
        "CAP": scores.cap,
    }
