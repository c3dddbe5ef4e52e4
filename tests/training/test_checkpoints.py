"""Checkpoints are whole or absent."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

from deepavfusion.cli import main
from deepavfusion.training import checkpoints
from deepavfusion.training.loop import fit
from tests.forks import started
from tests.training.toy_task import ToyConfig, ToyTask

CONTENT = {"kind": "toy", "model": {"weight": torch.arange(6.0)}, "config": {"a": [1, 2], "b": None}}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path, 500, CONTENT, keep=2)
    assert path.name == "step_00000500.pt"
    loaded = checkpoints.load(path)
    assert loaded["format"] == checkpoints.FORMAT
    assert loaded["step"] == 500
    assert loaded["config"] == CONTENT["config"]
    assert torch.equal(loaded["model"]["weight"], torch.arange(6.0))


def test_the_latest_stay(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        checkpoints.save(tmp_path, step, CONTENT, keep=2)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step_00000015.pt", "step_00000020.pt"]
    newest = checkpoints.latest(tmp_path)
    assert newest is not None
    assert checkpoints.step_of(newest) == 20


def test_large_steps_sort_by_number(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000):
        checkpoints.save(tmp_path, step, CONTENT, keep=5)
    assert [checkpoints.step_of(p) for p in checkpoints.list_checkpoints(tmp_path)] == [99_999_999, 100_000_000]


def test_nothing_there(tmp_path: Path) -> None:
    assert checkpoints.latest(tmp_path / "none") is None
    assert checkpoints.load_latest(tmp_path / "none", lambda message: None) is None


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_damage_is_found_and_named(tmp_path: Path, damage: str) -> None:
    path = checkpoints.save(tmp_path, 1, {"model": {"weight": torch.arange(20000.0)}}, keep=1)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1  # one bit inside a tensor
    path.write_bytes({"cut": content[:-1000], "flip": content, "empty": b""}[damage])
    with pytest.raises(checkpoints.DamagedCheckpoint, match=r"step_00000001\.pt is damaged"):
        checkpoints.load(path)


def test_all_damaged_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoints.save(tmp_path, step, CONTENT, keep=2).write_bytes(b"no")
    said: list[str] = []
    with pytest.raises(checkpoints.DamagedCheckpoint, match="all 2 checkpoints"):
        checkpoints.load_latest(tmp_path, said.append)
    assert len(said) == 2


def test_other_format_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 99}, tmp_path / "step_00000001.pt")
    with pytest.raises(ValueError, match=r"format 99, this version reads 1"):
        checkpoints.load(tmp_path / "step_00000001.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html></html>", "is damaged: it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "is damaged: it is a pointer of git-lfs"),
        (b"", "is damaged: it is empty"),
        ({"state_dict": {"weight": torch.ones(1)}}, "has format None, this version reads 1"),
        ([1, 2], "has format 'list', this version reads 1"),
        ({"format": 1, "step": 3}, "without kind, model, model_config"),
    ],
)
def test_foreign_files_under_a_checkpoint_s_name_are_one_line(
    content: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run" / "checkpoints" / "step_00000003.pt"
    path.parent.mkdir(parents=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    for place in (path, tmp_path / "run"):
        assert main(["inspect", str(place)]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert str(path) in line
        assert message in line


def test_a_run_does_not_continue_from_another_model_s_checkpoint(tmp_path: Path) -> None:
    config = ToyConfig(str(tmp_path / "run"))
    fit(ToyTask(config), config, Console(file=io.StringIO()))
    shutil.rmtree(tmp_path / "run" / "model", ignore_errors=True)  # as if it were not finished
    (path,) = checkpoints.list_checkpoints(tmp_path / "run" / "checkpoints")[-1:]
    content = checkpoints.load(path)
    torch.save({**content, "model": {"encode.weight": torch.ones(3, 3)}}, path)
    with pytest.raises(ValueError, match=r"does not fit this model: missing encode\.bias.*wrong shape encode\.weight"):
        fit(ToyTask(config), config, Console(file=io.StringIO()))
    torch.save({"format": 1, "step": 1}, path)
    with pytest.raises(ValueError, match="checkpoints lacks kind, means: no run has written it"):
        fit(ToyTask(config), config, Console(file=io.StringIO()))


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"format": 1, "x": Evil()}, tmp_path / "step_00000001.pt")
    with pytest.raises(ValueError, match=r"step_00000001\.pt"):
        checkpoints.load(tmp_path / "step_00000001.pt")
    assert not (tmp_path / "ran").exists()


def save_for_ever(folder: Path) -> None:
    model = {"weight": torch.zeros(1_000_000)}
    for step in itertools.count(1):
        model["weight"].fill_(step)
        checkpoints.save(folder, step, {"model": model}, keep=2)


def test_killed_while_writing_leaves_whole_checkpoints_only(tmp_path: Path) -> None:
    for delay in (0.0, 0.013, 0.029):
        with started(save_for_ever, tmp_path) as process:  # and killed
            deadline = time.monotonic() + 60
            while not checkpoints.list_checkpoints(tmp_path):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.005)
            time.sleep(delay)
        checkpoints.remove_unfinished(tmp_path)
        found = checkpoints.list_checkpoints(tmp_path)
        assert len(found) == len(list(tmp_path.iterdir()))
        for path in found:
            assert torch.all(checkpoints.load(path)["model"]["weight"] == checkpoints.step_of(path))
            path.unlink()
