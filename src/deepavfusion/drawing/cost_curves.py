"""The figure of `bench curves`: operations and peak memory over the length of the sound, one column per image size."""

from __future__ import annotations

from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

COLOURS = ("#7f7f7f", "#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf")
"""Of the fusion forms, in the order in which they are measured."""
STYLES: dict[str, Literal["-", "--"]] = {"ours": "-", "written out": "--"}
ROWS = (("gflop", "GFLOP"), ("peak_gib", "peak memory, GiB"))


def cost_curves_figure(record: dict[str, Any]) -> Figure:
    """Draw the record that `bench curves` writes.

    A cross marks a pass that does not fit into the memory of the machine, which the dotted line shows.
    """
    points = record["points"]
    sides = sorted({p["image_side"] for p in points})
    colours = dict(zip(dict.fromkeys(p["fusion"] for p in points), COLOURS, strict=False))
    figure = Figure(figsize=(2.6 * len(sides) + 1.6, 5.2), dpi=110, layout="constrained")
    axes = figure.subplots(len(ROWS), len(sides), squeeze=False, sharex=True, sharey="row")
    for column, side in enumerate(sides):
        for row, (key, label) in enumerate(ROWS):
            axis = axes[row, column]
            for fusion, colour in colours.items():
                for form, style in STYLES.items():
                    line = [p for p in points if (p["image_side"], p["fusion"], p["form"]) == (side, fusion, form)]
                    _draw_line(axis, line, key, colour, style)
            if key == "peak_gib":
                axis.axhline(record["memory_gib"], color="black", linestyle=":", linewidth=1)
            if column == 0:
                axis.set_ylabel(label, fontsize=9)
        axes[0, column].set_title(f"picture {side} x {side}", fontsize=9)
        axes[-1, column].set_xlabel("seconds of sound", fontsize=9)
    for axis in axes.flat:
        _scale(axis, sorted({p["audio_seconds"] for p in points}))
    figure.legend(handles=_legend(colours, record["memory_gib"]), loc="outside right center", fontsize=8, frameon=False)
    return figure


def _draw_line(axis: Axes, points: list[dict[str, Any]], key: str, colour: str, style: Literal["-", "--"]) -> None:
    x, y = [p["audio_seconds"] for p in points], [p[key] for p in points]
    # Forms of equal cost lie on one another: the thinner lines above let the others be seen.
    axis.plot(x, y, style, color=colour, linewidth=1.5, marker="o", markersize=3, alpha=0.85)
    out = [(a, b) for a, b, p in zip(x, y, points, strict=True) if not p["fits"]]
    if out:
        axis.plot(*zip(*out, strict=True), "x", color="black", markersize=8, markeredgewidth=1.6, zorder=5)


def _scale(axis: Axes, seconds: list[float]) -> None:
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(seconds, [f"{s:g}" for s in seconds])
    axis.minorticks_off()
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)


def _legend(colours: dict[str, str], memory_gib: float) -> list[Line2D]:
    lines = [Line2D([], [], color=colour, label=fusion) for fusion, colour in colours.items()]
    forms = [Line2D([], [], color="black", linestyle=style, label=form) for form, style in STYLES.items()]
    cross = Line2D([], [], color="black", marker="x", linestyle="", markersize=8, label="out of memory")
    limit = Line2D([], [], color="black", linestyle=":", linewidth=1, label=f"{memory_gib:.0f} GiB")
    return [*lines, *forms, cross, limit]
