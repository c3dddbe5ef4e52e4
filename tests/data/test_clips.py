"""Finding clips in folders and manifests, and keeping rows."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from deepavfusion.data.clips import Clip, find_clips, list_clips, quarantined, read_manifest, write_manifest


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_folder_is_searched_recursively_in_a_fixed_order(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.MP4", "b/1.webm", "a/deep/3.mkv", "a/notes.txt", "a/._3.mkv", ".cache/4.mp4")
    clips = find_clips(str(tmp_path))
    assert [clip.id for clip in clips] == ["a/deep/3", "b/1", "b/2"]
    assert [Path(clip.path) for clip in clips] == [tmp_path / n for n in ("a/deep/3.mkv", "b/1.webm", "b/2.MP4")]
    assert [clip.label for clip in clips] == ["deep", "b", "b"]


def test_two_files_of_one_name_keep_their_suffixes(tmp_path: Path) -> None:
    touch(tmp_path, "click.mkv", "click.mp4", "other.mp4")
    assert [clip.id for clip in find_clips(str(tmp_path))] == ["click.mkv", "click.mp4", "other"]


def test_layouts_tell_label_and_split(tmp_path: Path) -> None:
    touch(tmp_path, "train/dog barking/x.mp4", "test/cat/y.mp4", "test/z.mp4", "ab/abcd.mp4", "dog/dog_1.mp4")
    rows = {clip.id: (clip.label, clip.split) for clip in find_clips(str(tmp_path))}
    assert rows == {
        "train/dog barking/x": ("dog barking", "train"),
        "test/cat/y": ("cat", "test"),
        "test/z": (None, "test"),
        "ab/abcd": (None, None),
        "dog/dog_1": ("dog", None),
    }


def test_one_folder_for_everything_is_no_class(tmp_path: Path) -> None:
    touch(tmp_path, "videos/x.mp4", "videos/y.mp4")
    assert {clip.label for clip in find_clips(str(tmp_path))} == {None}


def test_links_that_lead_back_up_do_not_hang(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.mp4")
    (tmp_path / "a/up").symlink_to(tmp_path)
    assert [clip.id for clip in find_clips(str(tmp_path))] == ["a/x"]


def test_missing_and_empty_folders_are_errors_that_name_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        find_clips(str(tmp_path / "nowhere"))
    touch(tmp_path, "sounds/a.wav", "sounds/b.wav")
    with pytest.raises(ValueError, match=r"sounds: no video files in it \(found 2 .wav\)"):
        find_clips(str(tmp_path / "sounds"))
    with pytest.raises(ValueError, match="neither a folder nor a manifest"):
        find_clips(str(tmp_path / "sounds/a.wav"))


FULL = Clip(
    "a",
    "/x/a, b.mp4",
    "dog, barking",
    "train",
    9.75,
    1234,
    640,
    360,
    29.97,
    44100,
    2,
    "ok",
    "silent",
    17 * 10**17,
    "ff",
)


def test_manifest_round_trip_keeps_every_field(tmp_path: Path) -> None:
    assert None not in dataclasses.astuple(FULL)
    clips = [FULL, Clip("b", str(tmp_path / "sub/ü\n.mp4"))]
    write_manifest(str(tmp_path / "clips.csv"), clips)
    assert read_manifest(str(tmp_path / "clips.csv")) == clips


def test_manifest_moves_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    write_manifest(str(tmp_path / "old/clips.csv"), [Clip("b", str(tmp_path / "old/sub/b.mp4"))])
    (tmp_path / "old").rename(tmp_path / "new")
    assert read_manifest(str(tmp_path / "new/clips.csv"))[0].path == str(tmp_path / "new/sub/b.mp4")


def test_a_failed_write_leaves_the_old_manifest(tmp_path: Path) -> None:
    path = tmp_path / "clips.csv"
    write_manifest(str(path), [FULL])
    with pytest.raises(ValueError, match="occurs twice"):
        write_manifest(str(path), [Clip("b", "b"), Clip("b", "c")])
    assert read_manifest(str(path)) == [FULL]
    assert [p.name for p in tmp_path.iterdir()] == ["clips.csv"]


def test_quarantined_rows_are_left_out_and_can_be_listed(tmp_path: Path) -> None:
    path = str(tmp_path / "clips.csv")
    bad = Clip("b", "/x/b.mp4", verdict="quarantined", reason="silent")
    write_manifest(path, [FULL, bad, Clip("c", "/x/c.mp4")])
    assert [clip.id for clip in find_clips(path)] == ["a", "c"]
    assert quarantined(path) == [bad]
    assert len(list_clips(path)) == 3
    write_manifest(path, [bad])
    with pytest.raises(ValueError, match="every clip is quarantined"):
        find_clips(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\na,b\n", r"line 1: no column path"),
        ("id,path,lable\na,b,c\n", r"line 1: unknown column 'lable'; did you mean label\?"),
        ("id,path,zzz\na,b,c\n", r"line 1: unknown column 'zzz'; remove it"),
        ("id,path\na,x\nb,y\na,z\n", r"line 4: id 'a' was already used in line 2"),
        ("id,path\na,x\n,y\n", r"line 3: empty id"),
        ("id,path\na,x,y\n", r"line 2: does not have 2 cells"),
        ("id,path,label\na,x\n", r"line 2: does not have 3 cells"),
        ("id,path,width\na,x,wide\n", r"line 2: width 'wide' is not a number"),
        ("id,path,verdict\na,x,fine\n", r"line 2: verdict 'fine' must be"),
        ("id,path\n", r"holds no clips"),
        ("", r"no column id and no column path"),
    ],
)
def test_bad_manifests_name_file_line_and_fix(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"bad\.csv.*{message}"):
        read_manifest(str(path))


def test_missing_and_binary_manifests(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.csv: no such manifest"):
        find_clips(str(tmp_path / "gone.csv"))
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"binary\.csv: not a csv file"):
        find_clips(str(tmp_path / "binary.csv"))


def test_rows_need_neither_torch_nor_a_decoder() -> None:
    code = (
        "import sys, deepavfusion.data.clips, deepavfusion.data.locations\n"
        "print([name for name in ('torch', 'av', 'fsspec') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
