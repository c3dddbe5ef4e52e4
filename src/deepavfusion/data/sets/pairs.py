"""Fixed pairs of clips: pictures with sounds that are or are not theirs, and sounds to be mixed and separated.

`vggss_test_plus_silent.csv` and `flickr_test_plus_silent.csv` (SLAVC) have the header video,audio,label, label being
sounding or non-sounding; `vggmusic_eval_ss.csv` has source_1,source_2,class_1,class_2,sep_type, where Easy pairs are of
two classes and Hard ones of one. Lists of the form `id,class,id,class` without a header (AVGN) are mixtures too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from deepavfusion.data.annotation_files import read_rows, read_table
from deepavfusion.data.sets.listing import Listing, named_clip
from deepavfusion.data.sets.vggsound import CLIP_SECONDS
from deepavfusion.data.sets.vocabularies import instrument_class, shipped_classes, vocabulary

Difficulty = Literal["Easy", "Hard"]


@dataclass(frozen=True)
class SoundingPair:
    """An image, a sound, and whether the sound comes from what the image shows."""

    image_id: str
    audio_id: str
    sounding: bool


@dataclass(frozen=True)
class MixturePair:
    """Two clips whose sounds are summed, to be separated again by their pictures."""

    ids: tuple[str, str]
    labels: tuple[str, str]
    """Classes of VGGSound."""

    @property
    def difficulty(self) -> Difficulty:
        """Easy if the two are of different classes, Hard if of one."""
        return "Easy" if self.labels[0] != self.labels[1] else "Hard"


def read_sounding_pairs(path: str) -> tuple[SoundingPair, ...]:
    """The pairs of a list with silent and off-screen sound, in its order.

    The published lists hold the non-sounding pairs only; `extended` joins the sounding ones.

    Raises:
        ValueError: a row that does not fit; names file and line.
    """
    pairs = []
    for row in read_table(path, ("video", "audio", "label")):
        if row["label"] not in ("sounding", "non-sounding"):
            raise ValueError(f"{row.place}: label {row['label']!r} must be sounding or non-sounding")
        pairs.append(SoundingPair(row["video"], row["audio"], row["label"] == "sounding"))
    return tuple(pairs)


def extended(test_ids: Iterable[str], pairs: Iterable[SoundingPair]) -> tuple[SoundingPair, ...]:
    """The extended test set of SLAVC: every test clip with its own sound, then the non-sounding pairs."""
    sounding = tuple(SoundingPair(clip, clip, True) for clip in test_ids)
    return sounding + tuple(pair for pair in pairs if not pair.sounding)


def read_sounding_clips(path: str) -> Listing:
    """Every clip whose picture or sound a list of sounding pairs uses, without labels. Errors as the list's."""
    ids = dict.fromkeys(clip for pair in read_sounding_pairs(path) for clip in (pair.image_id, pair.audio_id))
    return Listing(tuple(named_clip(clip, (), CLIP_SECONDS) for clip in ids), ())


def read_mixture_pairs(path: str) -> tuple[MixturePair, ...]:
    """The pairs of a separation test, in the list's order.

    Raises:
        ValueError: a row that does not fit, an unknown instrument, or a kind of pair that its classes belie; names
            file and line.
    """
    first = read_rows(path)[0]
    pairs = []
    if "source_1" in first.cells:
        for row in read_table(path, ("source_1", "source_2", "class_1", "class_2", "sep_type")):
            labels = (instrument_class(row["class_1"], row.place), instrument_class(row["class_2"], row.place))
            pair = MixturePair((row["source_1"], row["source_2"]), labels)
            if row["sep_type"] != pair.difficulty:
                raise ValueError(
                    f"{row.place}: sep_type {row['sep_type']!r}, but by its classes it is {pair.difficulty}"
                )
            pairs.append(pair)
        return tuple(pairs)
    for line in read_rows(path):
        if len(line.cells) != 4:
            raise ValueError(f"{line.place}: expected id,class,id,class, found {','.join(line.cells)}")
        one, label, other, other_label = line.cells
        labels = (instrument_class(label, line.place), instrument_class(other_label, line.place))
        pairs.append(MixturePair((one, other), labels))
    return tuple(pairs)


def read_mixture_clips(path: str) -> Listing:
    """Every clip of a list of mixtures. The classes are the 49 of VGGSound-Music if these suffice.

    Raises:
        ValueError: as `read_mixture_pairs`, or a clip that has two classes.
    """
    labels: dict[str, str] = {}
    for pair in read_mixture_pairs(path):
        for clip, label in zip(pair.ids, pair.labels, strict=True):
            if labels.setdefault(clip, label) != label:
                raise ValueError(f"{path}: {clip} is {labels[clip]!r} in one pair and {label!r} in another")
    music = shipped_classes("vggsound_music")
    clips = tuple(named_clip(clip, (label,), CLIP_SECONDS) for clip, label in labels.items())
    return Listing(clips, music if set(labels.values()) <= set(music) else vocabulary(labels.values()))
