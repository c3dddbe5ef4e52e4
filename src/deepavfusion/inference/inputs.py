"""Inputs of a prediction, opened by one function: media files, photos, sounds, pairs of both, clips, arrays.

`open_recording` takes any of them and gives a `Recording`: frames at moments, sound in stretches, sizes and lengths.
Media files are read by `data.media`, photos by `data.photos`, with the same limits, clips by `data.opening`, wherever
they are stored. Arrays are checked by `arrays`.

Shapes: `T` frames, `H W` pixels, `n` samples.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Union

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from deepavfusion.audio import SAMPLE_RATE
from deepavfusion.data.clip import Clip, ClipError, ClipInfo
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.jpeg import crop_picture
from deepavfusion.data.locations import is_url, one_line
from deepavfusion.data.media import MediaError, MediaFile
from deepavfusion.data.media.formats import photo_format
from deepavfusion.data.opening import open_clip
from deepavfusion.data.photos import read_photo
from deepavfusion.data.rows import RowClip
from deepavfusion.data.shards import ShardError
from deepavfusion.inference.arrays import Arrays, pictures_of, waveform_of
from deepavfusion.inference.windows import check_duration


@dataclass(frozen=True, kw_only=True)
class RecordingInfo(ClipInfo):
    """What is known of a recording."""

    is_photo: bool = False
    """Whether the picture is one photo."""


class Recording(Protocol):
    """An opened recording."""

    name: str
    """What messages call it: a path as it was given, or the name of arrays."""
    info: RecordingInfo

    def frames(self, times_seconds: Sequence[float], crop: FrameCrop) -> NDArray[np.uint8]:
        """What is shown at some ascending times, `(T, H, W, 3)` in the crop's output size."""

    def film(self, wanted: Wanted) -> Iterator[list[NDArray[np.uint8]]]:
        """What is shown at ascending times, one after the other in one pass, each in every crop named with it.

        `frames` and `sound` can be asked meanwhile.
        """

    def sound(self, start_seconds: float, duration_seconds: float) -> NDArray[np.float32]:
        """Mono sound at 16 kHz in [-1, 1], `(n,)`, to be left as it is; shorter than asked where it ends."""


Wanted = Sequence[tuple[float, Sequence[FrameCrop]]]
"""Times, and the crops of what is shown at each."""
HELD_STRETCHES = 4
"""Stretches of sound that a recording keeps for whoever asks for the same again."""

Input = Union[str, "os.PathLike[str]", Clip, Image.Image, NDArray[Any], torch.Tensor, Arrays, tuple[Any, Any]]
"""A path, a clip of a data set, a picture, arrays, or a pair (picture, sound) of these."""


@contextmanager
def open_recording(given: Input) -> Iterator[Recording]:
    """Open whatever was given.

    Args:
        given: a path of a media file, sound file or photo; a clip of a data set, as `find_clips` lists it; a picture as
            Pillow image, numpy array or tensor; `Arrays`; or a pair (picture, sound) of these, of which the first is
            looked at and the second heard.

    Raises:
        MediaError: a file or clip that cannot be read.
        ValueError: arrays that make no sense, a pair without picture or sound, or a length that is not read.
    """
    recording = _open(given)
    try:
        check_duration(recording.info.duration_seconds)
    except ValueError as error:
        recording.close()
        raise MediaError(recording.name, str(error)) from error
    try:
        yield recording
    finally:
        recording.close()


def name_of(given: Input) -> str:
    """What an input is called before it is opened."""
    if isinstance(given, (str, os.PathLike)):
        return os.fspath(given)
    if isinstance(given, Clip):
        return given.path
    if isinstance(given, Arrays):
        return given.name
    if isinstance(given, tuple) and len(given) == 2:
        return name_of(given[0])
    return "array"


