"""Figures of localization: heat maps over frames with the outline of the ground truth.

Shape legend: `H W` pixels, `R C` rows and columns of a map, `G` side of the scoring grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

OPACITY = 0.6
"""Of the hottest place of a heat map."""
SHEET_COLUMNS = 6
_COLOURS = (255 * colormaps["inferno"](np.arange(256))[:, :3]).astype(np.float32)
"""`(256, 3)`, from cold to hot."""
_OUTLINE = "#35d07f"


@dataclass(frozen=True)
class SoundingPicture:
    """A picture, its maps and its truth."""

    name: str
    picture: NDArray[np.uint8]
    """`(H, W, 3)`."""
    heat: NDArray[np.float32]
    """`(R, C)` in [0, 1] with its own sound."""
    silent: NDArray[np.float32] | None
    """`(R, C)` with silence."""
    truth: NDArray[np.float32] | None
    """`(G, G)` in [0, 1]; None where there is none."""
    note: str = ""
    """Shown above the map."""


def heat_overlay(
    picture: NDArray[np.uint8], heat: NDArray[np.float32], limits: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """A heat map over its image: the higher the score, the less of the image's own colour shows.

    Args:
        picture: `(H, W, 3)`.
        heat: `(R, C)`; brought to `(H, W)` bilinearly.
        limits: values that are coldest and hottest; default: the map's own smallest and largest.

    Returns:
        `(H, W, 3)` uint8.
    """
    height, width = picture.shape[:2]
    known = np.nan_to_num(heat.astype(np.float32))
    fine = _between(height, heat.shape[0]) @ known @ _between(width, heat.shape[1]).T
    low, high = limits or (float(fine.min()), float(fine.max()))
    share = np.clip((fine - low) / max(high - low, 1e-6), 0, 1)
    place = np.minimum(share * len(_COLOURS), len(_COLOURS) - 1).astype(np.intp)
    # What is left of the picture's own colour, what of its grey, and what the heat's colour covers: add up to 1.
    cover = OPACITY * share
    own = (1 - cover) * (0.55 + 0.45 * share)
    planes = picture.transpose(2, 0, 1).astype(np.float32)  # faster than broadcasting over three numbers a pixel
    grey = (1 - cover - own) / 3 * (planes[0] + planes[1] + planes[2])
    mixed = np.empty(picture.shape, np.uint8)
    for channel, plane in enumerate(planes):
        plane *= own
        plane += grey
        plane += cover * _COLOURS[:, channel].take(place)
        mixed[..., channel] = np.rint(plane, out=plane)
    return mixed


@lru_cache(maxsize=32)
def _between(size: int, count: int) -> NDArray[np.float32]:
    """Weights `(size, count)` that bring `count` values in a row to `size`, the outermost on the outermost."""
    places = np.linspace(0, count - 1, size) if size > 1 else np.zeros(1)
    return np.clip(1 - np.abs(places[:, None] - np.arange(count)), 0, 1).astype(np.float32)


def ranking_figure(groups: Sequence[tuple[str, Sequence[SoundingPicture]]], title: str) -> Figure:
    """Samples by rank: a row per group, such as best, median and worst; frame, own sound and silence of each sample."""
    columns = 3 * max(len(members) for _, members in groups)
    figure, axes = _grid(len(groups), columns, 0.25, title)
    for row, (group, members) in zip(axes, groups, strict=True):
        for axis in row:
            axis.set_axis_off()
        for place, sample in enumerate(members):
            frame, own, silent = row[3 * place : 3 * place + 3]
            _show(frame, sample.picture, sample.truth, f"{group}: {sample.name}"[-34:])
            _show(own, heat_overlay(sample.picture, sample.heat), sample.truth, sample.note or "own sound")
            if sample.silent is not None:
                limits = (float(np.nanmin(sample.heat)), float(np.nanmax(sample.heat)))
                _show(silent, heat_overlay(sample.picture, sample.silent, limits), sample.truth, "silence, same scale")
    return figure


def contact_sheet(samples: Sequence[SoundingPicture], title: str) -> Figure:
    """Heat maps of many samples with their own sound."""
    rows = -(-len(samples) // SHEET_COLUMNS)
    figure, axes = _grid(rows, SHEET_COLUMNS, 0.4, title)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, sample in zip(axes.flat, samples, strict=False):
        head = f"{sample.name[-26:]}\n{sample.note}"
        _show(axis, heat_overlay(sample.picture, sample.heat), sample.truth, head)
    return figure


def _grid(rows: int, columns: int, head: float, title: str) -> tuple[Figure, NDArray[Any]]:
    """Axes of 1.7 inches with `head` inches above each, placed by hand: a layout engine would draw it all twice."""
    width, height, margin = 1.75 * columns, (1.75 + head) * rows + 0.35, 0.05
    figure = Figure(figsize=(width, height), dpi=100)
    top = 1 - (0.35 + head) / height
    figure.subplots_adjust(margin / width, margin / height, 1 - margin / width, top, 0.04, head / 1.7)
    figure.suptitle(title, fontsize=10, y=1 - 0.08 / height, va="top")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _show(axis: Axes, picture: NDArray[np.uint8], truth: NDArray[np.float32] | None, head: str) -> None:
    height, width = picture.shape[:2]
    axis.imshow(picture, interpolation="nearest")
    if truth is not None and truth.any():
        rows, columns = truth.shape
        across = (np.arange(columns) + 0.5) / columns * width - 0.5
        down = (np.arange(rows) + 0.5) / rows * height - 0.5
        axis.contour(across, down, truth, levels=[0.25], colors=[_OUTLINE], linewidths=1.2)
    axis.set_title(head, fontsize=6.5)
