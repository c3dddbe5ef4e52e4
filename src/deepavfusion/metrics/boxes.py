"""Boxes of the localization data sets as masks on the pixel grid on which they are scored.

Rules of the public evaluation code (EZ-VSL, SLAVC): corners are scaled to the grid and truncated to whole pixels, the
end is exclusive. Boxes are float64 `(K, 4)` throughout, `K` boxes of one picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

GRID = 224
"""Pixels on a side of the grid on which all localization is scored."""

Boxes = Tensor | Sequence[Sequence[float]]


def as_boxes(boxes: Boxes) -> Tensor:
    """Boxes as a float64 tensor `(K, 4)`.

    Raises:
        ValueError: not rows of four numbers, or not numbers.
    """
    rows = torch.as_tensor(boxes, dtype=torch.float64)
    rows = rows.reshape(0, 4) if rows.numel() == 0 else rows
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise ValueError(f"expected rows of four numbers, got shape {tuple(rows.shape)}")
    if bool(rows.isnan().any()):
        raise ValueError(f"a box that is not a number: {rows[rows.isnan().any(dim=1)][0].tolist()}")
    return rows


def from_width_height(boxes: Boxes) -> Tensor:
    """Turn (x, y, width, height) into corners (x1, y1, x2, y2), as the MUSIC boxes need."""
    rows = as_boxes(boxes)
    return torch.cat([rows[:, :2], rows[:, :2] + rows[:, 2:]], dim=1)


def out_of_range(boxes: Boxes) -> Tensor:
    """bool `(K,)`: boxes with a corner outside [0, 1]."""
    rows = as_boxes(boxes)
    return ((rows < 0) | (rows > 1)).any(dim=1)


def degenerate(boxes: Boxes, size: int = GRID) -> Tensor:
    """bool `(K,)`: boxes (fractions) that cover no pixel."""
    corners = _pixels(boxes, size)
    return (corners[:, 2] <= corners[:, 0]) | (corners[:, 3] <= corners[:, 1])


def union_mask(boxes: Boxes, size: int = GRID) -> Tensor:
    """The pixels inside any of the boxes (VGG-SS and MUSIC).

    Args:
        boxes: `(K, 4)` fractions x1, y1, x2, y2, clipped to [0, 1]. A degenerate box covers nothing.
        size: pixels on a side.

    Returns:
        bool `(size, size)`, rows first; all false means that the sample has no truth.
    """
    return _coverage(_pixels(boxes, size), size) > 0


def consensus_mask(boxes: Boxes, size: int = GRID, annotated_size: int = 256) -> Tensor:
    """How far annotators agree on each pixel: min(boxes over the pixel / 2, 1) (Flickr-SoundNet).

    Args:
        boxes: `(K, 4)` xmin, ymin, xmax, ymax in pixels of the annotated grid, one or more per annotator.
        size: pixels on a side of the result.
        annotated_size: pixels on a side of the annotated grid.

    Returns:
        float64 `(size, size)` in {0, 0.5, 1}.
    """
    corners = (size * as_boxes(boxes) / annotated_size).clamp(0, size).long()
    return (_coverage(corners, size).double() / 2).clamp(max=1)


def _pixels(boxes: Boxes, size: int) -> Tensor:
    return (as_boxes(boxes).clamp(0, 1) * size).long()  # long() truncates


def _coverage(corners: Tensor, size: int) -> Tensor:
    """int64 `(size, size)`: boxes over each pixel."""
    place = torch.arange(size)
    columns = (place >= corners[:, 0:1]) & (place < corners[:, 2:3])
    rows = (place >= corners[:, 1:2]) & (place < corners[:, 3:4])
    return (rows[:, :, None] & columns[:, None, :]).sum(dim=0)
