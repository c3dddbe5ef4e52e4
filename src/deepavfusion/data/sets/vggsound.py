"""VGGSound (Chen et al. 2020): 309 classes, one label per ten-second clip; and its subsets of instruments.

Three forms of list circulate. The full `vggsound.csv` without a header: YouTube id, start second, label, split
(`---g-f_I2yQ,1,people marching,test`). The test list: `file,label`. And `vggsound_stat.csv`, which lists classes and
no clips: label, number of clips, group. Labels that hold commas are quoted.

VGGSound-Music (49 instruments, as the authors of DeepAVFusion evaluate separation on) and VGG-Instruments (37; Hu et
al. 2022) keep the clips of some classes. Their own lists give `id,instrument`, with commas of the instrument not
quoted: `--iY3Bf4hDg_000030,violin,_fiddle`. All of them are labelled with VGGSound's names here.
"""

from __future__ import annotations

import re

from deepavfusion.data.annotation_files import Row, read_rows
from deepavfusion.data.sets.listing import (
    ListedClip,
    Listing,
    Segment,
    named_clip,
    unique,
    video_clip,
)
from deepavfusion.data.sets.vocabularies import instrument_class, known, shipped_classes

CLIP_SECONDS = 10.0


def read_vggsound(path: str) -> Listing:
    """The clips of a full or a test list, with all 309 classes whichever clips are listed.

    Raises:
        ValueError: a row that does not fit, an unknown label, a clip listed twice; names file and line.
    """
    return _read(path, "vggsound", by_instrument=False)


def read_vggsound_music(path: str) -> Listing:
    """The clips of 49 instruments, from any list of VGGSound or an `id,instrument` list. Errors as `read_vggsound`."""
    return _read(path, "vggsound_music", by_instrument=True)


def read_vgg_instruments(path: str) -> Listing:
    """The clips of 37 instruments, from any list of VGGSound or an `id,instrument` list. Errors as `read_vggsound`.

    The subset's own test list, `vgginstruments_test.csv`, gives ids and no classes: read it as `ids`.
    """
    return _read(path, "vgg_instruments", by_instrument=True)


def _read(path: str, subset: str, by_instrument: bool) -> Listing:
    rows = read_rows(path)
    first = rows[0].cells
    full = len(first) == 4 and re.fullmatch(r"\d+(\.\d+)?", first[1]) is not None
    if not full and (len(first) == 3 and first[1].isdigit()):
        raise ValueError(f"{path}: lists classes, not clips; give vggsound.csv or a list of file,label")
    kept, classes = shipped_classes(subset), frozenset(shipped_classes("vggsound"))
    clips = []
    for row in rows:
        clip = _full_row(row, classes) if full else _short_row(row, classes, by_instrument)
        clips.append((clip, row.place))
    subset_classes = frozenset(kept)
    return Listing(unique(pair for pair in clips if pair[0].labels[0] in subset_classes), kept)


def _full_row(row: Row, classes: frozenset[str]) -> ListedClip:
    if len(row.cells) != 4:
        raise ValueError(f"{row.place}: expected id,start,label,split, found {len(row.cells)} cells; quote commas")
    video, _, label, split = row.cells
    start = row.number(1)
    labels = (known(label, classes, row.place),)
    return video_clip(Segment(video, start, start + CLIP_SECONDS), labels, split, whole=False)


def _short_row(row: Row, classes: frozenset[str], by_instrument: bool) -> ListedClip:
    if len(row.cells) < 2 or (len(row.cells) > 2 and not by_instrument):
        raise ValueError(f"{row.place}: expected file,label, found {len(row.cells)} cells; quote cells with commas")
    label = ",".join(row.cells[1:])
    if by_instrument and label not in classes:
        label = instrument_class(label, row.place)
    return named_clip(row.cells[0], (known(label, classes, row.place),), CLIP_SECONDS)
