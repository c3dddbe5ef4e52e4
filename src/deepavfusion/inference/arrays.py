"""Images and sound given as arrays, checked like files and converted to what recordings hold.

Ambiguous arrays are refused with the fix, never guessed: a sound with channels first, or one that is not at the scale
of its type, would otherwise be heard as one sample or as a square wave.

Shapes: `T` frames, `H W` pixels, `n` samples.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from PIL import Image

from deepavfusion.audio import SAMPLE_RATE
from deepavfusion.data.media.demuxer import MAX_CHANNELS, MAX_PIXELS, MAX_SAMPLE_RATE, MAX_SIDE
from deepavfusion.data.media.sound_track import MAX_LEVEL
from deepavfusion.data.photos import photo_of_image
from deepavfusion.inference.windows import check_duration

MAX_FPS = 1000.0
"""Frames per second."""


@dataclass(frozen=True)
class Arrays:
    """A recording in memory. What is None is not there.

    Pictures are RGB, uint8, or floats from 0 to 1: of numpy with channels last, of torch with channels first, or images
    of Pillow. Sound is floats from -1 to 1 or signed integers at their full scale: `(n,)`, of numpy `(n, channels)`, of
    torch `(channels, n)`. The limits of files hold: 8 channels, 16384 pixels a side and 100 million in all.
    """

    pictures: Any = None
    """One picture `(H, W, 3)` (torch `(3, H, W)`, or a Pillow image), or a film `(T, H, W, 3)` (torch
    `(T, 3, H, W)`, or a list of Pillow images)."""
    fps: float | None = None
    """Frames per second of a film."""
    sound: Any = None
    """The waveform."""
    rate: int | None = None
    """Samples per second of the sound."""
    name: str = "array"
    """What messages and files call it."""


def pictures_of(arrays: Arrays) -> NDArray[np.uint8]:
    """The pictures `(T, H, W, 3)` RGB.

    Raises:
        ValueError: they are none, in another layout or at another scale, or several without `fps`; names the fix.
    """
    name, given, fps = arrays.name, arrays.pictures, arrays.fps
    if fps is not None and (not _is_number(fps) or not 0 < fps <= MAX_FPS):
        raise ValueError(f"{name}: fps {fps!r} must be a number above 0 and at most {MAX_FPS:g}")
    if isinstance(given, Image.Image):
        array = _photo(name, given)
    elif isinstance(given, (list, tuple)) and given and all(isinstance(each, Image.Image) for each in given):
        photos = [_photo(name, each) for each in given]
        if len({photo.shape for photo in photos}) > 1:
            raise ValueError(f"{name}: {len(photos)} images of different sizes make no video")
        array = np.stack(photos)
    elif isinstance(given, torch.Tensor):
        if given.ndim not in (3, 4) or given.shape[-3] != 3:
            raise ValueError(f"{name}: images of shape {tuple(given.shape)}, a tensor is (3, H, W) or (T, 3, H, W)")
        array = _from_torch(name, "pictures", given).transpose(*range(given.ndim - 3), -2, -1, -3)
    else:
        array = _from_any(name, "pictures", given)
    if array.ndim not in (3, 4) or array.shape[-1] != 3 or 0 in array.shape:
        sound = "; sound is given as Arrays(sound=..., rate=...)" if array.ndim == 1 else ""
        raise ValueError(f"{name}: images of shape {array.shape}, an array is (H, W, 3) or (T, H, W, 3), in RGB{sound}")
    height, width = array.shape[-3:-1]
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise ValueError(f"{name}: images of {width} x {height} pixels, more than is supported")
    array = array if array.ndim == 4 else array[None]
    if len(array) > 1 and fps is None:
        raise ValueError(f"{name}: {len(array)} frames need fps, frames per second")
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name}: images must be uint8 from 0 to 255, or floats from 0 to 1, not {array.dtype}")
    if not (array.min() >= 0 and array.max() <= 1):  # so that NaN is found too
        raise ValueError(
            f"{name}: images must be uint8, or floats from 0 to 1, got {array.dtype} from {array.min():g} to "
            f"{array.max():g}"
        )
    return np.rint(array.astype(np.float32) * 255).astype(np.uint8)


def waveform_of(arrays: Arrays) -> NDArray[np.float32]:
    """The sound `(n,)`, mono at 16 kHz in [-1, 1]: the plain average of all channels, resampled.

    Raises:
        ValueError: it is none, in another layout or at another scale, or without its rate; names the fix.
    """
    name, given, rate = arrays.name, arrays.sound, arrays.rate
    if rate is None or not _is_number(rate) or rate != int(rate) or not 0 < rate <= MAX_SAMPLE_RATE:
        raise ValueError(
            f"{name}: sound needs its rate, a whole number of samples per second up to {MAX_SAMPLE_RATE}, got {rate!r}"
        )
    rate = int(rate)
    if isinstance(given, torch.Tensor):
        array, layout = _from_torch(name, "sound", given), "of torch (channels, n)"
        shape, array = array.shape, array.T if array.ndim == 2 else array
    else:
        array, layout = _from_any(name, "sound", given), "of numpy (n, channels)"
        shape = array.shape
    if array.ndim not in (1, 2) or 0 in shape:
        raise ValueError(f"{name}: sound of shape {shape}, it is (n,), {layout}")
    channels = 1 if array.ndim == 1 else array.shape[1]
    if channels > len(array):
        raise ValueError(
            f"{name}: sound of shape {shape} would be {channels} channels of {len(array)} samples, it is (n,), "
            f"{layout}: give its transpose"
        )
    if channels > MAX_CHANNELS:
        raise ValueError(f"{name}: sound of {channels} channels, more than the {MAX_CHANNELS} that are supported")
    try:
        check_duration(len(array) / rate)  # before it is resampled
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    mono = _mono(name, array)
    waveform = mono if rate == SAMPLE_RATE else soxr.resample(mono, rate, SAMPLE_RATE, "HQ")
    return np.clip(waveform, -1, 1)


def _mono(name: str, array: NDArray[Any]) -> NDArray[np.float32]:
    """The average of the channels of `(n,)` or `(n, channels)` at the scale of its numbers."""
    if array.dtype in (np.int8, np.int16, np.int32):
        unit = -1 / float(np.iinfo(array.dtype).min)
        _check_full_scale(name, array)
    elif np.issubdtype(array.dtype, np.floating):
        unit = 1.0
        least, most = float(array.min()), float(array.max())
        if not (math.isfinite(least) and math.isfinite(most)):
            raise ValueError(f"{name}: sound holds values that are not finite")
        if max(-least, most) > MAX_LEVEL:
            raise ValueError(
                f"{name}: sound of floats from {least:g} to {most:g}, they are from -1 to 1: divide by the full scale, "
                "such as 32768 of 16-bit sound"
            )
    else:
        fix = {"uint8": ": subtract 128 and divide by 128", "int64": ": give int16, or divide by the full scale"}
        raise ValueError(
            f"{name}: sound of type {array.dtype}, it is floats from -1 to 1 or signed integers of 8, 16 or 32 bits"
            + fix.get(array.dtype.name, "")
        )
    mono = array if array.ndim == 1 else array.mean(axis=1, dtype=np.float64)
    return np.ascontiguousarray(mono * unit, dtype=np.float32)


def _check_full_scale(name: str, array: NDArray[Any]) -> None:
    """Raise ValueError for 16-bit numbers in a type of 32 bits, which would be 96 dB too quiet.

    Sound of 24 bits that is as quiet has zeros in its lowest byte, and silence has nothing else.
    """
    if array.dtype == np.int32 and max(-int(array.min()), int(array.max())) <= 32768 and (array & 0xFF).any():
        raise ValueError(
            f"{name}: sound of int32 that never leaves the range of 16 bits would be 96 dB under full scale: give "
            "int16, or floats from -1 to 1"
        )


def _photo(name: str, image: Image.Image) -> NDArray[np.uint8]:
    try:
        return photo_of_image(image)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _from_torch(name: str, what: str, tensor: torch.Tensor) -> NDArray[Any]:
    try:
        tensor = tensor.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    except (TypeError, RuntimeError) as error:  # sparse, quantized, of no device
        raise ValueError(f"{name}: {what} of a tensor without plain numbers: {error}") from error


def _from_any(name: str, what: str, given: Any) -> NDArray[Any]:
    """Anything else as an array of numbers, in the byte order of this machine."""
    kind = type(given).__name__
    if isinstance(given, (str, os.PathLike, bytes, bytearray, memoryview)):
        raise ValueError(f"{name}: {what} of type {kind}, it is an array; a file is given by its path alone")
    if np.ma.isMaskedArray(given) and np.ma.getmaskarray(given).any():
        raise ValueError(f"{name}: {what} with masked values; fill them first")
    try:
        array = np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name}: {what} of type {kind} make no array: {error}") from error
    if array.dtype.kind not in "biufc":
        raise ValueError(f"{name}: {what} of type {kind} are an array of {array.dtype}, not of numbers")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
