"""Kinetics-Sounds (Arandjelovic & Zisserman 2017): the classes of Kinetics that can be heard.

Two forms of list: Kinetics' own csv (header label,youtube_id,time_start,time_end,split), of which the 31 classes
are kept that Kinetics-400 has of the paper's 34; and `path,number` without a header, with 32 classes known by number
only, as AV-SUPERB has it (`test/G9EvS_LmbU8_000000_000010.mp4,16`).
"""

from __future__ import annotations

from deepavfusion.data.annotation_files import read_rows, read_table
from deepavfusion.data.sets.listing import Listing, Segment, named_clip, unique, video_clip
from deepavfusion.data.sets.vocabularies import shipped_classes, vocabulary


def read_kinetics_sounds(path: str) -> Listing:
    """The clips of either form.

    Raises:
        ValueError: a row that does not fit, or a clip listed twice; names file and line.
    """
    if "youtube_id" in read_rows(path)[0].cells:
        return _official(path)
    clips = []
    for row in read_rows(path):
        if len(row.cells) != 2 or not row.cells[1].isdigit():
            raise ValueError(f"{row.place}: expected path,class number, found {','.join(row.cells)}")
        clips.append((named_clip(row.cells[0], (row.cells[1],)), row.place))
    return Listing(unique(clips), vocabulary(row[0].labels[0] for row in clips))


def _official(path: str) -> Listing:
    clips = []
    classes = shipped_classes("kinetics_sounds")
    for row in read_table(path, ("label", "youtube_id", "time_start", "time_end", "split")):
        if row["label"] in classes:
            try:
                start, end = float(row["time_start"]), float(row["time_end"])
            except ValueError:
                raise ValueError(f"{row.place}: time_start and time_end must be numbers") from None
            segment = Segment(row["youtube_id"], start, end)
            clips.append((video_clip(segment, (row["label"],), row["split"] or None, whole=True), row.place))
    return Listing(unique(clips), classes)
