"""The second cast: handwritten and spoken digits of real people, in the same scenes as the instruments.

Two to four handwritten digits (MNIST) stand in the frame. Of the recordings (FSDD) either one shown digit is heard, or
one that is not shown, or two at once. The label needs both modalities: is the spoken digit on the left, on the right,
or absent? Each modality alone is at 1/3. Digits do not move. One speaker, and the handwriting of the test split, occur
only in the test split.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from deepavfusion.bandstand.backdrop import draw_backdrop
from deepavfusion.bandstand.looks import Palette, Sprite
from deepavfusion.bandstand.scenes import draw_camera, draw_places, draw_room
from deepavfusion.bandstand.sources import LEVEL, draw_palette
from deepavfusion.bandstand.splits import Plan, Split
from deepavfusion.bandstand.stage import Performer, Scene
from deepavfusion.bandstand.world import STAGE_UNITS, stream

SPLITS = MappingProxyType(
    {
        split.name: split
        for split in (
            Split("pretrain", "Unlabelled scenes for pre-training.", 60),
            Split("train", "Is the spoken digit left, right or absent?", 20, 3),
            Split("val", "The same: unseen handwriting, unseen takes.", 5, 3),
            Split("test", "The same: unseen handwriting, unseen speaker.", 10, 3),
            Split("duets", "Two shown digits spoken at once, with stems: unseen handwriting and takes.", 5),
        )
    }
)
LABELS = ("left", "right", "absent")
SIZES = {2: (50.0, 72.0), 3: (44.0, 62.0), 4: (40.0, 54.0)}
MIDDLE = 6.0
"""No digit's centre is nearer to the middle line than this, in stage units."""
NUM_VALIDATION_TAKES = 5
"""Takes 0 to 4 of every speaker and digit are kept out of training, as the recordings' own convention has it."""
_RECORDING = re.compile(r"(\d)_([A-Za-z]+)_(\d+)\.(?:flac|wav)$")