class FileRecording:
    """A media file."""

    def __init__(self, path: str) -> None:
        self.name = path
        self._heard: dict[tuple[float, float], NDArray[np.float32]] = {}
        self._media = MediaFile(path)
        try:
            info = self._media.info
            if not info.has_picture and not info.has_sound:
                raise MediaError(path, "has neither video nor sound")
        except BaseException:
            self._media.close()
            raise
        self.info = RecordingInfo(info.duration_seconds, info.has_picture, info.has_sound, info.width, info.height)

    def frames(self, times_seconds: Sequence[float], crop: FrameCrop) -> NDArray[np.uint8]:
        return self._media.frames(list(map(float, times_seconds)), crop)

    def film(self, wanted: Wanted) -> Iterator[list[NDArray[np.uint8]]]:
        with MediaFile(self.name) as media:  # an opening of its own: decoding goes on where it stands
            yield from media.film(wanted)

    def sound(self, start_seconds: float, duration_seconds: float) -> NDArray[np.float32]:
        stretch = (start_seconds, duration_seconds)
        if stretch not in self._heard:
            if len(self._heard) == HELD_STRETCHES:
                del self._heard[next(iter(self._heard))]
            self._heard[stretch] = self._media.sound(*stretch, SAMPLE_RATE)
        return self._heard[stretch]

    def close(self) -> None:
        self._media.close()


class ClipRecording:
    """A clip that is no local file of its own: in a shard, in a row, or at a URL. A shard has the frames it has."""

    def __init__(self, clip: Clip) -> None:
        self.name, self._clip = clip.path, clip
        if clip.storage == "framed":
            raise MediaError(clip.path, "is a picture of a table of frames, not a recording")
        with self._reading(), ExitStack() as stack:
            self._media = stack.enter_context(open_clip(clip))
            info, is_photo = self._media.info, isinstance(self._media, RowClip) and self._media.is_photo
            if not info.has_picture and not info.has_sound:
                raise MediaError(clip.path, "has neither video nor sound")
            self._opened = stack.pop_all()
        self.info = RecordingInfo(
            info.duration_seconds, info.has_picture, info.has_sound, info.width, info.height, is_photo=is_photo
        )

    def frames(self, times_seconds: Sequence[float], crop: FrameCrop) -> NDArray[np.uint8]:
        with self._reading():
            return self._media.frames(list(map(float, times_seconds)), crop)

    def film(self, wanted: Wanted) -> Iterator[list[NDArray[np.uint8]]]:
        with self._reading(), open_clip(self._clip) as media:  # an opening of its own, as that of a file
            if isinstance(media, (MediaFile, RowClip)):
                yield from media.film(wanted)
                return
            for time, crops in wanted:
                yield [media.frame(time, crop) for crop in crops]

    def sound(self, start_seconds: float, duration_seconds: float) -> NDArray[np.float32]:
        with self._reading():
            return self._media.sound(start_seconds, duration_seconds, SAMPLE_RATE)

    def close(self) -> None:
        self._opened.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """What readers of all storages raise is one error of this clip."""
        try:
            yield
        except (MediaError, ClipError, ShardError) as error:
            raise MediaError(self.name, error.cause.removeprefix(f"{one_line(self.name)}: ")) from error


class MemoryRecording:
    """Arrays, or a photo that was read into one."""

    def __init__(
        self, name: str, pictures: NDArray[np.uint8] | None, fps: float | None, waveform: NDArray[np.float32] | None
    ) -> None:
        """
        Args:
            name: what messages call it.
            pictures: `(T, H, W, 3)`.
            fps: frames per second; None for a photo, `T` being 1.
            waveform: `(n,)` at 16 kHz.
        """
        self.name, self._pictures, self._fps, self._waveform = name, pictures, fps, waveform
        height, width = (0, 0) if pictures is None else pictures.shape[1:3]
        shown = 0.0 if pictures is None or fps is None else len(pictures) / fps
        heard = 0.0 if waveform is None else len(waveform) / SAMPLE_RATE
        has_picture = pictures is not None
        self.info = RecordingInfo(
            max(shown, heard), has_picture, waveform is not None, width, height, is_photo=has_picture and fps is None
        )

    def frames(self, times_seconds: Sequence[float], crop: FrameCrop) -> NDArray[np.uint8]:
        return np.stack([picture for (picture,) in self.film([(time, (crop,)) for time in times_seconds])])

    def film(self, wanted: Wanted) -> Iterator[list[NDArray[np.uint8]]]:
        assert self._pictures is not None
        last = -1
        cropped: dict[FrameCrop, NDArray[np.uint8]] = {}
        for time, crops in wanted:
            number = 0 if self._fps is None else min(int(time * self._fps + 1e-6), len(self._pictures) - 1)
            if number != last:
                last, cropped = number, {}
            for crop in crops:
                if crop not in cropped:
                    cropped[crop] = crop_picture(self._pictures[number], crop)
            yield [cropped[crop] for crop in crops]

    def sound(self, start_seconds: float, duration_seconds: float) -> NDArray[np.float32]:
        assert self._waveform is not None
        first = round(start_seconds * SAMPLE_RATE)
        return self._waveform[first : first + round(duration_seconds * SAMPLE_RATE)]

    def close(self) -> None:
        self._pictures = self._waveform = None


