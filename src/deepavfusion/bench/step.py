"""`bench step`: speed of whole training steps, and the share of the machine's matrix-product rate that they reach.

Real clips pass through the data loader and the training loop's own step (log-mel on the device, forward, backward,
clipping, AdamW). The share is the rate of the model's matrix products, counted as in `bench model`, divided by the rate
of one large matrix product of the same precision on the same device in the same run.

The best batch size is searched with the eager step on one batch of clips that is used again and again. Peak memory is
that of a step with its weights and optimiser: on CUDA what the allocator gave out for it, on a CPU the resident memory
of the process with nothing else alive, of which malloc may hold more than is in use.

With `--arrangements` the method written out (`written_out`) is measured alternately with ours.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from deepavfusion.atomic import write_text
from deepavfusion.bench import peak_memory
from deepavfusion.bench.config import Arrangement, StepBenchConfig
from deepavfusion.bench.model import count_flops, device_name, steps_of
from deepavfusion.bench.noise import noise_batch
from deepavfusion.bench.written_out import WrittenOutPretraining
from deepavfusion.configuration import DataConfig, OptimConfig, TrainingConfig
from deepavfusion.data.dataset import Batch
from deepavfusion.data.loading import StepSampler
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.models.config import EarlyFusionConfig, FusionForm, MaskedAutoencoderConfig, MaskedDecodingConfig
from deepavfusion.tasks.pretraining import MaskedPretraining
from deepavfusion.tasks.pretraining_config import PretrainConfig
from deepavfusion.training.guards import FiniteGuard
from deepavfusion.training.loop import train_step
from deepavfusion.training.processes import Processes, resolve_device
from deepavfusion.training.progress import TrainingProgress
from deepavfusion.training.state import TrainingState

SIZES: dict[str, tuple[EarlyFusionConfig, MaskedDecodingConfig]] = {
    "tiny": (
        EarlyFusionConfig(image_size=(64, 64), audio_size=(64, 64), embed_dim=64, depth=1, num_heads=4),
        MaskedDecodingConfig(decoder_dim=32, image_decoder_depth=1, audio_decoder_depth=1, decoder_num_heads=4),
    ),
    "small": (
        EarlyFusionConfig(embed_dim=192, depth=6, num_heads=3),
        MaskedDecodingConfig(decoder_dim=128, image_decoder_depth=2, audio_decoder_depth=2, decoder_num_heads=4),
    ),
    "vit_s": (
        EarlyFusionConfig(embed_dim=384, depth=12, num_heads=6),
        MaskedDecodingConfig(decoder_dim=256, image_decoder_depth=4, audio_decoder_depth=4, decoder_num_heads=8),
    ),
    "vit_b": (EarlyFusionConfig(), MaskedDecodingConfig()),
    "vit_l": (EarlyFusionConfig(embed_dim=1024, depth=24, num_heads=16), MaskedDecodingConfig()),
}
"""Encoder and decoders by name; fusion in every layer, and but for tiny pictures of 224 x 224 and 3 s of sound."""
UNTIMED_STEPS = 2
"""Steps before the clock starts: compilation, memory pools, the loader's first batches."""
WORTH_DOUBLING = 1.02
"""A larger batch is taken if it does more clips per second by this factor."""
MATMUL_SIZE = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices whose product gives the machine's rate."""


@dataclass(frozen=True)
class StepSpeed:
    """Speed of one variant."""

    size: str
    fusion: str
    precision: str
    mode: str
    arrangement: str
    """`ours` or `written_out`."""
    batch_size: int
    samples_per_second: float
    """Clips per second of whole steps, waiting for data included."""
    step_samples_per_second: float
    """Clips per second of the median step without the wait."""
    data_wait_share: float
    """Share of the time spent waiting for the loader, 0 to 1."""
    longest_wait_seconds: float
    """The longest wait of one step."""
    seconds: float
    """Median seconds of a step without the wait."""
    gflop_per_sample: float
    """Matrix products of forward and backward, attention included."""
    matmul_tflops: float
    """That measured rate."""
    matmul_share: float
    """Share of the measured matmul rate of this precision that the step (without the wait) reaches, 0 to 1."""
    peak_gib: float | None
    """The most memory that a step takes; None where the system does not tell."""


