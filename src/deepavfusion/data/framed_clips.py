"""The table of frames: clips stored as image files, a sound file and masks of what sounds, as in AVSBench.

A csv file has one row per frame, with the header id,label,split,sound,frame,mask. The rows of a clip follow each other
in time, and the mask is empty where a frame is not labelled. Frames for localization, without masks, fit too.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from deepavfusion.data.annotation_files import NamedRow, read_table
from deepavfusion.data.clip import Clip, ClipError, storage_of
from deepavfusion.data.locations import is_url, join, write_whole

COLUMNS = ("id", "label", "split", "sound", "frame", "mask")


@dataclass(frozen=True)
class FramedClip:
    """One clip as pictures and sound."""

    id: str
    """Unique in the data set."""
    label: str | None
    split: str | None
    sound: str
    """The file of the whole clip's sound."""
    frames: tuple[str, ...]
    """Picture files in the order of time."""
    masks: tuple[str | None, ...]
    """The mask file of each picture, None where it is not labelled."""

    def __post_init__(self) -> None:
        if len(self.masks) != len(self.frames) or not self.frames:
            raise ValueError(
                f"{self.id}: {len(self.frames)} frames and {len(self.masks)} masks; need one mask or None each"
            )

    @property
    def files(self) -> tuple[str, ...]:
        """Every file it needs."""
        return (self.sound, *self.frames, *(mask for mask in self.masks if mask is not None))


def read_framed_clips(path: str) -> tuple[FramedClip, ...]:
    """Read a csv file of pictures; relative paths are resolved against its folder.

    Raises:
        ValueError: a column is missing, a cell is empty, a clip's rows do not follow each other or differ in label,
            split or sound; names file and line.
    """
    base = os.path.dirname(os.path.abspath(path))
    clips: dict[str, FramedClip] = {}
    last = None
    for row in read_table(path, COLUMNS):
        clip = _single(row, base)
        known = clips.get(clip.id)
        if known is not None:
            if last != clip.id:
                raise ValueError(f"{row.place}: the rows of {clip.id} must follow each other")
            if (clip.label, clip.split, clip.sound) != (known.label, known.split, known.sound):
                raise ValueError(f"{row.place}: label, split or sound differ from those of {clip.id} above")
            clip = replace(known, frames=known.frames + clip.frames, masks=known.masks + clip.masks)
        clips[clip.id] = clip
        last = clip.id
    if not clips:
        raise ValueError(f"{path}: holds no clips")
    return tuple(clips.values())


def write_framed_clips(path: str, clips: Iterable[FramedClip]) -> None:
    """Write clips so that `read_framed_clips` gives them back; the file appears complete or not at all.

    Paths below its folder become relative, so that the two can be moved together.
    """
    base = os.path.dirname(os.path.abspath(path))

    def relative(place: str) -> str:
        inside = os.path.isabs(place) and os.path.commonpath([place, base]) == base
        return os.path.relpath(place, base) if inside else place

    with write_whole(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for clip in clips:
            head = (clip.id, clip.label or "", clip.split or "", relative(clip.sound))
            for frame, mask in zip(clip.frames, clip.masks, strict=True):
                writer.writerow((*head, relative(frame), relative(mask) if mask else ""))


@dataclass(frozen=True)
class TableFrame:
    """One frame of a table."""

    video: FramedClip
    """All pictures of its clip."""
    number: int
    """Place among them, from 0."""

    @property
    def name(self) -> str:
        """Its name as a clip: the video's own if it is the only picture, else `VIDEO#NUMBER`."""
        return self.video.id if len(self.video.frames) == 1 else f"{self.video.id}#{self.number}"

    @property
    def path(self) -> str:
        return self.video.frames[self.number]

    @property
    def mask(self) -> str | None:
        """The mask's file, None where the frame is not labelled."""
        return self.video.masks[self.number]


def list_frames(table: str) -> list[Clip]:
    """The pictures of a table as clips, in its order; those without a mask too.

    Raises:
        ValueError: the table does not make sense; names file and line.
    """
    return [
        Clip(frame.name, f"{table}#{row}", frame.video.label, frame.video.split)
        for row, frame in enumerate(_read(table, _stamp(table)))
    ]


def frame_of(clip: Clip) -> TableFrame:
    """The picture that a clip of the storage `framed` is. Raises ClipError if the table has no such row any more."""
    try:
        frame = _frame_at(clip.path)
    except (ValueError, IndexError, OSError) as error:
        raise ClipError(clip.id, f"{clip.path}: {error}") from error
    if frame.name != clip.id:
        raise ClipError(clip.id, f"{clip.path}: is {frame.name} now: the table has changed")
    return frame


def lacks_mask(path: str) -> bool:
    """Whether the clip with such a path is a picture of a table that is not labelled."""
    return storage_of(path) == "framed" and _frame_at(path).mask is None


def _frame_at(path: str) -> TableFrame:
    table, _, row = path.rpartition("#")
    return _read(table, _stamp(table))[int(row)]


def _single(row: NamedRow, base: str) -> FramedClip:
    for column in ("id", "sound", "frame"):
        if not row[column]:
            raise ValueError(f"{row.place}: empty {column}")
    mask = join(base, row["mask"]) if row["mask"] else None
    return FramedClip(
        row["id"],
        row["label"] or None,
        row["split"] or None,
        join(base, row["sound"]),
        (join(base, row["frame"]),),
        (mask,),
    )


def _stamp(table: str) -> int:
    """Changes with the file, so that a table that was written anew is read anew."""
    try:
        return 0 if is_url(table) else os.stat(table).st_mtime_ns
    except OSError:
        return 0  # reading says what is wrong


@lru_cache(maxsize=8)
def _read(table: str, stamp: int) -> tuple[TableFrame, ...]:
    return tuple(TableFrame(video, number) for video in read_framed_clips(table) for number in range(len(video.frames)))
