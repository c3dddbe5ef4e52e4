"""The table of data sets: from a name to the reader of its annotation file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deepavfusion.data.framed_clips import FramedClip
from deepavfusion.data.sets import (
    audioset,
    ave,
    avsbench,
    box_table,
    flickr_soundnet,
    folders,
    kinetics_sounds,
    music,
    music_boxes,
    pairs,
    vggsound,
    vggsounder,
    vggss,
)
from deepavfusion.data.sets.boxes import BoxAnnotation
from deepavfusion.data.sets.listing import Listing

BoxReader = Callable[[str, str | None], tuple[BoxAnnotation, ...]]
"""From an annotation file and, where boxes are kept apart, their folder."""


@dataclass(frozen=True)
class ClipSet:
    """A data set of clips."""

    summary: str
    """What the annotation file is."""
    read: Callable[[str], Listing]
    boxes: BoxReader | None = None


@dataclass(frozen=True)
class FrameSet:
    """A data set of pictures with masks and sound files."""

    summary: str
    read: Callable[[str, str], tuple[FramedClip, ...]]
    """From the annotation file and the folder of the data."""
    classes: str | None = None
    """Shipped list of classes; None where the labels are the classes, or there are none."""


FOLDERS, MASK_FOLDERS = "folders", "mask_folders"
"""Without an annotation file."""

CLIP_SETS: dict[str, ClipSet] = {
    "vggsound": ClipSet("vggsound.csv or vggsound_test.csv", vggsound.read_vggsound),
    "vggsound_music": ClipSet("any list of VGGSound, or vggmusic_train.txt", vggsound.read_vggsound_music),
    "vgg_instruments": ClipSet("any list of VGGSound, or vgginstruments_train.txt", vggsound.read_vgg_instruments),
    "vggsounder": ClipSet("vggsounder.csv", vggsounder.read_vggsounder),
    "audioset": ClipSet("balanced_train_segments.csv and the like", audioset.read_audioset),
    "ave": ClipSet("Annotations.txt, trainSet.txt and the like", ave.read_ave),
    "kinetics_sounds": ClipSet("a csv file of Kinetics, or rows path,number", kinetics_sounds.read_kinetics_sounds),
    "music": ClipSet("MUSIC_solo_videos.json or MUSIC_duet_videos.json", music.read_music),
    "music21": ClipSet("MUSIC21_solo_videos.json", music.read_music21),
    "vggss": ClipSet("vggss.json", vggss.read_vggss, lambda path, _: vggss.read_vggss_boxes(path)),
    "flickr_soundnet": ClipSet("flickr_test.csv", folders.read_ids, flickr_soundnet.read_flickr_boxes),
    "music_boxes": ClipSet(
        "music_duet.json or music_solo.json",
        music_boxes.read_music_pictures,
        lambda path, _: music_boxes.read_music_boxes(path),
    ),
    "boxes": ClipSet(
        "a csv file id,label,x1,y1,x2,y2", box_table.read_boxed_clips, lambda path, _: box_table.read_boxes(path)
    ),
    "sounding_pairs": ClipSet("vggss_test_plus_silent.csv, flickr_test_plus_silent.csv", pairs.read_sounding_clips),
    "mixture_pairs": ClipSet("vggmusic_eval_ss.csv", pairs.read_mixture_clips),
    "csv": ClipSet("a csv file with columns file,label or id,label,split", folders.read_csv),
    "ids": ClipSet("a list of clips, one a line", folders.read_ids),
}
"""Data sets of clips, but for `folders`, whose clips and labels are found together."""

FRAME_SETS: dict[str, FrameSet] = {
    "avsbench_s4": FrameSet("s4_meta_data.csv", avsbench.read_s4),
    "avsbench_ms3": FrameSet("ms3_meta_data.csv", avsbench.read_ms3),
    "avsbench_semantic": FrameSet("metadata.csv", avsbench.read_semantic, "avss"),
}
"""Data sets of pictures and masks, but for `mask_folders`."""

NAMES = (*CLIP_SETS, FOLDERS, *FRAME_SETS, MASK_FOLDERS)
"""Every data set there is a reader for."""
