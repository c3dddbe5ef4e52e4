"""Stop pre-training in every way, continue it, and compare the result bit by bit with a run never stopped.

    python scripts/resume_matrix.py [--work FOLDER] [--json FILE] [--seed S] [--only TEXT]

Rows: SIGTERM, SIGINT and SIGKILL; 0 and 2 loader workers; 1 process, and 2 under torchrun; two accumulations per step,
the signal at a random moment. SIGTERM and SIGINT go to the whole process group (under torchrun to the launcher, which
passes SIGTERM on to everyone and has an exit code of its own, 1), SIGKILL to every process at once, as when a machine
goes down. Then the losses of uninterrupted runs are compared between 1 and 2 processes, with and without accumulation.

Needs Linux (/proc). Exits with 1 if a row fails.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.training import checkpoints
from deepavfusion.training.signals import PREEMPTED_EXIT_CODE

NUM_STEPS = 36
CHECKPOINT_EVERY = 10
SETTINGS = {
    "model.image_size": "[64,64]",
    "model.audio_size": "[64,64]",
    "model.patch_size": 16,
    "model.embed_dim": 64,
    "model.depth": 3,
    "model.num_heads": 4,
    "model.num_tokens": "[4,2,2]",
    "autoencoder.decoder_dim": 32,
    "autoencoder.image_decoder_depth": 1,
    "autoencoder.audio_decoder_depth": 1,
    "autoencoder.decoder_num_heads": 4,
    "optim.epochs": NUM_STEPS * 16 / 24,
    "optim.warmup_epochs": 2,
    "optim.blr": 0.01,
    "training.batch_size": 16,
    "training.log_every": 1,
    "training.checkpoint_every": CHECKPOINT_EVERY,
    "training.picture_every": 0,
    "training.probe_every": 0,
    "training.precision": "float32",
    "training.device": "cpu",
}
"""A run small enough that a step takes a fraction of a second: 24 clips, 36 steps of 16."""


@dataclass(frozen=True)
class Row:
    """What happened to one interrupted run."""

    signal: str
    processes: int
    workers: int
    stopped_at: int
    """Rows of metrics.csv when it was stopped."""
    continued_from: int
    """Step of the checkpoint it continued from."""
    exit_code: int
    seconds_to_exit: float
    """From the signal until no process was left."""
    bit_equal: bool
    """Weights and optimiser state against the run never stopped."""
    same_rows: bool
    """Losses, rates and gradient norms of all rows of metrics.csv."""
    problem: str = ""


def command(clips: Path, run_dir: Path, processes: int, workers: int, accumulation: int, drop_path: float) -> list[str]:
    """The command line of a run; torchrun for more than one process."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    settings = {
        **SETTINGS,
        "model.drop_path": drop_path,
        "data.source": clips,
        "data.num_workers": workers,
        "training.accumulation": accumulation,
        "run_dir": run_dir,
    }
    flags = [f"--{flag}={value}" for flag, value in settings.items()]
    return [sys.executable, *(launcher if processes > 1 else []), "-m", "deepavfusion", "pretrain", *flags]


def start(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command as the leader of a process group of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(log, "ab") as file:
        return subprocess.Popen(words, stdout=file, stderr=file, start_new_session=True, env=environment)


def descendants(pid: int) -> set[int]:
    """A process and everything below it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
            if fields[0] != "Z":
                parents[int(entry.name)] = int(fields[1])
    found = {pid} & parents.keys()
    while True:
        more = {child for child, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def alive(pids: set[int]) -> set[int]:
    """Those of the processes that still run."""
    return {pid for pid in pids if pid in descendants(pid)}


def num_rows(run_dir: Path) -> int:
    """Rows of metrics.csv so far."""
    path = run_dir / "metrics.csv"
    return max(0, len(path.read_text().splitlines()) - 1) if path.exists() else 0


def losses(run_dir: Path) -> list[dict[str, str]]:
    """All columns of metrics.csv that do not depend on the clock."""
    with open(run_dir / "metrics.csv", newline="") as file:
        kept = ("step", "epoch", "lr", "loss", "loss_image", "loss_audio", "gradient_norm")
        return [{name: row[name] for name in kept} for row in csv.DictReader(file)]


def same(a: object, b: object) -> bool:
    """Bit-equal, through dictionaries and lists."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def final(run_dir: Path) -> dict:
    """The checkpoint of the last step."""
    return checkpoints.load(run_dir / "checkpoints" / f"step_{NUM_STEPS:08d}.pt")


def whole_run(clips: Path, run_dir: Path, processes: int, accumulation: int, drop_path: float) -> None:
    """A run that nobody stops."""
    process = start(command(clips, run_dir, processes, 0, accumulation, drop_path), run_dir.with_suffix(".log"))
    if process.wait(timeout=600) != 0:
        raise RuntimeError(f"the run never stopped failed: {run_dir.with_suffix('.log').read_text()[-2000:]}")


def interrupted_run(
    clips: Path,
    run_dir: Path,
    reference: Path,
    number: signal.Signals,
    processes: int,
    workers: int,
    rng: random.Random,
) -> Row:
    """Start, stop at a random moment, continue, compare."""
    words, log = command(clips, run_dir, processes, workers, 2, 0.1), run_dir.with_suffix(".log")
    process = start(words, log)
    target, deadline = rng.randrange(CHECKPOINT_EVERY + 1, NUM_STEPS - 6), time.monotonic() + 300
    while num_rows(run_dir) < target:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{run_dir.name} ended before step {target}: {log.read_text()[-2000:]}")
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.2))
    family = descendants(process.pid)
    stopped_at, began = num_rows(run_dir), time.monotonic()
    if number == signal.SIGKILL:
        for pid in family:
            os.kill(pid, number)
    elif processes > 1:
        process.send_signal(number)
    else:
        os.killpg(process.pid, number)
    problem = ""
    try:
        code = process.wait(timeout=90)
        while alive(family) and time.monotonic() < began + 90:
            time.sleep(0.05)
    except subprocess.TimeoutExpired:
        code = -1
    seconds = time.monotonic() - began
    left = alive(family)
    if left:
        problem = f"{len(left)} processes were left"
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    newest = checkpoints.latest(run_dir / "checkpoints")
    continued_from = checkpoints.step_of(newest) if newest is not None else 0
    if number == signal.SIGKILL and stopped_at - continued_from > CHECKPOINT_EVERY:
        problem = problem or f"lost {stopped_at - continued_from} steps"
    if number != signal.SIGKILL and continued_from < stopped_at:
        problem = problem or "did not save at the signal"
    if number != signal.SIGKILL and processes == 1 and code != PREEMPTED_EXIT_CODE:
        problem = problem or f"exit code {code}"
    again = start(command(clips, run_dir, processes, 2 - workers, 2, 0.1), log)  # with the other number of workers
    if again.wait(timeout=300) != 0:
        raise RuntimeError(f"{run_dir.name} did not continue: {log.read_text()[-3000:]}")
    a, b = final(reference), final(run_dir)
    return Row(
        number.name,
        processes,
        workers,
        stopped_at,
        continued_from,
        code,
        round(seconds, 1),
        all(same(a[key], b[key]) for key in ("step", "model", "optimizer")),
        losses(reference) == losses(run_dir),
        problem,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, help="folder for the runs, which stay; by default a temporary one that goes"
    )
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--seed", type=int, default=0, help="decides when each run is stopped")
    parser.add_argument("--only", default="", help="only rows whose name, such as SIGTERM-2-0, contains this")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        work = arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="resume_matrix_")))
        return compare(work, arguments.seed, arguments.only, arguments.json)


