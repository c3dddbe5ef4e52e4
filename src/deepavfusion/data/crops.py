"""Crops: which part of a frame is taken, and the size to which it is resized.

A crop is given in fractions of the displayed frame, so that the same crop can be applied to a decoded video frame and
to a stored JPEG of another size. Nothing here reads files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

BOX_ROOM = 1.3
"""Side of the square that is shown of a box, against its longest side; a test view cuts the border of it."""
# A crop may overshoot the picture by rounding alone.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class FrameCrop:
    """A box of the displayed picture, and the size it is brought to.

    `top`, `left`, `height` and `width` are fractions of the displayed picture's height and width, in 0 to 1.
    `output_size` is (height, width) in pixels. `flip` mirrors the result left to right.
    """

    top: float
    left: float
    height: float
    width: float
    output_size: tuple[int, int]
    flip: bool = False

    def __post_init__(self) -> None:
        for name, start, extent in (("height", self.top, self.height), ("width", self.left, self.width)):
            if not (math.isfinite(start) and math.isfinite(extent)):
                raise ValueError(f"a crop's box must be finite, got {self}")
            if extent <= 0 or start < -_ROUNDING or start + extent > 1 + _ROUNDING:
                raise ValueError(f"a crop's {name} must be positive and inside the frame, got {self}")
        if len(self.output_size) != 2 or min(self.output_size) < 1:
            raise ValueError(f"output_size must be a positive (height, width), got {self.output_size}")

    @classmethod
    def whole(cls, size: tuple[int, int], flip: bool = False) -> FrameCrop:
        """The whole picture, brought to `size` = (height, width) whatever its own shape is."""
        return cls(top=0.0, left=0.0, height=1.0, width=1.0, output_size=size, flip=flip)

    def moved_to(self, x: float, y: float) -> FrameCrop:
        """The crop with its centre at a place of the picture, in fractions, or as near as the border allows."""
        left, top = (min(max(c - e / 2, 0.0), 1 - e) for c, e in ((x, self.width), (y, self.height)))
        return replace(self, left=left, top=top)


@dataclass(frozen=True)
class Region:
    """A part of the displayed picture that is taken for all of it, such as a detector's box, in fractions."""

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        if not (0 <= self.left < self.right <= 1 and 0 <= self.top < self.bottom <= 1):
            raise ValueError(f"a region must be left, top, right, bottom in [0, 1], ascending, got {self}")

    @classmethod
    def about(cls, box: tuple[float, float, float, float], height: int, width: int) -> Region:
        """The square about a box that has some room round its longest side, as far as the picture reaches.

        Args:
            box: left, top, right, bottom in fractions of the picture.
            height, width: of the picture, in pixels.
        """
        sides = (box[2] - box[0]) * width, (box[3] - box[1]) * height
        side = BOX_ROOM * max(sides)
        extents = min(1.0, side / width), min(1.0, side / height)
        left, top = (min(max((box[k] + box[k + 2] - extent) / 2, 0.0), 1 - extent) for k, extent in enumerate(extents))
        return cls(left, top, min(left + extents[0], 1.0), min(top + extents[1], 1.0))

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the part in pixels, at least 1, of a picture of so many."""
        return max(1, round((self.bottom - self.top) * height)), max(1, round((self.right - self.left) * width))

    def within(self, crop: FrameCrop) -> FrameCrop:
        """The crop of the whole picture that shows what `crop` shows of this part."""
        width, height = self.right - self.left, self.bottom - self.top
        left, top = self.left + crop.left * width, self.top + crop.top * height
        return replace(crop, left=left, top=top, width=crop.width * width, height=crop.height * height)


WHOLE = Region(0.0, 0.0, 1.0, 1.0)
