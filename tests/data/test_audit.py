"""The audit: planted defects are found and nothing else is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from deepavfusion.data.audit import AuditConfig, audit, moments
from deepavfusion.data.clips import find_clips, read_manifest
from deepavfusion.data.labels import clip_name, read_labels
from deepavfusion.data.parts import parse_part
from deepavfusion.data.sample_clips import draw_clip, write_clip, write_sample_clips


def write(path: Path, change: str) -> None:
    """A clip with one defect."""
    frames, sound = draw_clip("ring", np.random.default_rng(99), 0.4 if change == "short" else 1.5, 64)
    frames = {"black": frames * 0, "frozen": np.repeat(frames[:1], len(frames), 0)}.get(change, frames)
    write_clip(path, frames, sound * 0 if change == "silent" else sound)
    if change in ("no audio", "no video"):
        keep = "video" if change == "no audio" else "audio"
        whole = path.rename(path.with_suffix(".whole"))
        with av.open(str(whole)) as source, av.open(str(path), "w") as target:
            stream = getattr(source.streams, keep)[0]
            copy = target.add_stream_from_template(stream)
            for packet in source.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    target.mux(packet)
        whole.unlink()
    if change == "cut":
        path.write_bytes(path.read_bytes()[:300])


DEFECTS = {
    "silent": "silent",
    "black": "black",
    "frozen": "frozen picture",
    "no audio": "no audio",
    "no video": "no video",
    "short": "too short",
}


def plant(folder: Path, num_clips: int) -> dict[str, str | None]:
    """A folder of good clips and one of each defect: the reason of each, without details."""
    paths = write_sample_clips(folder / "train", num_clips - len(DEFECTS) - 4, duration_seconds=1.2, size=64)
    expected: dict[str, str | None] = {path.relative_to(folder).with_suffix("").as_posix(): None for path in paths}
    (folder / "test").mkdir()
    for change, reason in DEFECTS.items():
        write(folder / f"test/{change}.mp4", change)
        expected[f"test/{change}"] = reason
    write(folder / "test/cut.mp4", "cut")
    (folder / "test/empty.mp4").write_bytes(b"")
    (folder / "test/page.mp4").write_text("<html>moved</html>")
    shutil.copy(paths[0], folder / "test/zz.mp4")
    copied = paths[0].relative_to(folder).with_suffix("").as_posix()
    return expected | {
        "test/cut": "unreadable",
        "test/empty": "unreadable",
        "test/page": "unreadable",
        "test/zz": None,
        copied: "duplicate of test/zz",
    }


@pytest.mark.parametrize("num_clips", [24, pytest.param(1000, marks=pytest.mark.slow)])
def test_planted_defects_and_nothing_else(tmp_path: Path, num_clips: int) -> None:
    expected = plant(tmp_path / "clips", num_clips)
    calls: list[tuple[int, int]] = []
    summary = audit(AuditConfig(str(tmp_path / "clips"), str(tmp_path / "a.csv")), lambda *call: calls.append(call))
    rows = {clip.id: clip for clip in read_manifest(str(tmp_path / "a.csv"))}
    found = {name: clip.reason.split(":")[0] if clip.reason else None for name, clip in rows.items()}
    assert found == expected
    assert all((clip.verdict == "ok") == (clip.reason is None) for clip in rows.values())
    counts = Counter(reason.split(" test/")[0] for reason in expected.values() if reason)
    assert summary.reasons == dict(counts)
    assert (summary.num_clips, summary.num_quarantined, summary.num_ok) == (num_clips, 10, num_clips - 10)
    assert calls[0] == (0, num_clips)
    assert calls[-1] == (num_clips, num_clips)
    assert len(find_clips(str(tmp_path / "a.csv"))) == num_clips - 10
    good = rows["train/square/0001"]
    assert good.duration_seconds == pytest.approx(1.2, abs=0.1)
    assert (good.width, good.height, good.frame_rate, good.sample_rate, good.channels) == (64, 64, 12.5, 16_000, 1)
    assert (good.label, good.split) == ("square", "train")
    assert good.num_bytes == os.path.getsize(good.path)
    assert "empty" in str(rows["test/empty"].reason)
    assert json.loads((tmp_path / "a.json").read_text())["reasons"] == summary.reasons


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    write_sample_clips(tmp_path / "clips", 6, duration_seconds=1.2, size=64)
    return tmp_path / "clips"


def test_a_second_audit_looks_only_at_what_changed(clips: Path, tmp_path: Path) -> None:
    config = AuditConfig(str(clips), str(tmp_path / "a.csv"), num_workers=0)
    assert audit(config).num_looked_at == 6
    before = (tmp_path / "a.csv").read_bytes()
    again = audit(config)
    assert (again.num_looked_at, again.num_gone) == (0, 0)
    assert (tmp_path / "a.csv").read_bytes() == before
    (clips / "disc/0000.mp4").unlink()
    write(clips / "ring/0003.mp4", "silent")
    shutil.copy(clips / "square/0001.mp4", clips / "square/new.mp4")
    third = audit(config)
    assert (third.num_looked_at, third.num_gone, third.num_clips) == (2, 1, 6)
    assert third.reasons == {"silent": 1, "duplicate of": 1}
    (clips / "square/0001.mp4").unlink()  # its copy is no duplicate any more
    assert audit(config).reasons == {"silent": 1}
    stricter = AuditConfig(str(clips), str(tmp_path / "a.csv"), num_workers=0, min_seconds=2.0)
    assert audit(stricter).num_looked_at == 5


def test_parts_join_to_the_whole(clips: Path, tmp_path: Path) -> None:
    shutil.copy(clips / "square/0001.mp4", clips / "square/copy.mp4")
    audit(AuditConfig(str(clips), str(tmp_path / "whole.csv"), num_workers=0))
    looked = [
        audit(AuditConfig(str(clips), str(tmp_path / "a.csv"), f"{part}/3", num_workers=0)).num_looked_at
        for part in (1, 2, 3)
    ]
    assert looked == [3, 2, 2]
    joined = audit(AuditConfig(str(clips), str(tmp_path / "a.csv"), num_workers=0))
    assert (joined.num_looked_at, joined.num_gone) == (0, 0)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


KILLED = """
import os, signal, sys
from deepavfusion.data.audit import AuditConfig, audit
def progress(done, total):
    if done == 4:
        os.kill(os.getpid(), signal.SIGKILL)
