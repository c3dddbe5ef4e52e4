"""Figures of predicted masks: overlays beside the ground truth, and coloured semantic masks with their legend.

Shapes: `H W` pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from deepavfusion.data.sets.masks import palette

SOUNDING = (255, 64, 32)
"""Colour of what sounds where there are no classes."""
OPACITY = 0.55
"""How much of a mask's colour covers the picture."""
CLASS_OPACITY = 0.8
"""The same where the colour tells the class."""
DIMMED = 0.45
"""Brightness that is left of the background, so that masks stand out on bright pictures too."""
MAX_LEGEND = 24
"""Classes that a legend names."""


@dataclass(frozen=True)
class Overlay:
    """One picture with its masks."""

    name: str
    """What is written beside it."""
    picture: NDArray[np.uint8]
    """`(H, W, 3)`."""
    masks: dict[str, NDArray[np.uint8]]
    """By column heading, `(H, W)` class numbers, 0 the background."""


def overlay(picture: NDArray[np.uint8], mask: NDArray[np.uint8], num_classes: int = 0) -> NDArray[np.uint8]:
    """A picture `(H, W, 3)` with the masks `(H, W)` in colour, outlined in white, and the rest dimmed.

    Args:
        num_classes: background included; 0 for binary masks, which have one colour.
    """
    blended, place = _blended(num_classes), mask.astype(np.intp) << 8
    shown = np.stack([blended[channel].take(place | picture[..., channel]) for channel in range(3)], axis=-1)
    shown[outline(mask)] = 255
    return shown


@lru_cache(maxsize=4)
def _blended(num_classes: int) -> NDArray[np.uint8]:
    """By channel, `(3, 256 C)`: what a picture's 256 levels become under each class number, one class after the other.

    All that `overlay` can show is computed once; a film looks it up.
    """
    colours = palette(num_classes) if num_classes else np.array([(0, 0, 0), SOUNDING], np.uint8)
    opacity, levels = CLASS_OPACITY if num_classes else OPACITY, np.arange(256)
    shown = (1 - opacity) * levels + opacity * colours.T[..., None]
    shown[:, 0] = DIMMED * levels
    return np.rint(shown).astype(np.uint8).reshape(3, -1)


def outline(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels of a mask `(H, W)` beside which there is another number, `(H, W)`."""
    edges = np.zeros(mask.shape, np.bool_)
    down, across = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    for part, differs in ((edges[1:], down), (edges[:-1], down), (edges[:, 1:], across), (edges[:, :-1], across)):
        part |= differs
    return edges & (mask > 0)


def overlay_figure(rows: Sequence[Overlay], classes: Sequence[str] = (), title: str = "") -> Figure:
    """One row per frame: the frame, then one overlay for each of its masks; all rows have the same columns.

    Args:
        rows: at least one.
        classes: names by number for coloured maps, with a legend of those that occur; none for binary masks.
        title: headline.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("an overlay figure needs at least one frame")
    heads = ["picture", *rows[0].masks]
    figure = Figure(figsize=(1.75 * len(heads) + 0.5, 1.75 * len(rows) + 0.9), dpi=100, layout="constrained")
    axes = figure.subplots(len(rows), len(heads), squeeze=False)
    for row, own in zip(axes, rows, strict=True):
        _draw(row[0], own.picture)
        row[0].text(-0.05, 0.5, own.name, rotation=90, ha="right", va="center", fontsize=6, transform=row[0].transAxes)
        for axis, mask in zip(row[1:], own.masks.values(), strict=True):
            _draw(axis, overlay(own.picture, mask, len(classes)))
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=9)
    if classes:
        _legend(figure, rows, classes)
    return figure


def _draw(axis: Axes, picture: NDArray[np.uint8]) -> None:
    axis.imshow(picture, interpolation="nearest")
    axis.set_axis_off()


def _legend(figure: Figure, rows: Sequence[Overlay], classes: Sequence[str]) -> None:
    seen = sorted({int(number) for row in rows for mask in row.masks.values() for number in np.unique(mask)} - {0})
    colours = palette(len(classes)) / 255
    handles = [Patch(color=colours[number], label=classes[number]) for number in seen[:MAX_LEGEND]]
    if len(seen) > MAX_LEGEND:
        handles.append(Patch(color="white", label=f"and {len(seen) - MAX_LEGEND} more"))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=7, frameon=False)
