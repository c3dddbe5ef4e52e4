"""Clips stored as image files and a sound file (a table of frames), as AVSBench and folders of frames are.

Each row of the table (`framed_clips`, header id,label,split,sound,frame,mask) is read as one clip with one frame,
so that every command that reads clips can read such data. The n frames of a sound of d seconds are taken to be evenly
spaced: frame k shows the moment (k + 1/2) d / n, in AVSBench the middle of second k.

The window of sound lies around the frame's moment, 3 s by default, and so also covers the seconds of the neighbouring
frames. Beyond the ends of the sound it is continued by its own time-reversal, as sound shorter than a window is
(`waveforms`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepavfusion.audio import SAMPLE_RATE
from deepavfusion.data.clip import Clip, ClipError, ClipInfo
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.framed_clips import frame_of
from deepavfusion.data.jpeg import crop_picture
from deepavfusion.data.media import MediaError, MediaFile
from deepavfusion.data.photos import read_photo
from deepavfusion.data.sets.masks import read_binary_mask, read_semantic_mask


class OpenFrame:
    """An opened picture with its sound; to be used in a `with` statement through `opening.open_clip`."""

    def __init__(self, clip: Clip) -> None:
        """Raises ClipError if the picture or the sound cannot be opened."""
        self.clip_id, self.row = clip.id, frame_of(clip)
        self._picture = self._load(self.row.path)  # first, for it leaves nothing open
        try:
            self._sound = MediaFile(self.row.video.sound)
            try:
                sound = self._sound.info
            except BaseException:
                self._sound.close()
                raise
        except MediaError as error:
            raise ClipError(clip.id, str(error)) from error
        self.seconds = sound.sound_end_seconds
        """Length of the whole sound."""
        height, width = self._picture.shape[:2]
        self.info = ClipInfo(0.0, True, sound.has_sound, width, height, 0.0, sound.sample_rate, sound.channels)

    def __enter__(self) -> OpenFrame:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._sound.close()

    @property
    def moment_seconds(self) -> float:
        """When the picture is shown, in the time of the whole sound."""
        return (self.row.number + 0.5) * self.seconds / len(self.row.video.frames)

    def frame(self, time_seconds: float, crop: FrameCrop | None = None) -> NDArray[np.uint8]:
        """The picture `(H, W, 3)`, at whatever time."""
        return self._picture if crop is None else crop_picture(self._picture, crop)

    def frames(self, times_seconds: Sequence[float], crop: FrameCrop) -> NDArray[np.uint8]:
        """Of the video's pictures those nearest to some times, counted from this one's moment: `(T, H, W, 3)`.

        Raises ClipError if one of them cannot be read.
        """
        video, step = self.row.video, self.seconds / len(self.row.video.frames)
        numbers = [
            min(max(self.row.number + round(time / step), 0), len(video.frames) - 1) if step else self.row.number
            for time in times_seconds
        ]
        cropped = {n: crop_picture(self._load(video.frames[n]), crop) for n in dict.fromkeys(numbers)}
        return np.stack([cropped[number] for number in numbers])

    def sound(
        self, start_seconds: float, duration_seconds: float, sample_rate: int = SAMPLE_RATE
    ) -> NDArray[np.float32]:
        """The stretch of sound around the picture's moment, `(samples,)` mono in [-1, 1], mirrored at the sound's ends.

        Args:
            start_seconds: how much later than centred on the moment.
            duration_seconds: its length.
            sample_rate: samples per second.
        """
        begin = self.moment_seconds + start_seconds - duration_seconds / 2
        first, last = max(0.0, begin), min(self.seconds, begin + duration_seconds)
        try:
            part = self._sound.sound(first, max(last - first, 1 / sample_rate), sample_rate)
        except MediaError as error:
            raise ClipError(self.clip_id, str(error)) from error
        num_samples = round(duration_seconds * sample_rate)
        if not len(part):
            return part
        before = min(round((first - begin) * sample_rate), num_samples)
        return np.pad(part, (before, max(0, num_samples - before - len(part))), mode="symmetric")[:num_samples]

    def whole_sound(self, seconds: float) -> NDArray[np.float32]:
        """The sound of the whole clip from its start on, `(samples,)` at 16 kHz, at most so long."""
        try:
            return self._sound.sound(0.0, seconds) if self.info.has_sound else np.zeros(0, np.float32)
        except MediaError as error:
            raise ClipError(self.clip_id, str(error)) from error

    def _load(self, path: str) -> NDArray[np.uint8]:
        try:
            return read_photo(path, longest=None)
        except MediaError as error:
            raise ClipError(self.clip_id, str(error)) from error


class FrameMasks:
    """The mask files of pictures: 1 where something sounds, or with classes the number of each pixel's class."""

    def __init__(self, classes: Sequence[str] = ()) -> None:
        self.num_classes = len(classes)

    def times(self, clip: Clip) -> Sequence[float]:
        """When the picture is shown in its own time: at 0. Raises ClipError if it has no mask."""
        if frame_of(clip).mask is None:
            raise ClipError(clip.id, "the frame is not labelled")
        return [0.0]

    def read(self, clip: Clip, frame_seconds: float, start_seconds: float, end_seconds: float) -> NDArray[np.uint8]:
        """`(H, W)` as stored. Raises ClipError if the file is missing, broken or holds a class there is not."""
        mask = frame_of(clip).mask
        assert mask is not None, "times was asked first"
        try:
            return read_semantic_mask(mask, self.num_classes) if self.num_classes else read_binary_mask(mask).view("u1")
        except ValueError as error:
            raise ClipError(clip.id, str(error)) from error
