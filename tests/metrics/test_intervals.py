"""Bootstrap intervals: exact small cases, known distributions, coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from deepavfusion.metrics import intervals
from deepavfusion.metrics.intervals import paired_interval, paired_statistic_interval


def test_a_constant_difference_has_no_spread() -> None:
    b = np.random.default_rng(0).normal(size=40)
    result = paired_interval(b + 0.25, b, num_resamples=500)
    assert (result.difference, result.low, result.high) == pytest.approx((0.25, 0.25, 0.25))
    assert result.excludes_zero
    assert result.low > 0
    assert (result.num_clips, result.num_left_out, result.seed_differences) == (40, 0, pytest.approx((0.25,)))
    other = paired_interval(b, b + 0.25, num_resamples=500)
    assert other.excludes_zero
    assert other.low <= 0
    assert not paired_interval(b, b, num_resamples=500).excludes_zero


def test_agrees_with_the_normal_interval_of_a_mean() -> None:
    rng = np.random.default_rng(1)
    hard = rng.normal(size=2000) * 5  # shared by both: cancels
    a, b = hard + rng.normal(size=2000) + 0.1, hard + rng.normal(size=2000)
    result = paired_interval(a, b, num_resamples=4000)
    half = 1.96 * (a - b).std() / math.sqrt(2000)
    assert result.high - result.low == pytest.approx(2 * half, rel=0.06)
    assert (result.high + result.low) / 2 == pytest.approx(result.difference, abs=0.1 * half)


def test_is_repeatable_and_independent_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random((3, 30)), rng.random((3, 30))
    first = paired_interval(a, b, num_resamples=1000, seed=5)
    assert paired_interval(a, b, num_resamples=1000, seed=5) == first
    assert paired_interval(a, b, num_resamples=1000, seed=6).low != first.low
    monkeypatch.setattr(intervals, "_CELLS", 30 * 100)
    other = paired_interval(a, b, num_resamples=1000, seed=5)
    assert other.low == pytest.approx(first.low, abs=0.03)
    assert other.difference == first.difference


def test_seeds_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    clips = rng.normal(size=500)
    effect = np.array([0.0, 0.5, 1.0])  # the gain of A depends on the seed
    a = clips + effect[:, None] + 0.1 * rng.normal(size=(3, 500))
    b = np.broadcast_to(clips, (3, 500))
    result = paired_interval(a, b, num_resamples=4000)
    assert result.seed_differences == pytest.approx(effect, abs=0.02)
    # 27 draws of three seeds: all the same one 3 in 27, so the 2.5 and 97.5 percentiles are the extreme seeds.
    assert result.low == pytest.approx(0.0, abs=0.03)
    assert result.high == pytest.approx(1.0, abs=0.03)
    one = paired_interval(a.mean(axis=0), b.mean(axis=0), num_resamples=4000)
    assert one.low > 0.45
    assert "clips and paired seeds" in result.method
    assert result.method != one.method


def test_paired_seeds_cancel() -> None:
    rng = np.random.default_rng(4)
    shared = rng.normal(size=(4, 1)) * 10  # a bad seed is bad for both
    a, b = shared + np.full((4, 50), 1.0), shared + np.zeros((4, 50))
    paired = paired_interval(a, b, num_resamples=2000)
    separate = paired_interval(a, b, num_resamples=2000, paired_seeds=False)
    assert paired.low > 0
    assert paired.high - paired.low < 1e-9
    assert not separate.excludes_zero
    with pytest.raises(ValueError, match="4 seeds of A and 2 of B"):
        paired_interval(a, b[:2])
    assert paired_interval(a, b[:2], paired_seeds=False, num_resamples=10).num_clips == 50


def test_clips_without_a_value_are_left_out_of_both() -> None:
    a = np.array([1.0, math.nan, 3.0, 4.0])
    b = np.array([0.0, 0.0, math.nan, 1.0])
    result = paired_interval(a, b, num_resamples=100)
    assert (result.num_clips, result.num_left_out) == (2, 2)
    assert result.difference == pytest.approx((1 + 3) / 2)
    with pytest.raises(ValueError, match="none of the 1 clips"):
        paired_interval([math.nan], [1.0])
    with pytest.raises(ValueError, match="same clips"):
        paired_interval([1.0, 2.0], [1.0])


def test_a_statistic_that_is_no_mean() -> None:
    values = np.random.default_rng(5).random((60, 2))

    def ratio(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return (weights @ values[:, 0]) / (weights @ values[:, 1])

    def nothing(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        assert (weights.sum(axis=1) == 60).all()
        return np.zeros(len(weights))

    result = paired_statistic_interval([ratio], [nothing], 60, num_resamples=2000, confidence=0.9)
    assert result.difference == pytest.approx(values[:, 0].sum() / values[:, 1].sum())
    assert 0 < result.low < result.difference < result.high
    rng = np.random.default_rng(0)
    drawn = [values[rng.integers(60, size=60)].sum(axis=0) for _ in range(2000)]
    low, high = np.quantile([x / y for x, y in drawn], [0.05, 0.95])
    assert (result.low, result.high) == pytest.approx((low, high), abs=0.02)


@pytest.mark.slow
def test_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(6)
    inside = 0
    for trial in range(400):
        a, b = rng.random(80) < 0.6, rng.random(80) < 0.5
        result = paired_interval(a, b, num_resamples=1000, seed=trial)
        inside += result.low <= 0.1 <= result.high
    assert 0.91 < inside / 400 < 0.98
