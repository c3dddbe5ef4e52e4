"""The typed row of every data set: what is known of one clip, where clips are found, how rows are kept in a manifest.

A manifest is a csv file with one row per clip. It is the only thing training reads: a folder is turned into rows on
the fly, shards carry their own manifest. Neither torch nor PyAV is imported here, so that listing and checking a data
set is quick and works where no decoder is installed.
"""

from __future__ import annotations

import csv
import difflib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import PurePath
from typing import Any, Literal, Protocol

from deepavfusion.data.csv_text import check_commas
from deepavfusion.data.file_kinds import CONTAINER_SUFFIXES, namesakes, walk
from deepavfusion.data.locations import from_text, is_url, join, one_line, open_text, to_text, write_whole

SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")
"""A top folder of one of these names is a split."""
SHARDS_FILE, SHARDS_MANIFEST = "shards.json", "clips.csv"
"""What makes a folder a set of shards, and the manifest of the clips inside."""

Verdict = Literal["ok", "quarantined"]
_SHARDED = re.compile(r"\.tar#\d+$")
_FRAMED = re.compile(r"\.csv#\d+$")


class ClipError(Exception):
    """A clip that could not be read: `clip_id` and, in words, the `cause`."""

    def __init__(self, clip_id: str, cause: str) -> None:
        super().__init__(clip_id, cause)  # the arguments of the constructor, so that the error can be pickled
        self.clip_id = clip_id
        self.cause = cause

    def __str__(self) -> str:
        return f"clip {self.clip_id}: {self.cause}"


class TrackInfo(Protocol):
    """What an opened clip tells of its tracks."""

    @property
    def duration_seconds(self) -> float: ...
    @property
    def has_picture(self) -> bool: ...
    @property
    def has_sound(self) -> bool: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def frame_rate(self) -> float: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def channels(self) -> int: ...


@dataclass(frozen=True)
class Clip:
    """One clip. Everything but `id` and `path` may be unknown (None): an audit fills it in."""

    id: str
    """Unique name in the data set."""
    path: str
    """A media file, `SHARD.tar#OFFSET` for a clip inside a shard, or `TABLE.csv#ROW` for a picture of a table with its
    sound; in a manifest relative to its folder."""
    label: str | None = None
    """Class name."""
    split: str | None = None
    """Part of the data set: train, test, ..."""
    duration_seconds: float | None = None
    """Length of the longer track."""
    num_bytes: int | None = None
    """Size of the file."""
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
    def storage(self) -> Literal["file", "shard", "framed"]:
        """How the clip is stored, which decides how it is opened."""
        return "shard" if _SHARDED.search(self.path) else "framed" if _FRAMED.search(self.path) else "file"

    def with_info(self, info: TrackInfo) -> Clip:
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


_COLUMNS = tuple(field.name for field in fields(Clip))
_NUMBERS: dict[str, Callable[[str], int | float]] = {
    "duration_seconds": float,
    "num_bytes": int,
    "width": int,
    "height": int,
    "frame_rate": float,
    "sample_rate": int,
    "channels": int,
    "modified_ns": int,
}


def find_clips(source: str) -> list[Clip]:
    """List the clips of a folder of media files, a manifest, a table of pictures, or a folder or URL of shards.

    Rows of a manifest whose verdict is `quarantined` are left out (`quarantined` tells which these are). The order is
    fixed: by id for a folder, that of the rows for a manifest.

    Args:
        source: a folder, searched recursively; a manifest (`.csv`); or where shards were written.

    Raises:
        ValueError: nothing there, no clips in it, or a manifest that does not make sense; names the place and the fix.
    """
    clips = [clip for clip in list_clips(source) if clip.verdict != "quarantined"]
    if not clips:
        raise ValueError(f"{source}: every clip is quarantined; see the column reason")
    return clips


def quarantined(source: str) -> list[Clip]:
    """The rows that `find_clips` leaves out of the same source. Raises ValueError as it does."""
    return [clip for clip in list_clips(source) if clip.verdict == "quarantined"]


def list_clips(source: str) -> list[Clip]:
    """All clips of a source, quarantined ones included. Arguments and errors as in `find_clips`."""
    if source.endswith(".csv"):
        return _list_stills(source) if _holds_pictures(source) else read_manifest(source)
    if is_url(source) or os.path.isfile(os.path.join(source, SHARDS_FILE)):
        return read_manifest(join(source, SHARDS_MANIFEST))
    return _scan(source)


def _holds_pictures(path: str) -> bool:
    """Whether a csv file is a table of pictures with their sound and masks (`sets.framed_clips`), not a manifest."""
    try:
        with open_text(path) as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False  # reading it as a manifest says what is wrong
    return {"id", "sound", "frame"} <= set(header)


def _list_stills(path: str) -> list[Clip]:
    from deepavfusion.data.framed import list_stills

    return list_stills(path)


