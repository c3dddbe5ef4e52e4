"""Paired bootstrap intervals of the difference between two models.

A beats B if the interval of A minus B excludes 0. Both models are scored on the same clips, and each resample draws the
same clips for both, so that what is hard for both cancels. With several seeds the resample also draws seeds,
independently of clips ("pigeonhole" bootstrap of two crossed factors, Owen 2007): every seed saw the same clips, and
the interval then covers another set of clips AND another training run. It is slightly too wide for the variation of
clips; with few seeds it knows little of their spread, so the difference of each seed is given too. Interval:
percentiles of the resampled differences.

Shapes: `n` clips, `S` seeds, `R` resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From weights `(R, n)`, how often each clip was drawn, to the score of each resample `(R,)`."""

_CELLS = 1 << 22
"""Cells of `R x n` drawn at a time."""


@dataclass(frozen=True)
class Interval:
    """A difference A minus B with its interval."""

    difference: float
    """On the clips and seeds as they are, seeds averaged."""
    low: float
    high: float
    confidence: float
    """Coverage aimed at, such as 0.95."""
    num_clips: int
    num_left_out: int
    """Clips without a value in A or B."""
    seed_differences: tuple[float, ...]
    """Seed by seed; where A's and B's seeds do not belong together, A's scores minus the mean of B's."""
    num_resamples: int
    method: str

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def paired_interval(
    a: ArrayLike,
    b: ArrayLike,
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
    paired_seeds: bool = True,
) -> Interval:
    """Interval of the difference of two means over clips.

    Args:
        a: `(n,)`, or `(S, n)` for several seeds: a value per clip, NaN where the clip was not scored.
        b: the same of the other model, clips in the same order; `(S', n)` only if `paired_seeds` is off.
        confidence: coverage aimed at.
        num_resamples: how many.
        seed: of the resampling.
        paired_seeds: seed s of A and seed s of B belong together and are drawn together.

    Raises:
        ValueError: shapes that do not fit, or no clip has a value in all.
    """
    rows_a, rows_b = (np.atleast_2d(np.asarray(x, dtype=np.float64)) for x in (a, b))
    if rows_a.ndim != 2 or rows_b.ndim != 2 or rows_a.shape[1] != rows_b.shape[1]:
        raise ValueError(f"values of the same clips are needed, got shapes {rows_a.shape} and {rows_b.shape}")
    kept = ~np.isnan(np.concatenate([rows_a, rows_b])).any(axis=0)
    if not kept.any():
        raise ValueError(f"none of the {len(kept)} clips has a value in both")
    return paired_statistic_interval(
        [_mean_of(row) for row in rows_a[:, kept]],
        [_mean_of(row) for row in rows_b[:, kept]],
        int(kept.sum()),
        confidence=confidence,
        num_resamples=num_resamples,
        seed=seed,
        paired_seeds=paired_seeds,
        num_left_out=int((~kept).sum()),
    )


def paired_statistic_interval(
    a: Sequence[Statistic],
    b: Sequence[Statistic],
    num_clips: int,
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
    paired_seeds: bool = True,
    num_left_out: int = 0,
) -> Interval:
    """Interval of the difference of a score that is no mean over clips (pooled IoU, maximum F, average precision).

    Args:
        a: one statistic per seed.
        b: one statistic per seed, over the same clips.
        num_clips: of both.
        confidence: coverage aimed at.
        num_resamples: how many.
        seed: of the resampling.
        paired_seeds: seed s of A and seed s of B belong together and are drawn together.
        num_left_out: to be handed on.

    Raises:
        ValueError: no seeds, no clips, unequal numbers of paired seeds, or a confidence outside (0, 1).
    """
    if not a or not b or num_clips < 1 or not 0 < confidence < 1 or num_resamples < 1:
        raise ValueError(
            f"{len(a)} and {len(b)} seeds, {num_clips} clips, {num_resamples} resamples at confidence {confidence}"
        )
    if paired_seeds and len(a) != len(b):
        raise ValueError(f"{len(a)} seeds of A and {len(b)} of B cannot be paired")
    rng = np.random.default_rng(seed)
    as_they_are = np.ones((1, num_clips))
    each_a, each_b = (np.array([float(f(as_they_are)[0]) for f in fs]) for fs in (a, b))
    rows = max(1, _CELLS // num_clips)
    drawn = []
    for start in range(0, num_resamples, rows):
        count = min(rows, num_resamples - start)
        weights = _draw(rng, count, num_clips)
        scores_a, scores_b = (np.stack([f(weights) for f in fs]) for fs in (a, b))
        chosen_a = _draw(rng, count, len(a)).T / len(a)
        chosen_b = chosen_a if paired_seeds else _draw(rng, count, len(b)).T / len(b)
        drawn.append((scores_a * chosen_a).sum(axis=0) - (scores_b * chosen_b).sum(axis=0))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail])
    factors = "clips" if len(a) == len(b) == 1 else f"clips and {'paired' if paired_seeds else 'separate'} seeds"
    return Interval(
        difference=float(each_a.mean() - each_b.mean()),
        low=float(low),
        high=float(high),
        confidence=confidence,
        num_clips=num_clips,
        num_left_out=num_left_out,
        seed_differences=tuple(float(d) for d in each_a - (each_b if paired_seeds else each_b.mean())),
        num_resamples=num_resamples,
        method=f"paired percentile bootstrap over {factors}",
    )


def _mean_of(values: NDArray[np.float64]) -> Statistic:
    return lambda weights: weights @ values / weights.sum(axis=1)


def _draw(rng: np.random.Generator, count: int, size: int) -> NDArray[np.float64]:
    """How often each of `size` items is drawn in `count` resamples with replacement: `(count, size)`."""
    drawn = rng.integers(size, size=(count, size)) + size * np.arange(count)[:, None]
    return np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size).astype(np.float64)
