"""Views of a clip: which window of sound, which frames, which crop (the paper's section on inputs).

A view takes an opened clip and a random generator and returns arrays. It knows nothing of files, so that clips in
folders and in shards are treated alike.

Several frames are drawn together: `T` frames at the centres of `T` equal parts of the window, with one crop. Masks are
of the middle one, the reference (`models.config.reference_frame`).

Shapes: `T` frames, `H W` pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deepavfusion.audio import HOP_LENGTH, SAMPLE_RATE
from deepavfusion.configuration import DataConfig, FramePlace
from deepavfusion.data.clip import ClipInfo
from deepavfusion.data.crops import WHOLE, FrameCrop, Region
from deepavfusion.data.truth import nearest_time
from deepavfusion.data.waveforms import continue_sound
from deepavfusion.models.config import EarlyFusionConfig, reference_frame

RESIZE_MARGIN = 256 / 224
"""The test picture is scaled to cover the output enlarged by this, then the output's size is cut from its centre."""
CROP_TRIES = 10
"""Draws of a random crop before the largest allowed one in the centre is taken, as in torchvision."""


class OpenClip(Protocol):
    """An opened clip, of whatever storage."""

    @property
    def info(self) -> ClipInfo: ...

    def frame(self, time_seconds: float, crop: FrameCrop | None = None) -> NDArray[np.uint8]:
        """The frame shown at a time, `(H, W, 3)`."""

    def frames(self, times_seconds: Sequence[float], crop: FrameCrop) -> NDArray[np.uint8]:
        """The frames shown at several ascending times, `(T, H, W, 3)`."""

    def sound(
        self, start_seconds: float, duration_seconds: float, sample_rate: int = SAMPLE_RATE
    ) -> NDArray[np.float32]:
        """Mono sound, `(samples,)` in [-1, 1], shorter than asked where the track ends."""


@dataclass(frozen=True)
class ClipView:
    """One view of one clip."""

    image: NDArray[np.uint8] | None
    """`(H, W, 3)`, of several frames `(T, H, W, 3)`; None if the clip has no picture."""
    waveform: NDArray[np.float32] | None
    """`(samples,)` at 16 kHz in [-1, 1]; None if the clip has no sound, or none any more in this window."""
    start_seconds: float
    """Where the window starts in the clip."""
    frame_seconds: float
    """When the frame is shown, inside the window; of several frames the reference."""
    crop: FrameCrop | None = None
    """Which part of the picture it is; None without one."""


@dataclass(frozen=True)
class Sizes:
    """What every view has: how much is seen and heard."""

    image_size: tuple[int, int] = (224, 224)
    """Height and width of the picture."""
    window_seconds: float = 3.0
    """Length of the sound."""
    num_frames: int = field(default=1, kw_only=True)
    """Frames of the picture."""
    region: Region = field(default=WHOLE, kw_only=True)
    """The part of the picture that is taken for all of it."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of the picture, as of `ClipView.image`."""
        return image_shape(self.num_frames, self.image_size)

    @property
    def num_samples(self) -> int:
        """Length of the waveform."""
        return round(self.window_seconds * SAMPLE_RATE)