@dataclass(frozen=True, eq=False)
class Digit:
    """A handwritten digit that is spoken a few times."""

    digit: int
    speaker: str
    size: float
    image: NDArray[np.uint8]
    """Its strokes, cropped, dark background."""
    takes: tuple[NDArray[np.float32], ...]
    """Recordings, one per time it is spoken."""
    take_rate: int
    onsets: tuple[float, ...]
    palette: Palette

    @property
    def class_name(self) -> str:
        return str(self.digit)

    @property
    def look(self) -> str:
        return str(self.digit)

    @property
    def timbre(self) -> str:
        return self.speaker

    def pose(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.zeros_like(seconds)

    def sprite(self, diameter: float, pose: float, centre: tuple[float, float], light: tuple[float, float]) -> Sprite:
        height, width = self.image.shape
        scale = diameter / max(height, width)
        side = 2 * int(np.ceil(diameter / 2 + 4))
        # From patch pixels back to the pixels of the handwriting.
        shift = [(extent / 2) - (side / 2 + c) / scale for extent, c in zip((width, height), centre, strict=True)]
        inverse = (1 / scale, 0.0, shift[0], 0.0, 1 / scale, shift[1])
        strokes = Image.fromarray(self.image).transform(
            (side, side), Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC
        )
        fat = strokes.filter(ImageFilter.MaxFilter(3)).filter(ImageFilter.MaxFilter(3))
        # A steep ramp about the half level turns blurred strokes into smooth-edged ones.
        cover, border = (
            np.clip((np.asarray(picture, np.float32) - np.float32(127.5)) * np.float32(3 / 255) + np.float32(0.5), 0, 1)
            for picture in (strokes, fat)
        )
        dark, body = (np.array((*colour, 1), np.float32) for colour in (self.palette.dark, self.palette.body))
        top, under = cover[..., None], (border * (1 - cover))[..., None]
        return Sprite(under * dark + top * body, border > 0.5)

    def _waves(self, sample_rate: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for onset, take in zip(self.onsets, self.takes, strict=True):
            wave = soxr.resample(take, self.take_rate, sample_rate)
            yield round(onset * sample_rate), wave * np.float32(LEVEL / (np.sqrt(np.mean(wave * wave)) + 1e-9))

    def sound(self, num_samples: int, sample_rate: int) -> NDArray[np.float32]:
        total = np.zeros(num_samples, np.float32)
        for start, wave in self._waves(sample_rate):
            wave = wave[: max(num_samples - start, 0)]
            total[start : start + len(wave)] += wave
        return total

    def sounding(self) -> tuple[tuple[float, float], ...]:
        ends = (round(o + len(take) / self.take_rate, 3) for o, take in zip(self.onsets, self.takes, strict=True))
        return tuple(zip(self.onsets, ends, strict=True))

    def describe(self, heard: bool) -> dict[str, Any]:
        return {"digit": self.digit, "speaker": self.speaker} if heard else {"digit": self.digit}


class Digits:
    """The cast of digits, read from local files."""

    name = "digits"
    splits = SPLITS
    classes = tuple(str(digit) for digit in range(10))
    origin = "The handwriting is MNIST's, the recordings are those of the Free Spoken Digit Dataset."

    def __init__(self, images: str, recordings: str, held_out_speaker: str) -> None:
        """Read handwriting and recordings.

        Args:
            images: folder or zip file with MNIST's idx files.
            recordings: folder or zip file with `DIGIT_SPEAKER_TAKE.flac` or `.wav`.
            held_out_speaker: heard in the test split only.

        Raises:
            ValueError: files are missing or not what they should be.
        """
        pictures, labels = read_mnist(images)
        self.take_rate, takes = read_recordings(recordings)
        speakers = sorted({speaker for _, speaker, _ in takes})
        if held_out_speaker not in speakers:
            raise ValueError(f"held_out_speaker {held_out_speaker!r} is not among the speakers {', '.join(speakers)}")
        digest = hashlib.sha256(pictures.tobytes() + labels.tobytes())
        # part -> digit -> pictures; part -> (digit, speaker) -> recordings
        self._pictures: dict[str, list[NDArray[np.uint8]]] = {}
        for digit in range(10):
            mine = pictures[labels == digit]
            if len(mine) < 7:
                raise ValueError(f"{images}: {len(mine)} images of digit {digit}; at least 7 are needed")
            first, second = len(mine) * 5 // 7, len(mine) * 6 // 7
            for part, chosen in (("train", mine[:first]), ("val", mine[first:second]), ("test", mine[second:])):
                self._pictures.setdefault(part, []).append(chosen)
        self._takes: dict[str, dict[tuple[int, str], list[NDArray[np.float32]]]] = {
            part: defaultdict(list) for part in ("train", "val", "test")
        }
        for (digit, speaker, take), wave in sorted(takes.items(), key=lambda item: item[0]):
            digest.update(wave.tobytes())
            part = "val" if take < NUM_VALIDATION_TAKES else "train"
            self._takes["test" if speaker == held_out_speaker else part][digit, speaker].append(wave)
        self.digest = digest.hexdigest()[:16]
        """Names the data that were read."""
        self.settings = {"held_out_speaker": held_out_speaker, "digits": self.digest}
        self._speakers = {part: sorted({s for _, s in self._takes[part]}) for part in self._takes}
        for part in self._takes:
            lacking = [(d, s) for s in self._speakers[part] for d in range(10) if (d, s) not in self._takes[part]]
            if lacking or not self._speakers[part]:
                raise ValueError(f"{recordings}: no recordings for {part} of (digit, speaker) {lacking or 'any'}")

    def plan(self, seed: int, split: str, index: int, seconds: float) -> Plan:
        """Decide what happens in clip `index` of a split; arguments as in `splits.Cast`."""
        rng = stream(seed, f"digits/{split}", index, "scene")
        part = {"pretrain": "train", "duets": "val"}.get(split, split)
        group, variant = divmod(index, SPLITS[split].block)
        if split == "duets":
            return self._scene(rng, part, "duet", seconds)
        if split == "pretrain":
            kinds = [*LABELS, "duet", "silent"]
            return self._scene(rng, part, str(rng.choice(kinds, p=[0.3, 0.3, 0.2, 0.15, 0.05])), seconds)
        order = stream(seed, f"digits/{split}", group, "labels").permutation(3)
        label = LABELS[order[variant]]
        return replace(self._scene(rng, part, label, seconds), label=label)

    def _scene(self, rng: np.random.Generator, part: str, kind: str, seconds: float) -> Plan:
        """One of the labels, or `duet` (two shown digits are spoken), or `silent`."""
        count = int(rng.choice([2, 3, 4], p=[0.5, 0.3, 0.2]))
        zoom = float(rng.uniform(0.95, 1.05))
        shown = [int(d) for d in rng.permutation(10)[: count + 1]]
        sizes = [float(rng.uniform(*SIZES[count])) for _ in range(count)]
        while True:  # both sides are taken, and no digit stands in the middle
            places = draw_places(rng, [zoom * size for size in sizes])
            across = np.array([x - STAGE_UNITS / 2 for x, _ in places])
            if across.min() < -MIDDLE and across.max() > MIDDLE and np.abs(across).min() > MIDDLE:
                break
        side = {"left": across < 0, "right": across > 0}.get(kind, np.ones(count, bool))
        spoken = {"duet": 2, "silent": 0, "absent": 0}.get(kind, 1)
        chosen = set(rng.permutation(np.flatnonzero(side))[:spoken].tolist())
        performers = [
            Performer(self._digit(rng, part, shown[n], sizes[n], seconds), places[n], n in chosen, _gain(rng))
            for n in range(count)
        ]
        if kind == "absent":
            performers.append(Performer(self._digit(rng, part, shown[count], 50.0, seconds), None, True, _gain(rng)))
        heard = [p.source.digit for p in performers if p.audible and isinstance(p.source, Digit)]
        scene = Scene(tuple(performers), draw_backdrop(rng), draw_camera(rng, zoom), draw_room(rng))
        return Plan(scene, kind if kind in ("duet", "silent", "absent") else "present", facts={"spoken": heard})

    def _digit(self, rng: np.random.Generator, part: str, digit: int, size: float, seconds: float) -> Digit:
        pictures = self._pictures[part][digit]
        picture = pictures[rng.integers(len(pictures))]
        rows, columns = np.flatnonzero(picture.max(1) > 64), np.flatnonzero(picture.max(0) > 64)
        picture = np.pad(picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1)
        speaker = str(rng.choice(self._speakers[part]))
        recordings = self._takes[part][digit, speaker]
        onsets: list[float] = []
        takes: list[NDArray[np.float32]] = []
        now = rng.uniform(0.05, 0.6)
        while True:
            take = recordings[rng.integers(len(recordings))]
            if takes and now + len(take) / self.take_rate > seconds:
                break
            onsets.append(round(float(now), 3))
            takes.append(take[: int((seconds - onsets[-1]) * self.take_rate)])
            now += len(take) / self.take_rate + rng.uniform(0.25, 0.7)
        return Digit(
            digit, speaker, round(size, 2), picture, tuple(takes), self.take_rate, tuple(onsets), draw_palette(rng)
        )


def _gain(rng: np.random.Generator) -> float:
    return round(float(rng.uniform(-6, 3)), 2)


def _files(place: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents of all files in a folder or zip file, in order of name."""
    if os.path.isdir(place):
        for folder, _, names in sorted(os.walk(place)):
            for name in sorted(names):
                if _RECORDING.search(name) or "idx" in name:
                    with open(os.path.join(folder, name), "rb") as file:
                        yield name, file.read()
    elif zipfile.is_zipfile(place):
        with zipfile.ZipFile(place) as archive:
            for name in sorted(archive.namelist()):
                if not name.endswith("/"):
                    yield os.path.basename(name), archive.read(name)
    else:
        raise ValueError(f"{place}: neither a folder nor a zip file")


def read_mnist(place: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pictures `K 28 28` and labels `K` of all pairs of idx files."""
    found: dict[str, NDArray[np.uint8]] = {}
    for name, data in _files(place):
        if match := re.match(r"(.*)(images|labels)[-.]idx\d-ubyte(\.gz)?$", name):
            found[match[1] + match[2]] = _parse_idx(gzip.decompress(data) if match[3] else data, name)
    stems = sorted({name[: -len("images")] for name in found})
    if not stems:
        raise ValueError(f"{place}: no MNIST files in it, such as images-idx3-ubyte.gz and labels-idx1-ubyte.gz")
    for stem in stems:
        images, labels = found.get(stem + "images"), found.get(stem + "labels")
        if images is None or labels is None or len(images) != len(labels):
            raise ValueError(f"{place}: {stem}images and {stem}labels do not match")
    return tuple(np.concatenate([found[stem + kind] for stem in stems]) for kind in ("images", "labels"))  # type: ignore[return-value]


def _parse_idx(data: bytes, name: str) -> NDArray[np.uint8]:
    """An array in MNIST's own format: two zero bytes, type 8, number of axes, big-endian sizes, values."""
    axes = data[3] if len(data) > 4 and data[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(data, ">u4", axes, 4).astype(int) if axes else np.zeros(0, int)
    if not axes or len(data) != 4 + 4 * axes + int(shape.prod()):
        raise ValueError(f"{name}: not an idx file of bytes")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def read_recordings(place: str) -> tuple[int, dict[tuple[int, str, int], NDArray[np.float32]]]:
    """Sample rate, and recordings by digit, speaker, take."""
    takes: dict[tuple[int, str, int], NDArray[np.float32]] = {}
    rates = set()
    for name, data in _files(place):
        if match := _RECORDING.search(name):
            wave, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
            takes[int(match[1]), match[2], int(match[3])] = wave.mean(1)
            rates.add(rate)
    if not takes:
        raise ValueError(f"{place}: no recordings in it, named DIGIT_SPEAKER_TAKE.flac or .wav")
    if len(rates) > 1:
        raise ValueError(f"{place}: recordings of different sample rates {sorted(rates)}")
    return rates.pop(), takes
