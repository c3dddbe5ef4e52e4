"""The real annotation files, counted: they are not part of the repository, so the tests skip where they are not."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from deepavfusion.data.sets import (
    audioset,
    folders,
    kinetics_sounds,
    music,
    music_boxes,
    pairs,
    vggsound,
    vggsounder,
    vggss,
)
from deepavfusion.data.sets.boxes import with_truth
from deepavfusion.data.sets.listing import LABEL_SEPARATOR
from deepavfusion.data.sets.vocabularies import shipped_classes


@pytest.fixture(scope="module")
def official(shared: Path) -> Path:
    folder = shared / "annotations"
    if not folder.is_dir():
        pytest.skip("needs the official annotation files (../shared/annotations)")
    return folder


def test_vggsound(official: Path) -> None:
    listing = vggsound.read_vggsound(str(official / "vggsound_test.csv"))
    assert len(listing.clips) == 15446
    assert len(listing.classes) == 309
    assert {clip.label for clip in listing.clips} == set(listing.classes)
    assert listing.clips[0].id == "glLQrEijrKg_000300"
    assert listing.clips[0].labels == ("playing hammond organ",)


def test_subsets_of_instruments(official: Path) -> None:
    test_list = str(official / "vggsound_test.csv")
    with open(test_list, newline="") as file:
        labels = Counter(row[1] for row in csv.reader(file))
    for read, name, count in (
        (vggsound.read_vggsound_music, "vggsound_music", 49),
        (vggsound.read_vgg_instruments, "vgg_instruments", 37),
    ):
        listing = read(test_list)
        assert len(listing.classes) == count
        assert len(listing.clips) == sum(labels[label] for label in shipped_classes(name))
        assert {clip.label for clip in listing.clips} == set(listing.classes)
    assert len(folders.read_ids(str(official / "vgginstruments_test.csv")).clips) == 446


def test_vggsounder(official: Path) -> None:
    path = str(official / "vggsounder.csv")
    annotations = vggsounder.read_annotations(path)
    assert len(annotations) == 12014
    assert Counter(kind for item in annotations for kind in item.modalities) == {"AV": 18377, "A": 10149, "V": 983}
    first = annotations[0]
    assert first.id == "--i-y1v8Hy8_000000"
    speech = "female speech, woman speaking"  # in a row far from the clip's others
    assert first.labels == ("child singing", "child speech, kid speaking", "female singing", speech)
    assert (first.background_music, first.static_image, first.voice_over) == (False, False, True)
    second = annotations[1]
    assert second.labels_of("A") == ("baby laughter",)
    assert len(second.labels_of("A", "AV")) == 4
    listing = vggsounder.read_vggsounder(path)
    tested = {clip.id for clip in vggsound.read_vggsound(str(official / "vggsound_test.csv")).clips}
    assert {clip.id for clip in listing.clips} <= tested
    assert listing.clips[0].label == "|".join(first.labels)


def test_audioset_classes_are_the_shipped_ones(official: Path) -> None:
    classes = audioset.read_classes(str(official / "audioset_class_labels_indices.csv"))
    assert len(classes) == 527
    assert tuple(mid for mid, _ in classes) == shipped_classes("audioset_mids")
    assert tuple(name for _, name in classes) == shipped_classes("audioset")
    assert not any(LABEL_SEPARATOR in name for name in shipped_classes("audioset") + shipped_classes("vggsound"))


def test_music(official: Path) -> None:
    solos = music.read_music(str(official / "MUSIC_solo_videos.json"))
    duets = music.read_music(str(official / "MUSIC_duet_videos.json"))
    larger = music.read_music21(str(official / "MUSIC21_solo_videos.json"))
    assert (len(solos.clips), len(solos.classes)) == (536, 11)
    assert (len(duets.clips), len(duets.classes)) == (149, 11)  # though duets have only 9 of the 11
    assert (len(larger.clips), len(larger.classes)) == (1164, 21)
    assert {len(clip.labels) for clip in duets.clips} == {2}
    assert {clip.label for clip in solos.clips} == set(solos.classes)


def test_kinetics_sounds(official: Path) -> None:
    listing = kinetics_sounds.read_kinetics_sounds(str(official / "kinetics_sounds_test.csv"))
    assert len(listing.clips) == 3113
    assert listing.classes == tuple(str(number) for number in range(32))
    assert listing.clips[0].id == "G9EvS_LmbU8_000000"


def test_vggss(official: Path) -> None:
    annotations = vggss.read_vggss_boxes(str(official / "vggss.json"))
    assert len(annotations) == 5158
    boxes = [box for item in annotations for box in item.boxes()]
    assert len(boxes) == 5941
    assert sum(box.is_empty(224) for box in boxes) == 18
    kept, dropped = with_truth(annotations)
    assert (len(kept), dropped) == (5156, ("M1P1xla8rg0_000000", "MKC9LvRivTM_000030"))
    listing = vggss.read_vggss(str(official / "vggss.json"))
    ids = folders.read_ids(str(official / "vggss_test.csv"))
    assert {clip.id for clip in listing.clips} == {clip.id for clip in ids.clips}
    assert {clip.id for clip in listing.clips} == folders.read_id_set(str(official / "vggss.json"))


def test_vggss_truth_agrees_with_arrays_clipped_and_cut(official: Path) -> None:
    """Independently: the whole file through NumPy, boxes clipped, scaled and truncated as arrays."""
    items = json.loads((official / "vggss.json").read_text())
    for item, annotation in zip(items, vggss.read_vggss_boxes(str(official / "vggss.json")), strict=True):
        expected = np.zeros((224, 224))
        for x1, y1, x2, y2 in (np.clip(np.array(item["bbox"]), 0, 1) * 224).astype(int):
            expected[y1:y2, x1:x2] = 1
        assert np.array_equal(annotation.truth(), expected), item["file"]


def test_sounding_pairs(official: Path) -> None:
    silent = pairs.read_sounding_pairs(str(official / "vggss_test_plus_silent.csv"))
    assert len(silent) == 5158
    assert not any(pair.sounding for pair in silent)
    assert sum(pair.image_id == pair.audio_id for pair in silent) == 379
    tested = [clip.id for clip in folders.read_ids(str(official / "vggss_test.csv")).clips]
    both = pairs.extended(tested, silent)
    assert Counter(pair.sounding for pair in both) == {True: 5158, False: 5158}
    flickr = pairs.read_sounding_pairs(str(official / "flickr_test_plus_silent.csv"))
    assert len(flickr) == 250
    assert len(folders.read_ids(str(official / "flickr_test.csv")).clips) == 250


def test_mixture_pairs(official: Path) -> None:
    path = str(official / "vggmusic_eval_ss.csv")
    mixtures = pairs.read_mixture_pairs(path)
    assert Counter(pair.difficulty for pair in mixtures) == {"Easy": 910, "Hard": 291}
    assert mixtures[0].ids == ("JIemsK_0lXc_000364", "D9qpDjafWRM_000030")
    assert mixtures[0].labels == ("playing bass drum", "playing flute")
    listing = pairs.read_mixture_clips(path)
    assert (len(listing.clips), listing.classes) == (1201, shipped_classes("vggsound_music"))
    truth = {clip.id: clip.label for clip in vggsound.read_vggsound(str(official / "vggsound_test.csv")).clips}
    assert all(truth[clip.id] == clip.label for clip in listing.clips if clip.id in truth)
    assert sum(clip.id in truth for clip in listing.clips) > 1000
    assert folders.read_id_set(path) == {clip.id for clip in listing.clips}


def test_music_boxes(official: Path) -> None:
    path = official / "music_duet.json"
    annotations = music_boxes.read_music_boxes(str(path))
    assert len(annotations) == 1020
    assert not with_truth(annotations)[1]
    first = json.loads(path.read_text())[0]
    x, y, width, height = first["bbox_src1"]
    expected = np.zeros((224, 224))
    expected[int(y * 224) : int((y + height) * 224), int(x * 224) : int((x + width) * 224)] = 1
    assert np.array_equal(annotations[0].truth(label="cello"), expected)
    taken_for_corners = sum(
        item[key][2] <= item[key][0] or item[key][3] <= item[key][1]
        for item in json.loads(path.read_text())
        for key in ("bbox_src1", "bbox_src2")
    )
    assert taken_for_corners > 1000  # what a reader of corners loses


def test_vggsound_statistics_are_the_shipped_classes(official: Path) -> None:
    with open(official / "vggsound_stat.csv", newline="") as file:
        labels = [row[0] for row in csv.reader(file)]
    assert tuple(sorted(labels)) == shipped_classes("vggsound")
    with pytest.raises(ValueError, match="lists classes, not clips"):
        vggsound.read_vggsound(str(official / "vggsound_stat.csv"))
