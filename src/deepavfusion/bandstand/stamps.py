"""Stamps: cut-out pictures that stand still and sound, or are named, again and again (the sources of the third cast).

Shapes: `H W` pixels, `N` samples.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from PIL import Image

from deepavfusion.bandstand.looks import Sprite
from deepavfusion.bandstand.sources import LEVEL
from deepavfusion.bandstand.things import Recording, StampPicture, Thing

LARGEST_PICTURE = 400
"""Pictures are kept with at most this many pixels on the longer side."""
SHADE = 0.15
"""By how much a picture is brighter on the side that the light comes from."""
HOP_SECONDS = 0.02
"""Loudness is looked at in stretches of this length."""
QUIETEST_DB = -30.0
"""Where a recording is quieter than this, relative to its loudest stretch, it counts as silent."""
GAP_SECONDS = 0.25
"""Shorter silences belong to the sound."""
FADE_SECONDS = 0.004
LISTENING_RATE = 16000
"""Loudness is that below half this rate, whatever the rates of the recording and of the clip: what most clips keep."""


@dataclass(frozen=True)
class Stamp:
    """A thing in the picture, or off screen, with the sound that it makes if it is heard."""

    folder: str
    thing: Thing
    picture: StampPicture
    recording: Recording | None
    """What is heard of it; None if it is silent."""
    size: float
    tilt: float
    """Radians, clockwise."""
    mirrored: bool
    start_seconds: float
    """When it first sounds."""
    pauses: tuple[float, ...]
    """Silence in seconds from one time it sounds to the next, over and over."""
    seconds: float
    """Length of the clip."""

    @property
    def class_name(self) -> str:
        return self.thing.name

    @property
    def look(self) -> str:
        return self.thing.name

    @property
    def timbre(self) -> str:
        return self.thing.name

    def pose(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.zeros_like(seconds)

    def sprite(self, diameter: float, pose: float, centre: tuple[float, float], light: tuple[float, float]) -> Sprite:
        picture = load_picture(os.path.join(self.folder, self.picture.path))
        scale = diameter / max(picture.size)
        if scale < 1:  # averaged first: the transform below only looks at the nearest pixels
            picture = picture.resize([max(1, round(scale * n)) for n in picture.size], Image.Resampling.BOX)
            scale = diameter / max(picture.size)
        width, height = picture.size
        side = 2 * int(np.ceil(np.hypot(width, height) * scale / 2 + 2))
        cos, sin = np.cos(self.tilt) / scale, np.sin(self.tilt) / scale
        # From patch pixels back to the picture's: (x, y) relative to the sprite's centre, turned, maybe mirrored.
        middle = [side / 2 + c for c in centre]
        flip = -1 if self.mirrored else 1
        across = (flip * cos, flip * sin, width / 2 - flip * (cos * middle[0] + sin * middle[1]))
        down = (-sin, cos, height / 2 + sin * middle[0] - cos * middle[1])
        turned = picture.transform((side, side), Image.Transform.AFFINE, across + down, Image.Resampling.BICUBIC)
        rgba = np.asarray(turned, np.float32) / np.float32(255)
        axis = (np.arange(side, dtype=np.float32) - np.float32(side / 2)) * np.float32(2 / diameter)
        shade = 1 + np.float32(SHADE) * (np.float32(light[0]) * axis + np.float32(light[1]) * axis[:, None])
        rgba[..., :3] = np.minimum(rgba[..., :3] * shade[..., None], rgba[..., 3:])
        return Sprite(rgba, rgba[..., 3] > 0.5)

    def sound(self, num_samples: int, sample_rate: int) -> NDArray[np.float32]:
        take = self._take()
        heard = soxr.resample(take.wave, take.sample_rate, sample_rate)
        total = np.zeros(num_samples, np.float32)
        for onset in self._onsets(take.duration_seconds):
            start = round(onset * sample_rate)
            wave = heard[: max(num_samples - start, 0)]
            total[start : start + len(wave)] += wave
        return total

    def sounding(self) -> tuple[tuple[float, float], ...]:
        take = self._take()
        spans = [
            (round(onset + start, 3), round(min(onset + end, self.seconds), 3))
            for onset in self._onsets(take.duration_seconds)
            for start, end in take.stretches
        ]
        return tuple(span for span in spans if span[0] < span[1])

    def describe(self, heard: bool) -> dict[str, Any]:
        facts = {"thing": self.thing.name, "theme": self.thing.theme, "picture": self.picture.path}
        if not heard:
            return facts
        assert self.recording is not None
        language = {} if self.recording.language is None else {"language": self.recording.language}
        return facts | {"kind": self.recording.kind, **language, "recording": self.recording.path}

    def _take(self) -> Take:
        assert self.recording is not None
        return load_take(os.path.join(self.folder, self.recording.path))

    def _onsets(self, duration_seconds: float) -> list[float]:
        """When it sounds: once at least, and as often as it fits."""
        found, now = [self.start_seconds], self.start_seconds
        while True:
            now += duration_seconds + self.pauses[(len(found) - 1) % len(self.pauses)]
            if now + duration_seconds > self.seconds:
                return found
            found.append(round(now, 3))


@dataclass(frozen=True)
class Take:
    """A recording without the silence about it."""

    wave: NDArray[np.float32]
    """Its samples `N`. Below 8 kHz, its root mean square where it sounds is `LEVEL`."""
    sample_rate: int
    stretches: tuple[tuple[float, float], ...]
    """Where it sounds: (start, end) in seconds."""

    @property
    def duration_seconds(self) -> float:
        return len(self.wave) / self.sample_rate


def draw_stamp(
    rng: np.random.Generator, folder: str, thing: Thing, recording: Recording | None, size: float, seconds: float
) -> Stamp:
    """A thing with a sound, everything else by chance.

    Args:
        rng: source of chance.
        folder: of the stamps.
        thing: what is seen.
        recording: what is heard of it, if anything.
        size: in stage units.
        seconds: length of the clip.
    """
    picture = thing.pictures[rng.integers(len(thing.pictures))]
    return Stamp(
        folder=folder,
        thing=thing,
        picture=picture,
        recording=recording,
        size=round(size, 2),
        tilt=float(rng.uniform(-0.22, 0.22)),
        mirrored=bool(rng.random() < 0.5) and picture.mirrors,
        start_seconds=round(float(rng.uniform(0.05, 0.6)), 3),
        pauses=tuple(round(float(pause), 3) for pause in rng.uniform(0.3, 0.9, 8)),
        seconds=seconds,
    )


@lru_cache(maxsize=256)
def load_picture(path: str) -> Image.Image:
    """A picture cropped to what is seen of it, four channels with colours multiplied by alpha."""
    with Image.open(path) as file:
        picture = file.convert("RGBA")
    box = picture.getchannel("A").point([0] * 128 + [255] * 128).getbbox()
    assert box is not None  # `read_things` has looked
    picture = picture.crop(box).convert("RGBa")
    shrink = max(picture.size) / LARGEST_PICTURE
    if shrink > 1:
        picture = picture.resize([max(1, round(n / shrink)) for n in picture.size], Image.Resampling.BOX)
    # Pillow hands no premultiplied picture to numpy; the bytes are the same under another name.
    return Image.frombytes("RGBX", picture.size, picture.tobytes())


@lru_cache(maxsize=128)
def load_take(path: str) -> Take:
    """A recording, mono, trimmed, at its own rate.

    Raises:
        ValueError: it cannot be read, or is silent; names the file.
    """
    try:
        channels, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise ValueError(f"{path}: cannot be read as sound ({error})") from None
    mono = channels.mean(1)
    hop = round(HOP_SECONDS * LISTENING_RATE)
    heard = soxr.resample(mono, rate, LISTENING_RATE)
    blocks = np.pad(heard, (0, -len(heard) % hop)).reshape(-1, hop)
    power = np.mean(blocks * blocks, 1)
    if not len(power) or not power.max() > 1e-9:
        raise ValueError(f"{path}: silent")
    loud = np.flatnonzero(power > power.max() * 10 ** (QUIETEST_DB / 10))
    breaks = np.flatnonzero(np.diff(loud) * HOP_SECONDS > GAP_SECONDS)
    starts, ends = loud[np.r_[0, breaks + 1]], loud[np.r_[breaks, len(loud) - 1]] + 1
    level = np.float32(LEVEL / np.sqrt(power[loud].mean()))
    wave = level * mono[round(starts[0] * HOP_SECONDS * rate) : round(ends[-1] * HOP_SECONDS * rate)]
    fade = np.linspace(0, 1, round(FADE_SECONDS * rate), dtype=np.float32)[: len(wave)]
    wave[: len(fade)] *= fade
    wave[len(wave) - len(fade) :] *= fade[::-1]
    spans = HOP_SECONDS * (np.stack([starts, ends], 1) - starts[0])
    return Take(wave, rate, tuple((float(start), float(end)) for start, end in spans))
