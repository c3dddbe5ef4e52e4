"""Curves over the time of a recording, as HTML: a box whose positions are percentages, with its labels as text.

During playback a mark moves over all curves of the page (assets/page.js), because all belong to the same recording.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepavfusion.report.markup import Markup, element
from deepavfusion.report.scales import Scale, number, round_scale

MAX_POINTS = 400
"""Points of a drawn curve; of a longer one every k-th is drawn."""
MAX_DOTTED = 60
"""Curves of up to so many points show each as a dot."""
SHARES = Scale(0.0, 1.0, (0.0, 0.5, 1.0))


@dataclass(frozen=True)
class Line:
    """One curve."""

    name: str
    values: NDArray[np.float32]
    """`(T,)`; not finite where there is nothing to draw."""


def draw_timeline(
    title: str, times: NDArray[np.float64], lines: Sequence[Line], duration_seconds: float, up: Scale = SHARES
) -> Markup:
    """Curves over time.

    Args:
        title: what is drawn, for those who do not see it too.
        times: `(T,)` seconds.
        lines: at most five, in the order of their colours.
        duration_seconds: of the recording: where the axis ends.
        up: the axis of values.
    """
    length = max(duration_seconds, float(times[-1]), 1e-3)
    every = math.ceil(len(times) / MAX_POINTS)
    kept = slice(None, None, every)
    paths = [_path(times[kept] / length, line.values[kept], up, tone) for tone, line in enumerate(lines)]
    rules = "".join(f"M0 {1000 * (1 - up.share(tick)):.1f}H1000" for tick in up.ticks)
    svg = element(
        "svg",
        element("path", d=rules, class_="rules"),
        paths,
        viewBox="0 0 1000 1000",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
    return element(
        "div",
        element("div", (_label(number(tick), "top", 1 - up.share(tick)) for tick in up.ticks), class_="y-ticks"),
        element("div", svg, element("i", class_="playhead"), class_="plot", data_seconds=f"{length:.4f}"),
        element("div", (_label(f"{number(t)} s", "left", t / length) for t in _ticks(length)), class_="x-ticks"),
        class_="timeline",
        role="img",
        aria_label=title,
    )


def share_scale(largest: float) -> Scale:
    """An axis from 0 to round above a value: of shares that are all small."""
    return round_scale([0.0, max(largest, 0.01)], 3)


def _path(across: NDArray[np.float64], values: NDArray[np.float32], up: Scale, tone: int) -> list[Markup]:
    points = [
        (1000 * float(x), 1000 * (1 - up.share(float(value)))) if math.isfinite(value) else None
        for x, value in zip(across, values, strict=True)
    ]
    if len(points) == 1 and points[0] is not None:  # one value for the whole
        return [element("path", d=f"M0 {points[0][1]:.1f}H1000", class_=f"line tone-{tone}")]
    steps, pen = [], "M"
    for point in points:
        if point is not None:
            steps.append(f"{pen}{point[0]:.1f} {point[1]:.1f}")
        pen = "M" if point is None else "L"
    drawn = [element("path", d="".join(steps), class_=f"line tone-{tone}")]
    if len(points) <= MAX_DOTTED:
        # A line of no length has round ends and nothing else: a dot that keeps its shape however the box is stretched.
        dots = "".join(f"M{point[0]:.1f} {point[1]:.1f}h0" for point in points if point is not None)
        drawn.append(element("path", d=dots, class_=f"points tone-{tone}"))
    return drawn


def _ticks(length: float) -> list[float]:
    """Round times inside a recording, its start included."""
    return [tick for tick in round_scale([0.0, length], 5).ticks if 0 <= tick <= length * 1.001]


def _label(text: str, side: str, share: float) -> Markup:
    return element("span", text, style=f"{side}:{100 * share:.2f}%")
