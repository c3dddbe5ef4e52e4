"""Two processes that share a model out train as one does, and stop and continue on any number of processes."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from deepavfusion.configuration import TrainingConfig
from deepavfusion.training import checkpoints, loop
from deepavfusion.training.loop import fit
from deepavfusion.training.processes import Processes
from deepavfusion.training.signals import PREEMPTED_EXIT_CODE
from tests.forks import ended_together
from tests.training import sharded_toy
from tests.training.sharded_toy import BlockTask, block_config

STOP = 13


def train(path: Path, strategy: str, processes: int, stop: int = -1, precision: str = "float32") -> None:
    """A run under torchrun; one that is stopped has an exit code other than 0."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    words = ["-m", "tests.training.sharded_toy", str(path), strategy, str(stop), precision]
    done = subprocess.run([sys.executable, *launcher, *words], capture_output=True, text=True, timeout=250)
    assert (done.returncode == 0) is (stop < 0), done.stderr


def alone(path: Path, strategy: str = "ddp") -> str:
    """A run, or the rest of one, in this process; what it said."""
    config, said = block_config(str(path), strategy), io.StringIO()
    assert fit(BlockTask(config), config, Console(file=said, width=300)).status == "finished"
    return said.getvalue()


def losses(path: Path) -> list[float]:
    with open(path / "metrics.csv", newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def state(path: Path) -> dict:
    newest = checkpoints.latest(path / "checkpoints")
    assert newest is not None
    return checkpoints.load(newest)


def assert_close(a: dict, b: dict) -> None:
    """Near each other, key biases apart: the softmax cancels them, so that their gradients are round-off."""
    for name in a:
        x, y = (t[name].unflatten(0, (3, -1))[::2] if name.endswith("qkv.bias") else t[name] for t in (a, b))
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def assert_same(a: object, b: object) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_stopped_on_two_shared_out_and_continued_on_one(tmp_path: Path) -> None:
    alone(tmp_path / "whole")
    run = tmp_path / "run"
    ends = ended_together(sharded_toy.main, str(run), "fsdp", str(STOP), "float32")
    assert [code for code, _ in ends] == [PREEMPTED_EXIT_CODE] * 2, ends

    saved = checkpoints.latest(run / "checkpoints")
    assert saved is not None
    assert saved.is_dir()
    assert saved.name == "step_00000014"
    assert {p.name for p in saved.iterdir()} == {".metadata", "__0_0.distcp", "__1_0.distcp", "run.pt", "files.json"}
    sizes = [(saved / f"__{rank}_0.distcp").stat().st_size for rank in (0, 1)]
    assert max(sizes) < 1.5 * min(sizes)  # shared out, not written by one
    seen = [json.loads(Path(f"{run}.seen.{rank}.json").read_text()) for rank in (0, 1)]
    drawn = [{number for batch in part for number in batch} for part in seen]
    assert not drawn[0] & drawn[1]
    assert drawn[0] | drawn[1] == set(range(15 * 8))  # the step that was not done any more is drawn again

    said = alone(run, "fsdp")  # the same command
    assert "continuing" in said
    assert "--training.strategy fsdp has no effect with one process" in said
    assert losses(run) == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
    a, b = state(tmp_path / "whole"), state(run)
    assert_close(a["model"], b["model"])
    assert a["optimizer"]["param_groups"] == b["optimizer"]["param_groups"]
    assert (run / "model" / "model.pt").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_way_to_continue(tmp_path: Path) -> None:
    train(tmp_path / "whole", "fsdp", 2)
    train(tmp_path / "stopped", "fsdp", 2, stop=STOP)
    reference = state(tmp_path / "whole")
    assert "optimizer" in reference
    for strategy, processes in (("fsdp", 2), ("fsdp", 4), ("ddp", 2)):
        run = tmp_path / f"{strategy}_{processes}"
        shutil.copytree(tmp_path / "stopped", run)
        train(run, strategy, processes)
        assert losses(run) == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
        assert_close(reference["model"], state(run)["model"])
        if (strategy, processes) == ("fsdp", 2):
            assert_same(reference["model"], state(run)["model"])
            assert_same(reference["optimizer"]["state"], state(run)["optimizer"]["state"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_two_saved_whole_is_shared_out(tmp_path: Path) -> None:
    train(tmp_path / "whole", "ddp", 2)
    train(tmp_path / "run", "ddp", 2, stop=STOP)
    train(tmp_path / "run", "fsdp", 2)
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
    assert_close(state(tmp_path / "whole")["model"], state(tmp_path / "run")["model"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_bfloat16_is_near_that_of_copies(tmp_path: Path) -> None:
    # Blocks' matrices are gathered as bfloat16, which autocast makes of them anyway.
    for strategy in ("ddp", "fsdp"):
        train(tmp_path / strategy, strategy, 2, precision="bfloat16")
    assert losses(tmp_path / "fsdp") == pytest.approx(losses(tmp_path / "ddp"), rel=0.02)
    weights = state(tmp_path / "fsdp")["model"]
    assert all(t.dtype == torch.float32 for t in weights.values())


def test_one_process_shares_nothing_out(tmp_path: Path) -> None:
    processes = Processes(TrainingConfig(device="cpu", strategy="fsdp"))
    assert not processes.sharded
    assert processes.host_group is None


def test_what_does_not_go_together_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"strategy fsdp and compile cannot be combined"):
        TrainingConfig(strategy="fsdp", compile=True)

    class Sharded(Processes):
        def __init__(self, config: TrainingConfig) -> None:
            super().__init__(config)
            self.sharded = True

    monkeypatch.setattr(loop, "Processes", Sharded)
    config = block_config(str(tmp_path / "run"), "fsdp")
    config = replace(config, optim=replace(config.optim, optimizer="lars", layer_decay=1.0))
    with pytest.raises(ValueError, match=r"optim\.optimizer lars and --training\.strategy fsdp cannot be combined"):
        fit(BlockTask(config), config, Console(file=io.StringIO()))
    assert not (tmp_path / "run").exists()
