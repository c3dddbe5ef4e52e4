"""Learning-rate factors against values worked out by hand."""

import math

import pytest

from deepavfusion.training.schedule import is_due, lr_factor, num_steps, peak_lr, ramp_factor


def test_peak_rate_scales_with_the_batch() -> None:
    assert peak_lr(1.5e-4, 512) == pytest.approx(3e-4)
    assert peak_lr(1.5e-4, 64) == pytest.approx(3.75e-5)


def test_warmup_is_linear_and_reaches_the_peak_with_its_last_step() -> None:
    assert [lr_factor(step, 100, 4) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_cosine_is_half_in_the_middle_and_nearly_zero_at_the_end() -> None:
    assert lr_factor(54, 104, 4) == pytest.approx(0.5)
    assert lr_factor(29, 104, 4) == pytest.approx(0.5 * (1 + math.sqrt(0.5)))
    assert 0 < lr_factor(103, 104, 4) < 0.001
    assert lr_factor(104, 104, 4) == pytest.approx(0.0)


def test_no_warmup_starts_at_the_peak() -> None:
    assert lr_factor(0, 10, 0) == 1.0
    assert all(0 < lr_factor(step, 10, 0) <= 1 for step in range(10))


def test_all_warmup_never_falls() -> None:
    assert [lr_factor(step, 4, 4) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_ramp_rises_from_zero_along_half_a_cosine_and_stays() -> None:
    assert [ramp_factor(step, 50) for step in (0, 25, 50, 99)] == pytest.approx([0.0, 0.5, 1.0, 1.0])
    assert ramp_factor(0, 0) == 1.0


def test_steps_draw_every_clip_at_least_epochs_times() -> None:
    assert num_steps(2, 20, 8) == 5
    assert num_steps(0.5, 21, 8) == 2
    assert num_steps(0.1, 3, 8) == 1
    assert num_steps(1.1, 10, 11) == 1  # 11.000000000000002 in floating point


def test_due_once_per_interval_whatever_the_step_size() -> None:
    due = [step for step in range(1, 31) if is_due(2.0, step, 0.3)]
    assert due == [7, 14, 20, 27]  # the first steps at or beyond 2, 4, 6, 8 epochs
    assert not any(is_due(0.0, step, 0.3, last=step == 30) for step in range(1, 31))
    assert is_due(1000.0, 30, 0.3, last=True)
