"""Metrics of detecting whether something sounds: localization with silent and off-screen sound, and the listening test.

Both use the samples of `localization.score_maps`, whose confidences must have one scale for all images.

Shapes: `N` and `M` samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from deepavfusion.metrics.localization import MapScores
from deepavfusion.metrics.tally import Tally, by_cause

Sweep = Literal["full", "slavc"]

SUCCESS = 0.5
"""cIoU from which a sample counts as localized in the extended protocol."""


@dataclass(frozen=True)
class ExtendedScores(Tally):
    """Localization among sounding and silent or off-screen samples; in [0, 1], higher is better."""

    average_precision: float
    max_f1: float
    precision: float
    """Share of the sounding samples that are localized, every one counted as detected."""
    num_sounding: int
    num_silent: int


@dataclass(frozen=True)
class ListeningScores(Tally):
    """How often a sound that is not of the picture is taken for one; in [0, 1], lower is better."""

    recall: float
    threshold: float
    """Confidence at which sounding pairs reach `recall`."""
    false_positive_rate: dict[str, float]
    """By kind of sound. A map that ignores the sound has `recall` here, by construction."""
    num_pairs: dict[str, int]


def extended_scores(samples: MapScores, sounding: Tensor, sweep: Sweep = "full") -> ExtendedScores:
    """AP, max-F1 and precision with silent and off-screen sound among the samples (SLAVC).

    At confidence t a sounding sample with confidence >= t is a true positive if its cIoU is at least 0.5, else a
    false positive; one below t is a false negative; a silent sample with confidence >= t is a false positive.
    Precision is 1 if nothing is detected, recall 1 if nothing is to be found.

    `full`: t runs down all confidences but the largest. AP replaces each precision by the largest of itself and all
    later ones and sums precision times the step in recall to the next t; as in SLAVC's code the recall at the first t
    is no step. max-F1 is the best over the same t. `slavc`: AP takes every (N // 200)-th t, max-F1 every (N // 10)-th
    confidence, from the lowest up.

    Args:
        samples: of both kinds.
        sounding: bool `(N,)`: the sound's source is in the picture. Sounding samples without truth are left out.
        sweep: over which confidences.

    Raises:
        ValueError: lengths that differ, an unknown sweep, no sounding sample with truth, or fewer than two samples.
    """
    if sounding.shape != samples.ciou.shape:
        raise ValueError(f"{len(samples.ciou)} samples but `sounding` has shape {tuple(sounding.shape)}")
    if sweep not in ("full", "slavc"):
        raise ValueError(f"unknown sweep {sweep!r}: full or slavc")
    kept = ~sounding | ~samples.ciou.isnan()
    sounding, values, finite = sounding[kept], samples.ciou[kept], samples.finite[kept]
    # The worst confidence a silent sample can have is the highest.
    confidences = torch.where(sounding | finite, samples.confidence[kept], torch.inf)
    if not bool(sounding.any()) or len(values) < 2:
        raise ValueError(f"{int(sounding.sum())} sounding samples with truth among {len(values)}: nothing to score")
    localized = sounding & (values >= SUCCESS)
    ordered = confidences.sort().values
    down, f1_at = ordered[:-1].flip(0), ordered[:-1]
    if sweep == "slavc":
        down = down[:: max(1, len(values) // 200)]
        f1_at = ordered[:: max(1, len(values) // 10)]
    precision, recall = _precision_recall(confidences, sounding, localized, down)
    envelope = precision.flip(0).cummax(dim=0).values.flip(0)
    return ExtendedScores(
        protocol=f"extended, {samples.protocol}, {sweep} sweep",
        num_scored=len(values),
        left_out=by_cause(sounding_without_truth=int((~kept).sum())),
        counted_as_wrong=by_cause(map_not_finite=int((~finite).sum())),
        average_precision=float((envelope[:-1] * recall.diff()).sum()),
        max_f1=float(_f1(*_precision_recall(confidences, sounding, localized, f1_at)).max()),
        precision=float(localized[sounding].double().mean()),
        num_sounding=int(sounding.sum()),
        num_silent=int((~sounding).sum()),
    )


def listening_scores(
    sounding_confidence: Tensor, other_confidence: Mapping[str, Tensor], recall: float = 0.9
) -> ListeningScores:
    """False-positive rate of foreign sounds at the threshold that keeps `recall` of the true ones.

    The rate is read off the ROC curve, linear between its points: pairs whose confidence equals the threshold count
    with the fraction of sounding pairs at the threshold that is needed to reach `recall` exactly. So a map that is
    constant or made from the image alone scores `recall`, whatever its ties.

    Args:
        sounding_confidence: `(N,)` of pictures with their own sound.
        other_confidence: by kind (silence, noise, another clip's sound, off-screen sound), `(M,)` each.
        recall: share of sounding pairs to be kept, above 0 up to 1.

    Raises:
        ValueError: no pairs of a kind, or recall outside (0, 1].
    """
    if not 0 < recall <= 1 or not len(sounding_confidence) or not all(len(c) for c in other_confidence.values()):
        counts = {"sounding": len(sounding_confidence), **{kind: len(c) for kind, c in other_confidence.items()}}
        raise ValueError(f"a recall of {recall} over {counts} pairs has no false-positive rate")
    sounding = _or_worst(sounding_confidence, -torch.inf).sort(descending=True).values
    wanted = recall * len(sounding)
    threshold = sounding[math.ceil(wanted - 1e-9) - 1]
    share = (wanted - float((sounding > threshold).sum())) / float((sounding == threshold).sum())
    rates, unusable = {}, int((~sounding_confidence.isfinite()).sum())
    for kind, given in other_confidence.items():
        values = _or_worst(given, torch.inf)
        at_threshold = float((values == threshold).double().mean())
        rates[kind] = float((values > threshold).double().mean()) + share * at_threshold
        unusable += int((~given.isfinite()).sum())
    return ListeningScores(
        protocol=f"listening at {recall:g} recall",
        num_scored=len(sounding) + sum(len(c) for c in other_confidence.values()),
        left_out={},
        counted_as_wrong=by_cause(map_not_finite=unusable),
        recall=recall,
        threshold=float(threshold),
        false_positive_rate=rates,
        num_pairs={kind: len(c) for kind, c in other_confidence.items()},
    )


def _precision_recall(confidences: Tensor, sounding: Tensor, localized: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """float64 precision and recall at each threshold in `at`."""

    def reach(chosen: Tensor) -> Tensor:
        values = confidences[chosen].sort().values
        return (len(values) - torch.searchsorted(values, at.contiguous())).double()

    true_positives, detected = reach(localized), reach(torch.ones_like(sounding))
    wanted = true_positives + sounding.sum() - reach(sounding)  # sounding samples in the wrong place are not misses
    return (
        torch.where(detected > 0, true_positives / detected, 1.0),
        torch.where(wanted > 0, true_positives / wanted, 1.0),
    )


def _f1(precision: Tensor, recall: Tensor) -> Tensor:
    total = precision + recall
    return torch.where(total > 0, 2 * precision * recall / total, 0.0)


def _or_worst(values: Tensor, worst: float) -> Tensor:
    return torch.where(values.isfinite(), values.double(), worst)
