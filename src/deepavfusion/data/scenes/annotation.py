"""The annotation (ground truth) of a clip: one JSON file beside it, read and written here.

Times are seconds from the start of the clip. Boxes are pixels (first column, first row, last column + 1, last row + 1)
around the visible part of a sprite. A mask's pixel is 0, or 1 + the number of the source seen there.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepavfusion.data.clip import Clip, ClipError

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class SourceTruth:
    """One source of a clip."""

    number: int
    """Place in the list of sources; its mask value is one more."""
    visible: bool
    audible: bool
    off_screen: bool
    """Heard but not seen."""
    class_name: str | None
    """Known of what is both seen and heard."""
    look: str | None
    """Look family; None off screen."""
    timbre: str | None
    """Timbre family; None if not heard."""
    size_pixels: float | None
    """Longest side at rest, camera zoom included; None off screen."""
    centre: tuple[float, float] | None
    """Resting centre in pixels (x, y), camera at rest; None off screen."""
    boxes: tuple[Box | None, ...] | None
    """One per annotated frame, None where nothing of it is visible; None off screen."""
    sounding: tuple[tuple[float, float], ...]
    """Stretches (start, end) in which it is heard, echoes excluded; empty if not heard."""
    gain_db: float | None
    """Gain of its stem; None if not heard."""
    stem: str | None
    """Its sound as heard in the mixture, relative to the annotation's folder; None if not heard."""
    details: dict[str, Any] = field(default_factory=dict)
    """What only this kind of source knows: strokes with times, pitches and velocities; the digit and its speaker."""

    def heard_between(self, start_seconds: float, end_seconds: float) -> bool:
        """Whether it sounds at any moment between two times."""
        return any(start < end_seconds and end > start_seconds for start, end in self.sounding)


@dataclass(frozen=True)
class ClipTruth:
    """All that is known of a clip."""

    id: str
    world: str
    """Version of the world that brought the split; the clips have not changed since."""
    cast: str
    split: str
    index: int
    seed: int
    scene_type: str
    label: str | None
    """Class of the clip, where the split has one."""
    size: int
    """Width and height of the picture in pixels."""
    frame_rate: float
    num_frames: int
    sample_rate: int
    num_samples: int
    annotated_frames: tuple[int, ...]
    """Numbers of the frames with boxes and masks; frame k is shown at k / frame_rate."""
    masks: tuple[str, ...] | None
    """One PNG per annotated frame, relative to the annotation's folder; None if not written."""
    noise_stem: str | None
    """Sound of the room; mixture = noise + stems, sample by sample. None if stems are not written."""
    sources: tuple[SourceTruth, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    """What only this split knows, such as which twin plays."""

    @property
    def annotated_seconds(self) -> list[float]:
        """When the annotated frames are shown."""
        return [frame / self.frame_rate for frame in self.annotated_frames]

    def nearest_annotated(self, seconds: float) -> int:
        """Place in `annotated_frames` of the one nearest to a time."""
        return int(np.argmin([abs(shown - seconds) for shown in self.annotated_seconds]))

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ClipTruth:
        """Inverse of `to_json`. Raises ValueError on text that is no annotation of this package."""
        values = json.loads(text)
        if not isinstance(values, dict) or set(values) != {f.name for f in fields(cls)}:
            raise ValueError("not an annotation of this version of the package")
        sources = tuple(_source(source) for source in values.pop("sources"))
        for name in ("annotated_frames", "masks"):
            values[name] = None if values[name] is None else tuple(values[name])
        return cls(sources=sources, **values)


def _source(values: dict[str, Any]) -> SourceTruth:
    boxes, centre = values["boxes"], values["centre"]
    values["boxes"] = None if boxes is None else tuple(None if box is None else tuple(box) for box in boxes)
    values["centre"] = None if centre is None else tuple(centre)
    values["sounding"] = tuple((start, end) for start, end in values["sounding"])
    return SourceTruth(**values)


def read_annotation(path: str | os.PathLike[str]) -> ClipTruth:
    """Read the annotation of a clip.

    Args:
        path: the JSON file, or the media file beside it.

    Raises:
        ValueError: there is none, or it is none of this version; names the file.
    """
    place = os.path.splitext(os.fspath(path))[0] + ".json"
    try:
        with open(place, encoding="utf-8") as file:
            return ClipTruth.from_json(file.read())
    except FileNotFoundError:
        raise ValueError(f"{place}: no annotation beside the clip") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{place}: {error}") from None


def annotation_of(clip: Clip) -> ClipTruth:
    """The annotation beside a clip. Raises ClipError if there is none."""
    if clip.storage != "file":
        what = "shards" if clip.storage == "shard" else "rows"
        raise ClipError(clip.id, f"{what} do not hold annotations; give the folder of the clips or its manifest")
    try:
        return read_annotation(clip.path)
    except ValueError as error:
        raise ClipError(clip.id, str(error)) from error


def read_mask(path: str | os.PathLike[str], truth: ClipTruth, place: int) -> NDArray[np.uint8]:
    """Read the mask of one annotated frame.

    Args:
        path: of the annotation or of the media file beside it.
        truth: the annotation.
        place: which of `truth.annotated_frames`.

    Returns:
        uint8 `H W`: 0 or 1 + the number of the source seen there.

    Raises:
        ValueError: the data set was written without masks.
    """
    from PIL import Image

    if truth.masks is None:
        raise ValueError(f"{truth.id}: written without masks")
    with Image.open(os.path.join(os.path.dirname(os.fspath(path)), truth.masks[place])) as picture:
        return np.asarray(picture)
