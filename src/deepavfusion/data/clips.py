"""Finding clips, and reading and writing manifests.

A manifest is a csv file with one row per clip, and the only thing that training reads: a folder is turned into rows at
the start, and shards have their own manifest. Its rows are stored as columns (`clip_table`). Neither torch nor PyAV is
imported here, so that listing a data set is quick and works without a decoder.
"""

from __future__ import annotations

import csv
import difflib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import PurePath
from typing import Any

from deepavfusion.data.clip import COLUMNS, NUMBERS, VERDICTS, Clip, ClipError, Verdict
from deepavfusion.data.clip_table import ClipTable, Irregular
from deepavfusion.data.csv_text import check_commas
from deepavfusion.data.file_kinds import CONTAINER_SUFFIXES, namesakes, walk
from deepavfusion.data.framed_clips import list_frames
from deepavfusion.data.hub import is_hub, list_hub
from deepavfusion.data.locations import from_text, is_url, join, one_line, open_text, to_text, write_whole

__all__ = [
    "CONTAINER_SUFFIXES", "SHARDS_FILE", "SHARDS_MANIFEST", "SPLITS", "Clip", "ClipError", "Verdict",
    "clips_where", "column_of", "find_clips", "layout", "list_clips", "quarantined", "read_manifest", "write_manifest",
]  # fmt: skip
SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")
"""A top folder of one of these names is a split."""
SHARDS_FILE, SHARDS_MANIFEST = "shards.json", "clips.csv"
"""What makes a folder a set of shards, and the manifest of the clips inside."""


def find_clips(source: str) -> Sequence[Clip]:
    """List the clips of a folder of media files, a manifest, a table of pictures, a folder or URL of shards, or a data
    set of the Hugging Face Hub.

    Rows of a manifest whose verdict is `quarantined` are left out (`quarantined` tells which these are). The order is
    fixed: by id for a folder, that of the rows for a manifest.

    Args:
        source: a folder, searched recursively; a manifest (`.csv`); where shards were written; or
            `hf:OWNER/NAME[:SPLIT]` (`hub`).

    Raises:
        ValueError: nothing there, no clips in it, or a manifest that does not make sense; names the place and the fix.
    """
    clips = clips_where(list_clips(source), "verdict", lambda verdict: verdict != "quarantined")
    if not clips:
        raise ValueError(f"{source}: every clip is quarantined; see the column reason")
    return clips


def quarantined(source: str) -> Sequence[Clip]:
    """The rows that `find_clips` leaves out of the same source. Raises ValueError as it does."""
    if is_hub(source):  # which has no verdicts
        return []
    return clips_where(list_clips(source), "verdict", lambda verdict: verdict == "quarantined")


def clips_where(clips: Sequence[Clip], column: str, is_wanted: Callable[[Any], bool]) -> Sequence[Clip]:
    """The clips whose value in a column is wanted; of a manifest, none is built for it."""
    if isinstance(clips, ClipTable):
        return clips.where(column, is_wanted)
    return [clip for clip in clips if is_wanted(getattr(clip, column))]


def column_of(clips: Sequence[Clip], column: str) -> Iterator[Any]:
    """The values of a column, clip by clip; of a manifest, no clip is built for it."""
    return clips.column(column) if isinstance(clips, ClipTable) else (getattr(clip, column) for clip in clips)


def list_clips(source: str) -> Sequence[Clip]:
    """All clips of a source, quarantined ones included. Arguments and errors as in `find_clips`."""
    if is_hub(source):
        return list_hub(source)
    if source.endswith(".csv"):
        return list_frames(source) if _holds_pictures(source) else _read_once(source)
    if is_url(source) or os.path.isfile(os.path.join(source, SHARDS_FILE)):
        return read_manifest(join(source, SHARDS_MANIFEST))
    return _scan(source)


