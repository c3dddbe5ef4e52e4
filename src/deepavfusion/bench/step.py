"""`bench step`: how fast whole training steps are, and what share of the machine they use.

Real clips go through the loader, the training loop's own step does the rest (log-mel on the device, forward, backward,
clipping, AdamW). The share is the model's matrix products, counted as in `bench model`, per second, against the rate
of one large matrix product of the same precision on the same device in the same run.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from deepavfusion.atomic import write_text
from deepavfusion.bench.config import StepBenchConfig
from deepavfusion.bench.model import count_flops, steps_of
from deepavfusion.configuration import DataConfig, OptimConfig, PretrainConfig, TrainingConfig
from deepavfusion.data.loading import StepSampler
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.models.config import EarlyFusionConfig, MaskedAutoencoderConfig, MaskedDecodingConfig
from deepavfusion.tasks.pretraining import MaskedPretraining
from deepavfusion.training.guards import FiniteGuard
from deepavfusion.training.processes import Processes, resolve_device
from deepavfusion.training.progress import TrainingProgress
from deepavfusion.training.state import TrainingState
from deepavfusion.training.step import TrainingStep

SIZES: dict[str, tuple[EarlyFusionConfig, MaskedDecodingConfig]] = {
    "small": (
        EarlyFusionConfig(embed_dim=192, depth=6, num_heads=3),
        MaskedDecodingConfig(decoder_dim=128, image_decoder_depth=2, audio_decoder_depth=2, decoder_num_heads=4),
    ),
    "vit_s": (
        EarlyFusionConfig(embed_dim=384, depth=12, num_heads=6),
        MaskedDecodingConfig(decoder_dim=256, image_decoder_depth=4, audio_decoder_depth=4, decoder_num_heads=8),
    ),
    "vit_b": (EarlyFusionConfig(), MaskedDecodingConfig()),
}
"""Encoder and decoders by name; pictures of 224 x 224 and 3 s of sound, factorized fusion in every layer."""
UNTIMED_STEPS = 2
"""Steps before the clock starts: compilation, memory pools, the loader's first batches."""
MATMUL_SIZE = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices whose product gives the machine's rate."""


@dataclass(frozen=True)
class StepSpeed:
    """Speed of one variant."""

    size: str
    precision: str
    mode: str
    samples_per_second: float
    """Clips per second of whole steps, waiting for data included."""
    data_wait_share: float
    """Share of the time spent waiting for the loader, 0 to 1."""
    seconds: float
    """Median seconds of a step without the wait."""
    gflop_per_sample: float
    """Matrix products of forward and backward, attention included."""
    matmul_share: float
    """Share of the measured matmul rate of this precision that the step (without the wait) reaches, 0 to 1."""


class MatmulRate:
    """How fast the device multiplies two large square matrices of a precision."""

    def __init__(self, device: str, precision: str) -> None:
        self.device, n = device, MATMUL_SIZE[device]
        self._a, self._b = (torch.randn(n, n, device=device, dtype=getattr(torch, precision)) for _ in range(2))
        self._seconds: list[float] = []
        self.measure()  # the first product is not counted
        self._seconds.clear()

    def measure(self) -> None:
        """Time one product."""
        _finish(self.device)
        start = time.perf_counter()
        self._a @ self._b
        _finish(self.device)
        self._seconds.append(time.perf_counter() - start)

    @property
    def flops(self) -> float:
        """Floating-point operations per second, median of the products timed so far."""
        return 2 * len(self._a) ** 3 / statistics.median(self._seconds)


