"""Anything that can be seen or heard, opened alike: media files, photos, sounds, pairs of both, arrays in memory.

`open_recording` takes it and gives a `Recording`: frames at moments, sound in stretches, sizes and lengths. Media files
are read by `data.media` with its limits. Photos are read here, by Pillow, with the same limits: what a picture claims
to be is looked at before anything is allocated for it.

Shapes: `T` frames, `H W` pixels, `n` samples.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Union

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from deepavfusion.audio import SAMPLE_RATE
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.jpeg import crop_picture
from deepavfusion.data.media import MediaError, MediaFile
from deepavfusion.data.media.demuxer import MAX_PIXELS, MAX_SAMPLE_RATE, MAX_SIDE
from deepavfusion.inference.windows import check_duration

PICTURE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
SOUND_SUFFIXES = (
    ".aac",
    ".ac3",
    ".aif",
    ".aiff",
    ".amr",
    ".au",
    ".caf",
    ".flac",
    ".m4a",
    ".mp3",
    ".oga",
    ".ogg",
    ".wav",
)
PHOTO_SIDE = 2048
"""Photos are brought to at most this many pixels on their longer side when they are read: models look at 224."""
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*")


@dataclass(frozen=True)
class Arrays:
    """A recording in memory. What is None is not there.

    Pictures are RGB, uint8, or floats from 0 to 1: of numpy and Pillow with channels last, of torch with channels
    first. Sound is floats from -1 to 1 or integers at their full scale: `(n,)`, of numpy `(n, channels)`, of torch
    `(channels, n)`.
    """

    pictures: Any = None
    """One picture `(H, W, 3)` (torch `(3, H, W)`, or a Pillow image), or a film `(T, H, W, 3)` (torch
    `(T, 3, H, W)`)."""
    fps: float | None = None
    """Frames per second of a film."""
    sound: Any = None
    """The waveform."""
    rate: int | None = None
    """Samples per second of the sound."""
    name: str = "array"
    """What messages and files call it."""


@dataclass(frozen=True)
class RecordingInfo:
    """What is known of a recording."""

    duration_seconds: float
    """The length of the longer of picture and sound; 0 of a photo alone."""
    has_picture: bool
    has_sound: bool
    width: int
    """Of the displayed picture in pixels; 0 without one."""
    height: int
    is_still: bool
    """Whether the picture is one photo."""


class Recording(Protocol):
    """An opened recording."""

    name: str
    """What messages call it: a path as it was given, or the name of arrays."""
    info: RecordingInfo

    def frames(self, times_seconds: Sequence[float], crop: FrameCrop) -> NDArray[np.uint8]:
        """What is shown at some ascending times, `(T, H, W, 3)` in the crop's output size."""

    def sound(self, start_seconds: float, duration_seconds: float) -> NDArray[np.float32]:
        """Mono sound at 16 kHz in [-1, 1], `(n,)`; shorter than asked where it ends."""


Input = Union[str, "os.PathLike[str]", Image.Image, NDArray[Any], torch.Tensor, Arrays, tuple[Any, Any]]
"""A path, a picture, arrays, or a pair (picture, sound) of these."""


