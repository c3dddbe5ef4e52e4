"""Pixel-wise ground truth of a clip, cropped like its image.

Shape legend: `H W` pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deepavfusion.data.clips import Clip
from deepavfusion.data.crops import FrameCrop


class Truth(Protocol):
    """Where the masks of clips come from."""

    def times(self, clip: Clip) -> Sequence[float]:
        """When the annotated frames are shown, in seconds, ascending. Raises ClipError if there is no annotation."""

    def read(self, clip: Clip, frame_seconds: float, start_seconds: float, end_seconds: float) -> NDArray[np.uint8]:
        """The mask of an annotated frame, whole, of any size.

        Args:
            clip: the clip.
            frame_seconds: one of `times`.
            start_seconds, end_seconds: the stretch of sound that goes with the frame.

        Returns:
            `(H, W)` numbers, 0 where nothing is.

        Raises:
            ClipError: it cannot be read.
        """


def nearest_time(times: Sequence[float], seconds: float) -> float:
    """The one of `times` nearest to `seconds`, the earlier of two."""
    return min(times, key=lambda time: abs(time - seconds))


def crop_mask(mask: NDArray[np.uint8], crop: FrameCrop) -> NDArray[np.uint8]:
    """The part of a mask that a crop of its picture shows, at the crop's size: `(H, W)` of `crop.output_size`.

    Every output pixel takes the number at its own centre, so that numbers are never mixed.
    """
    (height, width), (out_height, out_width) = mask.shape, crop.output_size
    rows = (crop.top + (np.arange(out_height) + 0.5) / out_height * crop.height) * height
    columns = (crop.left + (np.arange(out_width) + 0.5) / out_width * crop.width) * width
    picked = mask[np.ix_(_inside(rows, height), _inside(columns, width))]
    return np.ascontiguousarray(picked[:, ::-1] if crop.flip else picked)


def _inside(places: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    return np.clip(np.floor(places).astype(np.int64), 0, size - 1)
