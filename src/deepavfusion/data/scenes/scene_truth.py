"""Masks that distinguish Bandstand's sources, for scoring and for training one map per class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from deepavfusion.data.clips import Clip, ClipError
from deepavfusion.data.scenes.annotation import SourceTruth, read_annotation, read_mask
from deepavfusion.data.scenes.sounding_masks import SoundingMasks

SOUNDS = 128
"""Added to the number of a source that sounds."""


class SceneSources(SoundingMasks):
    """1 + the number of the source seen at each pixel, plus `SOUNDS` if it sounds at any moment of the stretch."""

    def read(self, clip: Clip, frame_seconds: float, start_seconds: float, end_seconds: float) -> NDArray[np.uint8]:
        """`(H, W)` of the world's picture. Raises ClipError as `SoundingMasks`."""

        def value(source: SourceTruth) -> int:
            return 1 + source.number + SOUNDS * source.heard_between(start_seconds, end_seconds)

        return _paint(clip, frame_seconds, value)


class SoundingClasses(SoundingMasks):
    """1 + the number of the class where a source is seen that sounds at any moment of the stretch, else 0."""

    def __init__(self, classes: Sequence[str]) -> None:
        """Raises ValueError on more classes than a byte can number."""
        if len(classes) > 255:
            raise ValueError(f"{len(classes)} classes are more than the 255 that a mask can hold")
        self.numbers = {name: number for number, name in enumerate(classes)}

    def read(self, clip: Clip, frame_seconds: float, start_seconds: float, end_seconds: float) -> NDArray[np.uint8]:
        """`(H, W)` of the world's picture. Raises ClipError as `SoundingMasks`, or on a class that is not listed."""

        def value(source: SourceTruth) -> int:
            if not (source.visible and source.heard_between(start_seconds, end_seconds)):
                return 0
            if source.class_name not in self.numbers:
                raise ClipError(clip.id, f"{source.class_name} is not among the {len(self.numbers)} classes")
            return 1 + self.numbers[source.class_name]

        return _paint(clip, frame_seconds, value)


def _paint(clip: Clip, frame_seconds: float, value: Callable[[SourceTruth], int]) -> NDArray[np.uint8]:
    try:
        truth = read_annotation(clip.path)
        mask = read_mask(clip.path, truth, truth.nearest_annotated(frame_seconds))
    except (ValueError, OSError) as error:
        raise ClipError(clip.id, str(error)) from error
    values = np.zeros(1 + len(truth.sources), np.uint8)
    for source in truth.sources:
        values[1 + source.number] = value(source)
    return values[mask]
