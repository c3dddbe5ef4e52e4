"""How a view of a clip is drawn: which window of sound, which frame, which part of the picture.

Section 1 of the paper's inputs. A view takes an opened clip and a random generator and returns arrays; it knows
nothing of files, so that clips in folders and clips in shards are seen alike.

Shapes: `H W` pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deepavfusion.audio import HOP_LENGTH, SAMPLE_RATE
from deepavfusion.configuration import DataConfig
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.truth import nearest_time
from deepavfusion.data.waveforms import continue_sound
from deepavfusion.models.config import EarlyFusionConfig

RESIZE_MARGIN = 256 / 224
"""The test picture is scaled to cover the output enlarged by this, then the output's size is cut from its centre."""
CROP_TRIES = 10
"""Draws of a random crop before the largest allowed one in the centre is taken, as in torchvision."""


class ClipInfo(Protocol):
    """What a view must know of a clip."""

    @property
    def duration_seconds(self) -> float: ...
    @property
    def has_picture(self) -> bool: ...
    @property
    def has_sound(self) -> bool: ...
    @property
    def width(self) -> int | None: ...
    @property
    def height(self) -> int | None: ...


class OpenClip(Protocol):
    """An opened clip, of whatever storage."""

    @property
    def info(self) -> ClipInfo: ...

    def frame(self, time_seconds: float, crop: FrameCrop | None = None) -> NDArray[np.uint8]:
        """The frame shown at a time, `(H, W, 3)`."""

    def sound(
        self, start_seconds: float, duration_seconds: float, sample_rate: int = SAMPLE_RATE
    ) -> NDArray[np.float32]:
        """Mono sound, `(samples,)` in [-1, 1], shorter than asked where the track ends."""


@dataclass(frozen=True)
class ClipView:
    """One view of one clip."""

    image: NDArray[np.uint8] | None
    """`(H, W, 3)`; None if the clip has no picture."""
    waveform: NDArray[np.float32] | None
    """`(samples,)` at 16 kHz in [-1, 1]; None if the clip has no sound, or none any more in this window."""
    start_seconds: float
    """Where the window starts in the clip."""
    frame_seconds: float
    """When the frame is shown, inside the window."""
    crop: FrameCrop | None = None
    """Which part of the picture it is; None without one."""


@dataclass(frozen=True)
class TrainingView:
    """A random window, a random frame in it, a random resized crop, mirroring and gain."""

    image_size: tuple[int, int] = (224, 224)
    """Height and width of the picture."""
    window_seconds: float = 3.0
    """Length of the sound."""
    crop_area: tuple[float, float] = (0.5, 1.0)
    """Range of the crop's share of the picture."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of the crop's width / height, relative to that of the output (log-uniform)."""
    flip: float = 0.5
    """Probability of mirroring left to right."""
    gain_db: float = 6.0
    """Gain is uniform in plus or minus this many decibels, then the sound is clamped to [-1, 1]."""

    @classmethod
    def from_config(cls, data: DataConfig, model: EarlyFusionConfig) -> TrainingView:
        """The view that a model's input sizes and the data settings ask for."""
        return cls(model.image_size, seconds(model), data.crop_area, data.crop_ratio, data.flip, data.gain_db)

    @property
    def num_samples(self) -> int:
        """Length of the waveform."""
        return round(self.window_seconds * SAMPLE_RATE)

    def read(self, media: OpenClip, rng: np.random.Generator | None, times: Sequence[float] = ()) -> ClipView:
        """Draw and read one view.

        Everything random is drawn from `rng`, in an order that does not depend on which tracks the clip has, so that
        the generator's state alone decides.

        Args:
            media: the opened clip.
            rng: what is random.
            times: moments in seconds of which the frame must be one; empty allows any.

        Raises:
            MediaError or ClipError: the clip could not be read.
        """
        if rng is None:
            raise ValueError("a training view is random and needs a generator")
        info = media.info
        place, moment, mirror, gain = rng.random(4)
        start = place * max(0.0, info.duration_seconds - self.window_seconds)
        frame = start + moment * min(self.window_seconds, info.duration_seconds)
        frame = nearest_time(times, frame) if times else frame
        image, crop = None, None
        if info.has_picture:
            crop = random_crop(*_size(info), self, flip=bool(mirror < self.flip), rng=rng)
            image = media.frame(frame, crop)
        waveform = _sound(media, start, self.window_seconds)
        if waveform is not None:
            factor = 10 ** (self.gain_db * (2 * gain - 1) / 20)
            waveform = np.clip(waveform * np.float32(factor), -1, 1)
        return ClipView(image, waveform, start, frame, crop)