def compare(work: Path, seed: int, only: str, out: Path | None) -> int:
    """Do the runs in a folder, show the rows and write them to `out`; returns the exit code."""
    console = Console() if sys.stdout.isatty() else Console(width=120)
    write_sample_clips(work / "clips", 24, duration_seconds=2.0, size=96)
    clips = work / "clips"
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
    cells = [(number, p, w) for p in (1, 2) for number in numbers for w in (0, 2)]
    cells = [c for c in cells if only in f"{c[0].name}-{c[1]}-{c[2]}"]

    rows = []
    with console.status("runs never stopped") as status:
        for processes in sorted({c[1] for c in cells}):
            whole_run(clips, work / f"whole_{processes}", processes, 2, 0.1)
        for number, processes, workers in cells:
            name = f"{number.name}-{processes}-{workers}"
            status.update(name)
            rng = random.Random(f"{seed} {name}")
            reference = work / f"whole_{processes}"
            rows.append(interrupted_run(clips, work / name, reference, number, processes, workers, rng))
        table = Table(title=f"stopped and continued, {NUM_STEPS} steps of 2 accumulations")
        for column in (
            "signal",
            "procs",
            "workers",
            "at step",
            "saved",
            "exit",
            "seconds",
            "weights",
            "rows",
            "problem",
        ):
            table.add_column(column, justify="right", no_wrap=True)
        for row in rows:
            *plain, bit_equal, same_rows, problem = asdict(row).values()
            words = ("equal" if bit_equal else "DIFFER", "equal" if same_rows else "DIFFER", problem or "none")
            table.add_row(*map(str, plain), *words)
        console.print(table)

        # Without drop path: its draws are per process, so that only then a step is the same however it is divided.
        divisions = ((1, 1), (2, 1), (1, 2), (2, 2))
        for processes, accumulation in divisions if not only else ():
            status.update(f"{processes} processes, {accumulation} accumulations")
            whole_run(clips, work / f"divided_{processes}_{accumulation}", processes, accumulation, 0.0)
    equality = {}
    if not only:
        base = losses(work / "divided_1_1")
        for processes, accumulation in divisions[1:]:
            other = losses(work / f"divided_{processes}_{accumulation}")
            name = f"{processes} x {16 // processes // accumulation} x {accumulation} accumulations"
            equality[name] = max(
                abs(float(x["loss"]) - float(y["loss"])) / float(x["loss"]) for x, y in zip(base, other, strict=True)
            )
        table = Table(title=f"largest relative difference of the loss to 1 process x 16, over {NUM_STEPS} steps")
        table.add_column("processes x batch")
        table.add_column("difference", justify="right")
        for name, difference in equality.items():
            table.add_row(name, f"{difference:.1e}")
        console.print(table)
    if out is not None:
        record = {"rows": [asdict(row) for row in rows], "equality": equality, "torch": torch.__version__}
        out.write_text(json.dumps(record, indent=2) + "\n")
    good = all(row.bit_equal and row.same_rows and not row.problem for row in rows)
    return 0 if good and all(value < 1e-5 for value in equality.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
