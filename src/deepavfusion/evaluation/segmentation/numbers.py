"""From counts per frame to named scores with intervals over videos, and differences of two models' scores.

The frames of a video are alike, so intervals resample videos, not frames.

Shapes: `n` frames, `V` videos, `R` resamples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepavfusion.evaluation.record import CONFIDENCE, Baseline, Score
from deepavfusion.evaluation.segmentation.evaluator import MaskScores
from deepavfusion.metrics.intervals import Interval, Statistic, paired_statistic_interval

NUM_RESAMPLES = 2000
"""Resamples of every interval; a score has one for each kind of scene and each baseline."""


@dataclass(frozen=True, eq=False)
class Number:
    """A score, and what it would be on any selection of the videos."""

    value: float
    videos: NDArray[np.int64] | None = None
    """`(V,)` numbers of the videos, ascending; None where there is no interval."""
    statistic: Statistic | None = None
    """From how often each video was drawn, `(R, V)`, to the score, `(R,)`."""


def numbers_of(total: MaskScores, videos_per_batch: int) -> dict[str, Number]:
    """All scores of some pictures by name; those that are not defined for them are left out.

    Args:
        total: their counts.
        videos_per_batch: for the batched variant of avsbench.
    """
    sums, found = total.binary.clip_sums(), {}
    if total.semantic is None:
        protocols = total.binary.result()
        for name, number, statistic in (
            ("avsbench miou", protocols["avsbench"].miou, sums.miou),
            ("avsbench f_score", protocols["avsbench"].f_score, sums.f_score),
        ):
            found[name] = Number(number, sums.clips, statistic)
        batched = total.binary.avsbench(videos_per_batch)
        for score in ("miou", "f_score"):
            found[f"avsbench {score}, batches of {videos_per_batch} videos"] = Number(getattr(batched, score))
            found[f"pooled {score}"] = Number(getattr(protocols["pooled"], score))
            found[f"with_background {score}"] = Number(getattr(protocols["with_background"], score))
    else:
        classes = total.semantic.clip_sums()
        avss, pooled = total.semantic.avss(), total.semantic.pooled()
        found["avss miou"] = Number(avss.miou, classes.clips, classes.miou)
        found["avss f_score"] = Number(avss.f_score, classes.clips, classes.f_score)
        found |= {"pooled miou": Number(pooled.miou), "pooled f_score": Number(pooled.f_score)}
        found["foreground miou"] = Number(total.binary.avsbench().miou, sums.clips, sums.miou)
    return {name: number for name, number in found.items() if not math.isnan(number.value)}


def mean_number(values: NDArray[np.float64], videos: NDArray[np.int64]) -> Number | None:
    """The mean over pictures `(n,)` that have a value, `videos` `(n,)` being theirs; None if none has."""
    return ratio_number(values, np.ones(len(values)), videos)


def ratio_number(above: NDArray[np.float64], below: NDArray[np.float64], videos: NDArray[np.int64]) -> Number | None:
    """The sum of one value over the sum of another, over the pictures that have both; None if that is nothing."""
    kept = ~(np.isnan(above) | np.isnan(below))
    names, places = np.unique(videos[kept], return_inverse=True)
    top, bottom = (np.bincount(places, x[kept], minlength=len(names)) for x in (above, below))
    if not bottom.sum() > 0:
        return None

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weights @ top) / (weights @ bottom))

    return Number(float(top.sum() / bottom.sum()), names, statistic)


def score(number: Number) -> Score:
    """With its interval over videos."""
    if number.statistic is None or number.videos is None or len(number.videos) < 2:
        return Score(number.value)  # one video tells nothing of others
    found = _interval(number.statistic, lambda weights: np.zeros(len(weights)), len(number.videos))
    # Resamples without anything to score have no number; then there is no interval either.
    known = math.isfinite(found.low) and math.isfinite(found.high)
    return Score(number.value, found.low, found.high) if known else Score(number.value)


def baseline(model: Number, other: Number) -> Baseline:
    """The other's score, and the model's minus it with an interval, both over the same videos."""
    if (
        model.statistic is None
        or other.statistic is None
        or model.videos is None
        or other.videos is None
        or len(model.videos) < 2
        or not np.array_equal(model.videos, other.videos)
    ):
        return Baseline(score(other))
    difference = _interval(model.statistic, other.statistic, len(model.videos))
    known = math.isfinite(difference.low) and math.isfinite(difference.high)
    return Baseline(score(other), difference if known else None)


def _interval(a: Statistic, b: Statistic, num_videos: int) -> Interval:
    return paired_statistic_interval([a], [b], num_videos, confidence=CONFIDENCE, num_resamples=NUM_RESAMPLES)
