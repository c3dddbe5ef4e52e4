"""Measure the memory that training steps really take, beside what `deepavfusion estimate` says.

    python scripts/measure_peaks.py [--json FILE] [--only TEXT]

Every row runs the training loop's own step on noise in fresh processes, on the CPU: three steps, then the largest
resident memory (VmHWM, reset before) of a fourth, less what is left of the process when model, optimiser and batches
are gone again: libraries, and the kernels they made for these shapes. malloc gives freed blocks back at once
(MALLOC_MMAP_THRESHOLD_), so that resident memory follows what is alive. Of several processes the largest counts.
On a GPU scripts/gpu_visit.py does the same with what torch's allocator tells.

Needs Linux (/proc). Exits with 1 if an estimate is off by more than 10 %.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from deepavfusion.atomic import write_text
from deepavfusion.bench.estimate import estimate
from deepavfusion.bench.estimate_config import EstimateConfig
from deepavfusion.bench.noise import noise_batch
from deepavfusion.bench.peak_memory import current, peak, reset_peak
from deepavfusion.bench.step import SIZES
from deepavfusion.configuration import DataConfig, OptimConfig, TrainingConfig
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.tasks.pretraining import MaskedPretraining
from deepavfusion.tasks.pretraining_config import PretrainConfig
from deepavfusion.training.guards import FiniteGuard
from deepavfusion.training.loop import train_step
from deepavfusion.training.processes import Processes
from deepavfusion.training.progress import TrainingProgress
from deepavfusion.training.state import TrainingState

ONE = "one"
UNMEASURED_STEPS = 3


@dataclass(frozen=True)
class Case:
    """What is measured."""

    size: str
    batch_size: int
    """Clips per step, over all processes."""
    processes: int = 1
    strategy: str = "ddp"
    precision: str = "float32"
    accumulation: int = 1
    gradient_checkpointing: bool = False
    device: str = "cpu"

    @property
    def name(self) -> str:
        again = "-recomputed" if self.gradient_checkpointing else ""
        shape = f"{self.batch_size}-{self.processes}x{self.accumulation}"
        return f"{self.size}-{self.strategy}-{self.precision}-{shape}{again}"

    def config(self, cls: type[PretrainConfig], folder: str, **more: object) -> PretrainConfig:
        """The configuration of a training, or of an estimate of it."""
        model, autoencoder = SIZES[self.size]
        return cls(
            run_dir=folder,
            data=DataConfig(source=f"{folder}/clips", num_workers=0),
            model=model,
            autoencoder=autoencoder,
            optim=OptimConfig(epochs=1000, warmup_epochs=10),
            training=TrainingConfig(
                batch_size=self.batch_size,
                accumulation=self.accumulation,
                device=self.device,  # type: ignore[arg-type]
                precision=self.precision,  # type: ignore[arg-type]
                strategy=self.strategy,  # type: ignore[arg-type]
                gradient_checkpointing=self.gradient_checkpointing,
            ),
            **more,
        )


CASES = (
    Case("small", 64),
    Case("vit_s", 32),
    Case("vit_b", 8),
    Case("vit_s", 32, precision="bfloat16"),
    Case("vit_s", 32, gradient_checkpointing=True),
    Case("vit_s", 32, accumulation=4),
    Case("vit_s", 16, processes=2),
    Case("vit_s", 16, processes=2, strategy="fsdp"),
    Case("vit_s", 16, processes=2, strategy="fsdp", precision="bfloat16"),
    Case("vit_s", 16, processes=2, strategy="fsdp", accumulation=2),
)


@dataclass(frozen=True)
class Row:
    """One case, estimated and measured."""

    size: str
    batch_size: int
    processes: int
    strategy: str
    precision: str
    accumulation: int
    gradient_checkpointing: bool
    device: str
    estimated_mib: float
    measured_mib: float

    @property
    def error(self) -> float:
        """How far the estimate is off, as a share of what was measured."""
        return self.estimated_mib / self.measured_mib - 1


def measure(case: Case, folder: str) -> int:
    """Bytes a step takes in this process."""
    config = case.config(PretrainConfig, folder)
    task, processes = MaskedPretraining(config), Processes(config.training)
    progress = TrainingProgress(Console(file=io.StringIO()), 10, 1000, case.batch_size, visible=False)
    state = TrainingState(task, config, processes, Path(folder) / "none", progress)
    guard = FiniteGuard(Path(folder) / "nonfinite")
    totals = {"image": float(case.batch_size), "audio": float(case.batch_size)}
    count = case.batch_size // case.processes // case.accumulation
    share = [noise_batch(config, count, processes.rank + i) for i in range(case.accumulation)]
    counts = [{"image": count, "audio": count} for _ in share]
    for _ in range(UNMEASURED_STEPS):
        train_step(state, share, counts, totals, 10, guard)
    reset_peak(case.device)
    processes.wait()
    train_step(state, share, counts, totals, 10, guard)
    highest = peak(case.device)
    del guard, state, share
    taken = max(processes.gather(highest - current(case.device)))
    if processes.first:
        Path(folder, "taken").write_text(str(taken))
    processes.close()
    return taken


def estimated(case: Case) -> float:
    """Bytes that `estimate` says a step takes."""
    config = case.config(EstimateConfig, "", gpus=case.processes, clips=1)
    assert isinstance(config, EstimateConfig)
    return estimate(config).memory.peak


def measured(case: Case) -> int:
    """Bytes a step takes in each of fresh processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(case.processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    with tempfile.TemporaryDirectory(prefix="measure_peaks_") as folder:
        write_sample_clips(f"{folder}/clips", 4, duration_seconds=1.0, size=32)
        words = [__file__, ONE, json.dumps(asdict(case)), folder]
        command = [sys.executable, *(launcher if case.processes > 1 else []), *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{case.name}: {done.stderr[-3000:]}")
        return int(Path(folder, "taken").read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--only", default="", help="only rows whose name, such as vit_s-fsdp, contains this")
    arguments = parser.parse_args()
    console, rows = Console() if sys.stdout.isatty() else Console(width=120), []
    cases = [case for case in CASES if arguments.only in case.name]
    with console.status("measuring") as status:
        for case in cases:
            status.update(case.name)
            rows.append(Row(**asdict(case), estimated_mib=estimated(case) / 2**20, measured_mib=measured(case) / 2**20))
    table = Table(title="memory of one process at the fullest moment of a step, MiB")
    for column in ("model", "batch", "processes", "precision", "passes", "estimated", "measured", "off by"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        many = f"{row.processes} {row.strategy}" if row.processes > 1 else "1"
        passes = f"{row.accumulation}{' recomputed' if row.gradient_checkpointing else ''}"
        numbers = (f"{row.estimated_mib:.0f}", f"{row.measured_mib:.0f}", f"{row.error:+.1%}")
        table.add_row(row.size, str(row.batch_size), many, row.precision, passes, *numbers)
    console.print(table)
    if arguments.json:
        record = {"torch": torch.__version__, "rows": [asdict(row) for row in rows]}
        write_text(arguments.json, json.dumps(record, indent=2) + "\n")
    return 0 if all(abs(row.error) <= 0.1 for row in rows) else 1


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == ONE:
        measure(Case(**json.loads(sys.argv[2])), sys.argv[3])
    else:
        sys.exit(main())
