"""Stretches of videos that lists name: found however their files are called, and not taken for whole videos."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from deepavfusion.data.audit import AuditConfig, audit
from deepavfusion.data.clip_names import possible_names
from deepavfusion.data.clips import find_clips, read_manifest
from deepavfusion.data.labels import label_clips
from deepavfusion.data.sample_clips import write_clip
from deepavfusion.data.sets.listing import Segment
from deepavfusion.data.sets.manifest import ManifestConfig, build_manifest
from deepavfusion.data.sets.manifest_report import ManifestReport, report_path
from tests.data.sets.conftest import Plant, text

ID = "-0RWZT-miFs"
AUDIOSET = f'# one\n# two\n# three\n{ID}, 420.000, 430.000, "/m/03v3yw,/m/0k4j"\n'
KINETICS = f"label,youtube_id,time_start,time_end,split\nplaying drums,{ID},420,430,test\n"
AVE = f"Category&VideoID&Quality&StartTime&EndTime\nChurch bell&{ID}&good&2&5\n"
VGGSOUND = f"{ID},420,people marching,test\n"
VGGSS = f'[{{"file": "{ID}_000420", "class": "people marching", "bbox": [[0.1, 0.1, 0.5, 0.5]]}}]'
NUMBERED = f"test/{ID}_000420_000430.mp4,16\n"


@pytest.fixture(scope="session")
def lengths(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    """Films of several lengths at a frame a second, by seconds."""
    folder, found = tmp_path_factory.mktemp("lengths"), {}
    for seconds in (4, 10, 10.5, 14, 16, 60):
        found[float(seconds)] = folder / f"{seconds}.mp4"
        sound = np.zeros(round(16000 * seconds), np.float32)
        write_clip(found[float(seconds)], np.zeros((round(12.5 * seconds), 32, 32, 3), np.uint8), sound)
    return found


def build(tmp_path: Path, dataset: str, content: str, clips: Path, **options: str) -> ManifestReport:
    suffix = "json" if content.startswith("[") else "csv"
    listed = text(tmp_path / f"listed.{suffix}", content)
    out = str(tmp_path / "out.csv")
    return build_manifest(ManifestConfig(dataset, str(clips), out, listed, num_workers=0, **options))  # type: ignore[arg-type]


WHOLE = ["{}.mp4"]
SEGMENTS = [
    "{}_000420.mp4",
    "{}_000420_000430.mp4",
    "{}_420_430.mp4",
    "{}_420.mp4",
    "{}_420.0_430.0.mp4",
    "{}_420.000_430.000.mp4",
    "{}_420.000.mp4",
    "{}_420000_430000.mp4",
    "{}-420-430.mp4",
    "{}_st_420.0_dur_10.0.mp4",
    "YTID_{}_st_420.0_dur_10.0.mp4",
    "YTID_{}_st_420_dur_10.mkv",
    "YTID_{}_420.000_430.000.mp4",
    "Y{}_420.000_430.000.mp4",
    "Y{}_420.0_430.0.webm",
    "Y{}_000420_000430.mp4",
    "Y{}_420000_430000.mp4",
    "Y{}_420.mp4",
]


@pytest.mark.parametrize("name", [*SEGMENTS, *WHOLE, "Y{}.mp4"])
def test_files_are_found_as_downloaders_name_them(tmp_path: Path, plant: Plant, name: str) -> None:
    clips = plant(f"any/where/{name.format(ID)}", "Other_id-00_420.000_430.000.mp4")
    report = build(tmp_path, "audioset", AUDIOSET, clips)
    assert (report.num_present, report.num_unlisted) == (1, 1)
    assert find_clips(report.out)[0].path == str(clips / f"any/where/{name.format(ID)}")


@pytest.mark.parametrize("name", SEGMENTS)
@pytest.mark.parametrize(
    ("dataset", "content"), [("vggsound", VGGSOUND), ("kinetics_sounds", KINETICS), ("vggss", VGGSS)]
)
def test_so_are_those_of_other_sets(tmp_path: Path, plant: Plant, dataset: str, content: str, name: str) -> None:
    if dataset == "vggss" and name.startswith("Y{}"):
        pytest.skip("a list of names knows no prefix")
    assert build(tmp_path, dataset, content, plant(name.format(ID))).num_present == 1


def test_another_stretch_of_the_video_is_another_clip(tmp_path: Path, plant: Plant) -> None:
    clips = plant(f"{ID}_000042_000052.mp4", f"{ID}_42.0_430.0.mp4", f"{ID}_4200.mp4", f"Z{ID}_420.0_430.0.mp4")
    with pytest.raises(ValueError, match="holds none of 1 listed clips"):
        build(tmp_path, "audioset", AUDIOSET, clips)


def test_the_usual_spelling_comes_first_and_the_segment_before_the_whole(tmp_path: Path, plant: Plant) -> None:
    clips = plant(f"a/{ID}_420.0_430.0.mp4", f"b/{ID}_000420_000430.mp4", f"{ID}.mp4")
    report = build(tmp_path, "audioset", AUDIOSET, clips)
    assert find_clips(report.out)[0].path == str(clips / f"b/{ID}_000420_000430.mp4")
    assert report.ambiguous == ()


def test_readings_of_a_name() -> None:
    assert possible_names("x/YTID_abc_st_30.0_dur_10.0.mp4")[-1] == "abc_000030"
    assert possible_names("abcd_123456_000030") == ("abcd_123456_000030", "abcd_123456_000030")[:1]
    assert "abcd_123456_000030" in possible_names("abcd_123456_30.000_40.000.mp4")
    assert possible_names("abc.mp4") == ("abc",)
    assert "abc_000027" in possible_names("abc_27.167_37.167.mp4")
    assert {"abc_030000", "abc_000030"} <= set(possible_names("abc_30000_40000"))


def test_exclusion_knows_every_spelling(tmp_path: Path, plant: Plant) -> None:
    other = 'abcdefghijk, 30.000, 40.000, "/m/0k4j"\n'
    excluded = text(tmp_path / "test.csv", "Yfoo_1.0_2.0.mp4\nYTID_abcdefghijk_st_30.0_dur_10.0.wav\n")
    report = build(tmp_path, "audioset", AUDIOSET + other, plant(f"{ID}.mp4", "abcdefghijk.mp4"), exclude=excluded)
    assert (report.num_official, report.num_excluded) == (1, 1)


def test_labels_of_a_csv_find_files_as_downloaders_name_them(tmp_path: Path, plant: Plant) -> None:
    clips = plant(f"{ID}_420.0_430.0.mp4", "other_0_10.mp4")
    labelled = label_clips(find_clips(str(clips)), text(tmp_path / "vggsound.csv", VGGSOUND))
    assert [(clip.label, clip.split) for clip in labelled] == [("people marching", "test"), (None, None)]


@pytest.mark.parametrize(
    ("dataset", "content", "name", "seconds", "is_longer"),
    [
        ("audioset", AUDIOSET, f"{ID}.mp4", 60.0, True),  # a whole video
        ("audioset", AUDIOSET, f"Y{ID}.mp4", 14.0, True),
        ("audioset", AUDIOSET, f"YTID_{ID}.mp4", 14.0, True),
        ("audioset", AUDIOSET, f"{ID}.mp4", 10.5, False),  # cut, and named by the video
        ("audioset", AUDIOSET, f"{ID}.mp4", 10.0, False),
        ("audioset", AUDIOSET, f"{ID}.mp4", 4.0, False),
        ("audioset", AUDIOSET, f"Y{ID}_420.000_430.000.mp4", 14.0, False),  # cut at key frames
        ("audioset", AUDIOSET, f"Y{ID}_420.000_430.000.mp4", 16.0, True),
        ("kinetics_sounds", KINETICS, f"{ID}.mp4", 60.0, True),
        ("kinetics_sounds", KINETICS, f"{ID}_000420_000430.mp4", 10.5, False),
        ("kinetics_sounds", NUMBERED, f"{ID}_000420_000430.mp4", 60.0, True),
        ("ave", AVE, f"{ID}.mp4", 60.0, True),
        ("ave", AVE, f"{ID}.mp4", 10.0, False),
        ("vggsound", VGGSOUND, f"{ID}_000420.mp4", 60.0, True),
        ("vggsound", VGGSOUND, f"{ID}_000420.mp4", 14.0, False),
        ("vggsound", f"{ID}_000420_000430.mp4,people marching\n", f"{ID}_000420.mp4", 60.0, True),
        ("vggsounder", None, f"{ID}_000420.mp4", 60.0, True),
        ("vggss", VGGSS, f"{ID}_000420.mp4", 60.0, True),
        ("sounding_pairs", f"video,audio,label\n{ID}_000420,{ID}_000420,sounding\n", f"{ID}_000420.mp4", 60.0, True),
        ("ids", f"{ID}_000420_000430.mp4\n", f"{ID}_000420_000430.mp4", 60.0, True),
        ("ids", f"{ID}\n", f"{ID}.mp4", 60.0, False),  # nothing is said of a segment
        ("csv", f"file,label\n{ID},x\n", f"{ID}.mp4", 60.0, False),
    ],
)
def test_a_file_longer_than_its_segment_is_counted_apart(
    tmp_path: Path,
    plant: Plant,
    lengths: dict[float, Path],
    dataset: str,
    content: str | None,
    name: str,
    seconds: float,
    is_longer: bool,
) -> None:
    if content is None:
        header = "video_id,label,modality,background_music,static_image,voice_over\n"
        content = f"{header}{ID}_000420,people marching,AV,False,False,False\n"
    report = build(tmp_path, dataset, content, plant(name, source=lengths[seconds]))
    (row,) = read_manifest(report.out)
    assert (report.num_present, len(report.longer), report.num_unreadable) == (not is_longer, is_longer, 0)
    assert row.verdict == ("quarantined" if is_longer else None)
    assert json.loads(Path(report_path(report.out)).read_text()) == json.loads(json.dumps(asdict(report)))
    if is_longer:
        assert row.reason == report.longer[row.id]
        assert row.reason.startswith(f"longer than its segment: the file has {seconds:.1f} s, listed are 10 s (")
        assert any("1 clips are longer than their segment" in line for line in report.lines())
        with open(tmp_path / "out.missing.csv", newline="") as file:
            assert [(r["id"], r["cause"]) for r in csv.DictReader(file)] == [(row.id, row.reason)]


def test_an_audit_of_the_manifest_does_not_forget_it(tmp_path: Path, plant: Plant, lengths: dict[float, Path]) -> None:
    report = build(tmp_path, "audioset", AUDIOSET, plant(f"{ID}.mp4", source=lengths[60.0]))
    config = AuditConfig(report.out, str(tmp_path / "audited.csv"), num_workers=0, tolerate=("black", "silent"))
    for _ in range(2):
        assert audit(config).reasons == {"black": 1, "silent": 1, "longer than its segment": 1}
        (row,) = read_manifest(str(tmp_path / "audited.csv"))
        assert row.verdict == "quarantined"


def test_lengths_of_what_is_no_second() -> None:
    segment = Segment("abc", 27.167, 37.167)
    assert segment.id == "abc_000027"
    assert segment.excess("abc.mp4", 11.0) is None
    assert segment.excess("abc.mp4", 11.1) is not None
    assert segment.excess("abc_27.167_37.167.mp4", 15.0) is None
    assert Segment("abc", 0, 0.5).excess("abc_0.0_0.5.mp4", 1.4) is None


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_a_csv_without_commas_says_so(tmp_path: Path, plant: Plant, mark: str, name: str) -> None:
    clips = plant(f"{ID}.mp4")
    for dataset, content in (
        ("audioset", AUDIOSET.replace(", ", mark)),
        ("audioset", AUDIOSET.replace(", ", mark).replace("0.000", "0,000") if mark != "|" else "a|b\n"),
        ("kinetics_sounds", KINETICS.replace(",", mark)),
        ("vggsound", VGGSOUND.replace(",", mark)),
        ("vggsound", f'"{ID}"{mark}"420"{mark}"people marching"{mark}"test"\n'),
        ("csv", f"file{mark}label\n{ID}{mark}dog\n"),
        ("ids", f"\n{ID}{mark}420\n"),
        ("boxes", f"id{mark}label{mark}x1{mark}y1{mark}x2{mark}y2\n{ID}{mark}a{mark}0{mark}0{mark}1{mark}1\n"),
        ("audioset", AUDIOSET),
    ):
        if (dataset, content) == ("audioset", AUDIOSET):
            build(tmp_path, dataset, content, clips)
            continue
        with pytest.raises(ValueError, match=rf"listed\.csv, line \d: its cells are separated by {name}"):
            build(tmp_path, dataset, content, clips)
    (tmp_path / "m.csv").write_text(f"id{mark}path\na{mark}b,c.mp4\n")
    with pytest.raises(ValueError, match=f"m.csv, line 1: its cells are separated by {name}"):
        find_clips(str(tmp_path / "m.csv"))
    (tmp_path / "l.csv").write_text(f"file{mark}label\n{ID}{mark}dog\n")
    with pytest.raises(ValueError, match=f"l.csv, line 1: its cells are separated by {name}"):
        label_clips(find_clips(str(clips)), str(tmp_path / "l.csv"))


def test_marks_inside_cells_separate_nothing(tmp_path: Path, plant: Plant) -> None:
    clips = plant("a;b|c.mp4")
    report = build(tmp_path, "csv", 'file,label\n"a;b|c.mp4",x; y|z; w|v\n', clips)
    assert find_clips(report.out)[0].label == "x; y|z; w|v"
