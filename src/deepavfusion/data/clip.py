"""A clip: the typed row of every data set."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal

Verdict = Literal["ok", "quarantined"]
Storage = Literal["file", "shard", "framed", "row"]
VERDICTS = ("ok", "quarantined")
LABEL_SEPARATOR = "|"
"""Between several labels of one clip."""
_SHARDED = re.compile(r"\.tar#\d+$")
_FRAMED = re.compile(r"\.csv#\d+$")
_ROW = re.compile(r"\.(parquet|tar)#\d+:")


_STORED: dict[Storage, re.Pattern[str]] = {"shard": _SHARDED, "framed": _FRAMED, "row": _ROW}


class ClipError(Exception):
    """A clip that could not be read: `clip_id` and, in words, the `cause`."""

    def __init__(self, clip_id: str, cause: str) -> None:
        super().__init__(clip_id, cause)  # the arguments of the constructor, so that the error can be pickled
        self.clip_id = clip_id
        self.cause = cause

    def __str__(self) -> str:
        return f"clip {self.clip_id}: {self.cause}"


@dataclass(frozen=True)
class ClipInfo:
    """What an opened clip tells of itself without being decoded through, wherever it is stored."""

    duration_seconds: float
    """Where the later of the tracks ends, counted from where the earlier one starts; 0 of a picture alone."""
    has_picture: bool
    """Whether there is a picture track with anything in it; cover art is none."""
    has_sound: bool
    width: int = 0
    """Of the displayed picture, in pixels; 0 without a picture."""
    height: int = 0
    frame_rate: float = 0.0
    """Frames per second on average; 0 where unknown."""
    sample_rate: int = 0
    """0 without sound."""
    channels: int = 0


@dataclass(frozen=True)
class Clip:
    """One clip. Everything but `id` and `path` may be unknown (None): an audit fills it in."""

    id: str
    """Unique name in the data set."""
    path: str
    """A media file, `SHARD.tar#OFFSET` for a clip inside a shard, `TABLE.csv#ROW` for a picture of a table with its
    sound, or `FILE.parquet#ROW:video=COLUMN` for a row that holds media; in a manifest relative to its folder."""
    label: str | None = None
    """Class name."""
    split: str | None = None
    """Part of the data set: train, test, ..."""
    duration_seconds: float | None = None
    """Length of the longer track."""
    num_bytes: int | None = None
    """Size of the file; of a row that holds media, of the file it is in."""
    width: int | None = None
    """Width of the displayed picture in pixels; None without a picture."""
    height: int | None = None
    """Height of the displayed picture in pixels; None without a picture."""
    frame_rate: float | None = None
    """Frames per second; None without a picture."""
    sample_rate: int | None = None
    """Samples per second of the stored sound; None without sound."""
    channels: int | None = None
    """Channels of the stored sound; None without sound."""
    verdict: Verdict | None = None
    """What the audit found; None before any audit. Quarantined clips are not read."""
    reason: str | None = None
    """Why the clip is quarantined, or what is odd about one that is not."""
    modified_ns: int | None = None
    """Modification time of the file when it was audited, in nanoseconds."""
    digest: str | None = None
    """BLAKE2 digest of the file's bytes, in a shard of the clip's description; hexadecimal."""

    @property
    def storage(self) -> Storage:
        """How the clip is stored, which decides how it is opened."""
        return storage_of(self.path)

    def with_info(self, info: ClipInfo) -> Clip:
        """The row with what an opened file tells of its tracks."""
        return replace(
            self,
            duration_seconds=round(info.duration_seconds, 4),
            width=info.width if info.has_picture else None,
            height=info.height if info.has_picture else None,
            frame_rate=round(info.frame_rate, 4) if info.has_picture else None,
            sample_rate=info.sample_rate if info.has_sound else None,
            channels=info.channels if info.has_sound else None,
        )


def storage_of(path: str) -> Storage:
    """How the clip with such a path is stored."""
    if "#" not in path:
        return "file"
    return next((storage for storage, pattern in _STORED.items() if pattern.search(path)), "file")


def file_of(path: str) -> str:
    """The file that holds the clip with such a path: the path itself, or that of its shard, table or Parquet file."""
    return path if storage_of(path) == "file" else path.rpartition("#")[0]


COLUMNS = tuple(field.name for field in fields(Clip))
"""Of a manifest."""
NUMBERS: dict[str, Callable[[str], int | float]] = {
    "duration_seconds": float,
    "num_bytes": int,
    "width": int,
    "height": int,
    "frame_rate": float,
    "sample_rate": int,
    "channels": int,
    "modified_ns": int,
}
"""Columns that hold numbers, and what reads one."""
