"""Composition of a clip: sources in front of a background, seen by a camera; their sounds mixed in a room.

Frames and sound are made here as arrays, together with their ground truth; `writer` writes the files. Positions are in
stage units (160 across), whatever the size of the frames.

Shapes: `T` frames, `H W` pixels, `N` samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepavfusion.bandstand.backdrop import Backdrop
from deepavfusion.bandstand.looks import Sprite
from deepavfusion.bandstand.sources import Source
from deepavfusion.bandstand.world import STAGE_UNITS

POSE_LEVELS = 8
"""Poses are drawn in this many steps above rest, so that a sprite is drawn a few times per clip, not once per frame."""
DRIFT = 4.0
"""Farthest the camera strays, in stage units."""
PEAK = 0.9
"""A mixture louder than this is turned down as a whole."""


@dataclass(frozen=True)
class Performer:
    """A source in its place."""

    source: Source
    centre: tuple[float, float] | None
    """Where it stands in stage units (x, y), or None off screen."""
    audible: bool
    """Whether its sound is heard; a silent one mimes."""
    gain_db: float = 0.0


@dataclass(frozen=True)
class Camera:
    """Zoom, a slow drift, flicker of the light, noise of the sensor."""

    zoom: float = 1.0
    drift: tuple[float, float] = (0.0, 0.0)
    """Amplitude to the right and down, in stage units."""
    period_seconds: float = 6.0
    phase: float = 0.0
    flicker: float = 0.0
    """Amplitude of the slow change of brightness, as a share."""
    noise: float = 0.0
    """Standard deviation of the sensor's noise, of 1 = white."""
    seed: int = 0


@dataclass(frozen=True)
class Room:
    """Reverberation and background noise."""

    decay_seconds: float = 0.2
    """Time in which an echo falls by 60 dB."""
    wet: float = 0.0
    """Energy of the echo relative to the direct sound."""
    noise_rms: float = 0.0
    """Of full scale; 0 is digital silence."""
    noise_slope: float = 0.0
    """Noise power falls with frequency to this power: 0 white, 1 pink."""
    seed: int = 0


@dataclass(frozen=True)
class Scene:
    """All that is seen and heard in one clip."""

    performers: tuple[Performer, ...]
    backdrop: Backdrop
    camera: Camera
    room: Room
    mirrored: bool = False
    """The finished picture is turned left to right."""


@dataclass(frozen=True)
class Pictures:
    """`frames` uint8 `T H W 3`; `masks[t]` uint8 `H W` for annotated frames: 0 or 1 + the front performer's number."""

    frames: NDArray[np.uint8]
    masks: dict[int, NDArray[np.uint8]]


@dataclass(frozen=True)
class Sounds:
    """`mixture` int16 `N` is exactly the sum of the `stems` (int16 `N` per performer heard) and the `noise`."""

    mixture: NDArray[np.int16]
    stems: dict[int, NDArray[np.int16]]
    noise: NDArray[np.int16]
    gain_db: float
    """By how much the whole was turned down."""


