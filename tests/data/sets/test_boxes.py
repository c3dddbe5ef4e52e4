"""Boxes and pairs: hand-computed truth maps, official forms, and manifests with boxes beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from deepavfusion.data.clips import find_clips
from deepavfusion.data.framed_clips import read_framed_clips
from deepavfusion.data.sets import flickr_soundnet, music_boxes, pairs, vggss
from deepavfusion.data.sets.box_table import read_boxes, write_boxes
from deepavfusion.data.sets.boxes import Box, BoxAnnotation, SourceBoxes, with_truth
from deepavfusion.data.sets.manifest import ManifestConfig, build_manifest
from tests.data.sets.conftest import Plant, picture, text


def test_pixels_are_truncated_and_ends_exclusive() -> None:
    # 0.403125 * 224 = 90.3, 0.253125 * 224 = 56.7, 0.6 * 224 = 134.4, 0.75 * 224 = 168
    assert Box.of_corners(0.403125, 0.253125, 0.6, 0.75).pixels(224) == (90, 56, 134, 168)
    assert Box.of_corners(-0.1, 0.5, 1.2, 2).pixels(8) == (0, 4, 8, 8)
    assert Box.of_size(0.25, 0.5, 0.25, 0.75) == Box(0.25, 0.5, 0.5, 1.0)
    assert Box.of_corners(0.41875, 0.35, -2.8823037615171176e16, 0.575).is_empty(224)
    with pytest.raises(ValueError, match="must be four numbers"):
        Box.of_corners(0, 0, float("nan"), 1)


def test_truth_of_several_boxes_and_sources() -> None:
    left, right = Box(0, 0, 0.5, 1), Box(0.25, 0.5, 1, 1)
    both = BoxAnnotation("a", (SourceBoxes("cat", (left,)), SourceBoxes("dog", (right,))))
    expected = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]], np.float32)
    assert np.array_equal(both.truth(4), expected)  # the union
    assert both.truth(4, "dog").sum() == 6
    assert both.truth(4, "cow").sum() == 0
    assert both.labels == ("cat", "dog")
    soft = BoxAnnotation("a", (SourceBoxes(None, (left, right, right)),), agreement=2)
    assert np.array_equal(
        soft.truth(4), [[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0.5, 1, 1, 1], [0.5, 1, 1, 1]]
    )  # where all three lie over each other it is still 1


def test_a_sample_without_truth_is_named() -> None:
    thin = BoxAnnotation("thin", (SourceBoxes(None, (Box(0.5, 0, 0.5, 1),)),))
    small = BoxAnnotation("small", (SourceBoxes(None, (Box(0.4, 0, 0.6, 1),)),))
    nothing = BoxAnnotation("nothing", ())
    assert with_truth([thin, small, nothing]) == ((small,), ("thin", "nothing"))
    assert with_truth([small], size=1) == ((), ("small",))  # no pixel of a 1 x 1 grid


VGGSS = [
    {"file": "a0000000000_000001", "class": "hail", "bbox": [[0, 0, 0.5, 0.5], [0.5, 0.5, -3e16, 1]]},
    {"file": "b0000000000_000002", "class": "cow lowing", "bbox": [[0.1, 0.2, 0.1, 0.9]]},
    {"file": "c0000000000_000003", "class": "cow lowing", "bbox": [[0.1, 0.2, 0.3, 0.9]]},
]


def test_vggss_manifest_with_boxes_beside_it(tmp_path: Path, plant: Plant) -> None:
    path = text(tmp_path / "vggss.json", json.dumps(VGGSS))
    clips = plant("hail/a0000000000_000001_000011.mp4", "b0/b0000000000_000002.mp4")
    report = build_manifest(ManifestConfig("vggss", str(clips), str(tmp_path / "v.csv"), path, num_workers=0))
    assert (report.num_official, report.num_present, report.missing) == (3, 2, ("c0000000000_000003",))
    assert report.without_truth == ("b0000000000_000002",)
    assert [clip.label for clip in find_clips(report.out)] == ["hail", "cow lowing"]
    written, official = read_boxes(str(tmp_path / "v.boxes.csv")), vggss.read_vggss_boxes(path)
    assert written == official
    assert official[0].truth().sum() == 112 * 112


def flickr(folder: Path, name: str, boxes: str) -> None:
    text(folder / f"{name}.xml", f"<annotation><id>1</id>{boxes}</annotation>")


def box_xml(*values: int) -> str:
    names = ("annotator", "xmin", "ymin", "xmax", "ymax")
    return (
        "<bbox>"
        + "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(names, (7, *values), strict=True))
        + "</bbox>"
    )


def test_flickr_soundnet(tmp_path: Path, tiny_sound: Path) -> None:
    path = text(tmp_path / "flickr_test.csv", "10000130166,202\n10007936344,0\n10008553263,309")
    xml = tmp_path / "Annotations"
    flickr(
        xml, "10000130166", f"<object>{box_xml(0, 0, 131, 256)}</object><object>{box_xml(100, 0, 256, 256)}</object>"
    )
    flickr(xml, "10007936344", box_xml(10, 20, 30, 40))
    first, second, third = flickr_soundnet.read_flickr_boxes(path, str(xml))
    truth = first.truth()
    # 131 * 224 / 256 = 114.6 and 100 * 224 / 256 = 87.5, truncated
    assert truth[0, 86] == 0.5
    assert truth[0, 87] == truth[0, 113] == 1
    assert truth[0, 114] == 0.5
    assert second.boxes()[0].pixels(224) == (8, 17, 26, 35)
    assert third.sources == ()

    # It is passed on as frames and audio.
    for name in ("10000130166", "10008553263"):
        picture(tmp_path / "data" / "frames" / f"{name}.jpg", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "data" / "audio").mkdir()
    shutil.copy(tiny_sound, tmp_path / "data" / "audio" / "10000130166.wav")
    out = str(tmp_path / "flickr.csv")
    config = ManifestConfig(
        "flickr_soundnet",
        str(tmp_path / "data"),
        out,
        path,
        split="test",
        boxes=str(xml),
        check="decode",
        num_workers=0,
    )
    report = build_manifest(config)
    assert (report.num_official, report.num_present, report.num_missing) == (3, 1, 2)
    assert report.without_truth == ("10008553263",)
    (clip,) = read_framed_clips(out)
    assert clip.masks == (None,)
    assert Path(clip.sound).samefile(tmp_path / "data" / "audio" / "10000130166.wav")
    assert read_boxes(str(tmp_path / "flickr.boxes.csv"))[0].agreement == 2

    flickr(xml, "10007936344", "<bbox><annotator>1</annotator><xmin>3</xmin></bbox>")
    with pytest.raises(ValueError, match=r"10007936344\.xml: a bbox must hold"):
        flickr_soundnet.read_flickr_boxes(path, str(xml))
    text(xml / "10007936344.xml", "<annotation>")
    with pytest.raises(ValueError, match=r"10007936344\.xml: not XML"):
        flickr_soundnet.read_flickr_boxes(path, str(xml))
    with pytest.raises(ValueError, match="no such folder"):
        flickr_soundnet.read_flickr_boxes(path, None)


def test_music_boxes_have_width_and_height(tmp_path: Path) -> None:
    duet = [{"file": "HnUOaSfTA6c_000_00007", "class_src1": "cello", "bbox_src1": [0.25, 0.5, 0.25, 0.5]}]
    duet[0] |= {"class_src2": "acoustic_guitar", "bbox_src2": [0.5, 0, 0.5, 0.25]}
    solo = [{"file": "-_-TDDxoaAc_000_00000", "class": "cello", "bbox": [0.25, 0.5, 0.25, 0.5]}]
    (both,) = music_boxes.read_music_boxes(text(tmp_path / "duet.json", json.dumps(duet)))
    (alone,) = music_boxes.read_music_boxes(text(tmp_path / "solo.json", json.dumps(solo)))
    expected = np.zeros((4, 4))
    expected[2:4, 1] = 1
    assert np.array_equal(both.truth(4, "cello"), expected)
    assert np.array_equal(alone.truth(4), expected)
    assert both.truth(4).sum() == 4
    del duet[0]["bbox_src2"]
    with pytest.raises(ValueError, match="item 1: has no bbox_src2"):
        music_boxes.read_music_boxes(text(tmp_path / "bad.json", json.dumps(duet)))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"file": "a", "class": "hail"}, "item 1: has no bbox"),
        ({"file": "a", "class": "hail", "bbox": [[0, 0, 1]]}, "item 1: box .* must be four numbers"),
        ({"file": "a", "class": "hail", "bbox": [["x", 0, 1, 1]]}, "item 1: box .* must be four numbers"),
        ({"file": "a", "class": "hailing", "bbox": []}, "item 1: 'hailing' is not"),
        ({"file": 3, "class": "hail", "bbox": []}, "item 1: file must be a name"),
    ],
)
def test_vggss_items_that_do_not_fit(item: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        vggss.read_vggss_boxes(text(tmp_path / "vggss.json", json.dumps([item])))


def test_boxes_in_a_csv(tmp_path: Path) -> None:
    annotations = (
        BoxAnnotation("a", (SourceBoxes("dog, barking", (Box(0.1, 0.2, 1 / 3, 1), Box(0, 0, 0.5, 0.5))),)),
        BoxAnnotation("b", (SourceBoxes(None, (Box(0, 0, 1, 1),)),), agreement=2),
        BoxAnnotation("c", ()),
    )
    path = str(tmp_path / "boxes.csv")
    write_boxes(path, annotations)
    assert read_boxes(path) == annotations
    own = text(tmp_path / "own.csv", "id,x1,y1,x2,y2\na,0,0,0.5,0.5\nb,0,0,1,1\na,0.5,0.5,2,1\n")
    first, _ = read_boxes(own)
    assert first == BoxAnnotation("a", (SourceBoxes(None, (Box(0, 0, 0.5, 0.5), Box(0.5, 0.5, 1, 1))),))
    for rows, message in (
        ("a,,0,0,1,x,1\n", "line 2: x1,y1,x2,y2 must be numbers"),
        ("a,,0,0,1,1,0\n", "line 2: agreement '0'"),
        ("a,,0,0,1,1,1\na,,0,0,1,1,2\n", "line 3: agreement 2 differs"),
        (",,0,0,1,1,1\n", "line 2: empty id"),
    ):
        with pytest.raises(ValueError, match=message):
            read_boxes(text(tmp_path / "bad.csv", "id,label,x1,y1,x2,y2,agreement\n" + rows))


def test_sounding_pairs(tmp_path: Path, plant: Plant) -> None:
    path = text(tmp_path / "p.csv", "video,audio,label\na,b,non-sounding\nc,c,non-sounding\na,a,sounding\n")
    listed = pairs.read_sounding_pairs(path)
    assert pairs.extended(["a"], listed) == (
        pairs.SoundingPair("a", "a", True),
        pairs.SoundingPair("a", "b", False),
        pairs.SoundingPair("c", "c", False),
    )
    report = build_manifest(
        ManifestConfig("sounding_pairs", str(plant("a.mp4", "x/c.mp4")), str(tmp_path / "s.csv"), path, num_workers=0)
    )
    assert (report.num_official, report.missing) == (3, ("b",))
    with pytest.raises(ValueError, match="line 2: label 'silent'"):
        pairs.read_sounding_pairs(text(tmp_path / "q.csv", "video,audio,label\na,b,silent\n"))


def test_mixture_pairs(tmp_path: Path, plant: Plant) -> None:
    header = "source_1,source_2,class_1,class_2,sep_type\n"
    row = 'a_000001,b_000002,"steel_guitar,_slide_guitar",cornet,Easy\n'
    path = text(tmp_path / "p.csv", header + row + "a_000001,c_000003,steel_guitar,steel_guitar,Hard\n")
    easy, hard = pairs.read_mixture_pairs(path)
    assert easy.labels == ("playing steel guitar, slide guitar", "playing cornet")
    assert (easy.difficulty, hard.difficulty) == ("Easy", "Hard")
    clips = plant("a_000001_000011.mp4", "c_000003.mp4")
    report = build_manifest(ManifestConfig("mixture_pairs", str(clips), str(tmp_path / "m.csv"), path, num_workers=0))
    assert (report.num_official, report.num_present, report.missing) == (3, 2, ("b_000002",))
    other = pairs.read_mixture_pairs(text(tmp_path / "q.csv", "sample0002,saxophone,sample0134,xylophone\n"))
    assert other[0].labels == ("playing saxophone", "playing marimba, xylophone")
    for rows, message in (
        ("a,b,cello,cello,Easy\n", "line 2: sep_type 'Easy', but by its classes it is Hard"),
        ("a,b,cello,kazoo,Easy\n", "line 2: 'kazoo' is not"),
    ):
        with pytest.raises(ValueError, match=message):
            pairs.read_mixture_pairs(text(tmp_path / "bad.csv", header + rows))
    twice = "a,b,cello,flute,Easy\na,c,harp,flute,Easy\n"
    with pytest.raises(ValueError, match="a is 'playing cello' in one pair and 'playing harp' in another"):
        pairs.read_mixture_clips(text(tmp_path / "twice.csv", header + twice))
