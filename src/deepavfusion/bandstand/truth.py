"""Masks of what sounds in Bandstand's clips, as training and evaluation draw them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepavfusion.bandstand.annotation import ClipTruth, read_annotation, read_mask
from deepavfusion.data.clips import Clip, ClipError


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
            values[1 + source.number] = source.visible and source.heard_between(start_seconds, end_seconds)
        return values[mask]


def _read(clip: Clip) -> ClipTruth:
    if clip.storage != "file":
        raise ClipError(clip.id, "shards do not hold annotations; give the folder of the clips or its manifest")
    try:
        return read_annotation(clip.path)
    except ValueError as error:
        raise ClipError(clip.id, str(error)) from error
