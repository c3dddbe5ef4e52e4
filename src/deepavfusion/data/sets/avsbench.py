"""AVSBench (Zhou et al. 2022, 2023): pictures of sounding objects with masks, in the layouts of its three parts.

S4, one source: `s4_meta_data.csv` with the columns name, start, category, split;
    `visual_frames/SPLIT/CATEGORY/NAME/NAME_{1..5}.png`, `gt_masks` alike, `audio_wav/SPLIT/CATEGORY/NAME.wav`.
    For training only the first picture is labelled.
MS3, several sources: `ms3_meta_data.csv` with name, split; `visual_frames/NAME/NAME.mp4_{1..5}.png`,
    `gt_masks/SPLIT/NAME/NAME_{1..5}.png`, `audio_wav/SPLIT/NAME.wav`.
Semantic (AVSS): `metadata.csv` with uid, split, label and more, label being v1s, v1m or v2 for where a video comes
    from; `LABEL/UID/{frames/{0..}.jpg, labels_semantic/{0..}.png, audio.wav}`, 5 pictures for v1s and v1m, 10 for v2.
    Of v1s only the first picture is labelled for training.

Pictures are one second apart. Nothing is looked for here: the paths are those that should be there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from deepavfusion.data.annotation_files import NamedRow, read_json, read_table
from deepavfusion.data.framed_clips import FramedClip

SPLITS = ("train", "val", "test")
NUM_FRAMES = {"v1s": 5, "v1m": 5, "v2": 10}


def read_s4(path: str, root: str) -> tuple[FramedClip, ...]:
    """The videos of S4; ids are CATEGORY/NAME.

    Args:
        path: `s4_meta_data.csv`.
        root: the folder that holds `visual_frames`, `gt_masks` and `audio_wav`.

    Raises:
        ValueError: a column is missing, an unknown split, a video listed twice; names file and line.
    """
    return tuple(_once(_s4(path, root)))


def read_ms3(path: str, root: str) -> tuple[FramedClip, ...]:
    """The videos of MS3; ids are NAME. Arguments and errors as `read_s4`."""
    return tuple(_once(_ms3(path, root)))


def read_semantic(path: str, root: str) -> tuple[FramedClip, ...]:
    """The videos of AVSBench-semantic; ids are LABEL/UID and the label names the sounding objects, `a_obj`.

    Args:
        path: `metadata.csv`.
        root: the folder that holds `v1s`, `v1m` and `v2`.

    Raises:
        ValueError: as `read_s4`, or an unknown part.
    """
    return tuple(_once(_semantic(path, root)))


def read_label2idx(path: str) -> tuple[str, ...]:
    """Class names in the order of the numbers in `labels_semantic`, background first, from `label2idx.json`.

    The file exists counted from 0 and from 1; the number of "background" tells which. The masks count from 0.

    Raises:
        ValueError: background is neither 0 nor 1, or the numbers are not consecutive.
    """
    numbers = read_json(path)
    if not isinstance(numbers, dict) or numbers.get("background") not in (0, 1):
        raise ValueError(f'{path}: must map class names to numbers, "background" to 0 or 1')
    first = numbers["background"]
    if sorted(numbers.values()) != list(range(first, first + len(numbers))):
        raise ValueError(f"{path}: the numbers must be {first} to {first + len(numbers) - 1}, each once")
    return tuple(sorted(numbers, key=numbers.__getitem__))


def _s4(path: str, root: str) -> Iterator[tuple[FramedClip, str]]:
    for row in read_table(path, ("category", "split")):
        name, category, split = _name(row), row["category"], _split(row)
        numbers = range(1, 6)
        place = os.path.join(split, category, name)
        frames = tuple(os.path.join(root, "visual_frames", place, f"{name}_{number}.png") for number in numbers)
        masks = tuple(
            os.path.join(root, "gt_masks", place, f"{name}_{number}.png") if split != "train" or number == 1 else None
            for number in numbers
        )
        yield FramedClip(f"{category}/{name}", category, split, _sound(root, place), frames, masks), row.place


def _ms3(path: str, root: str) -> Iterator[tuple[FramedClip, str]]:
    for row in read_table(path, ("split",)):
        name, split = _name(row), _split(row)
        numbers = range(1, 6)
        frames = tuple(os.path.join(root, "visual_frames", name, f"{name}.mp4_{number}.png") for number in numbers)
        masks = tuple(os.path.join(root, "gt_masks", split, name, f"{name}_{number}.png") for number in numbers)
        yield FramedClip(name, None, split, _sound(root, os.path.join(split, name)), frames, masks), row.place


def _semantic(path: str, root: str) -> Iterator[tuple[FramedClip, str]]:
    for row in read_table(path, ("uid", "split", "label")):
        part, split = row["label"], _split(row)
        if part not in NUM_FRAMES:
            raise ValueError(f"{row.place}: label {part!r} must be one of {', '.join(NUM_FRAMES)}")
        folder = os.path.join(root, part, row["uid"])
        numbers = range(NUM_FRAMES[part])
        frames = tuple(os.path.join(folder, "frames", f"{number}.jpg") for number in numbers)
        first_only = part == "v1s" and split == "train"
        masks = tuple(
            None if first_only and number > 0 else os.path.join(folder, "labels_semantic", f"{number}.png")
            for number in numbers
        )
        objects = row.cells.get("a_obj") or None
        sound = os.path.join(folder, "audio.wav")
        yield FramedClip(f"{part}/{row['uid']}", objects, split, sound, frames, masks), row.place


def _name(row: NamedRow) -> str:
    return next(iter(row.cells.values()))  # the first column, whose header varies


def _split(row: NamedRow) -> str:
    if row["split"] not in SPLITS:
        raise ValueError(f"{row.place}: split {row['split']!r} must be one of {', '.join(SPLITS)}")
    return row["split"]


def _sound(root: str, place: str) -> str:
    return os.path.join(root, "audio_wav", f"{place}.wav")


def _once(clips: Iterator[tuple[FramedClip, str]]) -> Iterator[FramedClip]:
    places: dict[str, str] = {}
    for clip, place in clips:
        if clip.id in places:
            raise ValueError(f"{place}: {clip.id} is already listed in {places[clip.id]}")
        places[clip.id] = place
        yield clip