@dataclass(frozen=True)
class Stage:
    """Size and rates of what is recorded."""

    size: int = 160
    frame_rate: float = 12.5
    seconds: float = 4.0
    sample_rate: int = 16000

    @property
    def num_frames(self) -> int:
        return round(self.seconds * self.frame_rate)

    @property
    def num_samples(self) -> int:
        return round(self.seconds * self.sample_rate)

    def film(self, scene: Scene, annotated: Sequence[int], only: Sequence[int] | None = None) -> Pictures:
        """Record the pictures of a scene.

        Args:
            scene: what to record.
            annotated: numbers of the frames that get a mask.
            only: numbers of the frames to draw; all others stay black. None draws all.
        """
        scale = self.size / STAGE_UNITS
        margin = int(np.ceil(DRIFT * scale))
        side = self.size + 2 * margin
        canvas = scene.backdrop.paint(side, margin, scale)
        canvas *= 255
        times = np.arange(self.num_frames) / self.frame_rate
        shown = [(number, p) for number, p in enumerate(scene.performers) if p.centre is not None]
        shown.sort(key=lambda pair: pair[1].centre[1] + pair[1].source.size / 2)  # type: ignore[index]  # lower is nearer
        levels = np.array([np.rint(p.source.pose(times) * POSE_LEVELS) for _, p in shown], int).reshape(-1, len(times))
        figures = [_Figure(p, scene, scale, margin) for _, p in shown]
        shifts = self._drift(scene.camera, times, scale, margin)
        grain = np.random.default_rng(scene.camera.seed)
        tile = grain.standard_normal((side + 32, side + 32, 3), dtype=np.float32) * np.float32(255 * scene.camera.noise)
        offsets = grain.integers(0, 32 + 2 * margin, (len(times), 2))
        flicker = 1 + scene.camera.flicker * np.sin(2 * np.pi * times / scene.camera.period_seconds)
        frames = np.zeros((len(times), self.size, self.size, 3), np.uint8)
        masks: dict[int, NDArray[np.uint8]] = {}
        composed, last = canvas, None
        for t in range(len(times)) if only is None else only:
            now = tuple(levels[:, t])
            if now != last:
                composed, last = canvas.copy(), now
                for figure, level in zip(figures, now, strict=True):
                    figure.paint(composed, level)
            top, left = shifts[t]
            window = (slice(top, top + self.size), slice(left, left + self.size))
            row, column = offsets[t]
            picture = composed[window] * np.float32(flicker[t])
            picture += tile[row : row + self.size, column : column + self.size]
            np.clip(picture, 0, 255, out=picture)
            frames[t] = picture if not scene.mirrored else picture[:, ::-1]
            if t in annotated:
                index = np.zeros((side, side), np.uint8)
                for (number, _), figure, level in zip(shown, figures, now, strict=True):
                    figure.stamp(index, level, number + 1)
                cut = index[window]
                masks[t] = np.ascontiguousarray(cut[:, ::-1] if scene.mirrored else cut)
        return Pictures(frames, masks)

    def _drift(self, camera: Camera, times: NDArray[np.float64], scale: float, margin: int) -> NDArray[np.int64]:
        """First row and column `T 2` of the canvas that the camera sees."""
        angle = 2 * np.pi * times / camera.period_seconds + camera.phase
        across, down = camera.drift[0] * np.sin(angle), camera.drift[1] * np.cos(angle)
        return np.rint(np.stack([down, across], 1) * scale).astype(np.int64) + margin

    def record(self, scene: Scene) -> Sounds:
        """Record the sounds of a scene."""
        rng = np.random.default_rng(scene.room.seed)
        echo = self._echo(scene.room, rng)
        length = self.num_samples + len(echo)
        transfer = np.fft.rfft(echo, length)
        waves: dict[int, NDArray[np.float64]] = {}
        for number, performer in enumerate(scene.performers):
            if performer.audible:
                dry = performer.source.sound(self.num_samples, self.sample_rate)
                heard = np.fft.irfft(np.fft.rfft(dry, length) * transfer, length)[: self.num_samples]
                waves[number] = heard * 10 ** (performer.gain_db / 20)
        noise = self._noise(scene.room, rng)
        peak = np.abs(sum(waves.values(), noise)).max()
        gain = min(1.0, PEAK / peak) if peak else 1.0
        stems = {number: np.rint(wave * (gain * 32767)).astype(np.int16) for number, wave in waves.items()}
        hiss = np.rint(noise * (gain * 32767)).astype(np.int16)
        mixture = hiss.astype(np.int32)
        for stem in stems.values():
            mixture += stem
        return Sounds(mixture.astype(np.int16), stems, hiss, float(20 * np.log10(gain)))

    def _echo(self, room: Room, rng: np.random.Generator) -> NDArray[np.float64]:
        """Impulse response: the direct sound, then noise that dies away."""
        # Of one length for all rooms, so that the Fourier transform has a convenient one; 16 kHz: 64000 + 8000.
        time = np.arange(self.sample_rate // 2) / self.sample_rate
        tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / room.decay_seconds)
        tail[: round(0.004 * self.sample_rate)] = 0
        tail *= np.sqrt(room.wet / np.sum(tail * tail))
        tail[0] = 1
        return tail

    def _noise(self, room: Room, rng: np.random.Generator) -> NDArray[np.float64]:
        if not room.noise_rms:
            return np.zeros(self.num_samples)
        spectrum = np.fft.rfft(rng.standard_normal(self.num_samples))
        spectrum *= np.maximum(np.arange(len(spectrum)), 20 * self.seconds) ** (-room.noise_slope / 2)
        noise = np.fft.irfft(spectrum, self.num_samples)
        return noise * (room.noise_rms / np.sqrt(np.mean(noise * noise)))


class _Figure:
    """A performer's sprites at the poses asked for so far, and where they go on the canvas."""

    def __init__(self, performer: Performer, scene: Scene, scale: float, margin: int) -> None:
        assert performer.centre is not None
        self._source = performer.source
        self._diameter = performer.source.size * scene.camera.zoom * scale
        self._light = scene.backdrop.light_from
        strength = float(scene.backdrop.illumination(*performer.centre))
        self._tint = np.array([255 * strength * c for c in scene.backdrop.light] + [1], np.float32)
        middle = [c * scale + margin for c in performer.centre]
        self._corner = [int(np.floor(m)) for m in middle]
        self._fraction = (middle[0] - self._corner[0], middle[1] - self._corner[1])
        self._sprites: dict[int, Sprite] = {}

    def _sprite(self, level: int) -> Sprite:
        if level not in self._sprites:
            sprite = self._source.sprite(self._diameter, level / POSE_LEVELS, self._fraction, self._light)
            self._sprites[level] = Sprite(sprite.rgba * self._tint, sprite.mask)
        return self._sprites[level]

    def _windows(self, shape: tuple[int, ...], side: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Where patch and canvas overlap: rows and columns in the canvas, then in the patch."""
        there, here = [], []
        for corner, limit in ((self._corner[1], shape[0]), (self._corner[0], shape[1])):
            start = corner - side // 2
            first, last = max(start, 0), max(min(start + side, limit), max(start, 0))
            there.append(slice(first, last))
            here.append(slice(first - start, last - start))
        return (there[0], there[1]), (here[0], here[1])

    def paint(self, canvas: NDArray[np.float32], level: int) -> None:
        """Put the sprite on a canvas `H W 3`, in place."""
        rgba = self._sprite(level).rgba
        there, here = self._windows(canvas.shape, len(rgba))
        patch = rgba[here]
        canvas[there] *= 1 - patch[..., 3:]
        canvas[there] += patch[..., :3]

    def stamp(self, index: NDArray[np.uint8], level: int, value: int) -> None:
        """Write a value where the sprite's mask is, in place."""
        mask = self._sprite(level).mask
        there, here = self._windows(index.shape, len(mask))
        index[there][mask[here]] = value


def boxes(mask: NDArray[np.uint8], count: int) -> list[tuple[int, int, int, int] | None]:
    """Boxes of the values 1 to count in a mask `H W`: first column, first row, last column + 1, last row + 1.

    None where a value does not occur.
    """
    found: list[tuple[int, int, int, int] | None] = []
    for value in range(1, count + 1):
        hit = mask == value
        rows, columns = np.flatnonzero(hit.any(1)), np.flatnonzero(hit.any(0))
        found.append((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if len(rows) else None)
    return found
