"""Clips of nine farm animals of the package gcompris-qt-data, for a model that was trained on the cast of stamps.

    python -m experiments.farm_animals --out farm

They are photographs and recordings of other people than the stamps': a small test of whether a model knows more than
its files. A clip shows a part of the whole photograph, slowly passed over, with the sound, again and again; its label
is the class of the stamps. There is no annotation. The file is one of Qt's binary resources (`qres`), a tree of named
files, some of them compressed.
"""

from __future__ import annotations

import argparse
import io
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray
from PIL import Image

from deepavfusion.bandstand.stamps import Take, load_take
from deepavfusion.bandstand.writer import encode
from deepavfusion.data.clips import Clip, write_manifest

RESOURCE = Path("/usr/share/gcompris-qt/rcc/explore_farm_animals.rcc")
"""Where the Debian package puts it."""
ANIMALS = {
    "cat": ("cat.webp", "cat.ogg", "blackcat"),
    "chicken": ("chicken.webp", "chickens.ogg", "hen"),
    "cow": ("cow.webp", "cow.ogg", "cow"),
    "dog": ("dog.webp", "dog.ogg", "dog"),
    "duck": ("duck.webp", "duck.ogg", "duck"),
    "horse": ("horse.webp", "horse.ogg", "horse"),
    "owl": ("owl.webp", "owl.ogg", "owl"),
    "pig": ("pig.webp", "pig.ogg", "pig"),
    "sheep": ("sheep.webp", "sheep.ogg", "sheep"),
}
"""Photograph, recording and class."""
COMPRESSED, FOLDER, ZSTANDARD = 1, 2, 4
"""Flags of an entry."""
SIZE, FRAME_RATE, SECONDS, SAMPLE_RATE = 160, 12.5, 4.0, 16000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resource", type=Path, default=RESOURCE, help="explore_farm_animals.rcc")
    parser.add_argument("--out", type=Path, required=True, help="folder for the clips and clips.csv")
    parser.add_argument("--clips", type=int, default=10, help="clips of each animal")
    words = parser.parse_args()
    try:
        write_clips(words.resource, words.out, words.clips)
    except ValueError as error:
        parser.error(str(error))
    sys.stdout.write(f"{words.clips * len(ANIMALS)} clips in {words.out / 'clips.csv'}\n")
    return 0


def write_clips(resource: Path, out: Path, clips: int) -> None:
    """Write so many clips of each animal and a manifest.

    Raises:
        ValueError: the resource cannot be read, or lacks an animal.
    """
    if not resource.is_file():
        raise ValueError(f"{resource}: no such file; install the package with `apt-get install gcompris-qt-data`")
    files = {os.path.basename(name): content for name, content in read_resource(resource.read_bytes(), str(resource))}
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for place, (animal, (picture, sound, label)) in enumerate(ANIMALS.items()):
        for name in (picture, sound):
            if name not in files:
                raise ValueError(f"{resource}: no {name} in it")
        photo = Image.open(io.BytesIO(files[picture])).convert("RGB")
        recording = out / sound
        recording.write_bytes(files[sound])
        take = load_take(str(recording))
        recording.unlink()
        for number in range(clips):
            rng = np.random.default_rng([place, number])
            name, path = f"{animal}_{number:02d}", out / f"{animal}_{number:02d}.mp4"
            encode(str(path), pass_over(rng, photo), repeat(rng, take), FRAME_RATE, SAMPLE_RATE)
            rows.append(Clip(id=name, path=str(path), label=label, split="test", duration_seconds=SECONDS))
    write_manifest(str(out / "clips.csv"), rows)


def pass_over(rng: np.random.Generator, photo: Image.Image) -> NDArray[np.uint8]:
    """Frames `T H W 3`: a square part of a photograph that moves by a twentieth, mirrored or not."""
    side = min(photo.size) * rng.uniform(0.85, 1.0)
    free = np.array(photo.size) - side
    start, step = rng.uniform(0, free), rng.uniform(-0.05, 0.05, 2) * side
    flip, count = rng.random() < 0.5, round(SECONDS * FRAME_RATE)
    frames = []
    for share in np.linspace(0, 1, count):
        left, top = np.clip(start + share * step, 0, free)
        part = photo.resize((SIZE, SIZE), Image.Resampling.BOX, (left, top, left + side, top + side))
        frames.append(np.asarray(part)[:, :: -1 if flip else 1])
    return np.stack(frames)


def repeat(rng: np.random.Generator, take: Take) -> NDArray[np.int16]:
    """A recording again and again with pauses, `N` samples."""
    wave = soxr.resample(take.wave, take.sample_rate, SAMPLE_RATE)
    total = np.zeros(round(SECONDS * SAMPLE_RATE), np.float32)
    start = round(rng.uniform(0.05, 0.6) * SAMPLE_RATE)
    while start < len(total):
        part = wave[: len(total) - start]
        total[start : start + len(part)] += part
        start += len(wave) + round(rng.uniform(0.3, 0.9) * SAMPLE_RATE)
    total *= min(1.0, 0.9 / float(np.abs(total).max()))
    return np.rint(32767 * total).astype(np.int16)


def read_resource(data: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    """Paths and contents of the files of a Qt binary resource.

    Args:
        data: the file.
        name: of the file, for errors.

    Raises:
        ValueError: it is none, or its files are compressed in another way than zlib's.
    """
    try:
        magic, version, tree, contents, names = struct.unpack_from(">4s4I", data)
        if magic != b"qres" or not 1 <= version <= 3:
            raise ValueError(f"{name}: not one of Qt's binary resources of version 1 to 3")
        entry = 14 if version == 1 else 22  # later versions add a time
        open_folders = [(0, "")]
        while open_folders:
            number, folder = open_folders.pop()
            at = tree + entry * number
            title, flags = struct.unpack_from(">IH", data, at)
            (length,) = struct.unpack_from(">H", data, names + title)
            # The root has no name; a name's hash lies between its length and its letters.
            letters = data[names + title + 6 : names + title + 6 + 2 * length].decode("utf-16-be") if number else ""
            path = f"{folder}/{letters}" if letters else folder
            if flags & FOLDER:
                count, first = struct.unpack_from(">II", data, at + 6)
                open_folders += [(child, path) for child in range(first, first + count)]
                continue
            if flags & ZSTANDARD:
                raise ValueError(f"{name}: {path} is compressed with zstd, which is not read here")
            (offset,) = struct.unpack_from(">I", data, at + 10)
            (size,) = struct.unpack_from(">I", data, contents + offset)
            content = data[contents + offset + 4 : contents + offset + 4 + size]
            yield path, zlib.decompress(content[4:]) if flags & COMPRESSED else content
    except (struct.error, UnicodeDecodeError, zlib.error) as error:
        raise ValueError(f"{name}: damaged, or not one of Qt's binary resources ({error})") from None


if __name__ == "__main__":
    sys.exit(main())
