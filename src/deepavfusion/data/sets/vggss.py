"""VGG-SS (Chen et al. 2021): boxes around the sounding objects of 5,158 VGGSound test clips.

`vggss.json` is a list of `{"file": "zpWuikVorYg_000032", "class": "elk bugling", "bbox": [[0.40, 0.25, 0.6, 0.75]]}`,
boxes as x1,y1,x2,y2. Some are degenerate and some far outside the picture: clipped, those are empty, see `boxes`.
"""

from __future__ import annotations

from typing import Any

from deepavfusion.data.annotation_files import read_items
from deepavfusion.data.sets.boxes import Box, BoxAnnotation, SourceBoxes
from deepavfusion.data.sets.listing import Listing, named_clip, unique
from deepavfusion.data.sets.vggsound import CLIP_SECONDS
from deepavfusion.data.sets.vocabularies import known, shipped_classes


def read_vggss_boxes(path: str) -> tuple[BoxAnnotation, ...]:
    """One source for each clip.

    Raises:
        ValueError: an item that does not fit, or an unknown class; names file and item.
    """
    classes = frozenset(shipped_classes("vggsound"))
    annotations = []
    for item, place in read_items(path):
        lacking = [key for key in ("file", "class", "bbox") if key not in item]
        if lacking:
            raise ValueError(f"{place}: has no {', '.join(lacking)}")
        if not isinstance(item["file"], str) or not isinstance(item["bbox"], list):
            raise ValueError(f"{place}: file must be a name and bbox a list of boxes")
        boxes = tuple(corner_box(box, place) for box in item["bbox"])
        source = SourceBoxes(known(item["class"], classes, place), boxes)
        annotations.append(BoxAnnotation(item["file"], (source,)))
    return tuple(annotations)


def read_vggss(path: str) -> Listing:
    """The clips and their classes, of VGGSound's 309. Errors as `read_vggss_boxes`, or a clip listed twice."""
    clips = (
        (named_clip(item.id, item.labels, CLIP_SECONDS), f"{path}, item {number}")
        for number, item in enumerate(read_vggss_boxes(path), 1)
    )
    return Listing(unique(clips), shipped_classes("vggsound"))


def corner_box(values: Any, place: str) -> Box:
    """A box from a JSON list of two corners. Raises ValueError naming the place."""
    try:
        return Box.of_corners(*values)
    except (TypeError, ValueError):
        raise ValueError(f"{place}: box {values} must be four numbers") from None


def size_box(values: Any, place: str) -> Box:
    """A box from a JSON list of x, y, width, height. Raises ValueError naming the place."""
    try:
        return Box.of_size(*values)
    except (TypeError, ValueError):
        raise ValueError(f"{place}: box {values} must be four numbers") from None
