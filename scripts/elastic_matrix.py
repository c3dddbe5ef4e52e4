"""Stop pre-training on some processes, continue it on others, and compare with the run never stopped.

    python scripts/elastic_matrix.py [--work FOLDER] [--json FILE] [--only TEXT]

A run on two processes gets SIGTERM in the middle, once under ddp and once under fsdp; its folder is copied and each
copy continues on another number of processes or under the other strategy. Compared are: what was loaded there with what
was saved (written again at once, then read whole), bit by bit; the losses of the remaining steps and the final weights
with those of the run on two processes that was never stopped. Without drop path, whose draws are per process.

Uses gloo on the CPU. Exits with 1 if something loaded differs, if the same number of processes does not give the same
bits, or if losses differ by more than 1e-5.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from resume_matrix import SETTINGS, losses, num_rows, same, start
from rich.console import Console
from rich.table import Table

from deepavfusion.arguments import parse_arguments
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.tasks.pretraining import MaskedPretraining
from deepavfusion.tasks.pretraining_config import PretrainConfig
from deepavfusion.training import checkpoints
from deepavfusion.training.processes import Processes
from deepavfusion.training.progress import TrainingProgress
from deepavfusion.training.state import TrainingState

NUM_STEPS = 20
STOP_AFTER = 9
"""Rows of metrics.csv before the signal."""
RELOAD = "reload"
CONTINUATIONS = (
    ("ddp", 1), ("ddp", 2), ("ddp", 4), ("fsdp", 1), ("fsdp", 2), ("fsdp", 4),
)  # fmt: skip
"""Strategy and number of processes that a stopped run continues with."""


@dataclass(frozen=True)
class Row:
    """One stopped run, continued in one way."""

    strategy: str
    """Of the run that was stopped, on 2 processes."""
    then_strategy: str
    then_processes: int
    stopped_at: int
    """Steps done when it was saved."""
    loaded_bit_equal: bool
    """Weights, optimiser state and running averages after loading, against the checkpoint."""
    final_bit_equal: bool
    """Weights and optimiser state after the last step, against the run never stopped."""
    loss_difference: float
    """Largest relative difference of a step's loss to the run never stopped."""
    weight_difference: float
    """Largest difference of a final weight, key biases apart, as a share of the largest weight of its tensor."""


def flags(clips: Path, run_dir: Path, strategy: str) -> list[str]:
    """The run's settings."""
    settings = {
        **SETTINGS,
        "optim.epochs": NUM_STEPS * 16 / 24,
        "optim.clip_grad": 1.0,
        "data.source": clips,
        "data.num_workers": 0,
        "training.accumulation": 2,
        "training.strategy": strategy,
        "run_dir": run_dir,
    }
    return [f"--{flag}={value}" for flag, value in settings.items()]


