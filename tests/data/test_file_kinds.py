"""One rule for what is a video, a sound and a photo, and what belongs to another; names and things that are odd."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deepavfusion.data.audit import AuditConfig, audit
from deepavfusion.data.clips import Clip, find_clips, list_clips, read_manifest, write_manifest
from deepavfusion.data.file_kinds import kind_of, namesakes
from deepavfusion.data.locations import from_text, one_line, to_text
from deepavfusion.data.media import MediaError
from deepavfusion.data.opening import open_clip
from deepavfusion.data.sets.clip_index import ClipIndex
from deepavfusion.data.sets.manifest import ManifestConfig, build_manifest
from deepavfusion.data.shard_writing import ShardConfig, write_shards
from deepavfusion.inference.inputs import open_recording
from deepavfusion.inference.listing import belonging, list_items
from tests.data.media_writer import Clip as Film
from tests.data.media_writer import write_clip

BESIDE = (".m4a", ".wav", ".mp3", ".opus", ".flac", ".M4A", ".mka", ".jpg", ".webp")
NEITHER = (".json", ".info.json", ".en.vtt", ".srt", ".txt", ".description")


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A second of picture and sound."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_clip(path, Film(seconds=1.0))
    return path.read_bytes()


def put(folder: Path, names: list[bytes], content: bytes = b"x") -> None:
    for name in names:
        path = os.path.join(os.fsencode(folder), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)


def looked_at(folder: Path) -> list[str]:
    return [os.path.relpath(item.path, folder) for item in list_items([str(folder)])]


@pytest.mark.parametrize("suffix", BESIDE)
def test_what_is_beside_a_video_of_its_name_is_no_clip_for_any_verb(tmp_path: Path, film: bytes, suffix: str) -> None:
    put(tmp_path, [b"s/a.mp4", b"s/b.mkv"], film)
    put(tmp_path, [f"s/a{suffix}".encode()])
    assert [clip.id for clip in find_clips(str(tmp_path))] == ["s/a", "s/b"]  # pretrain, audit, shard, embed
    assert looked_at(tmp_path) == ["s/a.mp4", "s/b.mkv"]  # predict
    assert belonging([str(tmp_path)]) == [str(tmp_path / f"s/a{suffix}")]  # which says what it leaves out
    index = ClipIndex(str(tmp_path))  # manifest
    assert [os.path.basename(path) for path in index.paths] == ["a.mp4", "b.mkv"]
    assert index.find(["a"]) == [str(tmp_path / "s/a.mp4")]


@pytest.mark.parametrize("suffix", NEITHER)
def test_what_can_be_neither_seen_nor_heard_is_never_a_clip(tmp_path: Path, suffix: str) -> None:
    put(tmp_path, [b"a.mp4", f"a{suffix}".encode(), f"b{suffix}".encode()])
    assert [clip.id for clip in find_clips(str(tmp_path))] == ["a"]
    assert looked_at(tmp_path) == ["a.mp4"]
    assert belonging([str(tmp_path)]) == []


def test_what_is_alone_or_beside_another_name_belongs_to_no_video(tmp_path: Path) -> None:
    put(tmp_path, [b"a.mp4", b"b.m4a", b"A.m4a", b"sub/a.m4a", b"c.jpg", b"c.wav"])
    assert [clip.id for clip in find_clips(str(tmp_path))] == ["A", "a", "b", "sub/a"]
    assert looked_at(tmp_path) == ["A.m4a", "a.mp4", "b.m4a", "c.jpg", "sub/a.m4a"]
    assert next(item.sound for item in list_items([str(tmp_path)]) if item.path.endswith("c.jpg")) == str(
        tmp_path / "c.wav"
    )


def test_every_suffix_is_of_one_kind() -> None:
    assert [kind_of(name) for name in ("a.MP4", "a.mxf", "a.m4a", "a.ogg", "a.JPG", "a.json", "mp4")] == [
        "video",
        "video",
        "sound",
        "sound",
        "photo",
        None,
        None,
    ]
    group = namesakes(["x.webm", "x.mp4", "x.m4a", "x.png"])["x"]
    assert (group.clips, group.belonging) == (["x.mp4", "x.webm"], ["x.m4a", "x.png"])


@pytest.fixture
def traps(tmp_path: Path, film: bytes) -> Path:
    """A folder of what is called a video and is no file, and one video."""
    folder = tmp_path / "traps"
    put(folder, [b"ok.mp4", b"dir.mp4/inside.mp4"], film)
    os.mkfifo(folder / "pipe.mp4")
    os.mkfifo(folder / "pipe.wav")
    os.mkfifo(folder / "pipe2.jpg")
    (folder / "to_pipe.mkv").symlink_to("pipe.mp4")
    (folder / "zeros.mp4").symlink_to("/dev/zero")
    (folder / "nowhere.mp4").symlink_to("gone.mp4")
    (folder / "circle.mp4").symlink_to("circle.mp4")
    place, home = socket.socket(socket.AF_UNIX), os.getcwd()
    os.chdir(folder)  # a socket's path may have 107 bytes
    try:
        place.bind("socket.mp4")
    finally:
        os.chdir(home)
        place.close()
    return folder


TRAPS = {
    "circle": "symbolic links",
    "nowhere": "No such file",
    "pipe": "a named pipe, not a file",
    "socket": "a socket, not a file",
    "to_pipe": "a named pipe, not a file",
    "zeros": "a device, not a file",
}


def test_an_audit_names_what_is_no_file_and_waits_for_none(tmp_path: Path, traps: Path) -> None:
    summary = audit(AuditConfig(str(traps), str(tmp_path / "clips.csv"), num_workers=0, tolerate=("duplicate of",)))
    rows = {clip.id: clip.reason or "" for clip in read_manifest(str(tmp_path / "clips.csv"))}
    assert rows.keys() == {*TRAPS, "ok", "dir.mp4/inside"}
    assert all(why in rows[name] and rows[name].startswith("unreadable: ") for name, why in TRAPS.items()), rows
    assert (summary.num_ok, summary.num_quarantined) == (2, 6)


def test_predict_and_the_rows_of_a_folder_wait_for_no_pipe(traps: Path) -> None:
    items = list_items([str(traps)])
    assert [os.path.basename(item.path) for item in items] == [
        "circle.mp4",
        "inside.mp4",
        "nowhere.mp4",
        "ok.mp4",
        "pipe.mp4",
        "pipe2.jpg",
        "socket.mp4",
        "to_pipe.mkv",
        "zeros.mp4",
    ]
    for item in items:
        if os.path.basename(item.path) not in ("ok.mp4", "inside.mp4"):
            with pytest.raises(MediaError), open_recording(item.given):
                pass
    for named in (traps / "pipe.wav", "/dev/zero", "/dev/null", traps):
        with pytest.raises(MediaError, match="cannot be opened"), open_recording(str(named)):
            pass


@pytest.mark.parametrize(
    "words",
    [
        ("audit", "PIPE", "--out", "out.csv"),
        ("audit", "clips", "--labels", "PIPE", "--out", "out.csv"),
        ("manifest", "audioset", "--annotations", "PIPE", "--clips", "clips", "--out", "out.csv"),
        ("manifest", "vggss", "--annotations", "PIPE.json", "--clips", "clips", "--out", "out.csv"),
    ],
)
def test_a_pipe_in_the_place_of_a_list_is_named(tmp_path: Path, words: tuple[str, ...]) -> None:
    put(tmp_path / "clips", [b"a.mp4"])
    for name in ("pipe.csv", "pipe.json"):
        os.mkfifo(tmp_path / name)
    words = tuple(word.replace("PIPE.json", "pipe.json").replace("PIPE", "pipe.csv") for word in words)
    command = [sys.executable, "-m", "deepavfusion", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "a named pipe, not a file" in done.stderr
    assert "Traceback" not in done.stderr


ODD_NAMES = [
    b"caf\xe9.mp4",
    b"caf\xe8.mp4",
    b"k\xe9/x.mp4",
    b"two\nlines.mp4",
    b"tab\t.mp4",
    "ü　.mp4".encode(),
    b"[bold]x.mp4",
    b"[x.mp4",
    b":dog:, a;b.mp4",
    b"l" * 251 + b".mp4",
    b"file:x.mp4",
]
ODD_IDS = {
    r"caf\xe9",
    r"caf\xe8",
    r"k\xe9/x",
    r"two\nlines",
    r"tab\t",
    "ü　",
    "[bold]x",
    "[x",
    ":dog:, a;b",
    "l" * 251,
    "file:x",
}


def test_clips_of_any_name_are_named_and_found_again(tmp_path: Path, film: bytes) -> None:
    put(tmp_path / "odd", ODD_NAMES, film)
    found = find_clips(str(tmp_path / "odd"))
    assert {clip.id for clip in found} == ODD_IDS
    assert {os.path.relpath(os.fsencode(clip.path), os.fsencode(tmp_path / "odd")) for clip in found} == set(ODD_NAMES)
    for place in (tmp_path, tmp_path / "elsewhere"):  # with relative and with absolute paths
        write_manifest(str(place / "clips.csv"), found)
        (place / "clips.csv").read_text(encoding="utf-8")  # any program reads it
        assert list(read_manifest(str(place / "clips.csv"))) == list(found)


def test_audit_and_shards_of_odd_names(tmp_path: Path, film: bytes) -> None:
    put(tmp_path / "odd", ODD_NAMES, film)
    put(tmp_path / "odd", [b"broken\xff.mp4"], b"no film")
    out = str(tmp_path / "clips.csv")
    summary = audit(AuditConfig(str(tmp_path / "odd"), out, num_workers=0, tolerate=("duplicate of",)))
    assert (summary.num_ok, summary.num_quarantined) == (len(ODD_NAMES), 1)
    again = audit(AuditConfig(str(tmp_path / "odd"), out, num_workers=0, tolerate=("duplicate of",)))
    assert again.num_looked_at == 0  # the same files are known again
    for clip in find_clips(out):
        with open_clip(clip) as media:
            assert media.info.duration_seconds == pytest.approx(1.0, abs=0.1)
    write_shards(ShardConfig(out, str(tmp_path / "shards"), num_workers=0))
    sharded = find_clips(str(tmp_path / "shards"))
    assert {clip.id for clip in sharded} == ODD_IDS
    with open_clip(sharded[0]) as media:
        assert media.info.duration_seconds == pytest.approx(1.0, abs=0.1)


def test_a_failure_of_an_odd_name_is_told(tmp_path: Path) -> None:
    put(tmp_path, [b"broken\xff\n.mp4"], b"no film")
    (clip,) = list_clips(str(tmp_path))
    with pytest.raises(Exception, match=r"broken\\xff\\n") as caught, open_clip(clip):
        pass
    str(caught.value).encode()


def test_the_report_of_a_verb_prints_names_that_are_markup_or_no_text(tmp_path: Path, film: bytes) -> None:
    put(tmp_path / "odd", [b"train/[x]/[bold]\xe9.mp4", b"test/[x]/[bold]\xe9.mp4"], film)
    command = [sys.executable, "-m", "deepavfusion", "audit", "odd", "--out", "clips.csv", "--num_workers", "0"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict", "COLUMNS": "200"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert rb"[bold]\udce9: test, train" in done.stdout
    with open(tmp_path / "clips.csv", encoding="utf-8", newline="") as file:
        assert {row["path"] for row in csv.DictReader(file)} == {
            "file:odd/train/%5Bx%5D/%5Bbold%5D%E9.mp4",
            "file:odd/test/%5Bx%5D/%5Bbold%5D%E9.mp4",
        }


def test_paths_as_text() -> None:
    for path in ("a b.mp4", "/x/ü%41.mp4", os.fsdecode(b"/x/\xe9 %.mp4"), os.fsdecode(b"\xff"), "file:a", "s3://b/c"):
        assert from_text(to_text(path)) == path
        to_text(path).encode()
    assert from_text("file:///data/a%20b.mp4") == "/data/a b.mp4"
    assert one_line("a\x1b\u2028b") == "a\\x1b\\u2028b"
    assert Clip("a", from_text("s3://b/00000.tar#0")).storage == "shard"


def test_a_manifest_of_official_clips_with_odd_names_beside(tmp_path: Path, film: bytes) -> None:
    put(tmp_path / "clips", [b"k\xe9/abc.mp4", b"\xff.mp4"], film)
    (tmp_path / "list.csv").write_text("file,label\nabc,dog\n")
    config = ManifestConfig(
        "csv", str(tmp_path / "clips"), str(tmp_path / "m.csv"), str(tmp_path / "list.csv"), num_workers=0
    )
    report = build_manifest(config)
    assert (report.num_present, report.num_unlisted) == (1, 1)
    with open_clip(find_clips(report.out)[0]) as media:
        assert media.info.has_picture
