"""Scenes of two handwritten digits, one of them spoken twice in 3 s of noise: the sound says which digit is hidden.

Both senses tell the spoken digit, neither tells it well: the picture shows two, the sound is of a speaker who is not
trained on. What the senses share is the digit alone: places, colours, backgrounds and noise are drawn apart.

Shape legend: `N` scenes; pictures are `N 3 96 96` bytes, sound `N 1 128 192` log-mel in half precision.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deepavfusion.audio import log_mel
from deepavfusion.bandstand.digits import read_mnist, read_recordings

IMAGE_SIZE, DIGIT_SIZE = 96, 40
"""Sides in pixels."""
SAMPLES = 48_000
"""3 s at 16 kHz."""
BATCH = 64
"""Scenes whose sound is transformed at a time."""


@dataclass(frozen=True)
class Part:
    """A set of scenes."""

    scenes: int
    seed: int
    is_test: bool = False
    """Whether it has the speaker and the handwriting that training does not have."""


TEST_SPEAKER = "yweweler"
TEST_IMAGES = 1000
"""The last handwritten digits."""
PARTS = {"test": Part(2000, 999, is_test=True), **{f"train{n:02d}": Part(4000, 1000 + n) for n in range(10)}}
TRAINING = tuple(name for name, part in PARTS.items() if not part.is_test)


@dataclass(frozen=True)
class Scenes:
    """Stored scenes."""

    image: NDArray[np.uint8]
    log_mel: NDArray[np.float16]
    digit: NDArray[np.int64]
    """The spoken one."""

    @classmethod
    def read(cls, folder: Path) -> Scenes:
        """Without loading them."""
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("image", "log_mel", "digit")))


def write_part(digits: Path, part: Part, folder: Path) -> None:
    """Write the scenes of a part, whole or not at all.

    Args:
        digits: folder with MNIST's idx files and the recordings in `fsdd_flac.zip`.
        part: how many, and of whom.
        folder: gets image.npy, log_mel.npy and digit.npy.
    """
    images, labels = read_mnist(str(digits))
    rate, takes = read_recordings(str(digits / "fsdd_flac.zip"))
    chosen = slice(-TEST_IMAGES, None) if part.is_test else slice(-TEST_IMAGES)
    images, labels = images[chosen], labels[chosen]
    spoken = [(digit, wave) for (digit, speaker, _), wave in takes.items() if (speaker == TEST_SPEAKER) == part.is_test]
    rng = np.random.default_rng(part.seed)
    by_digit = [np.flatnonzero(labels == digit) for digit in range(10)]
    pictures = np.zeros((part.scenes, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    waves = np.zeros((BATCH, SAMPLES), np.float32)
    mels: list[NDArray[np.float16]] = []
    heard = np.zeros(part.scenes, np.int64)
    for n in range(part.scenes):
        heard[n], take = spoken[rng.integers(len(spoken))]
        pictures[n] = _picture(rng, int(heard[n]), images, by_digit)
        waves[n % BATCH] = _sound(rng, _at_16_khz(take, rate))
        if (n + 1) % BATCH == 0 or n + 1 == part.scenes:
            mels.append(log_mel(torch.from_numpy(waves[: n % BATCH + 1])).numpy().astype(np.float16))
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    np.save(temporary / "image.npy", np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
    np.save(temporary / "log_mel.npy", np.concatenate(mels))
    np.save(temporary / "digit.npy", heard)
    temporary.rename(folder)


def _picture(
    rng: np.random.Generator, spoken: int, images: NDArray[np.uint8], by_digit: list[NDArray[np.intp]]
) -> NDArray[np.uint8]:
    """A noisy shaded background, the spoken digit and another one beside it."""
    colour, across = rng.uniform(0, 90, 3), np.linspace(0, 1, IMAGE_SIZE)
    shade = 0.6 + 0.8 * (across[:, None, None] * rng.random() + across[None, :, None] * rng.random())
    canvas = colour * shade + rng.normal(0, 8, (IMAGE_SIZE, IMAGE_SIZE, 3))
    half = IMAGE_SIZE // 2
    first, _ = ((int(rng.integers(0, half)), int(rng.integers(0, half))) for _ in range(2))
    second = ((first[0] + half) % IMAGE_SIZE if rng.random() < 0.5 else first[0], (first[1] + half) % IMAGE_SIZE)
    other = (spoken + int(rng.integers(1, 10))) % 10
    for digit, corner in ((spoken, first), (other, second)):
        top, left = (min(place, IMAGE_SIZE - DIGIT_SIZE) for place in corner)
        strokes = images[rng.choice(by_digit[digit])].repeat(2, 0).repeat(2, 1)[8:48, 8:48, None] / 255
        ink = rng.uniform(120, 255, 3)
        box = canvas[top : top + DIGIT_SIZE, left : left + DIGIT_SIZE]
        box[:] = box * (1 - strokes) + ink * strokes
    return canvas.clip(0, 255).astype(np.uint8)


def _sound(rng: np.random.Generator, take: NDArray[np.float32]) -> NDArray[np.float32]:
    """A recording twice, at one level, anywhere in 3 s of noise."""
    wave = np.zeros(SAMPLES, np.float32)
    take = take / (np.abs(take).max() + np.float32(1e-6)) * np.float32(rng.uniform(0.3, 0.9))
    for _ in range(2):
        start = int(rng.integers(0, SAMPLES - len(take)))
        wave[start : start + len(take)] += take
    deviation = 10 ** rng.uniform(-3, -1.7)
    return wave + rng.normal(0, deviation, SAMPLES).astype(np.float32)


def _at_16_khz(take: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """By linear interpolation, at most 46,000 samples."""
    times = np.arange(len(take) * 16_000 // rate) * (rate / 16_000)
    return np.interp(times, np.arange(len(take)), take).astype(np.float32)[:46_000]
