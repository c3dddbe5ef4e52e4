"""What an annotation file lists: clips with their labels, and the class names.

Several labels of one clip are kept in one cell of a manifest, joined by `LABEL_SEPARATOR`, which occurs in no class
name of the supported data sets (commas, blanks, parentheses, apostrophes, slashes do).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deepavfusion.data.clip import LABEL_SEPARATOR
from deepavfusion.data.clip_names import clip_name, possible_names, segment_id, stem_of

VIDEO_SLACK_SECONDS = 1.0
"""What a file named by its video alone may be longer than its segment: more, and it holds more than that."""
CUT_SLACK_SHARE = 0.5
"""What a file whose name tells the segment may be longer, in parts of it: videos are cut at their key frames."""


@dataclass(frozen=True)
class Segment:
    """The stretch of a video that a row is about."""

    video: str
    start_seconds: float
    end_seconds: float

    @property
    def id(self) -> str:
        """Its usual name."""
        return segment_id(self.video, self.start_seconds)

    def excess(self, path: str, duration_seconds: float) -> str | None:
        """Why a file of this length is not the segment alone, None if it may be."""
        length = self.end_seconds - self.start_seconds
        whole = stem_of(path).removeprefix("YTID_") in (self.video, f"Y{self.video}")
        if duration_seconds <= length + (VIDEO_SLACK_SECONDS if whole else max(1.0, CUT_SLACK_SHARE * length)):
            return None
        return (
            f"longer than its segment: the file has {duration_seconds:.1f} s, listed are {length:g} s "
            f"({self.start_seconds:g} to {self.end_seconds:g})"
        )


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
    """Names its file may have, in the spelling of `clip_names`; the first that is there counts."""
    path: str | None = None
    """The file, where it is known without a search."""
    segment: Segment | None = None
    """The stretch of a video that is meant; None where the list does not tell its length."""

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
    stem = stem_of(cell)
    return stem if re.fullmatch(r".{11}_\d{6}", stem) else clip_name(stem)


def listed_segment(cell: str) -> Segment | None:
    """The segment that a list names with its end, `---g-f_I2yQ_000001_000011`; None where there is no end."""
    match = re.fullmatch(r"(.+)_(\d{6})_(\d{6})", stem_of(cell))
    return Segment(match[1], int(match[2]), int(match[3])) if match and int(match[2]) < int(match[3]) else None


def named_clip(cell: str, labels: tuple[str, ...], duration_seconds: float | None = None) -> ListedClip:
    """A clip of a list that names it as files are named.

    Args:
        cell: the name, with or without folder, suffix and end time.
        labels: class names.
        duration_seconds: of every clip of the list, where it is known.
    """
    name, segment = listed_name(cell), listed_segment(cell)
    match = re.fullmatch(r"(.+)_(\d{6})", name)
    if match and duration_seconds is not None:
        segment = Segment(match[1], int(match[2]), int(match[2]) + duration_seconds)
    return ListedClip(name, labels, None, tuple(dict.fromkeys((name, *possible_names(cell)))), segment=segment)


def video_clip(segment: Segment, labels: tuple[str, ...], split: str | None, whole: bool) -> ListedClip:
    """A stretch of a YouTube video.

    Args:
        segment: which.
        labels: class names.
        split: its part of the data set.
        whole: whether its file may have the name of the video alone, because no other stretch of it is listed.
    """
    names = (segment.id, f"Y{segment.id}", *((segment.video, f"Y{segment.video}") if whole else ()))
    return ListedClip(segment.id, labels, split, names, segment=segment)