def _scan(folder: str) -> list[Clip]:
    if not os.path.exists(folder):
        raise ValueError(f"{folder}: no such folder; give a folder of video files, a manifest (.csv) or shards")
    if not os.path.isdir(folder):
        raise ValueError(f"{folder}: neither a folder nor a manifest (.csv)")
    folder = os.path.abspath(folder)
    found, others = [], Counter[str]()
    for place, names in walk(folder):
        own = {name for group in namesakes(names).values() for name in group.clips}
        for name in names:
            relative = PurePath(os.path.relpath(os.path.join(place, name), folder))
            if name in own:
                found.append(relative)
            else:
                others[relative.suffix.lower() or "no suffix"] += 1
    if not found:
        seen = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5)) or "nothing"
        raise ValueError(f"{folder}: no video files in it (found {seen}); known are {' '.join(CONTAINER_SUFFIXES)}")
    bare = Counter(one_line(path.with_suffix("").as_posix()) for path in found)
    used, clips = set[str](), []
    for path in sorted(found):
        name = one_line(path.with_suffix("").as_posix())
        name = name if bare[name] == 1 else one_line(path.as_posix())
        while name in used:  # a name that is written like the escapes of another
            name += "~"
        used.add(name)
        label, split = layout(path)
        clips.append(Clip(name, os.path.join(folder, path), label and one_line(label), split))
    if len({clip.label for clip in clips}) == 1:  # one folder for everything is no class
        clips = [replace(clip, label=None) for clip in clips]
    return sorted(clips, key=lambda clip: clip.id)


def layout(path: PurePath) -> tuple[str | None, str | None]:
    """Class and split that the usual folder layouts tell: `split/class/name.mp4`, `class/name.mp4`, `na/name.mp4`.

    The split is the outermost folder if it is one of `SPLITS`. The label is the innermost folder, unless that is the
    split or only sorts the files by the one or two characters that their names begin with.

    Args:
        path: relative to the data set's folder.

    Returns:
        `(label, split)`, each None where the path does not tell.
    """
    folders = path.parts[:-1]
    split = folders[0] if folders and folders[0].lower() in SPLITS else None
    inner = folders[1:] if split else folders
    if not inner or (len(inner[-1]) <= 2 and path.name.startswith(inner[-1])):
        return None, split
    return inner[-1], split


def read_manifest(path: str) -> list[Clip]:
    """Read a manifest, quarantined rows included; relative paths are resolved against the manifest's folder.

    Only the columns `id` and `path` are required; empty cells are unknown (None).

    Args:
        path: a csv file, local or an fsspec URL.

    Raises:
        ValueError: no file, no rows, missing or unknown columns, an id twice, a cell that does not fit; names the
            file, the line and the fix.
    """
    try:
        with open_text(path) as file:
            return _parse(file, path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such manifest; write one with `deepavfusion audit FOLDER --out {path}`") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a csv file in UTF-8 ({error})") from None
    except OSError as error:
        if is_url(path):
            raise
        raise ValueError(f"{path}: {error.strerror or error}; give a manifest, a folder or shards") from None


def _parse(file: Iterable[str], path: str) -> list[Clip]:
    reader = csv.DictReader(check_commas(file, path))
    header = list(reader.fieldnames or ())
    for column in header:
        if column not in _COLUMNS:
            near = difflib.get_close_matches(column, _COLUMNS, n=1)
            fix = f"did you mean {near[0]}?" if near else f"remove it; known are {', '.join(_COLUMNS)}"
            raise ValueError(f"{path}, line 1: unknown column {column!r}; {fix}")
    lacking = [column for column in ("id", "path") if column not in header]
    if lacking:
        raise ValueError(
            f"{path}, line 1: no column {' and no column '.join(lacking)}; the first line names the columns"
        )
    base = re.sub(r"[^/]*$", "", path) if is_url(path) else os.path.dirname(os.path.abspath(path))
    clips: list[Clip] = []
    lines: dict[str, int] = {}
    for row in reader:
        place = f"{path}, line {reader.line_num}"
        if None in row or None in row.values():
            raise ValueError(f"{place}: has not {len(header)} cells as the first line; quote cells that hold commas")
        clip = _row(row, place)
        if clip.id in lines:
            raise ValueError(f"{place}: id {clip.id!r} was already used in line {lines[clip.id]}; ids must be unique")
        lines[clip.id] = reader.line_num
        clips.append(replace(clip, path=join(base, from_text(clip.path))))
    if not clips:
        raise ValueError(f"{path}: holds no clips")
    return clips


def _row(row: dict[str, str], place: str) -> Clip:
    values: dict[str, Any] = {}
    for column, cell in row.items():
        if not cell:
            if column in ("id", "path"):
                raise ValueError(f"{place}: empty {column}")
            continue
        try:
            values[column] = _NUMBERS[column](cell) if column in _NUMBERS else cell
        except ValueError:
            raise ValueError(f"{place}: {column} {cell!r} is not a number") from None
    if values.get("verdict") not in (None, "ok", "quarantined"):
        raise ValueError(f"{place}: verdict {values['verdict']!r} must be ok, quarantined or empty")
    return Clip(**values)


def write_manifest(path: str, clips: Iterable[Clip]) -> None:
    """Write a manifest in one stroke: the file appears complete or not at all.

    Paths below the manifest's folder become relative, so that the two can be moved together.

    Args:
        path: a local csv file; its folder is made.
        clips: the rows, in this order.

    Raises:
        ValueError: an id occurs twice.
    """
    base = os.path.dirname(os.path.abspath(path))
    used: set[str] = set()
    with write_whole(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for clip in clips:
            if clip.id in used:
                raise ValueError(f"{path}: id {clip.id!r} occurs twice; ids must be unique")
            used.add(clip.id)
            row = replace(clip, path=to_text(_relative(clip.path, base)))
            writer.writerow("" if value is None else value for value in (getattr(row, name) for name in _COLUMNS))


def _relative(path: str, base: str) -> str:
    if is_url(path) or not os.path.isabs(path):
        return path
    return os.path.relpath(path, base) if os.path.commonpath([path, base]) == base else path
