"""One source of a clip at a time: an image that shows it alone, and its own sound.

The image that stands for one of several sources must show only that one. It keeps its size, which determines its pitch:
nothing is enlarged; the boxes of all other visible sources are painted in ImageNet's mean colour, and the crop of a
test view is moved so that it contains the source.

Shape legend: `H W` pixels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from deepavfusion.data.clips import Clip, ClipError
from deepavfusion.data.crops import Region
from deepavfusion.data.opening import Seek, open_clip
from deepavfusion.data.scenes.annotation import Box, ClipTruth, SourceTruth, annotation_of
from deepavfusion.data.truth import crop_mask
from deepavfusion.data.views import CentreView, centre_crop, frame_times
from deepavfusion.data.waveforms import continue_sound
from deepavfusion.images import MEAN_COLOUR


class OthersHidden:
    """Masks for training: 1 where another source stands than the one that sounds (`data.truth.Truth`)."""

    def times(self, clip: Clip) -> Sequence[float]:
        """When the annotated frames are shown, in seconds."""
        return annotation_of(clip).annotated_seconds

    def read(self, clip: Clip, frame_seconds: float, start_seconds: float, end_seconds: float) -> NDArray[np.uint8]:
        """`(H, W)` of the world's picture. Raises ClipError unless exactly one source sounds, and is seen."""
        truth = annotation_of(clip)
        source = only_sounding(truth)
        if source is None:
            raise ClipError(clip.id, "not exactly one source sounds and is visible")
        return others_mask(truth, truth.nearest_annotated(frame_seconds), source.number)


@dataclass(frozen=True)
class SourceView:
    """What is seen of one source in a window of a clip."""

    image: NDArray[np.uint8]
    """`(H, W, 3)` at the view's size, of several frames `(T, H, W, 3)`."""
    start_seconds: float
    """Where the window starts in the clip."""


def only_sounding(truth: ClipTruth) -> SourceTruth | None:
    """The one source that sounds, if it is seen; None if there are several, none, or it is off screen."""
    audible = [source for source in truth.sources if source.audible]
    return audible[0] if len(audible) == 1 and audible[0].visible else None


def others_mask(truth: ClipTruth, place: int, number: int) -> NDArray[np.uint8]:
    """1 in the boxes of all visible sources but one, outside that one's own box.

    Args:
        truth: the annotation.
        place: which of its annotated frames.
        number: of the source that stays.

    Returns:
        `(H, W)` of the world's picture.
    """
    mask = np.zeros((truth.size, truth.size), np.uint8)
    for source in truth.sources:
        if source.number != number:
            _fill(mask, _box(source, place), 1)
    _fill(mask, _box(truth.sources[number], place), 0)
    return mask


def box_region(clip: Clip, truth: ClipTruth, number: int) -> Region:
    """The square about all boxes of a source, with some room, as far as the picture reaches.

    Raises:
        ClipError: it is hidden in every annotated frame.
    """
    boxes = [box for box in truth.sources[number].boxes or () if box is not None]
    if not boxes:
        raise ClipError(clip.id, f"source {number} is hidden in every annotated frame")
    left, top = (min(box[k] for box in boxes) / truth.size for k in (0, 1))
    right, bottom = (max(box[k] for box in boxes) / truth.size for k in (2, 3))
    return Region.about((left, top, right, bottom), truth.size, truth.size)


def see_source(clip: Clip, number: int, view: CentreView, seek: Seek = "exact") -> SourceView:
    """The picture of one source in a test view's window, the others painted over.

    Args:
        clip: with an annotation beside it.
        number: of the source.
        view: window and picture size; its crop is moved from the centre to the source.
        seek: as in `open_clip`.

    Raises:
        ClipError: unreadable, without annotation, or the source is hidden in every annotated frame of the window.
    """
    truth = annotation_of(clip)
    with open_clip(clip, seek) as media:
        start = max(0.0, media.info.duration_seconds - view.window_seconds) / 2
        middle = start + min(view.window_seconds, media.info.duration_seconds) / 2
        place, box = _seen(clip, truth, number, start, start + view.window_seconds, middle)
        x, y = ((box[k] + box[k + 2]) / 2 / truth.size for k in (0, 1))
        crop = centre_crop(truth.size, truth.size, view.image_size).moved_to(x, y)
        seen = truth.annotated_seconds[place]
        if view.num_frames == 1:
            image = media.frame(seen, crop)
        else:
            start, moments = frame_times(media.info, start, view.window_seconds, view.num_frames, [seen])
            image = media.frames(moments, crop)
    image = np.array(image)
    # The same part of every frame: a neighbour that hops may show an edge outside the one annotated box.
    image[..., crop_mask(others_mask(truth, place, number), crop) == 1, :] = MEAN_COLOUR
    return SourceView(image, start)


def read_stem(clip: Clip, number: int, start_seconds: float, num_samples: int, rate: int) -> NDArray[np.float32]:
    """A source's own sound in a window, `(num_samples,)` at `rate`; a short one continues as a clip's does.

    Raises:
        ClipError: the world was written without stems, or the file cannot be read.
    """
    truth = annotation_of(clip)
    name = truth.sources[number].stem
    if name is None:
        raise ClipError(
            clip.id, f"source {number} has no stem: it does not sound, or the clips were generated without stems"
        )
    try:
        sound, stored = soundfile.read(os.path.join(os.path.dirname(clip.path), name), dtype="float32")
    except (OSError, soundfile.SoundFileError) as error:
        raise ClipError(clip.id, f"{name}: {error}") from error
    sound = sound if stored == rate else soxr.resample(sound, stored, rate)
    first = round(start_seconds * rate)
    part = np.ascontiguousarray(sound[first : first + num_samples], np.float32)
    if not len(part):
        raise ClipError(clip.id, f"{name} ends before {start_seconds:.2f} s")
    return continue_sound(part, num_samples)


def _seen(clip: Clip, truth: ClipTruth, number: int, start: float, end: float, middle: float) -> tuple[int, Box]:
    """The annotated frame nearest to the middle in which a source is visible, and its box there."""
    times = truth.annotated_seconds
    for place in sorted(range(len(times)), key=lambda i: abs(times[i] - middle)):
        box = _box(truth.sources[number], place)
        if box is not None and start <= times[place] <= end:
            return place, box
    raise ClipError(clip.id, f"source {number} is not visible between {start:.2f} and {end:.2f} s")


def _box(source: SourceTruth, place: int) -> Box | None:
    return None if source.boxes is None else source.boxes[place]


def _fill(mask: NDArray[np.uint8], box: Box | None, value: int) -> None:
    if box is not None:
        mask[box[1] : box[3], box[0] : box[2]] = value
