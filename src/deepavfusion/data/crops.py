"""Which part of a picture is taken, and the size it is brought to.

A crop is stated in fractions of the displayed picture, so that one and the same crop can be applied to a decoded
video frame and to a stored JPEG of another size. Nothing here reads files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
                raise ValueError(f"a crop's {name} must be positive and inside the picture, got {self}")
        if len(self.output_size) != 2 or min(self.output_size) < 1:
            raise ValueError(f"output_size must be a positive (height, width), got {self.output_size}")

    @classmethod
    def whole(cls, size: tuple[int, int], flip: bool = False) -> FrameCrop:
        """The whole picture, brought to `size` = (height, width) whatever its own shape is."""
        return cls(top=0.0, left=0.0, height=1.0, width=1.0, output_size=size, flip=flip)