@dataclass(frozen=True)
class Kind:
    """What is measured."""

    size: str
    fusion: FusionForm
    precision: str
    mode: str
    arrangement: Arrangement = "ours"

    @property
    def autoencoder(self) -> MaskedAutoencoderConfig:
        """The model."""
        encoder, decoding = SIZES[self.size]
        return MaskedAutoencoderConfig.from_parts(replace(encoder, fusion=self.fusion), decoding)


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

    def __init__(self, config: StepBenchConfig, kind: Kind, batch_size: int, folder: str) -> None:
        self.batch_size = batch_size
        self.config = PretrainConfig(
            run_dir=folder,
            data=DataConfig(source=config.source or f"{folder}/clips", num_workers=config.num_workers),
            model=kind.autoencoder.encoder,
            autoencoder=SIZES[kind.size][1],
            optim=OptimConfig(epochs=1000, warmup_epochs=10),
            training=TrainingConfig(
                batch_size=batch_size,
                precision=kind.precision,  # type: ignore[arg-type]
                device=config.device,
                compile=kind.mode == "compiled",
            ),
        )
        task = MaskedPretraining if kind.arrangement == "ours" else WrittenOutPretraining
        self.task, self.processes = task(self.config), Processes(self.config.training)
        self.num_steps = 2 * (UNTIMED_STEPS + config.steps)
        progress = TrainingProgress(Console(), self.num_steps, 1000, batch_size, visible=False)
        self.state = TrainingState(self.task, self.config, self.processes, Path(folder) / "none", progress)
        self._guard = FiniteGuard(Path(folder) / "nonfinite")
        sampler = StepSampler(batch_size, 1, 1, 0, 0, self.num_steps)
        self.loader = self.task.loader(sampler, config.num_workers, self.processes.device)
        self._batches: Iterator[Batch]
        if config.made_up:
            batch = noise_batch(self.config, batch_size, 0)
            self._batches = itertools.repeat(batch.pin_memory() if self.processes.device.type == "cuda" else batch)
        else:
            self._batches = iter(self.loader)
        self.waits: list[float] = []
        """Seconds each step waited for its data."""
        self.seconds: list[float] = []
        """Seconds of each step without the wait."""

    def forget(self) -> None:
        """Drop the times so far."""
        self.waits.clear()
        self.seconds.clear()

    def read(self) -> Batch:
        """The next batch, waited for."""
        asked = time.perf_counter()
        batch = next(self._batches)
        self.waits.append(time.perf_counter() - asked)
        return batch

    def step(self, batch: Batch) -> None:
        """One step, timed."""
        began = time.perf_counter()
        counts = self.task.counts(batch)
        totals = {name: float(count) for name, count in counts.items()}
        train_step(self.state, [batch], [counts], totals, self.num_steps, self._guard)
        _finish(self.processes.device.type)
        self.seconds.append(time.perf_counter() - began)

    def repeat(self, batch: Batch, num_timed: int, before: int) -> tuple[int, int]:
        """Steps on one batch, again and again.

        Returns:
            Bytes at the fullest moment of the timed ones and bytes after them, both beyond `before`; 0 where the
            system does not tell.
        """
        device = self.processes.device.type
        measurable = peak_memory.can_measure(device)
        for number in range(UNTIMED_STEPS + num_timed):
            if number == UNTIMED_STEPS and measurable:
                peak_memory.reset_peak(device)
            self.step(batch)
        return (peak_memory.peak(device) - before, peak_memory.current(device) - before) if measurable else (0, 0)


def trial(config: StepBenchConfig, kind: Kind, batch_size: int, folder: str, device: str) -> tuple[float, int, int]:
    """Steps on one batch, again and again: median seconds, bytes at the fullest moment, bytes between the steps.

    Raises:
        torch.OutOfMemoryError: it does not fit (CUDA).
    """
    before = taken(device)
    variant = Variant(config, kind, batch_size, folder)
    with variant.loader:
        batch = variant.read()
    peak, resting = variant.repeat(batch, config.steps, before)
    return statistics.median(variant.seconds[UNTIMED_STEPS:]), peak, resting


def taken(device: str) -> int:
    """Bytes that are taken now; 0 where the system does not tell."""
    return peak_memory.current(device) if peak_memory.can_measure(device) else 0


def best_batch(config: StepBenchConfig, kind: Kind, folder: str, device: str) -> int:
    """The batch, doubled from `min_batch_size` on, from which on a step does not do more clips per second.

    It must leave room for the resting weights and optimiser of another variant, which is timed beside it. If already
    the first one does not, it is halved.

    Raises:
        ValueError: not even one clip fits.
    """
    best, rate, batch_size = 0, 0.0, config.min_batch_size
    while 0 < batch_size <= config.max_batch_size:
        try:
            seconds, peak, resting = trial(config, kind, batch_size, folder, device)
            fits = peak + resting <= peak_memory.total(device)
        except torch.OutOfMemoryError:
            fits = False
        finally:
            release(device)
        if not fits and not best:
            batch_size //= 2
        elif not fits or batch_size / seconds < WORTH_DOUBLING * rate:
            break
        else:
            best, rate, batch_size = batch_size, batch_size / seconds, 2 * batch_size
    if not best:
        raise ValueError(f"sizes {kind.size}: a step of one clip in {kind.precision} does not fit into memory")
    return best


def release(device: str) -> None:
    """Give back what models that are gone have held."""
    peak_memory.settle()
    if device == "cuda":
        torch.cuda.empty_cache()


