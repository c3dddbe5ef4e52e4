"""Masks of Bandstand's clips: what sounds, which source it is, which look or class it has, for training and scoring."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepavfusion.data.clip import Clip, ClipError
from deepavfusion.data.scenes.annotation import SourceTruth, annotation_of, read_mask

SOUNDS = 128
"""Added to the number of a source that sounds."""


class SoundingMasks:
    """1 where a source is seen that sounds at any moment of the stretch of sound, else 0."""

    def times(self, clip: Clip) -> Sequence[float]:
        """When the annotated frames are shown, in seconds."""
        return annotation_of(clip).annotated_seconds

    def read(self, clip: Clip, frame_seconds: float, start_seconds: float, end_seconds: float) -> NDArray[np.uint8]:
        """`(H, W)` of the world's picture. Raises ClipError if the world was written without masks."""
        truth = annotation_of(clip)
        try:
            mask = read_mask(clip.path, truth, truth.nearest_annotated(frame_seconds))
        except (ValueError, OSError) as error:
            raise ClipError(clip.id, str(error)) from error
        values = np.zeros(1 + len(truth.sources), np.uint8)
        for source in truth.sources:
            values[1 + source.number] = self.value(clip, source, source.heard_between(start_seconds, end_seconds))
        return values[mask]

    def value(self, clip: Clip, source: SourceTruth, sounds: bool) -> int:
        """The number of a source's pixels."""
        return int(source.visible and sounds)


class SoundingLooks(SoundingMasks):
    """The number of its look where a source is seen that sounds at any moment of the stretch of sound, else 0."""

    def __init__(self, classes: Sequence[str]) -> None:
        """`classes` are names of looks in the order of their numbers, background first."""
        self.numbers = {name: number for number, name in enumerate(classes)}

    def value(self, clip: Clip, source: SourceTruth, sounds: bool) -> int:
        """The look's number. Raises ClipError if it is not among the classes."""
        if not (source.visible and sounds):
            return 0
        if source.look not in self.numbers:
            raise ClipError(clip.id, f"the look {source.look} is not among {', '.join(self.numbers)}")
        return self.numbers[source.look]


class SoundingClasses(SoundingMasks):
    """1 + the number of the class where a source is seen that sounds at any moment of the stretch, else 0."""

    def __init__(self, classes: Sequence[str]) -> None:
        """Raises ValueError on more classes than a byte can number."""
        if len(classes) > 255:
            raise ValueError(f"{len(classes)} classes are more than the 255 that a mask can hold")
        self.numbers = {name: number for number, name in enumerate(classes)}

    def value(self, clip: Clip, source: SourceTruth, sounds: bool) -> int:
        """The class's number and 1. Raises ClipError on a class that is not listed."""
        if not (source.visible and sounds):
            return 0
        if source.class_name not in self.numbers:
            raise ClipError(clip.id, f"{source.class_name} is not among the {len(self.numbers)} classes")
        return 1 + self.numbers[source.class_name]


class SceneSources(SoundingMasks):
    """1 + the number of the source seen at each pixel, plus `SOUNDS` if it sounds at any moment of the stretch."""

    def value(self, clip: Clip, source: SourceTruth, sounds: bool) -> int:
        """Number, 1 and flag of a source."""
        return 1 + source.number + SOUNDS * sounds


def sounding_looks(clips: Sequence[Clip]) -> tuple[str, ...]:
    """Background and the looks of all sources that are both seen and heard in some clips, in alphabetical order.

    Raises:
        ClipError: a clip without annotation.
    """
    sources = (source for clip in clips for source in annotation_of(clip).sources)
    return ("background", *sorted({source.look for source in sources if source.look and source.audible}))