def _read_once(path: str) -> Sequence[Clip]:
    """As `read_manifest`; a file that has not changed since the last time is not read again."""
    if is_url(path) or not os.path.isfile(path):
        return read_manifest(path)
    status = os.stat(path)
    return _read_stamped(os.path.abspath(path), (status.st_ino, status.st_size, status.st_mtime_ns), path)


@lru_cache(maxsize=1)
def _read_stamped(absolute: str, stamp: tuple[int, ...], path: str) -> Sequence[Clip]:
    return read_manifest(path)


def _holds_pictures(path: str) -> bool:
    """Whether a csv file is a table of pictures with their sound and masks (`framed_clips`), not a manifest."""
    try:
        with open_text(path) as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False  # reading it as a manifest says what is wrong
    return {"id", "sound", "frame"} <= set(header)


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
        raise ValueError(f"{folder}: no video files in it (found {seen}); supported are {' '.join(CONTAINER_SUFFIXES)}")
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


def read_manifest(path: str) -> Sequence[Clip]:
    """Read a manifest, quarantined rows included; relative paths are resolved against the manifest's folder.

    Only the columns `id` and `path` are required; empty cells are unknown (None).

    Args:
        path: a csv file, local or an fsspec URL.

    Raises:
        ValueError: no file, no rows, missing or unknown columns, an id twice, a cell that does not fit; names the
            file, the line and the fix.
    """
    try:
        try:
            with open_text(path) as file:
                return ClipTable.read(check_commas(file, path), _base(path))
        except Irregular:
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


def _base(path: str) -> str:
    """What paths in a manifest are relative to."""
    return re.sub(r"[^/]*$", "", path) if is_url(path) else os.path.dirname(os.path.abspath(path))


def _parse(file: Iterable[str], path: str) -> list[Clip]:
    """Read row by row, which tells what is wrong and in which line."""
    reader = csv.DictReader(check_commas(file, path))
    header = list(reader.fieldnames or ())
    for column in header:
        if column not in COLUMNS:
            near = difflib.get_close_matches(column, COLUMNS, n=1)
            fix = f"did you mean {near[0]}?" if near else f"remove it; supported are {', '.join(COLUMNS)}"
            raise ValueError(f"{path}, line 1: unknown column {column!r}; {fix}")
    lacking = [column for column in ("id", "path") if column not in header]
    if lacking:
        raise ValueError(
            f"{path}, line 1: no column {' and no column '.join(lacking)}; the first line names the columns"
        )
    base = _base(path)
    clips: list[Clip] = []
    lines: dict[str, int] = {}
    for row in reader:
        place = f"{path}, line {reader.line_num}"
        if None in row or None in row.values():
            raise ValueError(f"{place}: does not have {len(header)} cells like the first line; quote cells with commas")
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
            values[column] = NUMBERS[column](cell) if column in NUMBERS else cell
        except ValueError:
            raise ValueError(f"{place}: {column} {cell!r} is not a number") from None
    if values.get("verdict") not in (None, *VERDICTS):
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
        writer.writerow(COLUMNS)
        if isinstance(clips, ClipTable):  # whose ids are unique
            for rows in clips.batches():
                writer.writerows((row[0], to_text(_relative(row[1], base)), *row[2:]) for row in rows)
            return
        for clip in clips:
            if clip.id in used:
                raise ValueError(f"{path}: id {clip.id!r} occurs twice; ids must be unique")
            used.add(clip.id)
            row = replace(clip, path=to_text(_relative(clip.path, base)))
            writer.writerow("" if value is None else value for value in (getattr(row, name) for name in COLUMNS))


def _relative(path: str, base: str) -> str:
    if not os.path.isabs(path) or is_url(path):
        return path
    if "/." not in path and "//" not in path:  # as it nearly always is, and much quicker told
        return path.removeprefix(f"{base.rstrip('/')}/")
    return os.path.relpath(path, base) if os.path.commonpath([path, base]) == base else path