@contextmanager
def open_recording(given: Input) -> Iterator[Recording]:
    """Open whatever was given.

    Args:
        given: a path of a media file, sound file or photo; a picture as Pillow image, numpy array or tensor;
            `Arrays`; or a pair (picture, sound) of these, of which the first is looked at and the second heard.

    Raises:
        MediaError: a file that cannot be read.
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
    if isinstance(given, Arrays):
        return given.name
    if isinstance(given, tuple) and len(given) == 2:
        return name_of(given[0])
    return "array"


class FileRecording:
    """A media file."""

    def __init__(self, path: str) -> None:
        self.name = path
        self._media = MediaFile(path)
        try:
            info = self._media.info
            if not info.has_picture and not info.has_sound:
                raise MediaError(path, "has neither picture nor sound")
        except BaseException:
            self._media.close()
            raise
        self.info = RecordingInfo(
            info.duration_seconds, info.has_picture, info.has_sound, info.width, info.height, is_still=False
        )

    def frames(self, times_seconds: Sequence[float], crop: FrameCrop) -> NDArray[np.uint8]:
        return self._media.frames(list(map(float, times_seconds)), crop)

    def sound(self, start_seconds: float, duration_seconds: float) -> NDArray[np.float32]:
        return self._media.sound(start_seconds, duration_seconds, SAMPLE_RATE)

    def close(self) -> None:
        self._media.close()


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
            max(shown, heard), has_picture, waveform is not None, width, height, has_picture and fps is None
        )

    def frames(self, times_seconds: Sequence[float], crop: FrameCrop) -> NDArray[np.uint8]:
        assert self._pictures is not None
        last = len(self._pictures) - 1
        numbers = [0 if self._fps is None else min(int(t * self._fps + 1e-6), last) for t in times_seconds]
        cropped = {number: crop_picture(self._pictures[number], crop) for number in set(numbers)}
        return np.stack([cropped[number] for number in numbers])

    def sound(self, start_seconds: float, duration_seconds: float) -> NDArray[np.float32]:
        assert self._waveform is not None
        first = round(start_seconds * SAMPLE_RATE)
        return self._waveform[first : first + round(duration_seconds * SAMPLE_RATE)]

    def close(self) -> None:
        self._pictures = self._waveform = None


class PairRecording:
    """The picture of one recording and the sound of another."""

    def __init__(self, picture: FileRecording | MemoryRecording, sound: FileRecording | MemoryRecording) -> None:
        seen, heard = picture.info, sound.info
        self.name, self._picture, self._sound = picture.name, picture, sound
        length = heard.duration_seconds if seen.is_still else max(seen.duration_seconds, heard.duration_seconds)
        self.info = RecordingInfo(length, True, True, seen.width, seen.height, seen.is_still)

    def frames(self, times_seconds: Sequence[float], crop: FrameCrop) -> NDArray[np.uint8]:
        return self._picture.frames(times_seconds, crop)

    def sound(self, start_seconds: float, duration_seconds: float) -> NDArray[np.float32]:
        return self._sound.sound(start_seconds, duration_seconds)

    def close(self) -> None:
        self._picture.close()
        self._sound.close()


def read_photo(path: str) -> NDArray[np.uint8]:
    """A picture file as it is to be displayed, `(H, W, 3)` RGB, no side longer than `PHOTO_SIDE`.

    Raises:
        MediaError: not a picture, damaged, or it claims more pixels than is ever read.
    """
    try:
        with Image.open(path, formats=_FORMATS) as picture:
            width, height = picture.size
            if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
                raise MediaError(path, f"claims {width} x {height} pixels, more than is ever read")
            if picture.mode.startswith(("I", "F")):
                raise MediaError(path, f"has pixels of kind {picture.mode}; convert it to 8 bits a channel")
            picture.draft("RGB", (PHOTO_SIDE, PHOTO_SIDE))  # large JPEGs are decoded at a fraction of their size
            picture.thumbnail((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.BILINEAR)
            return np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except Image.DecompressionBombError as error:
        raise MediaError(path, "claims more pixels than is ever read") from error
    except (OSError, SyntaxError, ValueError, EOFError, ArithmeticError, LookupError, TypeError) as error:
        raise MediaError(path, f"no picture that can be read: {error}") from error
    except (MemoryError, struct.error) as error:
        raise MediaError(path, f"no picture that can be read: {error or type(error).__name__}") from error


def _open(given: Input) -> FileRecording | MemoryRecording | PairRecording:
    if isinstance(given, tuple):
        return _open_pair(given)
    if isinstance(given, (str, os.PathLike)):
        return _open_path(os.fspath(given))
    return _from_arrays(given if isinstance(given, Arrays) else Arrays(given))


def _open_path(path: str) -> FileRecording | MemoryRecording:
    if _is_photo(path):
        return MemoryRecording(path, read_photo(path)[None], None, None)
    return FileRecording(path)


def _open_pair(given: tuple[Any, Any]) -> PairRecording:
    if len(given) != 2:
        raise ValueError(f"a pair is (picture, sound), got {len(given)} parts")
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
            raise ValueError(f"{part.name}: has no {what}, a pair is (picture, sound)")
    assert not isinstance(picture, PairRecording)
    assert not isinstance(sound, PairRecording)
    return PairRecording(picture, sound)


def _is_photo(path: str) -> bool:
    """Whether a file begins as a picture does; what cannot be opened is left to the media reader's message."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except (OSError, ValueError):
        return False
    return head.startswith(_BEGINNINGS) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def _from_arrays(arrays: Arrays) -> MemoryRecording:
    name = arrays.name
    if arrays.pictures is None and arrays.sound is None:
        raise ValueError(f"{name}: neither pictures nor sound")
    pictures = None if arrays.pictures is None else _pictures(name, arrays.pictures, arrays.fps)
    if arrays.fps is not None and not 0 < arrays.fps <= 1000:
        raise ValueError(f"{name}: fps {arrays.fps} must be above 0 and at most 1000")
    still = pictures is not None and len(pictures) == 1
    waveform = None if arrays.sound is None else _waveform(name, arrays.sound, arrays.rate)
    return MemoryRecording(name, pictures, None if still else arrays.fps, waveform)


