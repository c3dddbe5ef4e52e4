"""Class names and splits from a csv file, matched to clips by the names of their files, of rows by their ids.

Read are tables whose header names the columns (`file,label` or `id,label,split`, in any order), lists of
`file,label` without a header, and VGGSound's own list of YouTube id, start second, label and split
(`---g-f_I2yQ,1,people marching,test`).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import replace

from deepavfusion.data.annotation_files import opened
from deepavfusion.data.clip_names import clip_name, possible_names, segment_id
from deepavfusion.data.clips import Clip
from deepavfusion.data.csv_text import check_commas

Label = tuple[str | None, str | None]
"""Class name and split."""

_UNKNOWN: Label = (None, None)
_NAMES = ("id", "file", "path", "video_id", "video", "name")


def label_clips(clips: Iterable[Clip], path: str) -> list[Clip]:
    """The clips with the labels and splits that a csv file gives; a clip it does not name has none.

    Raises:
        ValueError: the file cannot be understood, or names none of the clips.
    """
    labels = read_labels(path)
    clips = list(clips)
    places = [clip.id if clip.storage == "row" else clip.path for clip in clips]  # rows have no files of their own
    given = [
        next((labels[name] for name in (clip_name(place), *possible_names(place)) if name in labels), _UNKNOWN)
        for place in places
    ]
    if not any(label for label, _ in given):
        raise ValueError(f"{path}: names none of the clips; its first names are {', '.join(list(labels)[:3])}")
    return [replace(clip, label=label, split=split) for clip, (label, split) in zip(clips, given, strict=True)]


def read_labels(path: str) -> dict[str, Label]:
    """Label and split by clip name (`clip_name`).

    Raises:
        ValueError: no file, not one of the known forms, or a clip with two labels; names file, line and fix.
    """
    with opened(path, "a csv file", "give `folder`, `none` or a csv file with columns file,label") as file:
        rows = [row for row in csv.reader(check_commas(file, path)) if row]
    if not rows:
        raise ValueError(f"{path}: holds no labels")
    columns = _columns(rows[0], path)
    labels: dict[str, Label] = {}
    for number, row in enumerate(rows[1:] if "label" in rows[0] else rows, 1):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"{path}, row {number}: has {len(row)} cells, the first has {len(rows[0])}; quote cells with commas"
            )
        cells = dict(zip(columns, (cell.strip() for cell in row), strict=True))
        name = clip_name(cells["name"])
        if "start" in cells:
            name = segment_id(name, float(cells["start"]))
        entry = (cells["label"] or None, cells.get("split") or None)
        if labels.setdefault(name, entry) != entry:
            raise ValueError(
                f"{path}, row {number}: {name} has another label or split above; only one of each is allowed here"
            )
    return labels


def _columns(first: list[str], path: str) -> list[str]:
    if "label" in first:
        named = [column for column in first if column in _NAMES]
        if named:
            return ["name" if column == named[0] else column for column in first]
    elif len(first) == 2:
        return ["name", "label"]
    elif len(first) == 4 and first[1].strip().replace(".", "", 1).isdigit():
        return ["name", "start", "label", "split"]
    raise ValueError(
        f"{path}: expected a header such as file,label or id,label,split, or rows such as "
        f"---g-f_I2yQ,1,people marching,test; found {','.join(first)}"
    )