_Single = FileRecording | ClipRecording | MemoryRecording


class PairRecording:
    """The picture of one recording and the sound of another."""

    def __init__(self, picture: _Single, sound: _Single) -> None:
        seen, heard = picture.info, sound.info
        self.name, self._picture, self._sound = picture.name, picture, sound
        length = heard.duration_seconds if seen.is_photo else max(seen.duration_seconds, heard.duration_seconds)
        self.info = RecordingInfo(length, True, True, seen.width, seen.height, is_photo=seen.is_photo)

    def frames(self, times_seconds: Sequence[float], crop: FrameCrop) -> NDArray[np.uint8]:
        return self._picture.frames(times_seconds, crop)

    def film(self, wanted: Wanted) -> Iterator[list[NDArray[np.uint8]]]:
        return self._picture.film(wanted)

    def sound(self, start_seconds: float, duration_seconds: float) -> NDArray[np.float32]:
        return self._sound.sound(start_seconds, duration_seconds)

    def close(self) -> None:
        self._picture.close()
        self._sound.close()


def _open(given: Input) -> _Single | PairRecording:
    if isinstance(given, tuple):
        return _open_pair(given)
    if isinstance(given, Clip):
        own = given.storage == "file" and not is_url(given.path)
        return _open_path(given.path) if own else ClipRecording(given)
    if isinstance(given, (str, os.PathLike)):
        return _open_path(os.fsdecode(given))
    if isinstance(given, (bytes, bytearray, memoryview)) or hasattr(given, "read"):
        raise ValueError(
            f"an input of type {type(given).__name__} is not supported: give a path, a Pillow image, an array, a "
            "tensor or `Arrays`; write data in memory to a file, or decode it, first"
        )
    return _from_arrays(given if isinstance(given, Arrays) else Arrays(given))


def _open_path(path: str) -> FileRecording | MemoryRecording:
    if photo_format(path) is not None:
        return MemoryRecording(path, read_photo(path)[None], None, None)
    return FileRecording(path)


def _open_pair(given: tuple[Any, Any]) -> PairRecording:
    if len(given) != 2:
        raise ValueError(f"a pair is (image, sound), got {len(given)} parts")
    picture = _open(given[0])
    try:
        sound = _open(given[1])
    except BaseException:
        picture.close()
        raise
    for part, has, what in ((picture, picture.info.has_picture, "picture"), (sound, sound.info.has_sound, "sound")):
        if not has or isinstance(part, PairRecording):
            picture.close()
            sound.close()
            raise ValueError(f"{part.name}: has no {what}, a pair is (image, sound)")
    assert not isinstance(picture, PairRecording)
    assert not isinstance(sound, PairRecording)
    return PairRecording(picture, sound)


def _from_arrays(arrays: Arrays) -> MemoryRecording:
    if arrays.pictures is None and arrays.sound is None:
        raise ValueError(f"{arrays.name}: neither images nor sound")
    pictures = None if arrays.pictures is None else pictures_of(arrays)
    still = pictures is not None and len(pictures) == 1
    waveform = None if arrays.sound is None else waveform_of(arrays)
    return MemoryRecording(arrays.name, pictures, None if still else arrays.fps, waveform)
