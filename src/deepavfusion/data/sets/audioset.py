"""AudioSet (Gemmeke et al. 2017): 527 classes, several labels per ten-second clip.

The lists (`balanced_train_segments.csv`, `unbalanced_train_segments.csv`, `eval_segments.csv`) begin with three comment
lines; a row is `-0RWZT-miFs, 420.000, 430.000, "/m/03v3yw,/m/0k4j"`. What the machine ids (mids) stand for is in
`class_labels_indices.csv` and ships with the package.
"""

from __future__ import annotations

from deepavfusion.data.annotation_files import read_rows, read_table
from deepavfusion.data.sets.listing import Listing, Segment, unique, video_clip
from deepavfusion.data.sets.vocabularies import known, shipped_classes


def read_audioset(path: str) -> Listing:
    """The clips of one list, full or balanced, their labels by display name in the order of the classes.

    A video occurs once in the data set, so a file may also be named by the YouTube id alone, or with a Y before it as
    common downloaders do.

    Raises:
        ValueError: a row that does not fit, an unknown mid, a clip listed twice; names file and line.
    """
    names = dict(zip(shipped_classes("audioset_mids"), shipped_classes("audioset"), strict=True))
    order = {mid: number for number, mid in enumerate(names)}
    clips = []
    for row in read_rows(path, comment="#"):
        if len(row.cells) != 4:
            raise ValueError(
                f"{row.place}: expected id, start, end, mids, found {len(row.cells)} cells; quote mids with commas"
            )
        video, start, end = row.cells[0], row.number(1), row.number(2)
        mids = {known(mid.strip(), order, row.place) for mid in row.cells[3].split(",")}
        labels = tuple(names[mid] for mid in sorted(mids, key=order.__getitem__))
        clips.append((video_clip(Segment(video, start, end), labels, None, whole=True), row.place))
    return Listing(unique(clips), shipped_classes("audioset"))


def read_classes(path: str) -> tuple[tuple[str, str], ...]:
    """Mid and display name of every class, in order, from `class_labels_indices.csv`.

    Raises:
        ValueError: a column is missing or the indices do not count up from 0; names file and line.
    """
    rows = read_table(path, ("index", "mid", "display_name"))
    for number, row in enumerate(rows):
        if row["index"] != str(number):
            raise ValueError(f"{row.place}: index {row['index']!r} must be {number}")
    return tuple((row["mid"], row["display_name"]) for row in rows)
