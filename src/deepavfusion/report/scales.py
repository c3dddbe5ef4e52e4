"""Axes with round ticks, and the format of numbers on the page."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Scale:
    """A linear axis from `low` to `high`."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Where a value lies on the axis, 0 at `low` to 1 at `high`."""
        return (value - self.low) / (self.high - self.low)


def round_scale(values: Iterable[float], num_ticks: int = 5, from_zero: bool = False) -> Scale:
    """An axis that holds all finite values and begins and ends at a tick; ticks are 1, 2 or 5 times a power of ten.

    Args:
        values: what must fit.
        num_ticks: about how many ticks are wanted.
        from_zero: whether 0 must fit, too.

    Raises:
        ValueError: no value is finite.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        raise ValueError("an axis needs a finite value")
    low, high = min(finite), max(finite)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        margin = abs(high) / 2 or 1.0
        low, high = low - margin, high + margin
    step = _round_up((high - low) / (num_ticks - 1))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(step * k for k in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], ticks)


def exact_scale(values: Iterable[float], num_ticks: int = 5) -> Scale:
    """An axis that begins at the least and ends at the greatest value.

    Ticks are the values themselves where they are few, the two ends where only two are wanted, else round.
    """
    places = sorted(set(values))
    low, high = places[0], places[-1]
    if low == high:
        return Scale(low - 0.5, high + 0.5, (low,))
    if len(places) <= num_ticks:
        return Scale(low, high, tuple(places))
    if num_ticks == 2:
        return Scale(low, high, (low, high))
    ticks = round_scale(places, num_ticks).ticks
    return Scale(low, high, tuple(tick for tick in ticks if low <= tick <= high))


def _round_up(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def number(value: float) -> str:
    """Four significant digits, trailing zeros dropped."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(value)))
    if power < -3:
        mantissa, exponent = f"{abs(value):.2e}".split("e")
        text = f"{float(mantissa):g}e{MINUS}{abs(int(exponent))}"
    else:
        text = f"{abs(value):,.{max(0, 3 - power)}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    return MINUS + text if value < 0 else text


def score(value: float, signed: bool = False) -> str:
    """A score to three decimals, with its sign if it is a difference."""
    sign = MINUS if value < 0 else "+" if signed else ""
    return f"{sign}{abs(value):.3f}"


def duration(seconds: float) -> str:
    """A time in the units a person would use."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