@dataclass(frozen=True)
class TrainingView(Sizes):
    """A random window, a random frame in it or the middle one, a random resized crop, mirroring and gain; other colours
    and noise if they are asked for.

    Of several frames none is random in its window, so that their times are those the model knows.
    """

    crop_area: tuple[float, float] = (0.5, 1.0)
    """Range of the crop's share of the picture."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of the crop's width / height, relative to that of the output (log-uniform)."""
    flip: float = 0.5
    """Probability of mirroring left to right."""
    gain_db: float = 6.0
    """Gain is uniform in plus or minus this many decibels, then the sound is clamped to [-1, 1]."""
    colour: float = 0.0
    """Strength of changed colours, 0 to 1."""
    noise: float = 0.0
    """Largest standard deviation of added white noise, in the units of the sound."""
    frame: FramePlace = "random"
    """Where in the window the only frame is."""
    still: float = 0.0
    """Probability that all frames show the reference."""

    @classmethod
    def from_config(cls, data: DataConfig, model: EarlyFusionConfig) -> TrainingView:
        """The view that a model's input sizes and the data settings ask for."""
        augmentation = data.crop_area, data.crop_ratio, data.flip, data.gain_db, data.colour, data.noise, data.frame
        return cls(model.image_size, seconds(model), *augmentation, data.still, num_frames=model.num_frames)

    def read(
        self,
        media: OpenClip,
        rng: np.random.Generator | None,
        times: Sequence[float] = (),
        apart_from: float | None = None,
    ) -> ClipView:
        """Draw and read one view.

        Everything random is drawn from `rng`, in an order that does not depend on which tracks the clip has, so that
        the generator's state alone decides.

        Args:
            media: the opened clip.
            rng: what is random.
            times: moments in seconds of which the frame must be one; empty allows any.
            apart_from: start of another window, of which this one shares as little as the clip allows; None allows any.

        Raises:
            MediaError or ClipError: the clip could not be read.
        """
        if rng is None:
            raise ValueError("a training view is random and needs a generator")
        info = media.info
        place, moment, mirror, gain = rng.random(4)
        changed = self.colour or self.noise or self.still  # else nothing is drawn from these
        tones, hiss, rest = np.random.default_rng(rng.integers(2**63)).spawn(3) if changed else (rng, rng, rng)
        if apart_from is None:
            start = place * max(0.0, info.duration_seconds - self.window_seconds)
        else:
            start = start_apart(place, info.duration_seconds, self.window_seconds, apart_from)
        place_in_window = moment if self.frame == "random" else None
        start, moments = frame_times(info, start, self.window_seconds, self.num_frames, times, place_in_window)
        if self.still and rest.random() < self.still:
            moments = [moments[reference_frame(self.num_frames)]] * self.num_frames
        image, crop = None, None
        if info.has_picture:
            size = self.region.size(info.height, info.width)
            crop = self.region.within(random_crop(*size, self, flip=bool(mirror < self.flip), rng=rng))
            image = _pictures(media, moments, crop)
        waveform = _sound(media, start, self.window_seconds)
        if waveform is not None:
            waveform = waveform * np.float32(10 ** (self.gain_db * (2 * gain - 1) / 20))
        if image is not None and self.colour:
            image = recoloured(image, self.colour, tones)
        if waveform is not None and self.noise:
            waveform = noisy(waveform, self.noise, hiss)
        waveform = None if waveform is None else np.clip(waveform, -1, 1)
        return ClipView(image, waveform, start, moments[reference_frame(self.num_frames)], crop)


@dataclass(frozen=True)
class CentreView(Sizes):
    """The window in the middle of the clip, its middle frame, the centre of the picture or all of it; nothing random.

    Of several windows the first begins with the clip, the last ends with it and their centres are evenly spaced;
    those of a clip no longer than a window are all the whole clip.
    """

    num_windows: int = 1
    """How many windows the clip is seen through."""
    window: int = 0
    """Which of them this is."""
    whole: bool = False
    """Squeeze the whole picture into the output instead of cutting its centre."""

    @classmethod
    def from_config(cls, model: EarlyFusionConfig, whole: bool = False) -> CentreView:
        """The view that a model's input sizes ask for."""
        return cls(model.image_size, seconds(model), whole=whole, num_frames=model.num_frames)

    def read(self, media: OpenClip, rng: np.random.Generator | None = None, times: Sequence[float] = ()) -> ClipView:
        """Read the view, its (middle) frame the one of `times` nearest to the middle if there are any.

        `rng` is not used.

        Raises:
            MediaError or ClipError: the clip could not be read.
        """
        info = media.info
        place = self.window / (self.num_windows - 1) if self.num_windows > 1 else 0.5
        start = place * max(0.0, info.duration_seconds - self.window_seconds)
        start, moments = frame_times(info, start, self.window_seconds, self.num_frames, times)
        crop = self._crop(info.height, info.width) if info.has_picture else None
        image = None if crop is None else _pictures(media, moments, crop)
        frame = moments[reference_frame(self.num_frames)]
        return ClipView(image, _sound(media, start, self.window_seconds), start, frame, crop)

    def _crop(self, height: int, width: int) -> FrameCrop:
        size = self.region.size(height, width)
        return self.region.within(
            FrameCrop.whole(self.image_size) if self.whole else centre_crop(*size, self.image_size)
        )


View = TrainingView | CentreView


def seconds(model: EarlyFusionConfig) -> float:
    """Length of sound that fills a model's spectrogram."""
    return model.audio_size[1] * HOP_LENGTH / SAMPLE_RATE


def image_shape(num_frames: int, size: tuple[int, int]) -> tuple[int, ...]:
    """Shape of a view's picture: `(H, W, 3)`, of several frames `(T, H, W, 3)`."""
    return (*size, 3) if num_frames == 1 else (num_frames, *size, 3)


def start_apart(place: float, duration_seconds: float, window_seconds: float, other: float) -> float:
    """Start of a window that does not overlap the one that starts at `other`.

    Uniform among all such starts; in a clip that is too short for two windows it is the end of the clip that is farther
    from the other one.

    Args:
        place: in [0, 1), which of them.
        duration_seconds: of the clip.
        window_seconds: of either window.
        other: start of the other window.
    """
    last = max(0.0, duration_seconds - window_seconds)
    before, after = max(0.0, other - window_seconds), max(0.0, last - other - window_seconds)
    if before + after == 0:
        return 0.0 if other > last / 2 else last
    along = place * (before + after)
    return along if along < before else other + window_seconds + (along - before)


