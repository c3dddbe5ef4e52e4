"""Your own data sets: a folder per class, a csv file of labels, or a list of ids."""

from __future__ import annotations

import re

from deepavfusion.data.annotation_files import read_json, read_lines, read_rows
from deepavfusion.data.clip_names import possible_names, segment_id
from deepavfusion.data.clips import find_clips
from deepavfusion.data.hub import is_hub
from deepavfusion.data.labels import read_labels
from deepavfusion.data.sets.listing import ListedClip, Listing, listed_name, named_clip, split_labels, unique
from deepavfusion.data.sets.vocabularies import class_folder, vocabulary

ID_COLUMNS = ("id", "file", "video_id", "video", "audio", "name", "path", "youtube_id", "source_1", "source_2")
"""Columns of a header whose cells name clips."""


def read_csv(path: str) -> Listing:
    """A csv file of labels as `deepavfusion.data.labels` reads it; several labels in one cell are separated by `|`.

    Raises:
        ValueError: as `read_labels`.
    """
    labels = read_labels(path)
    clips = tuple(
        ListedClip(name, split_labels(label), split, possible_names(name)) for name, (label, split) in labels.items()
    )
    return Listing(clips, vocabulary(label for clip in clips for label in clip.labels))


def read_ids(path: str) -> Listing:
    """A list of clips without labels: the first cell of each row of a csv or text file.

    Training and test lists of localization have this form (`vggss_test.csv`, `vggsound_144k.txt`, `flickr_test.csv`).

    Raises:
        ValueError: no rows, or a clip listed twice; names file and line.
    """
    rows = [row for row in read_rows(path) if row.cells[0] not in ID_COLUMNS]
    return Listing(unique((named_clip(row.cells[0], ()), row.place) for row in rows), ())


def read_id_set(path: str) -> frozenset[str]:
    """The ids of clips that must not be trained on, from any list of test clips.

    These are the items of a JSON list with a `file`, or those of a csv file: every column of `ID_COLUMNS` if there is
    a header (a pair list has two), otherwise the first column, joined with the start second if one follows and more
    (`---g-f_I2yQ,1,people marching,test`).

    Raises:
        ValueError: neither.
    """
    if path.endswith(".json"):
        items = read_json(path)
        if not isinstance(items, list) or not all(isinstance(item, dict) and "file" in item for item in items):
            raise ValueError(f'{path}: must hold a list of objects with a "file"')
        return frozenset(listed_name(str(item["file"])) for item in items)
    rows = read_rows(path, comment="#")
    columns = [number for number, cell in enumerate(rows[0].cells) if cell in ID_COLUMNS]
    if columns:
        cells = [row.cells[number] for row in rows[1:] for number in columns if number < len(row.cells)]
        return frozenset(map(listed_name, cells))
    return frozenset(
        segment_id(row.cells[0], row.number(1))
        if len(row.cells) > 2 and re.fullmatch(r"\d+(\.\d+)?", row.cells[1])
        else listed_name(row.cells[0])
        for row in rows
    )


def read_folders(folder: str, classes_path: str | None) -> Listing:
    """The clips of a folder per class (`class/name.mp4` or `split/class/name.mp4`).

    Args:
        folder: is searched recursively; or a data set of the Hub with labels.
        classes_path: a text file with one class a line, in the order of the class numbers. Without it the classes are
            those of the folders that are there, so keep the list that is written beside the manifest.

    Raises:
        ValueError: no clips, clips outside any class folder, or a folder that is no class of the list.
    """
    clips = find_clips(folder)
    loose = [clip.id for clip in clips if clip.label is None]
    if loose:
        raise ValueError(
            f"{folder}: {len(loose)} clips have no label, such as {loose[0]}; name its column, label=COLUMN"
            if is_hub(folder)
            else f"{folder}: {len(loose)} clips lie in no class folder, such as {loose[0]}; need two folders or more"
        )
    labels = {clip.label or "" for clip in clips}
    if classes_path is None:
        classes = vocabulary(labels)
    else:
        classes = read_lines(classes_path)
    names = {name: label for label in classes for name in (label, class_folder(label))}
    for label in labels:
        if label not in names:
            raise ValueError(
                f"{folder}: the folder {label!r} is not among the {len(classes)} classes of {classes_path}"
            )
    listed = tuple(ListedClip(clip.id, (names[clip.label or ""],), clip.split, (), clip.path) for clip in clips)
    return Listing(listed, classes)
