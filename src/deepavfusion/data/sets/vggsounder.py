"""VGGSounder (Zverev et al. 2025): VGGSound's test clips annotated anew, several labels each, heard, seen or both.

`vggsounder.csv` has a row per clip and label: `--i-y1v8Hy8_000000,child singing,AV,False,False,True` under the header
video_id,label,modality,background_music,static_image,voice_over. The last three say something of the clip as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass

from deepavfusion.data.annotation_files import read_table
from deepavfusion.data.sets.listing import Listing, named_clip, unique
from deepavfusion.data.sets.vggsound import CLIP_SECONDS
from deepavfusion.data.sets.vocabularies import known, shipped_classes

FLAGS = ("background_music", "static_image", "voice_over")
MODALITIES = ("A", "V", "AV")
"""Heard only, seen only, heard and seen."""


@dataclass(frozen=True)
class ModalAnnotation:
    """What is heard and seen in one clip."""

    id: str
    labels: tuple[str, ...]
    modalities: tuple[str, ...]
    """One of `MODALITIES` for each label."""
    background_music: bool
    static_image: bool
    voice_over: bool

    def labels_of(self, *modalities: str) -> tuple[str, ...]:
        """The labels with one of these modalities: `("A", "AV")` gives everything audible, `("A",)` what is audible but
        not visible."""
        return tuple(label for label, kind in zip(self.labels, self.modalities, strict=True) if kind in modalities)


def read_annotations(path: str) -> tuple[ModalAnnotation, ...]:
    """The annotations of every clip, in the file's order; labels in that of the classes.

    Raises:
        ValueError: an unknown label or modality, a label twice, flags that differ within a clip; names file and line.
    """
    order = {label: number for number, label in enumerate(shipped_classes("vggsound"))}
    found: dict[str, dict[str, str]] = {}
    flags: dict[str, tuple[bool, ...]] = {}
    for row in read_table(path, ("video_id", "label", "modality", *FLAGS)):
        clip, label, modality = row["video_id"], known(row["label"], order, row.place), row["modality"]
        if modality not in MODALITIES:
            raise ValueError(f"{row.place}: modality {modality!r} must be one of {', '.join(MODALITIES)}")
        kinds = found.setdefault(clip, {})
        if label in kinds:
            raise ValueError(f"{row.place}: {clip} has the label {label!r} twice")
        kinds[label] = modality
        given = tuple(row.flag(name) for name in FLAGS)
        if flags.setdefault(clip, given) != given:
            raise ValueError(f"{row.place}: {', '.join(FLAGS)} differ from those of {clip} above")
    return tuple(
        ModalAnnotation(
            clip, labels := tuple(sorted(kinds, key=order.__getitem__)), tuple(kinds[k] for k in labels), *flags[clip]
        )
        for clip, kinds in found.items()
    )


def read_vggsounder(path: str) -> Listing:
    """Every clip with all its labels; the classes are VGGSound's 309. Errors as `read_annotations`."""
    clips = (named_clip(item.id, item.labels, CLIP_SECONDS) for item in read_annotations(path))
    return Listing(unique((clip, path) for clip in clips), shipped_classes("vggsound"))