class Variant:
    """A training run of one model, precision and mode, stepped by hand."""

    def __init__(self, config: StepBenchConfig, size: str, precision: str, mode: str, folder: str) -> None:
        self.config = PretrainConfig(
            run_dir=folder,
            data=DataConfig(source=config.source or f"{folder}/clips", num_workers=config.num_workers),
            model=SIZES[size][0],
            autoencoder=SIZES[size][1],
            optim=OptimConfig(epochs=1000, warmup_epochs=10),
            training=TrainingConfig(
                batch_size=config.batch_size,
                precision=precision,  # type: ignore[arg-type]
                device=config.device,
                compile=mode == "compiled",
            ),
        )
        self.task, self.processes = MaskedPretraining(self.config), Processes(self.config.training)
        self.num_steps = UNTIMED_STEPS + config.steps
        progress = TrainingProgress(Console(), self.num_steps, 1000, config.batch_size, visible=False)
        self.state = TrainingState(self.task, self.config, self.processes, Path(folder) / "none", progress)
        guard = FiniteGuard(Path(folder) / "nonfinite")
        self._step = TrainingStep(self.task, self.config, self.processes, self.state, guard)
        sampler = StepSampler(config.batch_size, 1, 1, 0, 0, self.num_steps)
        self.loader = self.task.loader(sampler, config.num_workers, self.processes.device)
        self._batches = iter(self.loader)
        self.waits: list[float] = []
        """Seconds each step waited for its data."""
        self.seconds: list[float] = []
        """Seconds of each step without the wait."""

    def step(self) -> None:
        """One step, timed."""
        asked = time.perf_counter()
        batch = next(self._batches)
        began = time.perf_counter()
        totals = {name: float(count) for name, count in self.task.counts(batch).items()}
        self._step([batch], totals, self.num_steps)
        _finish(self.processes.device.type)
        self.waits.append(began - asked)
        self.seconds.append(time.perf_counter() - began)


def measure(config: StepBenchConfig) -> Iterator[StepSpeed]:
    """Speeds of every variant; those of one model and mode, and the matmul, take turns: ratios compare like moments."""
    device = resolve_device(config.device)
    with tempfile.TemporaryDirectory(prefix="bench_step_") as folder:
        if config.source is None:
            write_sample_clips(f"{folder}/clips", 16)
        for size in config.sizes:
            _, steps = steps_of(MaskedAutoencoderConfig.from_parts(*SIZES[size]), 1, "meta")
            flop = count_flops(steps["pre-training", "ours"])
            for mode in config.modes:
                torch.compiler.reset()
                with ExitStack() as loaders:
                    variants = {p: Variant(config, size, p, mode, folder) for p in config.precisions}
                    for variant in variants.values():
                        loaders.enter_context(variant.loader)
                    rates = {precision: MatmulRate(device, precision) for precision in config.precisions}
                    for _ in range(UNTIMED_STEPS + config.steps):
                        for precision, variant in variants.items():
                            variant.step()
                            rates[precision].measure()
                for precision, variant in variants.items():
                    seconds, waits = variant.seconds[UNTIMED_STEPS:], variant.waits[UNTIMED_STEPS:]
                    median, total = statistics.median(seconds), sum(seconds) + sum(waits)
                    yield StepSpeed(
                        size,
                        precision,
                        mode,
                        config.batch_size * len(seconds) / total,
                        sum(waits) / total,
                        median,
                        flop / 1e9,
                        flop * config.batch_size / median / rates[precision].flops,
                    )


def run(config: StepBenchConfig) -> list[StepSpeed]:
    """Measure, print the table, and write the JSON file if asked for."""
    console, speeds, device = Console(), [], resolve_device(config.device)
    with console.status("measuring") as status:
        for speed in measure(config):
            speeds.append(speed)
            status.update(f"measured {speed.size} {speed.precision} {speed.mode}")
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    table = Table(
        title=f"training step, batch {config.batch_size}, {config.num_workers} workers, {name}",
        caption="wait: share of time waiting for data; GFLOP: per sample; matmul: share of the measured matmul rate",
    )
    for column in ("model", "mode", "precision"):
        table.add_column(column)
    for column in ("samples/s", "ms/step", "wait", "GFLOP", "matmul"):
        table.add_column(column, justify="right")
    for i, speed in enumerate(speeds):
        table.add_row(
            speed.size,
            speed.mode,
            speed.precision,
            f"{speed.samples_per_second:.2f}",
            f"{1e3 * speed.seconds:.0f}",
            f"{speed.data_wait_share:.0%}",
            f"{speed.gflop_per_sample:.1f}",
            f"{speed.matmul_share:.0%}",
            end_section=i + 1 == len(speeds) or speeds[i + 1].size != speed.size,
        )
    console.print(table)
    if config.json:
        record = {"torch": torch.__version__, "device": name, "config": asdict(config)}
        write_text(config.json, json.dumps({**record, "speeds": [asdict(s) for s in speeds]}, indent=2) + "\n")
    return speeds


def _finish(device: str) -> None:
    """Wait for the device, so that the clock measures its work."""
    if device == "cuda":
        torch.cuda.synchronize()
