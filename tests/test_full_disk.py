"""A disk that is full: one line that names the file, nothing half-written, what was there before is whole."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from deepavfusion.atomic import REFUSALS, NotWrittenError, replacing, write_text, writing
from deepavfusion.cli import main
from deepavfusion.data.locations import write_whole
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.training import checkpoints
from deepavfusion.training.run_folder import CsvTable
from tests.forks import ended


@pytest.mark.parametrize("number", sorted(REFUSALS))
def test_what_a_file_system_says_is_told_of_the_file_and_the_old_one_stays(number: int, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise OSError(number, "in the library's words")

    with pytest.raises(NotWrittenError) as caught:
        write()
    assert str(caught.value) == f"{path}: cannot be written: {REFUSALS[number]}"
    assert caught.value.errno == number
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]
    assert path.read_text() == "old"


def test_words_of_libraries_are_understood_and_other_failures_left_alone(tmp_path: Path) -> None:
    with pytest.raises(NotWrittenError, match=r"a: cannot be written: no space left"), writing(tmp_path / "a"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    with pytest.raises(PermissionError) as caught, writing(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/input.mp4")
    assert not isinstance(caught.value, NotWrittenError)
    with pytest.raises(RuntimeError, match="of another kind"), writing(tmp_path / "a"):
        raise RuntimeError("of another kind")


def limited(num_bytes: int, function: Callable[..., int], *arguments: object) -> tuple[int, str]:
    """A function whose files may not grow beyond a size, which is a full disk to whoever writes: code and output."""
    return ended(_limited, num_bytes, function, *arguments)


def _limited(num_bytes: int, function: Callable[..., int], *arguments: object) -> int:
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
    return function(*arguments)


def two_checkpoints(folder: Path) -> int:
    checkpoints.save(folder, 1, {"model": torch.arange(1000.0)}, keep=1)
    try:
        checkpoints.save(folder, 2, {"model": torch.zeros(1_000_000)}, keep=1)
    except OSError as error:
        sys.stdout.write(str(error))
    return 0


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before_whole(tmp_path: Path) -> None:
    code, said = limited(200_000, two_checkpoints, tmp_path)
    assert code == 0, said  # torch's writer would end the process
    assert said.strip() == f"{tmp_path}/step_00000002.pt: cannot be written: {REFUSALS[errno.EFBIG]}"
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001.pt"]
    assert torch.equal(checkpoints.load(tmp_path / "step_00000001.pt")["model"], torch.arange(1000.0))


def two_rows(path: Path) -> int:
    table = CsvTable(path)
    table.append([{"step": 1, "loss": "x" * 10}])
    try:
        table.append([{"step": 2, "loss": "y" * 3000}])
    except OSError as error:
        sys.stdout.write(str(error))
    return 0


def test_rows_that_do_not_fit_leave_no_part_of_themselves(tmp_path: Path) -> None:
    _, said = limited(2000, two_rows, tmp_path / "metrics.csv")
    assert said.strip() == f"{tmp_path}/metrics.csv: cannot be written: {REFUSALS[errno.EFBIG]}"
    assert CsvTable(tmp_path / "metrics.csv").rows() == [{"step": "1", "loss": "x" * 10}]
    assert (tmp_path / "metrics.csv").read_text().count("\n") == 2


@pytest.mark.parametrize("command", ["pretrain", "shard", "bandstand", "predict"])
def test_commands_say_which_file_has_no_room(command: str, tmp_path: Path) -> None:
    write_sample_clips(tmp_path / "clips", 2, duration_seconds=1.0, size=64)
    clips, out = str(tmp_path / "clips"), tmp_path / "out"
    words = {
        "pretrain": ["--config", "tiny", "--data.source", clips, "--training.batch_size", "2", "--run_dir", str(out)],
        "shard": [clips, str(out), "--num_workers", "0"],
        "bandstand": [str(out), "--clips", "1", "--size", "64", "--num_workers", "0"],
        "predict": ["separation", clips, "--model", "shipped:bandstand", "--out", str(out), "--device", "cpu"],
    }[command]
    words += ["--optim.epochs", "1", "--data.num_workers", "0", "--training.device", "cpu"] * (command == "pretrain")
    code, said = limited(8192, main, [command, *words])
    assert code == 1, said
    last = said.strip().splitlines()[-1]
    assert last.startswith(f"deepavfusion {command}: error: {out}"), said
    assert "cannot be written: " in last
    assert any(REFUSALS[number] in last for number in (errno.EFBIG, errno.EIO))  # libsndfile does not tell which
    assert "Traceback" not in said
    left = [path for path in out.rglob("*") if path.is_file()]
    assert not [path for path in left if path.name.startswith(".") or "partial" in path.name or "tmp" in path.name]
    if command != "pretrain":  # whose rows of numbers stay
        assert all(path.suffix == ".json" or path.stat().st_size < 8192 for path in left)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    place = tmp_path / "full"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("needs to mount a small file system, which is not permitted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_really_full_file_system(full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints.save(full / "checkpoints", 1, {"model": torch.arange(1000.0)}, keep=2)
    with pytest.raises(NotWrittenError, match=r"step_00000002\.pt: cannot be written: no space left on the device"):
        checkpoints.save(full / "checkpoints", 2, {"model": torch.zeros(10**6)}, keep=2)
    assert [path.name for path in (full / "checkpoints").iterdir()] == ["step_00000001.pt"]
    assert checkpoints.load(full / "checkpoints" / "step_00000001.pt")["step"] == 1
    with pytest.raises(NotWrittenError, match=r"clips\.csv"), write_whole(str(full / "clips.csv")) as file:
        file.write("x" * 3 * 2**20)
    with pytest.raises(NotWrittenError, match=r"card\.md"):
        write_text(full / "card.md", "x" * 3 * 2**20)
    assert [path.name for path in full.iterdir()] == ["checkpoints"]
    write_sample_clips(tmp_path / "clips", 4, duration_seconds=1.0, size=64)
    words = ["pretrain", "--config", "tiny", "--data.source", str(tmp_path / "clips"), "--run_dir", str(full / "run")]
    words += ["--training.batch_size", "4", "--optim.epochs", "1", "--data.num_workers", "0"]
    assert main(words) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"deepavfusion pretrain: error: {full / 'run'}")
    assert "cannot be written: no space left on the device" in error
    assert len(error.splitlines()) == 1
    assert not list((full / "run").rglob(".*"))
    assert not (full / "run" / "model").exists()


def test_a_read_only_place_is_not_the_inputs_fault(
    full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(full)], check=True)
    write_sample_clips(tmp_path / "clips", 1, duration_seconds=1.0, size=64)
    words = [str(tmp_path / "clips"), "--model", "shipped:bandstand", "--out", str(full / "out"), "--device", "cpu"]
    assert main(["predict", "localization", *words]) == 1
    told = capsys.readouterr().err
    assert f"deepavfusion predict: error: {full / 'out'}" in told
    assert "cannot be written: the file system is read-only" in told
