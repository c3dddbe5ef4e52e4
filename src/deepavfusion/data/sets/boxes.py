"""Boxes around what sounds, and the truth map that visual localization is scored against.

`x` runs to the right and `y` down, both as fractions of the picture. A box covers the pixels from `trunc(left * size)`
up to but not including `trunc(right * size)`, likewise down: the rule of the public evaluation code (EZ-VSL, SLAVC).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Box:
    """A box in fractions of the picture, 0 to 1; empty if it ends before it starts."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def of_corners(cls, x1: float, y1: float, x2: float, y2: float) -> Box:
        """Clip two corners to the frame. Raises ValueError for values that are not numbers."""
        corners = (x1, y1, x2, y2)
        if not all(isinstance(value, int | float) and not math.isnan(value) for value in corners):
            raise ValueError(f"box {list(corners)} must be four numbers")
        return cls(*(min(max(float(value), 0.0), 1.0) for value in corners))

    @classmethod
    def of_size(cls, x: float, y: float, width: float, height: float) -> Box:
        """Clip a corner, a width and a height to the frame. Raises ValueError for values that are not numbers."""
        cls.of_corners(x, y, width, height)  # refuses what cannot be added
        return cls.of_corners(x, y, x + width, y + height)

    def pixels(self, size: int) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 on a square grid, ends exclusive."""
        return int(self.left * size), int(self.top * size), int(self.right * size), int(self.bottom * size)

    def is_empty(self, size: int) -> bool:
        """Whether it covers no pixel of a square grid."""
        x1, y1, x2, y2 = self.pixels(size)
        return x2 <= x1 or y2 <= y1


@dataclass(frozen=True)
class SourceBoxes:
    """The boxes of one sounding source."""

    label: str | None
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class BoxAnnotation:
    """The sounding sources of one picture."""

    id: str
    sources: tuple[SourceBoxes, ...]
    agreement: int = 1
    """How many boxes must agree on a pixel for it to count in full; fewer count in proportion (Flickr-SoundNet: 2)."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of the sources, each once, in order."""
        return tuple(dict.fromkeys(source.label for source in self.sources if source.label is not None))

    def boxes(self, label: str | None = None) -> tuple[Box, ...]:
        """The boxes of all sources, or of those of one class."""
        return tuple(box for source in self.sources if label in (None, source.label) for box in source.boxes)

    def truth(self, size: int = 224, label: str | None = None) -> npt.NDArray[np.float32]:
        """The truth map `(size, size)` in [0, 1] of all sources, or of those of one class.

        A pixel holds min(number of boxes over it / agreement, 1).
        """
        votes = np.zeros((size, size), np.float32)
        for box in self.boxes(label):
            x1, y1, x2, y2 = box.pixels(size)
            votes[y1:y2, x1:x2] += 1
        return np.minimum(votes / self.agreement, 1)

    def has_truth(self, size: int = 224) -> bool:
        """Whether any pixel of the truth map is set."""
        return not all(box.is_empty(size) for box in self.boxes())


def with_truth(
    annotations: Iterable[BoxAnnotation], size: int = 224
) -> tuple[tuple[BoxAnnotation, ...], tuple[str, ...]]:
    """Part annotations into those that can be scored and the ids of those without any truth, to be counted and named.

    Args:
        annotations: as read.
        size: of the truth map.
    """
    kept, dropped = [], []
    for annotation in annotations:
        if annotation.has_truth(size):
            kept.append(annotation)
        else:
            dropped.append(annotation.id)
    return tuple(kept), tuple(dropped)