def launch(words: list[str], processes: int, log: Path) -> subprocess.Popen[bytes]:
    """Start a Python program, under torchrun for more than one process."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return start([sys.executable, *(launcher if processes > 1 else []), *words], log)


def run(clips: Path, run_dir: Path, strategy: str, processes: int, stop: bool = False) -> None:
    """Train to the end, or send SIGTERM after `STOP_AFTER` steps."""
    log = run_dir.with_suffix(".log")
    process = launch(["-m", "deepavfusion", "pretrain", *flags(clips, run_dir, strategy)], processes, log)
    while stop and process.poll() is None and num_rows(run_dir) < STOP_AFTER:
        time.sleep(0.01)
    if stop:
        process.send_signal(signal.SIGTERM)
    code = process.wait(timeout=600)
    if (code != 0) is not stop:
        raise RuntimeError(f"{run_dir.name} ended with {code}: {log.read_text()[-3000:]}")


def reload(clips: str, run_dir: str, strategy: str, out: str) -> None:
    """Load the newest checkpoint and write it again, without a step: what a torchrun process of this script does."""
    config = parse_arguments(PretrainConfig, flags(Path(clips), Path(run_dir), strategy))
    processes = Processes(config.training)
    progress = TrainingProgress(Console(file=io.StringIO()), NUM_STEPS, 1, 16, visible=False)
    state = TrainingState(MaskedPretraining(config), config, processes, Path(run_dir) / "checkpoints", progress)
    state.directory = Path(out)
    state.save()
    processes.close()


def newest(folder: Path) -> dict:
    """The last checkpoint in a folder, whole."""
    path = checkpoints.latest(folder)
    assert path is not None
    return checkpoints.load(path)


def weight_difference(a: dict, b: dict) -> float:
    """Largest difference of two state dicts, tensor by tensor in units of its largest weight.

    Key biases are left out: the softmax cancels them, so that their gradients, and with Adam their steps, are
    round-off.
    """
    found = 0.0
    for name in a:
        x, y = a[name], b[name]
        if name.endswith("qkv.bias"):
            x, y = (t.unflatten(0, (3, -1))[::2] for t in (x, y))
        elif name.endswith(".kv.bias"):
            x, y = (t.chunk(2)[1] for t in (x, y))
        found = max(found, float((x - y).abs().max() / x.abs().max().clamp_min(1e-12)))
    return found


def continued(clips: Path, work: Path, strategy: str, then: str, processes: int) -> Row:
    """Continue a copy of the stopped run and compare."""
    stopped, name = work / f"stopped_{strategy}", f"{strategy}_then_{then}_{processes}"
    shutil.copytree(stopped, work / name)
    words = [__file__, RELOAD, str(clips), str(work / name), then, str(work / f"{name}_reloaded")]
    log = work / f"{name}_reloaded.log"
    if launch(words, processes, log).wait(timeout=600) != 0:
        raise RuntimeError(f"{name} could not be loaded: {log.read_text()[-3000:]}")
    run(clips, work / name, then, processes)
    return compared(work, strategy, then, processes)


def compared(work: Path, strategy: str, then: str, processes: int) -> Row:
    """A continued run beside the stopped one and the one never stopped."""
    name = f"{strategy}_then_{then}_{processes}"
    saved, loaded = newest(work / f"stopped_{strategy}" / "checkpoints"), newest(work / f"{name}_reloaded")
    whole = work / f"whole_{strategy}"
    a, b = newest(whole / "checkpoints"), newest(work / name / "checkpoints")
    pairs = zip(losses(whole), losses(work / name), strict=True)
    return Row(
        strategy,
        then,
        processes,
        saved["step"],
        all(same(saved[key], loaded[key]) for key in ("step", "model", "optimizer", "means")),
        all(same(a[key], b[key]) for key in ("step", "model", "optimizer")),
        max(abs(float(x["loss"]) - float(y["loss"])) / float(x["loss"]) for x, y in pairs),
        weight_difference(a["model"], b["model"]),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, help="folder for the runs, which stay; by default a temporary one that goes"
    )
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--only", default="", help="only rows whose name, such as fsdp-fsdp-4, contains this")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        work = arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="elastic_matrix_")))
        return compare(work, arguments.only, arguments.json)


def compare(work: Path, only: str, out: Path | None) -> int:
    """Do the runs in a folder, show the rows and write them to `out`; returns the exit code."""
    clips = work / "clips"
    write_sample_clips(clips, 24, duration_seconds=2.0, size=96)
    cells = [(s, *then) for s in ("ddp", "fsdp") for then in CONTINUATIONS]
    cells = [c for c in cells if only in f"{c[0]}-{c[1]}-{c[2]}"]
    console = Console() if sys.stdout.isatty() else Console(width=120)
    rows = []
    with console.status("runs") as status:
        for strategy in sorted({c[0] for c in cells}):
            run(clips, work / f"whole_{strategy}", strategy, 2)
            run(clips, work / f"stopped_{strategy}", strategy, 2, stop=True)
        for strategy, then, processes in cells:
            status.update(f"{strategy} on 2, then {then} on {processes}")
            rows.append(continued(clips, work, strategy, then, processes))
    table = Table(title=f"stopped on 2 processes after {STOP_AFTER} or more of {NUM_STEPS} steps, continued on others")
    for column in ("saved by", "continued by", "procs", "at", "loaded", "final", "loss differs", "weights differ"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        strategy, *plain, loaded, final, loss, weights = asdict(row).values()
        words = ["bit-equal" if equal else "differ" for equal in (loaded, final)]
        table.add_row(strategy, *map(str, plain), *words, f"{loss:.1e}", f"{weights:.1e}")
    console.print(table)
    if out is not None:
        record = {"num_steps": NUM_STEPS, "rows": [asdict(row) for row in rows], "torch": torch.__version__}
        out.write_text(json.dumps(record, indent=2) + "\n")
    good = all(
        row.loaded_bit_equal
        and row.loss_difference < 1e-5
        and (row.final_bit_equal or (row.strategy, 2) != (row.then_strategy, row.then_processes))
        for row in rows
    )
    return 0 if good else 1


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == RELOAD:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        reload(*sys.argv[2:])
    else:
        sys.exit(main())