audit(AuditConfig(sys.argv[1], sys.argv[2], num_workers=1), progress)
"""


def test_a_killed_audit_goes_on(clips: Path, tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", KILLED, str(clips), str(tmp_path / "a.csv")], check=False)
    assert run.returncode == -signal.SIGKILL
    assert not (tmp_path / "a.csv").exists()
    with open(tmp_path / "a.csv.journal", "a") as journal:
        journal.write('{"id": "half-writ')
    assert audit(AuditConfig(str(clips), str(tmp_path / "a.csv"), num_workers=0)).num_looked_at == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.json", "clips"]


def test_tolerated_reasons_are_noted_only(clips: Path, tmp_path: Path) -> None:
    write(clips / "mute.mp4", "no audio")
    config = AuditConfig(str(clips), str(tmp_path / "a.csv"), num_workers=0, tolerate=("no audio",))
    assert (audit(config).reasons, audit(config).num_ok) == ({"no audio": 1}, 7)
    assert {clip.reason for clip in find_clips(str(tmp_path / "a.csv"))} == {None, "no audio"}


def test_names_in_several_splits_are_reported(tmp_path: Path) -> None:
    for number, place in enumerate(("train/abc_000010", "test/abc_000010_000020", "test/other")):
        (tmp_path / "clips" / place).parent.mkdir(parents=True, exist_ok=True)
        write_clip(tmp_path / f"clips/{place}.mp4", *draw_clip("disc", np.random.default_rng(number), 1.2, 64))
    summary = audit(AuditConfig(str(tmp_path / "clips"), str(tmp_path / "a.csv"), num_workers=0))
    assert summary.shared_between_splits == {"abc_000010": ["test", "train"]}
    assert summary.splits == {"test": 2, "train": 1}


def test_flashes_at_every_second_are_no_still_picture(tmp_path: Path) -> None:
    frames = np.zeros((125, 64, 64, 3), np.uint8)
    frames[np.arange(125) * 2 % 25 < 2] = 250  # a frame of white at each full second
    sound = np.zeros(160_000, np.float32)
    sound[np.arange(10) * 16_000] = 1.0
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips/click.mp4", frames, sound)
    assert audit(AuditConfig(str(tmp_path / "clips"), str(tmp_path / "a.csv"), num_workers=0)).reasons == {}
    times = moments(10.0, 64)
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] < 10
    assert len({round(time % 1, 2) for time in times}) > 40


def test_labels_from_a_csv(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text('file,label,split\n0000.mp4,"a, b",train\n0001.mp4,c,test\n')
    config = AuditConfig(str(clips), str(tmp_path / "a.csv"), labels=str(tmp_path / "labels.csv"), num_workers=0)
    summary = audit(config)
    assert (summary.num_labels, summary.num_without_label, summary.splits) == (2, 4, {"test": 1, "train": 1})
    assert read_manifest(str(tmp_path / "a.csv"))[0].label == "a, b"
    (tmp_path / "labels.csv").write_text("file,label\nelsewhere.mp4,a\n")
    with pytest.raises(ValueError, match="names none of the clips; its first names are elsewhere"):
        audit(config)


def test_label_files_of_the_field(shared: Path, tmp_path: Path) -> None:
    labels = read_labels(str(shared / "annotations/vggsound_test.csv"))
    assert labels["glLQrEijrKg_000300"] == ("playing hammond organ", None)
    (tmp_path / "vggsound.csv").write_text('---g-f_I2yQ,1,people marching,test\nab,30,"x, y",train\n')
    assert read_labels(str(tmp_path / "vggsound.csv")) == {
        "---g-f_I2yQ_000001": ("people marching", "test"),
        "ab_000030": ("x, y", "train"),
    }
    with pytest.raises(ValueError, match=r"vggsounder\.csv, row \d+: .* has another label"):
        read_labels(str(shared / "annotations/vggsounder.csv"))
    with pytest.raises(ValueError, match="expected a header"):
        read_labels(str(shared / "annotations/vggss_test.csv"))
    assert clip_name("a/b/---g-f_I2yQ_000001_000011.mp4") == "---g-f_I2yQ_000001"


def test_real_and_odd_files(shared: Path, tmp_path: Path) -> None:
    summary = audit(AuditConfig(str(shared / "data"), str(tmp_path / "a.csv")))
    assert (summary.num_clips, summary.num_ok, summary.num_quarantined) == (48, 31, 17)
    assert summary.reasons == {
        "unreadable": 3,
        "no video": 1,
        "no audio": 9,
        "too short": 3,
        "black": 1,
        "frozen picture": 1,
        "silent": 3,
        "damaged": 1,
    }
    assert all(clip.verdict == "ok" for clip in read_manifest(str(tmp_path / "a.csv")) if clip.label == "clips")


def test_settings_that_make_no_sense_are_refused() -> None:
    assert parse_part("3/8") == (3, 8)
    for part in ("0/8", "9/8", "3", "a/b"):
        with pytest.raises(ValueError, match=r"must be i/n with i from 1 to n"):
            AuditConfig("x", "a.csv", part)
    with pytest.raises(ValueError, match=r"'quiet' is not a known reason; there are unreadable"):
        AuditConfig("x", "a.csv", tolerate=("quiet",))
    with pytest.raises(ValueError, match=r"must end in \.csv"):
        AuditConfig("x", "a.txt")


def test_the_settings_need_neither_torch_nor_a_decoder() -> None:
    code = "import sys, deepavfusion.data.audit; print([name for name in ('torch', 'av') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
