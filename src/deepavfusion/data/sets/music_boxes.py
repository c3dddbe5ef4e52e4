"""Boxes of MUSIC's solos and duets: one picture, one box per player.

`music_duet.json` is a list of `{"file", "class_src1", "bbox_src1", "class_src2", "bbox_src2"}`, `music_solo.json` one
of `{"file", "class", "bbox"}` or of the duets' form with one source. Boxes are x, y, WIDTH, HEIGHT; taken for corners,
most would be empty. A name such as `HnUOaSfTA6c_000_00007` is that of one frame of a video.
"""

from __future__ import annotations

from typing import Any

from deepavfusion.data.annotation_files import read_items
from deepavfusion.data.sets.boxes import BoxAnnotation, SourceBoxes
from deepavfusion.data.sets.listing import ListedClip, Listing, unique
from deepavfusion.data.sets.vggss import size_box
from deepavfusion.data.sets.vocabularies import known, shipped_classes


def read_music_boxes(path: str) -> tuple[BoxAnnotation, ...]:
    """One source per player, in the file's order.

    Raises:
        ValueError: an item that does not fit, or an instrument that MUSIC does not have; names file and item.
    """
    annotations = []
    for item, place in read_items(path):
        if not isinstance(item.get("file"), str):
            raise ValueError(f"{place}: has no file")
        annotations.append(BoxAnnotation(item["file"], tuple(_sources(item, place))))
    return tuple(annotations)


def read_music_pictures(path: str) -> Listing:
    """The pictures and who plays in them, of MUSIC's 11 instruments. Errors as `read_music_boxes`."""
    clips = (
        (ListedClip(item.id, tuple(sorted(item.labels)), None, (item.id,)), f"{path}, item {number}")
        for number, item in enumerate(read_music_boxes(path), 1)
    )
    return Listing(unique(clips), shipped_classes("music"))


def _sources(item: dict[str, Any], place: str) -> list[SourceBoxes]:
    endings = [key.removeprefix("class") for key in item if key == "class" or key.startswith("class_src")]
    if not endings:
        raise ValueError(f"{place}: has no class or class_src1")
    sources = []
    for ending in sorted(endings):
        if f"bbox{ending}" not in item:
            raise ValueError(f"{place}: has no bbox{ending}")
        label = known(item[f"class{ending}"], shipped_classes("music"), place)
        sources.append(SourceBoxes(label, (size_box(item[f"bbox{ending}"], place),)))
    return sources
