"""Pictures with masks: AVSBench's three layouts on small real trees, mask files of every kind."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepavfusion.data.framed_clips import FramedClip, read_framed_clips, write_framed_clips
from deepavfusion.data.sets import avsbench, masks
from deepavfusion.data.sets.manifest import ManifestConfig, build_manifest
from deepavfusion.data.sets.manifest_report import ManifestReport
from deepavfusion.data.sets.vocabularies import shipped_classes
from tests.data.sets.conftest import picture, text

GREY = np.zeros((8, 8, 3), np.uint8)
MASK = np.eye(8, dtype=np.uint8) * 255
Sound = Callable[[Path], None]


@pytest.fixture
def sound(tiny_sound: Path) -> Sound:
    def copy(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tiny_sound, path)

    return copy


def build(tmp_path: Path, dataset: str, annotations: str | None, **options: object) -> ManifestReport:
    out = str(tmp_path / "lists" / "frames.csv")
    settings = {"num_workers": 0, "check": "decode"} | options
    return build_manifest(ManifestConfig(dataset, str(tmp_path / "data"), out, annotations, **settings))  # type: ignore[arg-type]


def s4_video(root: Path, split: str, category: str, name: str, num_masks: int, sound: Sound) -> None:
    place = f"{split}/{category}/{name}"
    for number in range(1, 6):
        picture(root / "visual_frames" / place / f"{name}_{number}.png", GREY)
    for number in range(1, num_masks + 1):
        picture(root / "gt_masks" / place / f"{name}_{number}.png", MASK)
    sound(root / "audio_wav" / f"{place}.wav")


def test_s4(tmp_path: Path, sound: Sound) -> None:
    root = tmp_path / "data"
    s4_video(root, "train", "helicopter", "0d9u2CymIxc", 1, sound)  # only the first picture is labelled
    s4_video(root, "test", "cat_meowing", "2IoF4ClnbPk", 5, sound)
    s4_video(root, "test", "cat_meowing", "incomplete0", 4, sound)
    s4_video(root, "val", "cat_meowing", "damaged0000", 5, sound)
    (root / "gt_masks/val/cat_meowing/damaged0000/damaged0000_3.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    rows = (
        "0d9u2CymIxc,0,helicopter,train\n2IoF4ClnbPk,3,cat_meowing,test\nincomplete0,0,cat_meowing,test\n"
        "absent00000,0,baby_laughter,test\ndamaged0000,0,cat_meowing,val\n"
    )
    path = text(tmp_path / "s4_meta_data.csv", "name,start,category,split\n" + rows)
    report = build(tmp_path, "avsbench_s4", path)
    assert report.missing == ("cat_meowing/incomplete0", "baby_laughter/absent00000")
    assert report.unreadable.keys() == {"cat_meowing/damaged0000"}
    assert "damaged0000_3.png" in report.unreadable["cat_meowing/damaged0000"]
    assert report.splits == {"test": (3, 1), "train": (1, 1), "val": (1, 0)}
    assert report.num_classes == 3  # also the class of which nothing is there
    train, test = read_framed_clips(report.out)
    assert (train.id, train.label, train.split) == ("helicopter/0d9u2CymIxc", "helicopter", "train")
    assert [mask is None for mask in train.masks] == [False, True, True, True, True]
    assert [os.path.basename(mask or "") for mask in test.masks] == [f"2IoF4ClnbPk_{n}.png" for n in range(1, 6)]
    assert masks.read_binary_mask(test.masks[0] or "").sum() == 8
    only_test = build(tmp_path, "avsbench_s4", path, split="test")
    assert (only_test.num_official, only_test.num_present) == (3, 1)


def test_ms3(tmp_path: Path, sound: Sound) -> None:
    root, name = tmp_path / "data", "rq5RDUm2Hnk_1"
    for number in range(1, 6):
        picture(root / "visual_frames" / name / f"{name}.mp4_{number}.png", GREY)
        picture(root / "gt_masks" / "train" / name / f"{name}_{number}.png", MASK)
    sound(root / "audio_wav" / "train" / f"{name}.wav")
    path = text(tmp_path / "ms3_meta_data.csv", f"video_id,split\n{name},train\nabsent,test\n")
    report = build(tmp_path, "avsbench_ms3", path)
    assert (report.num_present, report.missing, report.num_classes) == (1, ("absent",), 0)
    (clip,) = read_framed_clips(report.out)
    assert clip.label is None
    assert None not in clip.masks  # every picture is labelled, for training too


def test_semantic_mixes_videos_of_5_and_10_frames(tmp_path: Path, sound: Sound) -> None:
    for part, uid, num_frames, num_masks in (
        ("v1s", "a", 5, 1),
        ("v1s", "b", 5, 5),
        ("v1m", "c", 5, 5),
        ("v2", "d", 10, 10),
    ):
        folder = tmp_path / "data" / part / uid
        for number in range(num_frames):
            picture(folder / "frames" / f"{number}.jpg", GREY)
        for number in range(num_masks):
            picture(folder / "labels_semantic" / f"{number}.png", np.full((8, 8), number, np.uint8))
        sound(folder / "audio.wav")
    path = text(
        tmp_path / "metadata.csv",
        "vid,uid,s_min,s_sec,a_obj,split,label\nx,a,0,0,helicopter,train,v1s\nx,b,0,0,cat,test,v1s\n"
        "x,c,0,0,man_guitar,train,v1m\nx,d,0,10,man_violin,train,v2\nx,e,0,0,dog,test,v2\n",
    )
    report = build(tmp_path, "avsbench_semantic", path)
    assert (report.num_present, report.missing, report.num_classes) == (4, ("v2/e",), 71)
    clips = {clip.id: clip for clip in read_framed_clips(report.out)}
    assert {name: len(clip.frames) for name, clip in clips.items()} == {"v1s/a": 5, "v1s/b": 5, "v1m/c": 5, "v2/d": 10}
    labelled = {name: sum(mask is not None for mask in clip.masks) for name, clip in clips.items()}
    assert labelled == {"v1s/a": 1, "v1s/b": 5, "v1m/c": 5, "v2/d": 10}
    assert [os.path.basename(frame) for frame in clips["v2/d"].frames] == [f"{number}.jpg" for number in range(10)]
    assert masks.read_semantic_mask(clips["v2/d"].masks[9] or "").max() == 9


def test_label_numbers_from_0_and_from_1(tmp_path: Path) -> None:
    for first in (0, 1):
        numbers = {name: number for number, name in enumerate(shipped_classes("avss"), first)}
        path = text(tmp_path / "label2idx.json", json.dumps(dict(reversed(numbers.items()))))
        assert avsbench.read_label2idx(path) == shipped_classes("avss")
    for content, message in (
        ({"background": 2, "cat": 3}, "to 0 or 1"),
        ({"cat": 0}, "to 0 or 1"),
        ({"background": 0, "cat": 2}, "must be 0 to 1"),
        ({"background": 1, "cat": 1}, "must be 1 to 2"),
    ):
        with pytest.raises(ValueError, match=message):
            avsbench.read_label2idx(text(tmp_path / "label2idx.json", json.dumps(content)))


@pytest.mark.parametrize(
    ("dataset", "content", "message"),
    [
        ("avsbench_s4", "name,category,split\na,cat,train\na,cat,train\n", "line 3: cat/a is already listed"),
        ("avsbench_s4", "name,category,split\na,cat,trian\n", "line 2: split 'trian'"),
        ("avsbench_s4", "name,split\na,train\n", "line 1: no column category"),
        ("avsbench_semantic", "uid,split,label\na,train,v3\n", "line 2: label 'v3'"),
        ("avsbench_ms3", "name,split\na,train\n", "holds none of 1 listed clips, such as a; some of the files"),
    ],
)
def test_lists_that_do_not_fit(dataset: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match=message):
        build(tmp_path, dataset, text(tmp_path / "list.csv", content))


def test_folders_of_ones_own(tmp_path: Path, sound: Sound) -> None:
    root = tmp_path / "data"
    for number in (1, 2, 10):
        picture(root / "test" / "one" / "frames" / f"{number}.jpg", GREY)
    picture(root / "test" / "one" / "masks" / "2.png", MASK)
    sound(root / "test" / "one" / "audio.wav")
    report = build(tmp_path, "mask_folders", None)
    (clip,) = read_framed_clips(report.out)
    assert (clip.id, clip.split) == ("test/one", "test")
    assert [os.path.basename(frame) for frame in clip.frames] == ["1.jpg", "2.jpg", "10.jpg"]
    assert [mask is not None for mask in clip.masks] == [False, True, False]
    picture(root / "test" / "one" / "masks" / "3.png", MASK)
    with pytest.raises(ValueError, match="mask '3' has no frame"):
        build(tmp_path, "mask_folders", None)
    sound(root / "test" / "one" / "other.wav")
    with pytest.raises(ValueError, match="3 frames and 2 sound files"):
        build(tmp_path, "mask_folders", None)


def test_table_of_pictures(tmp_path: Path) -> None:
    clips = (
        FramedClip(
            "a", "dog, big", "train", str(tmp_path / "a.wav"), (str(tmp_path / "1.png"), "/far/2.png"), (None, "/m")
        ),
        FramedClip("b", None, None, "/far/b.wav", ("/far/b.png",), (None,)),
    )
    path = str(tmp_path / "frames.csv")
    write_framed_clips(path, clips)
    assert ",a.wav,1.png,\n" in Path(path).read_text()
    assert read_framed_clips(path) == clips
    header = "id,label,split,sound,frame,mask\n"
    for rows, message in (
        ("a,,,s,f,\nb,,,s,f,\na,,,s,g,\n", "line 4: the rows of a must follow each other"),
        ("a,,,s,f,\na,,,t,g,\n", "line 3: label, split or sound differ"),
        ("a,,,,f,\n", "line 2: empty sound"),
        ("", "holds no clips"),
    ):
        with pytest.raises(ValueError, match=message):
            read_framed_clips(text(tmp_path / "bad.csv", header + rows))


def test_palette_by_hand() -> None:
    colours = masks.palette(71).tolist()
    # 1 is 001 in its lowest three bits: red's highest bit; 8 is 1 in the next three: red's second highest.
    assert colours[:5] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert colours[8] == [64, 0, 0]
    assert colours[70] == [32, 128, 128]  # 70 is 1 000 110 in binary
    assert len({tuple(colour) for colour in colours}) == 71


def test_masks_in_every_mode(tmp_path: Path) -> None:
    numbers = np.array([[0, 1], [70, 5]], np.uint8)
    grey = picture(tmp_path / "grey.png", numbers)
    assert np.array_equal(masks.read_semantic_mask(str(grey)), numbers)
    indexed = Image.fromarray(numbers, "P")
    indexed.putpalette(masks.palette(256).ravel().tolist())
    indexed.save(tmp_path / "indexed.png")
    assert np.array_equal(masks.read_semantic_mask(str(tmp_path / "indexed.png")), numbers)
    coloured = picture(tmp_path / "coloured.png", masks.palette(71)[numbers])
    assert np.array_equal(masks.read_semantic_mask(str(coloured)), numbers)
    for path in (grey, tmp_path / "indexed.png", coloured):
        assert np.array_equal(masks.read_binary_mask(str(path)), numbers > 0)
    Image.fromarray(numbers > 0).save(tmp_path / "bits.png")
    assert np.array_equal(masks.read_binary_mask(str(tmp_path / "bits.png")), numbers > 0)
    with pytest.raises(ValueError, match="holds class 70, but there are 70"):
        masks.read_semantic_mask(str(grey), 70)
    strange = picture(tmp_path / "strange.png", np.full((2, 2, 3), 7, np.uint8))
    with pytest.raises(ValueError, match=r"the colour \[7, 7, 7\] belongs to none"):
        masks.read_semantic_mask(str(strange))
    with pytest.raises(ValueError, match="not a readable image"):
        masks.read_binary_mask(text(tmp_path / "page.png", "<html>"))