def _pictures(name: str, given: Any, fps: float | None) -> NDArray[np.uint8]:
    """`(T, H, W, 3)` uint8."""
    if isinstance(given, Image.Image):
        given = np.asarray(given.convert("RGB"))
    if isinstance(given, torch.Tensor):
        if given.ndim not in (3, 4) or given.shape[-3] != 3:
            raise ValueError(f"{name}: pictures of shape {tuple(given.shape)}, a tensor is (3, H, W) or (T, 3, H, W)")
        given = given.detach().cpu().movedim(-3, -1).numpy()
    array = np.asarray(given)
    if array.ndim not in (3, 4) or array.shape[-1] != 3 or 0 in array.shape:
        raise ValueError(f"{name}: pictures of shape {array.shape}, an array is (H, W, 3) or (T, H, W, 3)")
    if max(array.shape[-3:-1]) > MAX_SIDE:
        raise ValueError(f"{name}: pictures of {array.shape[-2]} x {array.shape[-3]} pixels, more than is ever read")
    array = array if array.ndim == 4 else array[None]
    if len(array) > 1 and fps is None:
        raise ValueError(f"{name}: {len(array)} pictures need fps, frames per second")
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating) or not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"{name}: pictures must be uint8, or floats from 0 to 1, got {array.dtype} beyond that")
    return np.rint(array * 255).astype(np.uint8)


def _waveform(name: str, given: Any, rate: int | None) -> NDArray[np.float32]:
    """`(n,)` mono at 16 kHz: the plain average of all channels, resampled."""
    if rate is None or not 0 < rate <= MAX_SAMPLE_RATE:
        raise ValueError(f"{name}: sound needs its rate, samples per second up to {MAX_SAMPLE_RATE}, got {rate}")
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu().numpy().T
    array = np.asarray(given)
    if array.ndim not in (1, 2) or 0 in array.shape:
        raise ValueError(f"{name}: sound of shape {array.shape}, it is (n,), of numpy (n, channels)")
    try:
        check_duration(len(array) / rate)  # before it is resampled
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if np.issubdtype(array.dtype, np.signedinteger):
        array = array / -float(np.iinfo(array.dtype).min)
    elif not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name}: sound of type {array.dtype}, it is floats from -1 to 1 or signed integers")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: sound holds values that are not finite")
    mono = array.mean(axis=1) if array.ndim == 2 else array
    mono = np.clip(mono, -4, 4).astype(np.float32)
    waveform = mono if rate == SAMPLE_RATE else soxr.resample(mono, rate, SAMPLE_RATE, "HQ")
    return np.clip(waveform, -1, 1)
