"""Flickr-SoundNet's test pictures (Senocak et al. 2018): boxes drawn by several people, so that truth is soft.

`flickr_test.csv` has rows `10000130166,202` (the number is not used), and a folder one XML file per id. In it each
element `bbox` has five children, of which the last four are xmin, ymin, xmax, ymax on a grid of 256. A pixel counts in
full where two boxes agree, by half where there is one.
"""

from __future__ import annotations

import os
from xml.etree import ElementTree

from deepavfusion.data.sets.boxes import Box, BoxAnnotation, SourceBoxes
from deepavfusion.data.sets.folders import read_ids

GRID = 256
AGREEMENT = 2


def read_flickr_boxes(path: str, folder: str | None) -> tuple[BoxAnnotation, ...]:
    """The boxes of every listed id; one without an XML file has none, and is counted and named as without truth.

    Args:
        path: the list of ids.
        folder: where the XML files lie.

    Raises:
        ValueError: no folder, no XML file for any id, or one that does not fit; names it.
    """
    if folder is None or not os.path.isdir(folder):
        raise ValueError(f"boxes {folder}: no such folder; Flickr-SoundNet keeps its boxes in one XML file per id")
    annotations = []
    for clip in read_ids(path).clips:
        xml = os.path.join(folder, f"{clip.id}.xml")
        boxes = _boxes(xml) if os.path.exists(xml) else ()
        annotations.append(BoxAnnotation(clip.id, (SourceBoxes(None, boxes),) if boxes else (), AGREEMENT))
    if not any(item.sources for item in annotations):
        raise ValueError(f"{folder}: holds no XML file for any id of {path}, such as {annotations[0].id}.xml")
    return tuple(annotations)


def _boxes(path: str) -> tuple[Box, ...]:
    try:
        elements = list(ElementTree.parse(path).iter("bbox"))
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: not XML ({error})") from None
    boxes = []
    for element in elements:
        texts = [child.text or "" for child in element][1:]
        try:
            x1, y1, x2, y2 = (int(text) / GRID for text in texts)
        except ValueError:
            raise ValueError(f"{path}: a bbox must hold a name and four whole numbers, found {texts}") from None
        boxes.append(Box.of_corners(x1, y1, x2, y2))
    return tuple(boxes)