def measure(config: StepBenchConfig) -> Iterator[StepSpeed]:
    """Speeds of every variant; those of one model and mode, and the matmul, take turns: ratios compare like moments."""
    device = resolve_device(config.device)
    with tempfile.TemporaryDirectory(prefix="bench_step_") as folder:
        if config.source is None:
            write_sample_clips(f"{folder}/clips", 16)
        for size in config.sizes:
            for fusion in config.fusions:
                clips: dict[str, int] = {
                    p: best_batch(config, Kind(size, fusion, p, "eager"), folder, device)
                    if config.batch_size == "best"
                    else config.batch_size
                    for p in config.precisions
                }
                for mode in config.modes:
                    batches = {
                        Kind(size, fusion, p, mode, arrangement): clips[p]
                        for p in config.precisions
                        for arrangement in config.arrangements
                    }
                    yield from measure_together(config, batches, folder, device)


def measure_together(config: StepBenchConfig, batches: Mapping[Kind, int], folder: str, device: str) -> list[StepSpeed]:
    """Speeds of one model in several precisions and arrangements, step by step in turn.

    Args:
        config: the settings.
        batches: clips per step of each.
        folder: with clips, if none are named.
        device: `cpu` or `cuda`.

    Raises:
        torch.OutOfMemoryError: they do not fit (CUDA).
    """
    counted = steps_of(next(iter(batches)).autoencoder, 1, "meta")[1]
    flops = {a: count_flops(counted["pre-training", a.replace("_", " ")]) for a in {k.arrangement for k in batches}}
    torch.compiler.reset()
    peaks, variants = {}, {}
    with ExitStack() as loaders:
        if device != "cuda":  # malloc holds on to what another one has freed
            for kind, batch_size in batches.items():
                peaks[kind] = trial(config, kind, batch_size, folder, device)[1]
                release(device)
        for kind, batch_size in batches.items():
            before = taken(device)
            variants[kind] = variant = Variant(config, kind, batch_size, folder)
            loaders.enter_context(variant.loader)
            if device == "cuda":
                peaks[kind] = variant.repeat(variant.read(), 1, before)[0]
                variant.forget()
        rates = {kind: MatmulRate(device, kind.precision) for kind in batches}
        for _ in range(UNTIMED_STEPS + config.steps):
            for kind, variant in variants.items():
                variant.step(variant.read())
                rates[kind].measure()
    return [_speed(kind, v, flops[kind.arrangement], rates[kind].flops, peaks[kind]) for kind, v in variants.items()]


def _speed(kind: Kind, variant: Variant, flop: int, rate: float, peak: int) -> StepSpeed:
    seconds, waits = variant.seconds[UNTIMED_STEPS:], variant.waits[UNTIMED_STEPS:]
    median, whole, batch_size = statistics.median(seconds), sum(seconds) + sum(waits), variant.batch_size
    return StepSpeed(
        size=kind.size,
        fusion=kind.fusion,
        precision=kind.precision,
        mode=kind.mode,
        arrangement=kind.arrangement,
        batch_size=batch_size,
        samples_per_second=batch_size * len(seconds) / whole,
        step_samples_per_second=batch_size / median,
        data_wait_share=sum(waits) / whole,
        longest_wait_seconds=max(waits),
        seconds=median,
        gflop_per_sample=flop / 1e9,
        matmul_tflops=rate / 1e12,
        matmul_share=flop * batch_size / median / rate,
        peak_gib=peak / 2**30 if peak else None,
    )


def run(config: StepBenchConfig) -> list[StepSpeed]:
    """Measure, print the table, and write the JSON file if asked for."""
    console, speeds, device = Console(), [], resolve_device(config.device)
    with console.status("measuring") as status:
        for speed in measure(config):
            speeds.append(speed)
            status.update(f"measured {speed.size} {speed.fusion} {speed.precision} {speed.mode} {speed.arrangement}")
    name = device_name(device)
    table = Table(
        title=f"training step, {config.num_workers} workers, {name}",
        caption="samples/s: without, then with waiting for data; GFLOP: per sample; matmul: share of the measured rate",
    )
    for column in ("model", "fusion", "mode", "precision"):
        table.add_column(column)
    for column in ("batch", "samples/s", "waiting", "ms/step", "GFLOP", "peak GiB", "matmul"):
        table.add_column(column, justify="right")
    for i, speed in enumerate(speeds):
        table.add_row(
            speed.size,
            speed.fusion if speed.arrangement == "ours" else f"{speed.fusion}, written out",
            speed.mode,
            speed.precision,
            str(speed.batch_size),
            f"{speed.step_samples_per_second:.2f}",
            f"{speed.samples_per_second:.2f}",
            f"{1e3 * speed.seconds:.0f}",
            f"{speed.gflop_per_sample:.1f}",
            "-" if speed.peak_gib is None else f"{speed.peak_gib:.2f}",
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