@dataclass(frozen=True)
class CentreView:
    """The window in the middle of the clip, its middle frame, the centre of the picture or all of it; nothing random.

    Of several windows the first begins with the clip, the last ends with it and their centres are evenly spaced;
    those of a clip no longer than a window are all the whole clip.
    """

    image_size: tuple[int, int] = (224, 224)
    """Height and width of the picture."""
    window_seconds: float = 3.0
    """Length of the sound."""
    num_windows: int = 1
    """How many windows the clip is seen through."""
    window: int = 0
    """Which of them this is."""
    whole: bool = False
    """Squeeze the whole picture into the output instead of cutting its centre."""

    @classmethod
    def from_config(cls, model: EarlyFusionConfig) -> CentreView:
        """The view that a model's input sizes ask for."""
        return cls(model.image_size, seconds(model))

    @property
    def num_samples(self) -> int:
        """Length of the waveform."""
        return round(self.window_seconds * SAMPLE_RATE)

    def read(self, media: OpenClip, rng: np.random.Generator | None = None, times: Sequence[float] = ()) -> ClipView:
        """Read the view, its frame the one of `times` nearest to the middle if there are any; `rng` is not used.

        Raises:
            MediaError or ClipError: the clip could not be read.
        """
        info = media.info
        place = self.window / (self.num_windows - 1) if self.num_windows > 1 else 0.5
        start = place * max(0.0, info.duration_seconds - self.window_seconds)
        frame = start + min(self.window_seconds, info.duration_seconds) / 2
        frame = nearest_time(times, frame) if times else frame
        crop = self._crop(*_size(info)) if info.has_picture else None
        image = None if crop is None else media.frame(frame, crop)
        return ClipView(image, _sound(media, start, self.window_seconds), start, frame, crop)

    def _crop(self, height: int, width: int) -> FrameCrop:
        return FrameCrop.whole(self.image_size) if self.whole else centre_crop(height, width, self.image_size)


View = TrainingView | CentreView


def seconds(model: EarlyFusionConfig) -> float:
    """Length of sound that fills a model's spectrogram."""
    return model.audio_size[1] * HOP_LENGTH / SAMPLE_RATE


def random_crop(height: int, width: int, view: TrainingView, flip: bool, rng: np.random.Generator) -> FrameCrop:
    """A random part of a picture, in whole pixels: area uniform, logarithm of the ratio uniform, place uniform.

    A draw that does not fit into the picture is drawn again, up to ten times; then the largest centred part whose
    ratio is allowed is taken (the semantics of torchvision's RandomResizedCrop).

    Args:
        height, width: the displayed picture's size in pixels.
        view: ranges of area and ratio, and the output size.
        flip: whether the part is mirrored.
    """
    shape = view.image_size[1] / view.image_size[0]
    low, high = (ratio * shape for ratio in view.crop_ratio)
    for _ in range(CROP_TRIES):
        area = height * width * rng.uniform(*view.crop_area)
        ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return FrameCrop(top / height, left / width, h / height, w / width, view.image_size, flip)
    ratio = min(max(width / height, low), high)
    w, h = min(width, max(1, round(height * ratio))), min(height, max(1, round(width / ratio)))
    top, left = (height - h) // 2, (width - w) // 2
    return FrameCrop(top / height, left / width, h / height, w / width, view.image_size, flip)


def centre_crop(height: int, width: int, output_size: tuple[int, int]) -> FrameCrop:
    """The centre of a picture scaled to cover the output size times 256 / 224; square 224: short side to 256."""
    scale = RESIZE_MARGIN * max(output_size[0] / height, output_size[1] / width)
    h, w = output_size[0] / scale / height, output_size[1] / scale / width  # shares of the picture, at most 224 / 256
    return FrameCrop((1 - h) / 2, (1 - w) / 2, h, w, output_size, False)


def _size(info: ClipInfo) -> tuple[int, int]:
    height, width = info.height, info.width
    assert height, "a clip with a picture knows its height"
    assert width, "a clip with a picture knows its width"
    return height, width


def _sound(media: OpenClip, start_seconds: float, window_seconds: float) -> NDArray[np.float32] | None:
    """The window's sound, continued if the track ends in it; None if there is none."""
    if not media.info.has_sound:
        return None
    waveform = media.sound(start_seconds, window_seconds, SAMPLE_RATE)
    return continue_sound(waveform, round(window_seconds * SAMPLE_RATE)) if len(waveform) else None
