"""From a decoded video frame to the pixels of the displayed image: rotated, cropped, scaled, RGB.

Scaling is swscale's bilinear filter (widened when shrinking, hence antialiased), in the same pass as the conversion to
RGB: the whole frame is scaled so that the crop's box has its output size, then the box is cut out. An alpha channel is
dropped: the colours are taken as they are stored. Interlaced frames are not deinterlaced. The sample aspect ratio is
ignored. A display matrix is applied as the nearest combination of quarter turns and mirroring. High dynamic range and
wide colours are converted after scaling (`dynamic_range`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.media.dynamic_range import ColourCoding, standard_range
from deepavfusion.data.media.mp4_header import Matrix

MAX_SCALED_PIXELS = 50_000_000
"""The whole picture, scaled so that the crop has its output size, may have so many pixels."""

# PyAV 17 made swscale take all processors by default.
_ONE_THREAD = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


@dataclass(frozen=True)
class Orientation:
    """How a stored frame is turned for display: rows and columns exchanged first, then each axis mirrored or not."""

    transpose: bool = False
    mirror_rows: bool = False
    mirror_columns: bool = False

    @classmethod
    def from_matrix(cls, matrix: Matrix) -> Orientation:
        """The orientation a display matrix asks for, or the nearest to it; y points downwards."""
        a, b, c, d = matrix
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(transpose=True, mirror_rows=b < 0, mirror_columns=c < 0)
        return cls(transpose=False, mirror_rows=d < 0, mirror_columns=a < 0)

    @classmethod
    def of(cls, frame: Any) -> Orientation:
        """The orientation of a decoded frame."""
        for entry in frame.side_data:
            if entry.type.name == "DISPLAYMATRIX":
                a, b, _, c, d = np.frombuffer(bytes(entry), np.int32, count=5).tolist()
                return cls.from_matrix((a, b, c, d))
        return cls()

    def displayed_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width for display of a frame stored with a height and width."""
        return (width, height) if self.transpose else (height, width)


def pixels(frame: Any, crop: FrameCrop | None = None, coding: ColourCoding | None = None) -> npt.NDArray[np.uint8]:
    """A frame's displayed picture, or a crop of it, `(H, W, 3)` RGB in a fresh contiguous array.

    Args:
        frame: as decoded.
        crop: which part, and its size; None is the whole at its own size.
        coding: what its numbers stand for, if not what a screen shows.

    Raises ValueError if the crop is so small a part that the scaled whole would exceed MAX_SCALED_PIXELS.
    """
    orientation = Orientation.of(frame)
    if crop is None:
        crop = FrameCrop.whole(orientation.displayed_size(frame.height, frame.width))
    height, width = crop.output_size
    whole_height, whole_width = max(height, round(height / crop.height)), max(width, round(width / crop.width))
    if whole_height * whole_width > MAX_SCALED_PIXELS:
        raise ValueError(f"{crop} needs the whole frame at {whole_width} x {whole_height} pixels, which is too large")
    top = min(max(round(crop.top * whole_height), 0), whole_height - height)
    left = min(max(round(crop.left * whole_width), 0), whole_width - width)
    # The same box in the stored frame: undo the mirroring, then the exchange of axes.
    if orientation.mirror_rows:
        top = whole_height - height - top
    if orientation.mirror_columns:
        left = whole_width - width - left
    deep = coding is not None
    if orientation.transpose:
        box = _box(_scaled(frame, whole_width, whole_height, deep), left, top, width, height).transpose(1, 0, 2)
    else:
        box = _box(_scaled(frame, whole_height, whole_width, deep), top, left, height, width)
    rows = slice(None, None, -1 if orientation.mirror_rows else 1)
    columns = slice(None, None, -1 if orientation.mirror_columns != crop.flip else 1)
    turned = np.array(box[rows, columns], order="C")
    return turned if coding is None else standard_range(turned, coding)


def _scaled(frame: Any, height: int, width: int, deep: bool) -> Any:
    """The whole frame at a size as RGB, with 16 bits where the shades are still to be converted."""
    format_ = "rgb48le" if deep else "rgb24"
    return frame.reformat(width=width, height=height, format=format_, interpolation="BILINEAR", **_ONE_THREAD)


def _box(frame: Any, top: int, left: int, height: int, width: int) -> npt.NDArray[Any]:
    """A view of a box of an RGB frame, without copying the rest."""
    plane, kind = frame.planes[0], np.dtype("<u2" if frame.format.name == "rgb48le" else "u1")
    lines = np.frombuffer(plane, kind).reshape(-1, plane.line_size // kind.itemsize)[top : top + height]
    return lines[:, left * 3 : (left + width) * 3].reshape(height, width, 3)
