"""Axes hold what they show; numbers read as they should."""

import math

import pytest

from deepavfusion.report.scales import duration, exact_scale, number, round_scale, score


@pytest.mark.parametrize("values", [(0.891, 1.2961), (-3.2, 17.0), (5.0,), (0.0, 0.0), (1e-7, 2.5e-4), (-8.0, -7.9)])
@pytest.mark.parametrize("from_zero", [False, True])
def test_a_round_axis_holds_all_values_between_its_ticks(values: tuple[float, ...], from_zero: bool) -> None:
    scale = round_scale(values, 5, from_zero)
    assert min(map(scale.share, values)) >= 0
    assert max(map(scale.share, values)) <= 1 + 1e-12
    assert (scale.low, scale.high) == (scale.ticks[0], scale.ticks[-1])
    assert 2 <= len(scale.ticks) <= 7
    step = scale.ticks[1] - scale.ticks[0]
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - nice) for nice in (1, 2, 5)) < 1e-6
    if from_zero:
        assert scale.low <= 0 <= scale.high


def test_an_axis_passes_over_what_is_not_finite_and_needs_something_finite() -> None:
    assert round_scale([math.nan, 1.0, math.inf, 2.0]).high == 2
    with pytest.raises(ValueError, match="finite"):
        round_scale([math.nan])


def test_an_exact_axis_ends_at_its_values() -> None:
    assert exact_scale([10, 20, 35], 7).ticks == (10, 20, 35)
    assert exact_scale(range(3, 98), 2).ticks == (3, 97)
    many = exact_scale(range(3, 98), 6)
    assert (many.low, many.high, many.ticks) == (3, 97, (20, 40, 60, 80))
    assert exact_scale([4.0, 4.0]).share(4.0) == 0.5


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.8910108, "0.891"),
        (1.2961413, "1.296"),
        (60.0, "60"),
        (43210.0, "43,210"),
        (-0.5, "−0.5"),
        (2.1148e-07, "2.11e−7"),
        (0.0, "0"),
        (math.nan, "not finite"),
        (0.00123456, "0.001235"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_scores_and_durations() -> None:
    assert (score(0.27843, signed=True), score(-0.0214), score(0.5)) == ("+0.278", "−0.021", "0.500")
    assert [duration(s) for s in (3.04, 59.4, 59.6, 122.5, 7260)] == [
        "3.0 s",
        "59 s",
        "1 min 00 s",
        "2 min 02 s",
        "2 h 01 min",
    ]
