"""A run that goes on reads what it began with, or says that it does not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deepavfusion.cli import main
from deepavfusion.data.clips import Clip, read_manifest, write_manifest
from deepavfusion.data.digest import file_digest
from deepavfusion.data.stamps import file_changes, stamped
from deepavfusion.training.loop import fit
from deepavfusion.training.run_folder import RunFolder
from tests.training.test_loop import make, quiet, stop_at
from tests.training.toy_task import ToyConfig, ToyTask


def written(folder: Path, count: int = 24, digest: bool = False) -> list[Clip]:
    folder.mkdir(exist_ok=True)
    clips = []
    for i in range(count):
        path = folder / f"clip{i}.mp4"
        path.write_bytes(bytes([i]) * (100 + i))
        os.utime(path, ns=(10**18, 10**18 + i))
        clips.append(Clip(f"clip{i}", str(path), digest=file_digest(str(path)) if digest else None))
    return clips


def task_on(config: ToyConfig, clips: list[Clip]) -> ToyTask:
    task = ToyTask(config)
    task.clips = clips
    return task


def stopped(tmp_path: Path, digest: bool = False) -> tuple[ToyConfig, list[Clip]]:
    """A run that was stopped after a step."""
    config, clips = make(tmp_path / "run"), written(tmp_path / "clips", digest=digest)
    task = task_on(config, clips)
    stop_at(task, 0)
    assert fit(task, config, quiet()).status == "preempted"
    return config, clips


def grow(path: Path) -> None:
    path.write_bytes(b"another film" * 20)


def same_size(path: Path) -> None:
    path.write_bytes(bytes(len(path.read_bytes())))


@pytest.mark.parametrize(("change", "told"), [(grow, "240 bytes, were 103"), (same_size, "written since")])
def test_a_replaced_clip_is_named_and_can_be_accepted(
    tmp_path: Path, change: Callable[[Path], None], told: str
) -> None:
    config, clips = stopped(tmp_path)
    change(Path(clips[3].path))
    with pytest.raises(ValueError, match=rf"1 were replaced since: clip3 \(.*clip3\.mp4: {told}\)\. .*accept_changed"):
        fit(task_on(config, clips), config, quiet())
    accepting, console = replace(config, data=replace(config.data, accept_changed=True)), quiet()
    task = task_on(accepting, clips)
    stop_at(task, 3)
    assert fit(task, accepting, console).status == "preempted"
    assert "warning: 1 clips were replaced since this run began: clip3" in console.file.getvalue()  # type: ignore[attr-defined]
    assert fit(task_on(config, clips), config, quiet()).status == "finished"  # what was accepted is what it has


def test_copies_are_continued_with_a_warning(tmp_path: Path) -> None:
    config, clips = stopped(tmp_path)
    shutil.copytree(tmp_path / "clips", tmp_path / "copies", copy_function=shutil.copyfile)
    copies, console = [replace(clip, path=clip.path.replace("clips/", "copies/")) for clip in clips], quiet()
    assert fit(task_on(config, copies), config, console).status == "finished"
    assert "taken for copies" in console.file.getvalue()  # type: ignore[attr-defined]


def test_digests_tell_copies_and_touched_files_from_others(tmp_path: Path) -> None:
    config, clips = stopped(tmp_path, digest=True)
    os.utime(clips[5].path)  # touched, the bytes are the same
    task, console = task_on(config, clips), quiet()
    stop_at(task, 3)
    assert fit(task, config, console).status == "preempted"
    assert "warning" not in console.file.getvalue()  # type: ignore[attr-defined]
    same_size(Path(clips[5].path))
    with pytest.raises(ValueError, match=r"clip5 .*another digest"):
        fit(task_on(config, clips), config, quiet())
    for clip in clips:  # the first was of zeros already; every second is looked at
        same_size(Path(clip.path))
    with pytest.raises(ValueError, match=r"11 were replaced since: clip2 .*another digest"):
        fit(task_on(config, clips), config, quiet())


def test_unchanged_and_absent_files_and_runs_of_before_go_on(tmp_path: Path) -> None:
    config, clips = stopped(tmp_path)
    path = tmp_path / "run" / "clips.csv"
    write_manifest(str(path), clips)  # as earlier versions did
    os.remove(clips[7].path)
    task = task_on(config, clips)
    stop_at(task, 3)
    assert fit(task, config, quiet()).status == "preempted"
    assert [clip.num_bytes for clip in read_manifest(str(path))] == [None if i == 7 else 100 + i for i in range(24)]
    grow(Path(clips[3].path))
    with pytest.raises(ValueError, match="clip3"):
        fit(task_on(config, clips), config, quiet())


def test_times_that_a_file_system_keeps_only_in_part_are_the_same() -> None:
    def changes(a: int, b: int) -> bool:
        rows = ([Clip("x", "x.mp4", num_bytes=1, modified_ns=t), Clip("y", "y.mp4", num_bytes=1)] for t in (a, b))
        return bool(file_changes(*rows).replaced)

    assert not changes(1_234_567_890_123_456_789, 1_234_567_890_123_456_000)
    assert not changes(1_234_567_890_123_456_789, 1_234_567_890_000_000_000)
    assert changes(1_234_567_890_123_456_789, 1_234_567_890_123_456_788)


def test_shards_are_compared_by_their_digests(tmp_path: Path) -> None:
    rows = [Clip(f"c{i}", f"{tmp_path}/00000.tar#{512 * i}", digest=f"{i}") for i in range(3)]
    assert stamped(rows) == rows
    assert file_changes(rows, [rows[0], replace(rows[1], digest="x"), rows[2]]).replaced == {"c1": "another digest"}


def test_every_file_is_asked_about_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips, asked = written(tmp_path / "clips"), []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **how: asked.append(path) or stat(path, **how))
    RunFolder(tmp_path / "run").check_files(clips, False)
    assert sum(str(path).endswith(".mp4") for path in asked) == len(clips)


def test_a_pretraining_refuses_a_replaced_film(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from deepavfusion.data.sample_clips import write_sample_clips

    films = write_sample_clips(tmp_path / "clips", 4, duration_seconds=1.0, size=64)
    words = ["pretrain", "--config", "tiny", "--data.source", str(tmp_path / "clips"), "--training.batch_size", "4"]
    words += ["--run_dir", str(tmp_path / "run"), "--optim.epochs", "1", "--data.num_workers", "0"]
    assert main(words) == 0
    shutil.rmtree(tmp_path / "run" / "model")
    shutil.copyfile(films[1], films[0])
    assert main(words) == 1
    error = capsys.readouterr().err
    assert films[0].name in error
    assert "Traceback" not in error
