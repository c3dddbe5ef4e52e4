"""Boxes in a csv file, one row a box: the form any other is turned into beside a manifest, and that one writes oneself.

Header id,label,x1,y1,x2,y2, fractions of the picture; an empty label for an unknown class, and the optional column
`agreement` for soft truth. A row with four empty numbers says that a clip has no box.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable

from deepavfusion.data.annotation_files import NamedRow, read_table
from deepavfusion.data.locations import write_whole
from deepavfusion.data.sets.boxes import Box, BoxAnnotation, SourceBoxes
from deepavfusion.data.sets.listing import ListedClip, Listing
from deepavfusion.data.sets.vocabularies import vocabulary

CORNERS = ("x1", "y1", "x2", "y2")
COLUMNS = ("id", "label", *CORNERS, "agreement")


def read_boxes(path: str) -> tuple[BoxAnnotation, ...]:
    """The annotations of each id, in the order of their first rows; boxes of one label are one source.

    Raises:
        ValueError: a column is missing, a number is none, agreement differs within a clip; names file and line.
    """
    sources: dict[str, dict[str | None, list[Box]]] = {}
    agreements: dict[str, int] = {}
    for row in read_table(path, ("id", *CORNERS)):
        clip, label = row["id"], row.cells.get("label") or None
        if not clip:
            raise ValueError(f"{row.place}: empty id")
        agreement = _agreement(row)
        if agreements.setdefault(clip, agreement) != agreement:
            raise ValueError(f"{row.place}: agreement {agreement} differs from that of {clip} above")
        boxes = sources.setdefault(clip, {})
        if any(row[name] for name in CORNERS):
            boxes.setdefault(label, []).append(_box(row))
    return tuple(
        BoxAnnotation(clip, tuple(SourceBoxes(label, tuple(boxes)) for label, boxes in found.items()), agreements[clip])
        for clip, found in sources.items()
    )


def write_boxes(path: str, annotations: Iterable[BoxAnnotation]) -> None:
    """Write annotations so that `read_boxes` gives them back; the file appears complete or not at all."""
    with write_whole(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for item in annotations:
            rows: list[tuple[object, ...]] = [
                (source.label or "", box.left, box.top, box.right, box.bottom)
                for source in item.sources
                for box in source.boxes
            ]
            for row in rows or [("", "", "", "", "")]:
                writer.writerow((item.id, *row, item.agreement))


def _box(row: NamedRow) -> Box:
    try:
        return Box.of_corners(*(float(row[name]) for name in CORNERS))
    except ValueError:
        raise ValueError(f"{row.place}: x1,y1,x2,y2 must be numbers, found {[row[name] for name in CORNERS]}") from None


def _agreement(row: NamedRow) -> int:
    cell = row.cells.get("agreement") or "1"
    if not cell.isdigit() or cell == "0":
        raise ValueError(f"{row.place}: agreement {cell!r} must be a number from 1 on")
    return int(cell)


def read_boxed_clips(path: str) -> Listing:
    """The clips of a csv file of boxes, with the classes of their boxes. Errors as `read_boxes`."""
    annotations = read_boxes(path)
    clips = tuple(ListedClip(item.id, tuple(sorted(item.labels)), None, (item.id,)) for item in annotations)
    return Listing(clips, vocabulary(label for clip in clips for label in clip.labels))
