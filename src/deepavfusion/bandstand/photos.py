"""Photographs as backgrounds: a square part of one, in the light of the scene."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from deepavfusion.bandstand.backdrop import Backdrop, draw_backdrop

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
SHORT_SIDE = 480
"""Photographs are kept at this many pixels."""
SMALLEST_PART = 0.5
"""A background shows at least this share of a photograph's short side."""


@dataclass(frozen=True)
class PhotoBackdrop(Backdrop):
    """A part of a photograph behind the scene."""

    path: str
    part: tuple[float, float, float]
    """Left, top and side of the part, as shares of what the photograph leaves free, and of its short side."""
    mirrored: bool

    def paint(self, side: int, margin: int, scale: float) -> NDArray[np.float32]:
        """The photograph in the light of the scene; arguments and result as of a drawn one."""
        photo = load_photo(self.path)
        width, height = photo.size
        extent = self.part[2] * min(width, height)
        left, top = self.part[0] * (width - extent), self.part[1] * (height - extent)
        box = (left, top, left + extent, top + extent)
        picture = photo.resize((side, side), Image.Resampling.BILINEAR, box)
        canvas = np.asarray(picture, np.float32)[:, :: -1 if self.mirrored else 1] / np.float32(255)
        axis = (np.arange(side, dtype=np.float32) + np.float32(0.5 - margin)) / np.float32(scale)
        x, y = np.meshgrid(axis, axis)
        return canvas * (self.illumination(x, y)[..., None] * np.array(self.light, np.float32))


def draw_photo(rng: np.random.Generator, path: str) -> PhotoBackdrop:
    """A part of a photograph at random, and a light."""
    drawn = draw_backdrop(rng)
    side = float(rng.uniform(SMALLEST_PART, 1))
    part = (float(rng.random()), float(rng.random()), side)
    return PhotoBackdrop(
        "photo", drawn.colours, drawn.period, drawn.angle, None, (), drawn.light, drawn.light_from, drawn.light_slope,
        drawn.seed, path, part, bool(rng.random() < 0.5),
    )  # fmt: skip


@lru_cache(maxsize=64)
def load_photo(path: str) -> Image.Image:
    """A photograph, upright, its short side at most `SHORT_SIDE` pixels. Raises ValueError if it cannot be read."""
    try:
        with Image.open(path) as picture:
            picture.draft("RGB", (2 * SHORT_SIDE, 2 * SHORT_SIDE))  # large JPEG files are decoded small
            photo = ImageOps.exif_transpose(picture).convert("RGB")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read as a picture ({error})") from None
    shrink = SHORT_SIDE / min(photo.size)
    return photo.resize([round(shrink * n) for n in photo.size], reducing_gap=3.0) if shrink < 1 else photo


def find_photos(folder: str) -> tuple[list[str], str]:
    """Photographs of a folder and all below it in order of path, and a digest of their names and sizes.

    Raises:
        ValueError: there are none, or one is no picture; names it.
    """
    if not os.path.isdir(folder):
        raise ValueError(f"backgrounds {folder}: there is no such folder")
    found, digest = [], hashlib.sha256()
    for place, folders, names in os.walk(folder):
        folders.sort()
        found += [os.path.join(place, name) for name in sorted(names) if name.lower().endswith(ENDINGS)]
    for path in found:
        try:
            with Image.open(path) as picture:
                digest.update(f"{os.path.relpath(path, folder)} {os.path.getsize(path)} {picture.size}\n".encode())
        except OSError as error:
            raise ValueError(f"backgrounds {path}: cannot be read as a picture ({error})") from None
    if not found:
        raise ValueError(f"backgrounds {folder}: no photographs in it ({', '.join(ENDINGS)})")
    return found, digest.hexdigest()[:16]
