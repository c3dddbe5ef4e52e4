"""Official lists and folders of real files: what is present, missing and unreadable, and what is written."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from deepavfusion.data.clips import find_clips, read_manifest
from deepavfusion.data.sets.listing import split_labels
from deepavfusion.data.sets.manifest import ManifestConfig, build_manifest
from deepavfusion.data.sets.manifest_report import ManifestReport, digest_ids, report_path
from deepavfusion.data.sets.vocabularies import shipped_classes
from tests.data.sets.conftest import Plant, text

VGGSOUND = """\
---g-f_I2yQ,1,people marching,test
--0PQM4-hqg,30,waterfall burbling,train
bird0000000,7,"bird chirping, tweeting",train
absent00000,3,people marching,train
html0000000,3,people marching,test
mute0000000,3,people marching,test
abcd_123456,30,cow lowing,test
"""


def build(tmp_path: Path, dataset: str, annotations: str, clips: Path, **options: object) -> ManifestReport:
    out = str(tmp_path / "lists" / "set.csv")
    config = ManifestConfig(dataset, str(clips), out, annotations, num_workers=0, **options)  # type: ignore[arg-type]
    return build_manifest(config)


def lacking(tmp_path: Path) -> list[list[str]]:
    with open(tmp_path / "lists" / "set.missing.csv", newline="") as file:
        return list(csv.reader(file))[1:]


def test_vggsound_in_every_layout(tmp_path: Path, plant: Plant, mute_clip: Path) -> None:
    plant(
        "people_marching/---g-f_I2yQ_000001_000011.mp4",  # a folder per class
        "--/--0PQM4-hqg_000030.mp4",  # by the first characters
        "bird_chirping__tweeting/bird0000000_7000_17000.mp4",  # milliseconds, as some downloaders have it
        "abcd_123456_000030.mp4",  # flat, and an id that looks like a name with a start
        "unlisted000_000000.mp4",
    )
    clips = plant("mute0000000_000003_000013.mp4", source=mute_clip)
    (clips / "html0000000_000003_000013.mp4").write_text("<html>gone</html>")
    report = build(tmp_path, "vggsound", text(tmp_path / "vggsound.csv", VGGSOUND), clips)

    assert (report.num_official, report.num_present, report.num_missing, report.num_unreadable) == (7, 4, 1, 2)
    assert report.missing == ("absent00000_000003",)
    assert report.unreadable.keys() == {"html0000000_000003", "mute0000000_000003"}
    assert report.unreadable["mute0000000_000003"] == "no audio"
    assert report.unreadable["html0000000_000003"].startswith("unreadable: ")
    assert report.splits == {"test": (4, 2), "train": (3, 2)}
    assert (report.num_unlisted, report.ambiguous, report.num_classes) == (1, (), 309)
    assert "4 of 7 official clips present (opened), 1 missing, 2 unreadable" in report.lines()[0]

    rows = {clip.id: clip for clip in read_manifest(report.out)}
    assert rows["bird0000000_000007"].label == "bird chirping, tweeting"
    assert rows["bird0000000_000007"].split == "train"
    assert rows["---g-f_I2yQ_000001"].duration_seconds == pytest.approx(1.0, abs=0.1)
    assert rows["abcd_123456_000030"].path.endswith("abcd_123456_000030.mp4")
    assert len(find_clips(report.out)) == 4  # those that cannot be read are quarantined
    assert [row[:3] for row in lacking(tmp_path)] == [
        ["absent00000_000003", "people marching", "train"],
        ["html0000000_000003", "people marching", "test"],
        ["mute0000000_000003", "people marching", "test"],
    ]
    classes = (tmp_path / "lists" / "set.classes.txt").read_text().splitlines()
    assert tuple(classes) == shipped_classes("vggsound")  # all 309, whichever folders are there
    assert json.loads(Path(report_path(report.out)).read_text()) == json.loads(json.dumps(asdict(report)))


def test_split_and_exclusion(tmp_path: Path, plant: Plant) -> None:
    clips = plant("--0PQM4-hqg_000030.mp4", "bird0000000_000007.mp4")
    annotations = text(tmp_path / "vggsound.csv", VGGSOUND)
    tested = text(tmp_path / "test.csv", "bird0000000_000007\nelsewhere00_000001\n")
    report = build(tmp_path, "vggsound", annotations, clips, split="train", exclude=tested)
    assert (report.num_official, report.num_excluded, report.num_present) == (2, 1, 1)
    assert [clip.id for clip in find_clips(report.out)] == ["--0PQM4-hqg_000030"]
    assert report.num_unlisted == 0  # an excluded clip is on the list
    assert report.official_digest == digest_ids(["absent00000_000003", "--0PQM4-hqg_000030"])
    with pytest.raises(ValueError, match=r"'val'.*lists test, train"):
        build(tmp_path, "vggsound", annotations, clips, split="val")
    everything = text(
        tmp_path / "all.csv", "---g-f_I2yQ_000001\nhtml0000000_000003\nmute0000000_000003\nabcd_123456_000030.mp4\n"
    )
    with pytest.raises(ValueError, match="leaves none of 4"):
        build(tmp_path, "vggsound", annotations, clips, split="test", exclude=everything)


def test_a_list_without_splits_is_given_one(tmp_path: Path, plant: Plant) -> None:
    clips = plant("test/---g-f_I2yQ_000001_000011.mp4")
    report = build(
        tmp_path, "vggsound", text(tmp_path / "t.csv", "---g-f_I2yQ_000001.mp4,people marching\n"), clips, split="test"
    )
    assert report.splits == {"test": (1, 1)}
    assert find_clips(report.out)[0].split == "test"


def test_several_files_of_one_name(tmp_path: Path, plant: Plant) -> None:
    clips = plant("cow_lowing/a0000000000_000001.mp4", "people_marching/a0000000000_000001.mp4")
    report = build(tmp_path, "vggsound", text(tmp_path / "v.csv", "a0000000000,1,people marching,test\n"), clips)
    assert report.ambiguous == ("a0000000000_000001",)
    assert report.num_unlisted == 0
    assert "people_marching" in find_clips(report.out)[0].path


def test_decoding_finds_what_opening_does_not(tmp_path: Path, plant: Plant, tiny_clip: Path) -> None:
    clips = plant("good0000000_000001.mp4")
    content = bytearray(tiny_clip.read_bytes())
    start = content.index(b"mdat") + 4
    end = content.index(b"moov") - 4
    content[start:end] = bytes(end - start)  # the header stays, pictures and sound are gone
    (clips / "zero0000000_000001.mp4").write_bytes(content)
    annotations = text(tmp_path / "v.csv", "good0000000,1,cow lowing,test\nzero0000000,1,cow lowing,test\n")
    decoded = build(tmp_path, "vggsound", annotations, clips, check="decode")
    assert decoded.num_present == 1
    assert decoded.unreadable.keys() == {"zero0000000_000001"}
    unchecked = build(tmp_path, "vggsound", annotations, clips, check="none")
    assert unchecked.num_present == 2
    assert "not checked" in unchecked.lines()[0]


def test_checking_in_processes_is_the_same(tmp_path: Path, plant: Plant) -> None:
    clips = plant("---g-f_I2yQ_000001.mp4", "--0PQM4-hqg_000030.mp4")
    annotations = text(tmp_path / "vggsound.csv", VGGSOUND)
    alone = build(tmp_path, "vggsound", annotations, clips)
    rows = read_manifest(alone.out)
    calls: list[tuple[int, int]] = []
    again = build_manifest(
        ManifestConfig("vggsound", str(clips), alone.out, annotations, num_workers=2),
        lambda *counts: calls.append(counts),
    )
    assert again == alone
    assert read_manifest(again.out) == rows
    assert calls == [(1, 2), (2, 2)]


def test_several_labels_in_one_cell(tmp_path: Path, plant: Plant) -> None:
    clips = plant("-0/-0RWZT-miFs_000420_000430.mp4", "Y--aE2O5G5WE.mp4", "--cB2ZVjpnA.mp4")
    annotations = text(
        tmp_path / "balanced_train_segments.csv",
        "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=3, num_segs=3\n"
        "# YTID, start_seconds, end_seconds, positive_labels\n"
        '-0RWZT-miFs, 420.000, 430.000, "/m/03v3yw,/m/0k4j"\n'
        '--aE2O5G5WE, 0.000, 10.000, "/m/03fwl,/m/04rlf,/m/09x0r"\n'
        '--cB2ZVjpnA, 30.000, 40.000, "/m/01y3hg"\n',
    )
    report = build(tmp_path, "audioset", annotations, clips, split="train")
    assert (report.num_present, report.num_classes) == (3, 527)
    labels = {clip.id: split_labels(clip.label) for clip in find_clips(report.out)}
    assert labels == {
        "-0RWZT-miFs_000420": ("Car", "Keys jangling"),
        "--aE2O5G5WE_000000": ("Speech", "Goat", "Music"),
        "--cB2ZVjpnA_000030": ("Smoke detector, smoke alarm",),
    }


def test_folders_of_classes(tmp_path: Path, plant: Plant) -> None:
    clips = plant("train/dog/1.mp4", "train/big_cat/1.mp4", "test/dog/1.mp4")
    report = build_manifest(ManifestConfig("folders", str(clips), str(tmp_path / "own.csv"), num_workers=0))
    assert (report.num_official, report.num_present, report.num_classes) == (3, 3, 2)
    assert report.splits == {"test": (1, 1), "train": (2, 2)}
    listed = text(tmp_path / "classes.txt", "big cat\ncow\ndog\n")
    report = build_manifest(ManifestConfig("folders", str(clips), str(tmp_path / "own.csv"), listed, num_workers=0))
    assert report.num_classes == 3  # a class without a folder keeps its number
    assert {clip.label for clip in find_clips(report.out)} == {"big cat", "dog"}
    with pytest.raises(ValueError, match="'big_cat' is not among the 1 classes"):
        build_manifest(
            ManifestConfig(
                "folders", str(clips), str(tmp_path / "own.csv"), text(tmp_path / "c.txt", "dog"), check="none"
            )
        )


def test_nothing_found_says_what_was_looked_for(tmp_path: Path, plant: Plant) -> None:
    clips = plant("deep/other.mp4")
    annotations = text(tmp_path / "vggsound.csv", VGGSOUND)
    with pytest.raises(ValueError, match=r"none of 7 listed clips, such as ---g-f_I2yQ_000001; 1 other .*deep/other"):
        build(tmp_path, "vggsound", annotations, clips)
    with pytest.raises(ValueError, match="no such folder"):
        build(tmp_path, "vggsound", annotations, tmp_path / "nowhere")
    assert not (tmp_path / "lists").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "vgsound"}, "did you mean vggsound"),
        ({"annotations": None}, "annotations: vggsound needs its annotation file"),
        ({"out": "set.txt"}, "must end in .csv"),
        ({"boxes": "xml"}, "has its boxes in its list"),
        ({"dataset": "flickr_soundnet"}, "needs the folder of its XML files"),
        ({"check": "look"}, "none, open, decode"),
        ({"num_workers": -1}, "must not be negative"),
    ],
)
def test_settings_that_do_not_fit(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ManifestConfig(**({"dataset": "vggsound", "clips": "c", "out": "o.csv", "annotations": "a"} | options))


def test_torch_is_not_needed() -> None:
    code = "import sys, deepavfusion.data.sets.manifest; sys.exit('torch' in sys.modules or 'av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
