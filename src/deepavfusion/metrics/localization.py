"""Metrics of visual sound localization: overlap of the map with what sounds.

Two steps. `score_maps` turns maps and ground truth into one cIoU and one confidence per sample, under a named
binarisation and upsampling; the other functions turn samples into the scores of a protocol. Samples from several
batches or processes are joined with `MapScores.join`; no score depends on how they were split.

    cIoU = sum(P G) / (sum(G) + sum(P [G = 0])), P the binarised map, G the ground truth in [0, 1]

`fixed`: P where the score, in [0, 1], is at least 0.5. `top50`: at least the value at index n / 2 of the n sorted
pixels (EZ-VSL, LVS); a perfect map of an object of area share g then scores 2 g, so small objects cannot do well.
`area`: at least the value at which P has the area of the ground truth (of soft truth its sum), more where pixels tie,
so a constant map predicts the whole image.

A map that is not finite counts as wrong: its cIoU is 0 and its confidence the worst possible.

Shapes: `B` or `N` samples, `h w` patches, `H W` pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from deepavfusion.metrics.average_precision import average_precision
from deepavfusion.metrics.tally import Tally, by_cause

Binarisation = Literal["fixed", "top50", "area"]
Upsampling = Literal["bilinear", "bicubic"]


@dataclass(frozen=True, eq=False)
class MapScores:
    """Samples on their own, in the order they were given."""

    protocol: str
    ciou: Tensor
    """float64 `(N,)` in [0, 1]; NaN without truth."""
    confidence: Tensor
    """float64 `(N,)`: mean of the top quarter of the upsampled scores; -inf where the map is not finite."""
    finite: Tensor
    """bool `(N,)`."""

    @staticmethod
    def join(parts: Sequence[MapScores]) -> MapScores:
        """Samples of several batches one after the other. Raises ValueError on none, or on protocols that differ."""
        protocols = sorted({part.protocol for part in parts})
        if len(protocols) != 1:
            raise ValueError(f"samples of one protocol can be joined, got {protocols}")
        return MapScores(
            protocol=protocols[0],
            ciou=torch.cat([part.ciou for part in parts]),
            confidence=torch.cat([part.confidence for part in parts]),
            finite=torch.cat([part.finite for part in parts]),
        )


@dataclass(frozen=True)
class MultiSourceScores(Tally):
    """Localization of several sources of one picture, over pairs of sample and class; in [0, 1], higher is better."""

    ciou_at_30: float
    auc: float
    piap: float
    """Pixel average precision, mean over pairs."""
    cap: float
    """Pixel average precision, mean over the pairs of each class, then over classes."""
    num_classes: int


def upsample(maps: Tensor, size: tuple[int, int], mode: Upsampling = "bilinear") -> Tensor:
    """Bring patch maps to the pixel grid, the centres of corner patches on the corner pixels.

    Args:
        maps: `(B, h, w)`.
        size: height and width in pixels.
        mode: `bilinear` (EZ-VSL) or `bicubic` (SLAVC; it overshoots the range of the map).

    Returns:
        `(B, H, W)`, in float32 or better.
    """
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    return F.interpolate(maps[:, None], size=size, mode=mode, align_corners=True)[:, 0]


def binarise(scores: Tensor, truth: Tensor, rule: Binarisation = "fixed") -> Tensor:
    """Decide which pixels a map predicts.

    Args:
        scores: `(B, H, W)`, finite; in [0, 1] for `fixed`.
        truth: `(B, H, W)` in [0, 1]; only `area` looks at it.
        rule: see the head of this module.

    Returns:
        bool `(B, H, W)`.
    """
    if rule == "fixed":
        return scores >= 0.5
    ordered = scores.flatten(1).sort(dim=1).values
    num_pixels = ordered.shape[1]
    if rule == "top50":
        threshold = ordered[:, num_pixels // 2]
    elif rule == "area":
        area = truth.flatten(1).double().sum(dim=1).round().long().clamp(1, num_pixels)
        threshold = ordered.gather(1, (num_pixels - area)[:, None])[:, 0]
    else:
        raise ValueError(f"unknown binarisation {rule!r}: fixed, top50 or area")
    return scores >= threshold[:, None, None]


def ciou(predicted: Tensor, truth: Tensor) -> Tensor:
    """Consensus intersection over union.

    Args:
        predicted: bool `(B, H, W)`.
        truth: `(B, H, W)` in [0, 1].

    Returns:
        float64 `(B,)` in [0, 1]; NaN where the truth is empty.
    """
    truth = truth.double()
    area = truth.flatten(1).sum(dim=1)
    intersection = (predicted * truth).flatten(1).sum(dim=1)
    outside = (predicted & (truth == 0)).flatten(1).sum(dim=1)
    return torch.where(area > 0, intersection / (area + outside), torch.nan)


def confidence(scores: Tensor) -> Tensor:
    """Mean of the top quarter of the pixels of each map `(B, H, W)`: float64 `(B,)`, in the range of the scores."""
    flat = scores.flatten(1)
    return flat.topk(math.ceil(flat.shape[1] / 4), dim=1).values.double().mean(dim=1)


def score_maps(
    maps: Tensor, truth: Tensor, binarisation: Binarisation = "fixed", upsampling: Upsampling = "bilinear"
) -> MapScores:
    """Score maps one by one.

    Args:
        maps: `(B, h, w)`, on a scale that compares between samples; in [0, 1] for `fixed`.
        truth: `(B, H, W)` in [0, 1] (224 x 224 in the public protocols); empty for a sample that does not sound.
        binarisation: how pixels are chosen.
        upsampling: how maps come to the size of the truth.

    Raises:
        ValueError: shapes that do not fit, or truth, or maps under `fixed`, outside [0, 1].
    """
    if maps.ndim != 3 or truth.ndim != 3 or len(maps) != len(truth):
        raise ValueError(f"expected maps (B, h, w) and truth (B, H, W), got {maps.shape} and {truth.shape}")
    _check_range(truth, "truth")
    finite = maps.isfinite().flatten(1).all(dim=1)
    usable = maps.masked_fill(~finite[:, None, None], 0)
    if binarisation == "fixed":
        _check_range(usable, "scores under fixed binarisation")
    scores = upsample(usable, (truth.shape[1], truth.shape[2]), upsampling)
    overlap = ciou(binarise(scores, truth, binarisation), truth)
    return MapScores(
        protocol=f"{binarisation}, {upsampling}",
        ciou=torch.where(finite | overlap.isnan(), overlap, 0.0),
        confidence=torch.where(finite, confidence(scores), -torch.inf),
        finite=finite,
    )


def pixel_average_precision(maps: Tensor, truth: Tensor, upsampling: Upsampling = "bilinear") -> Tensor:
    """Average precision of pixels ranked by their score, for each pair of sample and class.

    Args:
        maps: `(B, h, w)`.
        truth: `(B, H, W)`; a pixel is a positive where it is above 0.
        upsampling: how maps come to the size of the truth.

    Returns:
        float64 `(B,)` in [0, 1]; NaN without truth, 0 for a map that is not finite.
    """
    finite = maps.isfinite().flatten(1).all(dim=1)
    scores = upsample(maps.masked_fill(~finite[:, None, None], 0), (truth.shape[1], truth.shape[2]), upsampling)
    values = average_precision(scores.flatten(1).T, truth.flatten(1).T > 0)
    return torch.where(finite | values.isnan(), values, 0.0)


def success_auc(ciou: Tensor) -> float:
    """Area, by the trapezoid rule, under the share of `ciou` `(N,)` that reaches 0, 0.05, ..., 1 (21 thresholds)."""
    thresholds = torch.arange(21, dtype=torch.float64, device=ciou.device) / 20
    success = (ciou[:, None] >= thresholds).double().mean(dim=0)
    return float(torch.trapezoid(success, thresholds))


def multi_source_scores(samples: MapScores, pixel_ap: Tensor, classes: Tensor) -> MultiSourceScores:
    """CIoU@0.3, AUC, PIAP and CAP over pairs of sample and class; pairs without truth are left out and counted.

    Args:
        samples: one per pair.
        pixel_ap: `(N,)` from `pixel_average_precision`.
        classes: int `(N,)`: class of each pair.

    Raises:
        ValueError: lengths that differ, or no pair has truth.
    """
    if not len(samples.ciou) == len(pixel_ap) == len(classes):
        raise ValueError(f"{len(samples.ciou)} pairs, {len(pixel_ap)} average precisions, {len(classes)} classes")
    scored = _with_truth(samples)
    values, pixel_ap = samples.ciou[scored], pixel_ap[scored]
    names, member = classes[scored].unique(return_inverse=True)
    per_class = torch.zeros(len(names), dtype=torch.float64, device=pixel_ap.device).index_add(0, member, pixel_ap)
    return MultiSourceScores(
        protocol=f"multi-source, {samples.protocol}",
        num_scored=len(scored),
        left_out=by_cause(no_truth=len(samples.ciou) - len(scored)),
        counted_as_wrong=by_cause(map_not_finite=int((~samples.finite[scored]).sum())),
        ciou_at_30=float((values >= 0.3).double().mean()),
        auc=success_auc(values),
        piap=float(pixel_ap.mean()),
        cap=float((per_class / member.bincount()).mean()),
        num_classes=len(names),
    )


def _with_truth(samples: MapScores) -> Tensor:
    scored = (~samples.ciou.isnan()).nonzero()[:, 0]
    if not len(scored):
        raise ValueError(f"none of the {len(samples.ciou)} samples has truth")
    return scored


def _check_range(values: Tensor, what: str) -> None:
    if values.numel() and not (float(values.min()) >= 0 and float(values.max()) <= 1):
        raise ValueError(f"{what} must lie in [0, 1], got {float(values.min()):g} to {float(values.max()):g}")
