"""A few small generated clips, to try everything on.

Each shows one coloured shape that jumps on a textured ground and sounds at every landing. The shape goes with the
timbre, its size with the pitch (bigger is lower), each landing with an onset. Colours, ground, tempo and loudness carry
no information.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepavfusion.data.media.film_writer import FilmQuality, write_film

# Noise substitution (pns) would make a window's sound depend on where decoding started.
QUALITY = FilmQuality(
    {"preset": "veryfast", "crf": "20", "x264-params": "mbtree=0"}, audio={"aac_pns": "0"}, key_frame_every=16
)
FRAME_RATE = Fraction(25, 2)
SAMPLE_RATE = 16_000
TIMBRES: dict[str, tuple[float, ...]] = {
    "disc": (1.0,),
    "square": (1.0, 0.0, 0.6, 0.0, 0.4, 0.0, 0.3),
    "triangle": (0.6, 0.5, 0.45, 0.4, 0.35, 0.3),
    "ring": (0.3, 1.0, 0.0, 0.0, 0.0, 0.8),
}
"""Strength of the harmonics, from the fundamental on, of each shape's tone."""


def write_sample_clips(
    folder: str | Path, num_clips: int, seed: int = 0, duration_seconds: float = 4.0, size: int = 160
) -> list[Path]:
    """Write `folder/SHAPE/NUMBER.mp4` (H.264 and AAC, 12.5 frames/s, 16 kHz), shapes in turn.

    Clip `i` of a seed looks and sounds the same whatever else is written; a file that is there is not written again,
    and none is ever seen half-written.

    Args:
        folder: is made if need be.
        num_clips: how many.
        seed: not negative.
        duration_seconds: length of each clip.
        size: height and width in pixels, even.

    Returns:
        The files, in order.

    Raises:
        ValueError: an odd picture size, which H.264 cannot store.
    """
    if size % 2 or size < 32:
        raise ValueError(f"size {size} must be even and at least 32")
    paths = []
    for number in range(num_clips):
        shape = list(TIMBRES)[number % len(TIMBRES)]
        path = Path(folder) / shape / f"{number:04d}.mp4"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            frames, sound = draw_clip(shape, np.random.default_rng((seed, number)), duration_seconds, size)
            partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
            write_clip(partial, frames, sound)
            os.replace(partial, path)
        paths.append(path)
    return paths


def draw_clip(
    shape: str, rng: np.random.Generator, duration_seconds: float, size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw one clip: frames `(num_frames, size, size, 3)` and sound `(samples,)` in [-1, 1] at 16 kHz."""
    radius = rng.uniform(0.12, 0.3)  # of the picture's side
    pitch = 110 * 0.12 / radius * 4  # Hz; bigger is lower
    period = rng.uniform(0.4, 0.8)  # seconds from one landing to the next
    times = np.arange(round(duration_seconds * float(FRAME_RATE))) / float(FRAME_RATE)
    jump = 4 * (times / period % 1) * (1 - times / period % 1)  # 0 at the landings, 1 at the top
    places = np.cumsum(rng.uniform(0.1, 0.3, len(times) + 2)) + rng.random()
    x = 0.5 + (0.5 - radius) * np.sin(places[(times // period).astype(int)] * 5)
    y = 0.95 - radius - (0.9 - 2 * radius) * jump
    ground, colour = _texture(rng, size), rng.dirichlet((0.5, 0.5, 0.5)) * 255
    axis = (np.arange(size) + 0.5) / size
    frames = np.empty((len(times), size, size, 3), np.uint8)
    for frame, centre_x, centre_y in zip(frames, x, y, strict=True):
        distance = _distance(shape, (axis[None] - centre_x) / radius, (axis[:, None] - centre_y) / radius)
        cover = np.clip((1 - distance) * radius * size, 0, 1)[..., None]  # one pixel of soft edge
        frame[:] = ground * (1 - cover) + colour * cover
    return frames, _tone(TIMBRES[shape], pitch, period, round(duration_seconds * SAMPLE_RATE), rng)


def write_clip(path: Path, frames: NDArray[np.uint8], sound: NDArray[np.float32]) -> None:
    """Encode frames `(num_frames, H, W, 3)` at 12.5 per second and sound `(samples,)` at 16 kHz as an mp4 file."""
    write_film(path, frames, sound, FRAME_RATE, SAMPLE_RATE, QUALITY)


def _texture(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """A smooth random ground `(size, size, 3)`, 0 to 255: a few waves in each colour."""
    axis = np.linspace(0, 2 * np.pi, size)
    ground = np.full((size, size, 3), 110.0) + rng.uniform(-40, 40, 3)
    for _ in range(6):
        across, down, phase = rng.integers(1, 9), rng.integers(1, 9), rng.uniform(0, 2 * np.pi)
        ground += np.sin(across * axis[None] + down * axis[:, None] + phase)[..., None] * rng.uniform(-14, 14, 3)
    return np.clip(ground, 0, 255)


def _distance(shape: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far out a point is, 1 on the shape's outline; `x` `(1, W)`, `y` `(H, 1)`, in radii from its centre."""
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) * 1.15
    if shape == "triangle":
        return np.maximum(np.abs(x) * 1.8 - y, y * 1.4)
    radius = np.hypot(x, y)
    return radius if shape == "disc" else 1 + (np.abs(radius - 0.75) - 0.25)


def _tone(
    harmonics: tuple[float, ...], pitch: float, period: float, num_samples: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A tone struck at every landing, with a little noise."""
    times = np.arange(num_samples) / SAMPLE_RATE
    decay = np.exp(-(times % period) / 0.15) * np.minimum(times % period / 0.005, 1)  # 5 ms attack
    tone = sum(strength * np.sin(2 * np.pi * pitch * (k + 1) * times) for k, strength in enumerate(harmonics))
    sound = tone / sum(harmonics) * decay * rng.uniform(0.4, 0.8) + rng.normal(0, 0.003, num_samples)
    return np.clip(sound, -1, 1).astype(np.float32)
