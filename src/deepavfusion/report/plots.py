"""The plots of a page: curves, intervals, times at which sources sound.

A plot is a box whose positions are percentages, with the labels as text beside it, so that it fits any width without
its letters changing size. It is complete without scripts; the script adds reading off values.
"""

from __future__ import annotations

import json
import math

from deepavfusion.report.markup import Markup, element, fragment
from deepavfusion.report.scales import Scale, exact_scale, number, round_scale, score
from deepavfusion.report.sections import Curve, Estimate, ScoreTable, Series, SoundLine

MAX_POINTS = 400
"""Points of a curve; of a longer one every k-th is drawn, the last always."""
MAX_DOTTED = 40
"""Curves of up to so many points show each as a dot."""


def draw_curve(curve: Curve) -> Markup:
    """A figure with legend, plot and the table of its values."""
    every = math.ceil(len(curve.x) / MAX_POINTS)
    last = len(curve.x) - 1
    kept = [i for i in range(len(curve.x)) if (last - i) % every == 0]
    x = [curve.x[i] for i in kept]
    series = [Series(s.name, tuple(s.values[i] for i in kept), s.tone) for s in curve.series]
    across = exact_scale(x, 2 if curve.small else 7)
    values = [value for s in series for value in s.values]
    finite = any(map(math.isfinite, values))
    up = round_scale(values if finite else [0.0], 3 if curve.small else 5, curve.from_zero)
    data = {
        "name": curve.x_name,
        "names": [s.name for s in series],
        "x": [number(value) for value in x],
        "at": [round(100 * across.share(value), 3) for value in x],
        "values": [[number(value) for value in s.values] for s in series],
        "up": [[round(100 * up.share(v), 3) if math.isfinite(v) else None for v in s.values] for s in series],
    }
    legend = element(
        "div",
        (
            element("span", *_key(curve, s), element("b", number(s.values[-1])), class_=f"key tone-{s.tone}")
            for s in series
        ),
        element("span", f"{curve.x_name} {number(x[-1])}", class_="at"),
        class_="legend",
    )
    plot = element(
        "div",
        _grid(across, up, [_lines(across, up, x, s) for s in series]),
        (element("span", class_=f"dot tone-{s.tone}", hidden=True) for s in series),
        element("span", class_="cursor", hidden=True),
        class_="plot",
        data_curve=json.dumps(data, separators=(",", ":")),
        tabindex=0,
        role="slider",
        aria_label=f"{curve.title}: read off values by {curve.x_name}",
        aria_valuemin=0,
        aria_valuemax=len(x) - 1,
        aria_valuenow=len(x) - 1,
        aria_valuetext=_reading(curve.x_name, x[-1], series),
    )
    counted = f"{len(x)} rows" if every == 1 else f"every {every}th of {len(curve.x)} rows"
    head = element("tr", (element("th", name, scope="col") for name in (curve.x_name, *(s.name for s in series))))
    body = [
        element("tr", element("th", number(x[i]), scope="row"), (element("td", number(s.values[i])) for s in series))
        for i in range(len(x))
    ]
    table = element("table", element("thead", head), element("tbody", body), class_="values")
    return element(
        "figure",
        element("figcaption", element("strong", curve.title), element("span", curve.note) if curve.note else None),
        legend,
        element(
            "div",
            element("div", (_label(number(t), top=1 - up.share(t)) for t in up.ticks), class_="y-ticks"),
            plot,
            element("div", (_label(number(t), left=across.share(t)) for t in across.ticks), class_="x-ticks"),
            class_="axes",
        ),
        element("details", element("summary", f"Values, {counted}"), element("div", table, class_="scroll")),
        class_="curve small" if curve.small else "curve",
    )


def _key(curve: Curve, series: Series) -> tuple[Markup | str, ...]:
    """What names a line in the legend: nothing where the title names the only one."""
    return () if len(curve.series) == 1 else (element("i"), series.name + " ")


