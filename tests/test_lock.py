"""Locks on what is written: they end with their process, and only with it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deepavfusion import lock
from deepavfusion.cli import main
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.lock import InUseError, sole_writer
from tests.forks import started
from tests.training import toy_task
from tests.training.test_loop import final_state, quiet, wait_for
from tests.training.toy_task import ToyTask, program_config


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.2)


@contextmanager
def held(folder: Path, name: str = ".lock") -> Iterator[subprocess.Popen[str]]:
    """Another process holds a lock, and has a child of its own as training has workers; killed at the end."""
    program = f"""
        import os, sys, time
        from deepavfusion.lock import sole_writer
        with sole_writer({str(folder)!r}, "--out", {name!r}):
            child = os.fork()
            if child:
                print(child, flush=True)
            time.sleep(600)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        os.kill(child, signal.SIGKILL)


def test_a_second_process_is_refused_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with held(folder) as process:
        with pytest.raises(InUseError, match=rf"run is being written by process {process.pid} on .*another --run_dir"):
            sole_writer(folder, "--run_dir").__enter__()
        with sole_writer(folder, "--out", ".other.lock"):
            pass
        process.kill()
        process.wait()  # its child lives on, and has the open file too
        with sole_writer(folder, "--run_dir"):
            (folder / "written").touch()
    assert [path.name for path in folder.iterdir()] == ["written"]


def test_what_was_made_for_the_lock_alone_goes(tmp_path: Path) -> None:
    with sole_writer(tmp_path / "a" / "b", "--out"):
        assert (tmp_path / "a" / "b" / ".lock").exists()
        with pytest.raises(InUseError, match="by this process already"):
            sole_writer(tmp_path / "a" / "b", "--out").__enter__()
    assert list(tmp_path.iterdir()) == []


def test_of_many_processes_of_one_run_the_first_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with sole_writer(tmp_path, "--out"):
        assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.warns(UserWarning, match="without locks.*no other process"), sole_writer(tmp_path, "--out"):
        pass


def test_two_runs_in_one_folder_are_told_apart_and_a_killed_one_continues(tmp_path: Path) -> None:
    from deepavfusion.training.loop import fit

    config = program_config(str(tmp_path / "run"), 0)
    with started(toy_task.main, str(tmp_path / "run"), "2", "0.05", "0.1") as process:
        wait_for(tmp_path / "run" / "metrics.csv", process)
        with pytest.raises(ValueError, match=rf"is being written by process {process.pid} on .*another --run_dir"):
            fit(ToyTask(config, dropout=0.1), config, quiet())
        assert process.poll() is None
    # It was killed; its workers live on for some seconds.
    assert fit(ToyTask(config, dropout=0.1), config, quiet()).status == "finished"
    assert final_state(tmp_path / "run")["step"] == 24
    assert not (tmp_path / "run" / ".lock").exists()
    with held(tmp_path / "run"):  # a finished run is only read
        assert fit(ToyTask(config, dropout=0.1), config, quiet()).status == "finished"


def test_other_commands_lock_what_they_write_each_part_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sample_clips(tmp_path / "clips", 2, duration_seconds=1.0, size=32)
    clips, out = str(tmp_path / "clips"), tmp_path / "out"
    audit = ["audit", clips, "--out", str(out / "clips.csv"), "--num_workers", "0"]
    with held(out, ".clips.csv.lock"), held(out, ".lock"):
        for words in (audit, ["shard", clips, str(out)], ["bandstand", str(out), "--clips", "1"]):
            assert main(words) == 1, words
            assert "is being written by process" in capsys.readouterr().err
        assert main([*audit, "--part", "1/2"]) == 0
        assert not (out / "clips.csv").exists()
    assert main(audit) == 0
    assert [path.name for path in out.glob(".*lock")] == [".lock"]  # of the process that was killed
