"""Which sources are separated from a recording, and the image that the model gets for each.

Shape legend: `H W` pixels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepavfusion.data.crops import FrameCrop, Region
from deepavfusion.data.jpeg import crop_picture
from deepavfusion.data.photos import read_photo
from deepavfusion.data.views import centre_crop
from deepavfusion.images import MEAN_COLOUR
from deepavfusion.inference.arrays import Arrays, pictures_of
from deepavfusion.models.separator_config import SeparatorConfig

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in fractions of the picture."""
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
MIN_BOX_SIDE = 1 / 16
"""Smaller parts of a picture would have to be enlarged beyond use."""


@dataclass(frozen=True)
class AskedSources:
    """How the sources are given: images of them, or parts of the recording's own frame."""

    pictures: tuple[NDArray[np.uint8], ...] = ()
    """`(h, w, 3)` each."""
    boxes: tuple[Box, ...] = ()
    """One per source, if there are no pictures."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sources, and so of their files."""
        return tuple(f"source_{n}" for n in range(len(self.pictures) or len(self.boxes)))


def ask_for(pictures: Sequence[Any], boxes: Sequence[Box]) -> AskedSources:
    """Sources given by `pictures` (files, Pillow images, arrays or tensors) or `boxes`; with neither, the whole frame.

    Raises:
        ValueError: both, or what is no picture or no box.
        MediaError: a file that cannot be read.
    """
    if len(pictures) and len(boxes):
        raise ValueError("boxes: give either parts of the recording's own frames or other pictures, not both")
    check_boxes(boxes)
    if len(pictures):
        return AskedSources(pictures=tuple(map(_picture, pictures)))
    return AskedSources(boxes=tuple(boxes) or (WHOLE,))


def check_boxes(boxes: Sequence[Box]) -> None:
    """Raise ValueError for a box that is no part of a picture."""
    for box in boxes:
        if len(box) != 4 or not all(0 <= value <= 1 for value in box):
            raise ValueError(f"boxes: {list(box)} must be left, top, right, bottom in fractions from 0 to 1")
        if box[2] - box[0] < MIN_BOX_SIDE or box[3] - box[1] < MIN_BOX_SIDE:
            raise ValueError(f"boxes: {list(box)} must be at least {MIN_BOX_SIDE} wide and high, right after left")


@dataclass(frozen=True)
class SourcePart:
    """What is shown of a recording's picture to ask for one source."""

    crop: FrameCrop
    hidden: NDArray[np.bool_] | None = None
    """`(H, W)` of the crop: where other sources are painted over; None is nowhere."""

    def painted(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Frames `(..., H, W, 3)` of the crop with other sources hidden."""
        if self.hidden is None:
            return frames
        return np.where(self.hidden[..., None], np.array(MEAN_COLOUR, np.uint8), frames)


def source_parts(boxes: Sequence[Box], height: int, width: int, config: SeparatorConfig) -> list[SourcePart]:
    """What is shown for each box, as in the model's training."""
    crops = [_crop(box, height, width, config) for box in boxes]
    if config.shows != "source":
        return [SourcePart(crop) for crop in crops]
    covered = [np.any([_covers(box, crop) for box in boxes], axis=0) for crop in crops]
    return [
        SourcePart(crop, hidden & ~_covers(own, crop)) for own, crop, hidden in zip(boxes, crops, covered, strict=True)
    ]


def _crop(box: Box, height: int, width: int, config: SeparatorConfig) -> FrameCrop:
    size = config.encoder.image_size
    if config.shows == "source":
        return centre_crop(height, width, size).moved_to((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    if config.shows == "box" and box != WHOLE:
        region = Region.about(box, height, width)
        rows, columns = region.size(height, width)
        return region.within(centre_crop(rows, columns, size))
    return Region(*box).within(FrameCrop.whole(size))


def _covers(box: Box, crop: FrameCrop) -> NDArray[np.bool_]:
    """`(H, W)` of the crop's pixels: which have their centre in a box."""
    (left, top, right, bottom), (rows, columns) = box, crop.output_size
    x = crop.left + (np.arange(columns) + 0.5) / columns * crop.width
    y = crop.top + (np.arange(rows) + 0.5) / rows * crop.height
    return ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))


def given_picture(picture: NDArray[np.uint8], config: SeparatorConfig) -> NDArray[np.uint8]:
    """A given picture at the model's size `(H, W, 3)`: squeezed whole, or its centre where things' size counts."""
    size = config.encoder.image_size
    height, width, _ = picture.shape
    seen = centre_crop(height, width, size) if config.shows == "source" else FrameCrop.whole(size)
    return crop_picture(picture, seen)


def _picture(given: Any) -> NDArray[np.uint8]:
    if isinstance(given, (str, os.PathLike)):
        return read_photo(given)
    return pictures_of(Arrays(given, name="pictures"))[0]
