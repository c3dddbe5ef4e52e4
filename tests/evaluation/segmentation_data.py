"""Tables of real pictures, masks and sounds of several videos, in AVSBench's official layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

RATE = 16000


def picture_and_mask(rng: np.random.Generator, side: int, empty: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A bright box on dark ground `(side, side, 3)`, and where it is; nothing sounds if `empty`."""
    pixels = rng.integers(0, 40, (side, side, 3), np.uint8)
    top, left = rng.integers(0, side // 2, 2)
    box = (slice(top, top + side // 2), slice(left, left + side // 3))
    pixels[box] += 180
    mask = np.zeros((side, side), np.uint8)
    if not empty:
        mask[box] = 1
    return pixels, mask


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_sound(path: Path, rng: np.random.Generator, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * rng.standard_normal(int(seconds * RATE)), RATE)


def write_s4(root: Path, names: dict[str, str], side: int = 48) -> Path:
    """S4 with videos NAME of a SPLIT; the first letter of a name is its category. Returns the official list."""
    rng = np.random.default_rng(0)
    for name, split in names.items():
        place = f"{split}/{name[0]}/{name}"
        for number in range(1, 6):
            pixels, mask = picture_and_mask(rng, side, empty=name.endswith("empty") and number < 3)
            save(root / "visual_frames" / place / f"{name}_{number}.png", pixels)
            if split != "train" or number == 1:
                save(root / "gt_masks" / place / f"{name}_{number}.png", 255 * mask)
        save_sound(root / "audio_wav" / f"{place}.wav", rng, 5)
    rows = "".join(f"{name},0,{name[0]},{split}\n" for name, split in names.items())
    path = root / "s4_meta_data.csv"
    path.write_text("name,start,category,split\n" + rows)
    return path


def write_avss(root: Path, videos: dict[str, tuple[str, int]]) -> Path:
    """Semantic videos UID of a PART with so many pictures, all of the test split. Returns `metadata.csv`."""
    rng, rows = np.random.default_rng(1), []
    for uid, (part, count) in videos.items():
        for number in range(count):
            pixels, mask = picture_and_mask(rng, 40)
            save(root / part / uid / "frames" / f"{number}.jpg", pixels)
            save(root / part / uid / "labels_semantic" / f"{number}.png", mask * (1 + number % 3))
        save_sound(root / part / uid / "audio.wav", rng, count)
        rows.append(f"{uid},{uid},0,0,x,test,{part}\n")
    path = root / "metadata.csv"
    path.write_text("vid,uid,s_min,s_sec,a_obj,split,label\n" + "".join(rows))
    return path