def _reading(x_name: str, x: float, series: list[Series]) -> str:
    return f"{x_name} {number(x)}: " + ", ".join(f"{s.name} {number(s.values[-1])}" for s in series)


def _grid(across: Scale, up: Scale, lines: list[Markup]) -> Markup:
    rules = "".join(f"M0 {1000 * (1 - up.share(tick)):.1f}H1000" for tick in up.ticks)
    return element(
        "svg",
        element("path", d=rules, class_="rules"),
        lines,
        viewBox="0 0 1000 1000",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def _lines(across: Scale, up: Scale, x: list[float], series: Series) -> Markup:
    """The line of a series, broken where a value is not finite, and its points where they are few."""
    points = [
        (1000 * across.share(a), 1000 * (1 - up.share(b))) if math.isfinite(b) else None
        for a, b in zip(x, series.values, strict=True)
    ]
    steps, pen = [], "M"
    for point in points:
        if point is not None:
            steps.append(f"{pen}{point[0]:.1f} {point[1]:.1f}")
        pen = "M" if point is None else "L"
    line = element("path", d="".join(steps), class_=f"line tone-{series.tone}")
    if len(points) > MAX_DOTTED:
        return line
    # A line of no length has round ends and nothing else: a dot that keeps its shape however the box is stretched.
    dots = "".join(f"M{point[0]:.1f} {point[1]:.1f}h0" for point in points if point is not None)
    return fragment(line, element("path", d=dots, class_=f"points tone-{series.tone}"))


def _label(text: str, **place: float) -> Markup:
    return element("span", text, style=_style(**place))


def _style(**places: float) -> str:
    return ";".join(f"{name}:{100 * share:.2f}%" for name, share in places.items())


def score_axis(table: ScoreTable) -> Scale:
    """One axis for all rows of a table: 0 to 1 for shares, else round ends around all intervals, 0 included."""
    ends = []
    for group in table.groups:
        for row in group.rows:
            ends += [end for end in (row.score.value, row.score.low, row.score.high) if end is not None]
    if min(ends) >= 0 and max(ends) <= 1:
        return Scale(0.0, 1.0, (0.0, 0.5, 1.0))
    return round_scale(ends, 4, from_zero=True)


def draw_interval(estimate: Estimate, axis: Scale) -> Markup:
    """A dot with its interval on an axis; a picture of numbers that stand beside it."""
    span = None
    if estimate.low is not None and estimate.high is not None:
        low, high = axis.share(estimate.low), axis.share(estimate.high)
        span = element("span", class_="span", style=_style(left=low, width=high - low))
    dot = element("span", class_="point", style=_style(left=axis.share(estimate.value)))
    return element("div", span, dot, class_="track", aria_hidden="true")


def draw_score_axis(axis: Scale) -> Markup:
    """The tick labels above a column of intervals."""
    ticks = [_label(number(tick), left=axis.share(tick)) for tick in axis.ticks]
    return element("div", ticks, class_="track-ticks", aria_hidden="true")


def interval_text(estimate: Estimate, signed: bool = False) -> str:
    """`0.551 to 0.673`, or that there is none."""
    if estimate.low is None or estimate.high is None:
        return "no interval"
    return f"{score(estimate.low, signed)} to {score(estimate.high, signed)}"


def draw_sounding(sources: tuple[SoundLine, ...], duration_seconds: float) -> Markup:
    """A row per source with the stretches in which it is heard, under a clip whose playing moves the mark."""
    rows = []
    for source in sources:
        bars = [
            element(
                "span",
                style=_style(
                    left=start / duration_seconds, width=(min(end, duration_seconds) - start) / duration_seconds
                ),
            )
            for start, end in source.sounding
        ]
        heard = ", ".join(f"{start:.2f} to {end:.2f} s" for start, end in source.sounding)
        rows.append(element("dt", source.name, class_="heard" if bars else None))
        rows.append(
            element("dd", bars, element("i", class_="playhead"), role="img", aria_label=f"heard {heard}")
            if bars
            else element("dd", element("em", "silent"), class_="silent")
        )
    return element("dl", rows, class_="sounding")
