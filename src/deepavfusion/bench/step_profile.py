"""`bench profile`: operators of one pre-training step by their own time, and where the host waits for the device.

The step is the training loop's own on a batch of noise. Operators that give the host a number or a size that depends on
numbers wait for the device on a GPU; on a CPU, which never waits, they are counted all the same. What copies tensors is
counted too.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from deepavfusion.atomic import write_text
from deepavfusion.bench.config import StepBenchConfig
from deepavfusion.bench.model import device_name
from deepavfusion.bench.step import UNTIMED_STEPS, Kind, Variant
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.training.processes import resolve_device

if TYPE_CHECKING:  # another version of the package, which this file can be run with, has none
    from deepavfusion.bench.config import ProfileBenchConfig

WAITS = (
    "aten::_local_scalar_dense",  # .item(), float(), if tensor
    "aten::nonzero",  # boolean indexing too
    "aten::masked_select",
    "aten::repeat_interleave",
    "aten::equal",
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
)
"""What the host waits in. `cudaEventSynchronize` is of the step before, whose numbers are looked at."""
TIMED_STEPS = 3
KEPT_OPERATORS = 40
"""Operators of most time that the file tells."""
OF_CPU_ALONE = ("aten::_fused_adamw_",)
"""Operators whose kernel for CPUs looks at numbers (every parameter's count of steps); that of GPUs does not."""
COPIES = ("aten::copy_", "aten::clone", "aten::cat", "aten::_to_copy", "aten::index", "aten::gather")
"""What moves numbers and computes none."""


@dataclass(frozen=True)
class Operator:
    """One kind of operator in the step."""

    name: str
    calls: int
    self_ms: float
    """Time of its own, without that of operators inside it; on a GPU of its kernels."""


@dataclass(frozen=True)
class StepProfile:
    """What one step consists of."""

    cpu_seconds: float
    """CPU time of a step that is not profiled, which a busy machine changes little: median of three."""
    total_ms: float
    """Sum of all operators' own time."""
    operators: list[Operator]
    """Those of most time first."""
    waits: dict[str, int]
    """Calls in which the host waits, or would on a GPU, by name; of the profiled step alone."""
    copies: dict[str, int]
    """Calls that copy, by name."""


def profile_step(size: str, fusion: str, precision: str, batch_size: int, device: str = "cpu") -> StepProfile:
    """Profile one step after a few that are not.

    Args:
        size: of the model, a name of `bench.step.SIZES`.
        fusion: form.
        precision: float32 or bfloat16.
        batch_size: clips of the step.
        device: cpu or cuda.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_sample_clips(f"{folder}/clips", 1)
        steps = StepBenchConfig(made_up=True, num_workers=0, device=device)  # type: ignore[arg-type]
        variant = Variant(steps, Kind(size, fusion, precision, "eager"), batch_size, folder)  # type: ignore[arg-type]
        with variant.loader:
            batch = variant.read()
            for _ in range(UNTIMED_STEPS):
                variant.step(batch)
            times = [time.process_time()]
            for _ in range(TIMED_STEPS):
                variant.step(batch)
                times.append(time.process_time())
            kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
            with profile(activities=kinds) as profiled:
                variant.step(batch)
    events = {event.key: event for event in profiled.key_averages()}
    own = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    operators = [Operator(e.key, e.count, getattr(e, own) / 1e3) for e in events.values() if getattr(e, own)]
    operators.sort(key=lambda o: -o.self_ms)
    waits = Counter(_wait_name(event) for event in profiled.events() if event.name in WAITS)
    copies = {name: events[name].count for name in COPIES if name in events}
    cpu_seconds = statistics.median(end - begin for begin, end in itertools.pairwise(times))
    return StepProfile(cpu_seconds, sum(o.self_ms for o in operators), operators, dict(waits), copies)


def _wait_name(event: Any) -> str:
    above = event.cpu_parent
    while above is not None and above.name not in OF_CPU_ALONE:
        above = above.cpu_parent
    return event.name if above is None else f"{event.name} in {above.name}"


def run(config: ProfileBenchConfig) -> StepProfile:
    """Profile, print the tables, and write the JSON file if asked for."""
    console, device = Console(), resolve_device(config.device)
    what = (config.size, config.fusion, config.precision, config.batch_size, device)
    profiles: dict[str, dict[str, Any]] = {}
    with console.status("profiling"):
        if config.against:
            profiles["before"] = _profile_of(config.against, what)
        found = profile_step(*what)
    profiles["now"] = asdict(found)
    for one in profiles.values():
        one["operators"] = one["operators"][:KEPT_OPERATORS]
    title = f"one step of {config.size}, {config.fusion}, {config.precision}, {config.batch_size} clips"
    told = f"{found.cpu_seconds:.2f} CPU seconds; {found.total_ms:.0f} ms in all operators of the profiled step"
    table = Table(title=title, caption=told, title_justify="left")
    for column in ("operator", "calls", "own ms", "share"):
        table.add_column(column, justify="left" if column == "operator" else "right")
    for operator in found.operators[: config.top]:
        share = f"{operator.self_ms / found.total_ms:.1%}"
        table.add_row(operator.name, str(operator.calls), f"{operator.self_ms:.1f}", share)
    console.print(table)
    for kind, counts in (("the host waits in", found.waits), ("copies", found.copies)):
        calls = ", ".join(f"{name} x {count}" for name, count in counts.items())
        console.print(f"{kind}: {calls or 'none'}", markup=False, soft_wrap=True)
    if config.json:
        record = {"torch": torch.__version__, "device": device_name(device), "config": asdict(config)}
        write_text(config.json, json.dumps({**record, **profiles}, indent=1) + "\n")
    return found


def _profile_of(tree: str, what: tuple[object, ...]) -> dict[str, Any]:
    """The profile with another version of the package."""
    words = [sys.executable, str(Path(__file__).resolve()), json.dumps(what)]
    env = {**os.environ, "PYTHONPATH": str(Path(tree).resolve()), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(words, env=env, stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(profile_step(*json.loads(sys.argv[1])))) + "\n")
