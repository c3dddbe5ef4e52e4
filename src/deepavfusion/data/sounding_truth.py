"""Ground truth of what sounds, from boxes: official annotation files by format, and masks for training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deepavfusion.data.clips import Clip, ClipError
from deepavfusion.data.sets.box_table import read_boxes
from deepavfusion.data.sets.boxes import BoxAnnotation
from deepavfusion.data.sets.flickr_soundnet import read_flickr_boxes
from deepavfusion.data.sets.music_boxes import read_music_boxes
from deepavfusion.data.sets.vggss import read_vggss_boxes

BoxFormat = Literal["csv", "vggss", "flickr", "music"]
GRID = 224
"""Pixels on a side of the grid on which localization is scored."""


class BoxMasks:
    """1 + the number of the class inside the boxes of each clip, 1 where classes do not matter; 0 elsewhere."""

    def __init__(self, annotations: Mapping[str, BoxAnnotation], classes: Sequence[str] = ()) -> None:
        """Raises ValueError on more classes than a byte can number."""
        if len(classes) > 255:
            raise ValueError(f"{len(classes)} classes are more than the 255 that a mask can hold")
        self.annotations, self.numbers = annotations, {name: number for number, name in enumerate(classes)}

    def times(self, clip: Clip) -> Sequence[float]:
        """None: boxes are taken to hold for all of a clip."""
        return ()

    def read(self, clip: Clip, frame_seconds: float, start_seconds: float, end_seconds: float) -> NDArray[np.uint8]:
        """`(224, 224)`. Raises ClipError for a clip without annotation, or on a class that is not listed."""
        if clip.id not in self.annotations:
            raise ClipError(clip.id, "has no boxes")
        mask = np.zeros((GRID, GRID), np.uint8)
        for source in self.annotations[clip.id].sources:
            if self.numbers and source.label not in self.numbers:
                raise ClipError(clip.id, f"{source.label} is not among the {len(self.numbers)} classes")
            for box in source.boxes:
                x1, y1, x2, y2 = box.pixels(GRID)
                mask[y1:y2, x1:x2] = 1 + self.numbers.get(source.label or "", 0)
        return mask


def read_box_annotations(path: str, form: BoxFormat, folder: str | None = None) -> dict[str, BoxAnnotation]:
    """The annotations of a file by clip, in its order.

    Args:
        path: the file; for Flickr-SoundNet the list of ids.
        form: which data set's, or `csv` (`data.sets.box_table`).
        folder: where Flickr-SoundNet's XML files lie.

    Raises:
        ValueError: the file does not fit, or names a clip twice.
    """
    rows: Iterable[BoxAnnotation]
    if form == "flickr":
        rows = read_flickr_boxes(path, folder)
    else:
        rows = {"csv": read_boxes, "vggss": read_vggss_boxes, "music": read_music_boxes}[form](path)
    found: dict[str, BoxAnnotation] = {}
    for row in rows:
        if row.id in found:
            raise ValueError(f"{path}: annotates {row.id} twice")
        found[row.id] = row
    return found


def read_excluded(path: str) -> frozenset[str]:
    """Clip names from the first column of a csv or text file, such as a test list that training must not see.

    Raises:
        ValueError: no such file, or nothing in it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"exclude {path}: cannot be read ({error.strerror})") from error
    names = frozenset(line.split(",")[0].strip().strip('"') for line in text.splitlines()) - {""}
    if not names:
        raise ValueError(f"exclude {path}: holds no names")
    return names


def without_excluded(clips: Sequence[Clip], names: frozenset[str]) -> list[Clip]:
    """The clips whose id, its last part, or file name without its ending is not among the names."""
    return [clip for clip in clips if names.isdisjoint((clip.id, clip.id.split("/")[-1], Path(clip.path).stem))]
