"""Two processes over gloo train as one does."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from deepavfusion.configuration import TrainingConfig
from deepavfusion.training import checkpoints
from deepavfusion.training.loop import fit
from deepavfusion.training.processes import Processes, autocast_dtype, resolve_device
from tests.forks import ended_together
from tests.training import toy_task
from tests.training.toy_task import ToyTask, program_config


def losses(path: Path) -> list[float]:
    with open(path / "metrics.csv", newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_two_processes_equal_one(tmp_path: Path) -> None:
    # Their shares of a step differ in how many samples have a picture; the mean is over the whole step.
    config = program_config(str(tmp_path / "one"), 0)
    fit(ToyTask(config), config, Console(file=io.StringIO()))
    (code, said), (other_code, other_said) = ended_together(toy_task.main, str(tmp_path / "two"), "0", "0", "0")
    assert code == other_code == 0, said + other_said
    assert (said + other_said).count("the trained model is in") == 1  # one process speaks
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 24
    assert two == pytest.approx(one, rel=1e-5)
    a, b = (checkpoints.load(tmp_path / n / "checkpoints" / "step_00000024.pt")["model"] for n in ("one", "two"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)


def test_one_process_is_its_own_sum() -> None:
    processes = Processes(TrainingConfig(device="cpu"))
    assert processes.first
    assert processes.count == 1
    assert processes.sum([1, 2.5]) == [1, 2.5]
    assert processes.gather("a") == ["a"]
    assert torch.equal(processes.sum_tensor(torch.ones(2)), torch.ones(2))
    assert 10 < processes.memory_mib() < 1e6


def test_device_and_precision_are_resolved_in_one_place() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"finds no CUDA device; use --training\.device cpu or auto"):
            resolve_device("cuda")
    assert autocast_dtype("auto", "cpu") is None
    assert autocast_dtype("auto", "cuda") is autocast_dtype("bfloat16", "cpu") is torch.bfloat16
    assert autocast_dtype("float32", "cuda") is None
