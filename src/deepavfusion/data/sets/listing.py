"""What an annotation file lists: clips with their labels, and the vocabulary these come from.

Several labels of one clip are kept in one cell of a manifest, joined by `LABEL_SEPARATOR`, which occurs in no class
name of the field (commas, blanks, parentheses, apostrophes, slashes do).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from deepavfusion.data.clips import CONTAINER_SUFFIXES
from deepavfusion.data.labels import clip_name

LABEL_SEPARATOR = "|"


@dataclass(frozen=True)
class ListedClip:
    """One clip that an annotation file names."""

    id: str
    """Unique in the list."""
    labels: tuple[str, ...]
    """Class names; none where the file gives none, several for several sound events."""
    split: str | None
    """train, test, ...; None where the file does not tell."""
    names: tuple[str, ...]
    """Names its file may have, without suffix and end time; the first that is there counts."""
    path: str | None = None
    """The file, where it is known without a search."""

    @property
    def label(self) -> str | None:
        """The labels in one cell, None without any. Raises ValueError as `join_labels`."""
        return join_labels(self.labels)


@dataclass(frozen=True)
class Listing:
    """The clips of an annotation file and the class names, in the order of the class numbers."""

    clips: tuple[ListedClip, ...]
    classes: tuple[str, ...]


def join_labels(labels: Sequence[str]) -> str | None:
    """One cell for several labels, as they are ordered; None for none.

    Raises:
        ValueError: a label holds the separator or is empty.
    """
    for label in labels:
        if not label or LABEL_SEPARATOR in label:
            raise ValueError(f"label {label!r} must not be empty or hold {LABEL_SEPARATOR!r}")
    return LABEL_SEPARATOR.join(labels) or None


def split_labels(cell: str | None) -> tuple[str, ...]:
    """The labels of a cell; undoes `join_labels`."""
    return tuple(cell.split(LABEL_SEPARATOR)) if cell else ()


def unique(clips: Iterable[tuple[ListedClip, str]]) -> tuple[ListedClip, ...]:
    """The clips, given with their places, if no id occurs twice.

    Raises:
        ValueError: one does; names both places.
    """
    places: dict[str, str] = {}
    kept = []
    for clip, place in clips:
        if clip.id in places:
            raise ValueError(f"{place}: {clip.id} is already listed in {places[clip.id]}")
        places[clip.id] = place
        kept.append(clip)
    return tuple(kept)


def listed_name(cell: str) -> str:
    """What a list calls a clip: the name without folder, suffix and end time.

    `test/---g-f_I2yQ_000001_000011.mp4` gives `---g-f_I2yQ_000001`, and so does that name itself; `abcd_123456_000030`,
    whose YouTube id ends in six digits, stays.
    """
    name = PurePosixPath(cell)
    stem = name.stem if name.suffix.lower() in CONTAINER_SUFFIXES else name.name
    return stem if re.fullmatch(r".{11}_\d{6}", stem) else clip_name(stem)


def segment_id(video: str, start_seconds: float) -> str:
    """The usual name of a stretch of a YouTube video: `---g-f_I2yQ` from second 1 is `---g-f_I2yQ_000001`."""
    return f"{video}_{int(start_seconds):06d}"


def segment_names(video: str, start_seconds: float, end_seconds: float) -> tuple[str, ...]:
    """Names under which downloaders leave a stretch of a video: in six digits, seconds, milliseconds.

    A name that ends in a second number of six digits is found without it, see `clip_index`.
    """
    start, end = f"{start_seconds:g}", f"{end_seconds:g}"
    return (
        segment_id(video, start_seconds),
        f"{video}_{start_seconds * 1000:.0f}_{end_seconds * 1000:.0f}",
        f"{video}_{start}_{end}",
        f"{video}_{start_seconds:.3f}_{end_seconds:.3f}",
        f"{video}_{start_seconds:.3f}",
        f"{video}_{start}",
    )


def named_segment(name: str, duration_seconds: float) -> tuple[str, ...]:
    """`segment_names` of a stretch named by `segment_id`; the name alone if it is not one."""
    match = re.fullmatch(r"(.+)_(\d{6})", name)
    return segment_names(match[1], int(match[2]), int(match[2]) + duration_seconds) if match else (name,)