def frame_times(
    info: ClipInfo,
    start_seconds: float,
    window_seconds: float,
    num_frames: int,
    times: Sequence[float] = (),
    moment: float | None = 0.5,
) -> tuple[float, list[float]]:
    """When the frames of a window are shown, and where the window starts.

    One frame is shown at its place in the window, or at the annotated time nearest to it. Of several, or without such a
    place, each is shown at the centre of its part of the window. Where the reference must be annotated, the window then
    moves with it, as far as the clip reaches: what is seen keeps its time against what is heard.

    Args:
        info: of the clip; a picture without extent in time has its window around it.
        start_seconds: start of the window that was drawn.
        window_seconds: its length.
        num_frames: `T`.
        times: the annotated moments; empty allows any.
        moment: where in the window the only frame is shown, in [0, 1]; None moves the window to an annotated middle.

    Returns:
        Start of the window, and `T` ascending times, inside the clip.
    """
    extent = min(window_seconds, info.duration_seconds)
    if num_frames == 1 and moment is not None:
        frame = start_seconds + moment * extent
        return start_seconds, [nearest_time(times, frame) if times else frame]
    number = reference_frame(num_frames)
    if not info.duration_seconds:  # time is counted from the picture's moment, and sound given around it
        steps = [window_seconds * (n - number) / num_frames for n in range(num_frames)]
        return window_seconds * (0.5 - (number + 0.5) / num_frames), steps
    places = [extent * (n + 0.5) / num_frames for n in range(num_frames)]
    wanted = start_seconds + places[number]
    if times:
        wanted = nearest_time(times, wanted)
        start_seconds = min(max(wanted - places[number], 0.0), max(0.0, info.duration_seconds - window_seconds))
    shown = [min(max(wanted + place - places[number], 0.0), info.duration_seconds) for place in places]
    return start_seconds, shown


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


def recoloured(image: NDArray[np.uint8], strength: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Other contrast, tint and shading of every colour channel, the same for all frames.

    Args:
        image: `(H, W, 3)`, or `(T, H, W, 3)`.
        strength: contrast changes by up to this share; a tint, and shadings across and down, by up to a quarter of it.
        rng: draws all of them, uniformly.
    """
    height, width = image.shape[-3:-1]
    contrast, tint, across, down = rng.uniform(-strength, strength, (4, 3)).astype(np.float32)
    shading = across * np.linspace(-1, 1, width, dtype=np.float32)[:, None]  # (W, 3)
    shading = shading + (down * np.linspace(-1, 1, height, dtype=np.float32)[:, None])[:, None]  # (H, W, 3)
    changed = (image - np.float32(127.5)) * (1 + contrast) + np.float32(127.5) + (tint + shading) * np.float32(255 / 4)
    return changed.round().clip(0, 255).astype(np.uint8)


def noisy(waveform: NDArray[np.float32], largest: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """White noise added to a waveform `(samples,)`; its standard deviation is log-uniform up to `largest`, from a
    hundredth of it."""
    deviation = np.float32(largest * 10 ** -rng.uniform(0, 2))
    return waveform + deviation * rng.standard_normal(len(waveform), dtype=np.float32)


def centre_crop(height: int, width: int, output_size: tuple[int, int]) -> FrameCrop:
    """The centre of a picture scaled to cover the output size times 256 / 224; square 224: short side to 256."""
    scale = RESIZE_MARGIN * max(output_size[0] / height, output_size[1] / width)
    h, w = output_size[0] / scale / height, output_size[1] / scale / width  # shares of the picture, at most 224 / 256
    return FrameCrop((1 - h) / 2, (1 - w) / 2, h, w, output_size, False)


def _pictures(media: OpenClip, moments: Sequence[float], crop: FrameCrop) -> NDArray[np.uint8]:
    """`(H, W, 3)` of one moment, `(T, H, W, 3)` of several."""
    return media.frame(moments[0], crop) if len(moments) == 1 else media.frames(moments, crop)


def _sound(media: OpenClip, start_seconds: float, window_seconds: float) -> NDArray[np.float32] | None:
    """The window's sound, continued if the track ends in it; None if there is none."""
    if not media.info.has_sound:
        return None
    waveform = media.sound(start_seconds, window_seconds, SAMPLE_RATE)
    return continue_sound(waveform, round(window_seconds * SAMPLE_RATE)) if len(waveform) else None
