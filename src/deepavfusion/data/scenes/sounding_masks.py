"""Masks of what sounds in Bandstand's clips, for training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepavfusion.data.clips import Clip, ClipError
from deepavfusion.data.scenes.annotation import ClipTruth, SourceTruth, read_annotation, read_mask


class SoundingMasks:
    """1 where a source is seen that sounds at any moment of the stretch of sound, else 0."""

    def times(self, clip: Clip) -> Sequence[float]:
        """When the annotated frames are shown, in seconds."""
        truth = _read(clip)
        return [frame / truth.frame_rate for frame in truth.annotated_frames]

    def read(self, clip: Clip, frame_seconds: float, start_seconds: float, end_seconds: float) -> NDArray[np.uint8]:
        """`(H, W)` of the world's picture. Raises ClipError if the world was written without masks."""
        truth = _read(clip)
        try:
            mask = read_mask(clip.path, truth, truth.nearest_annotated(frame_seconds))
        except (ValueError, OSError) as error:
            raise ClipError(clip.id, str(error)) from error
        values = np.zeros(1 + len(truth.sources), np.uint8)
        for source in truth.sources:
            if source.visible and source.heard_between(start_seconds, end_seconds):
                values[1 + source.number] = self.value(clip, source)
        return values[mask]

    def value(self, clip: Clip, source: SourceTruth) -> int:
        """The number of the pixels of a source that is seen and sounds."""
        return 1


class SoundingLooks(SoundingMasks):
    """The number of its look where a source is seen that sounds at any moment of the stretch of sound, else 0."""

    def __init__(self, classes: Sequence[str]) -> None:
        """`classes` are names of looks in the order of their numbers, background first."""
        self.numbers = {name: number for number, name in enumerate(classes)}

    def value(self, clip: Clip, source: SourceTruth) -> int:
        """The look's number. Raises ClipError if it is not among the classes."""
        if source.look not in self.numbers:
            raise ClipError(clip.id, f"the look {source.look} is not among {', '.join(self.numbers)}")
        return self.numbers[source.look]


def sounding_looks(clips: Sequence[Clip]) -> tuple[str, ...]:
    """Background and the looks of all sources that are both seen and heard in some clips, in alphabetical order.

    Raises:
        ClipError: a clip without annotation.
    """
    sources = (source for clip in clips for source in _read(clip).sources)
    return ("background", *sorted({source.look for source in sources if source.look and source.audible}))


def _read(clip: Clip) -> ClipTruth:
    if clip.storage != "file":
        raise ClipError(clip.id, "shards do not hold annotations; give the folder of the clips or its manifest")
    try:
        return read_annotation(clip.path)
    except ValueError as error:
        raise ClipError(clip.id, str(error)) from error
