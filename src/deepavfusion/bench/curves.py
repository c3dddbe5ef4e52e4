"""`bench curves`: cost of an encoder step for growing images and sounds, in every fusion form, ours and written out.

Counted on tensors without content, so without computing anything:

- FLOPs: matrix products of forward and backward, attention included, as in `bench model`.
- Saved: memory of the tensors kept for the backward pass, without parameters; shared memory counts once.
- Peak: everything alive at the fullest moment, weights and gradients included (`LiveMemory`).

A form runs out of memory where its counted peak is above the device's memory. Forms that are also run are timed
alternately, ours and written out at each size. Their peak memory is measured separately, on a CPU in a process of its
own.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from deepavfusion.atomic import write_text
from deepavfusion.bench import peak_memory
from deepavfusion.bench.config import CurvesBenchConfig
from deepavfusion.bench.live_memory import LiveMemory, bytes_of, fake_mode
from deepavfusion.bench.model import Step, count_flops, device_name, saved_bytes, time_step, unmasked_steps
from deepavfusion.models.config import EarlyFusionConfig, FusionForm
from deepavfusion.models.encoder import EarlyFusionEncoder
from deepavfusion.training.processes import resolve_device

GIB = 2**30


@dataclass(frozen=True)
class CurvePoint:
    """One forward and backward pass of the encoder over all patches."""

    fusion: FusionForm
    form: str
    """`ours` or `written out`."""
    image_side: int
    """Pixels."""
    audio_seconds: float
    num_pairs: int
    """Image patches times audio patches."""
    gflop: float
    saved_gib: float
    peak_gib: float
    """Counted."""
    fits: bool
    """Whether the counted peak is within the memory there is."""
    seconds: float | None = None
    """Median; None if it was not run."""
    measured_peak_gib: float | None = None
    """None if it was not run, or where the system does not tell."""


def encoder_steps(
    config: EarlyFusionConfig, batch_size: int, device: str
) -> tuple[EarlyFusionEncoder, dict[str, Step], int]:
    """An encoder, its passes by form, and the bytes of their inputs."""
    torch.manual_seed(0)
    with torch.device(device):
        encoder = EarlyFusionEncoder(config)
        inputs = (
            torch.randn(batch_size, 3, *config.image_size),
            torch.randn(batch_size, 1, *config.audio_size),
        )
    return encoder, unmasked_steps(encoder, *inputs), bytes_of(inputs)


def count(config: EarlyFusionConfig, batch_size: int) -> dict[str, tuple[int, int, int]]:
    """FLOPs, bytes saved for backward, and bytes alive at the fullest moment, by form; nothing is computed."""
    counts = {}
    # Meta tensors are quicker, but only fake ones take the kernels of the CPU, which save other things than the plain
    # forms of the same operations.
    flops = {form: count_flops(step) for form, step in encoder_steps(config, batch_size, "meta")[1].items()}
    with fake_mode():
        encoder, steps, input_bytes = encoder_steps(config, batch_size, "cpu")
        resting = bytes_of(encoder.parameters()) + bytes_of(encoder.buffers()) + input_bytes
        for form, step in steps.items():
            with LiveMemory(encoder.parameters(), [*encoder.parameters(), *encoder.buffers()]) as live:
                saved = saved_bytes(step, encoder)
            counts[form] = flops[form], saved, round(live.peak) + resting
            release_gradients(encoder)
    return counts


def release_gradients(module: nn.Module) -> None:
    """Let go of all gradients."""
    for parameter in module.parameters():
        parameter.grad = None


def measured_peak(config: EarlyFusionConfig, batch_size: int, form: str, device: str) -> int:
    """Bytes that a pass takes with its weights, gradients and inputs."""
    before = peak_memory.current(device)
    encoder, steps, _ = encoder_steps(config, batch_size, device)
    if device == "cpu":
        # Code and kernels that a first pass loads are none of its memory: run one, and start from what then is left.
        small = replace(config, image_size=(config.patch_size,) * 2, audio_size=(config.patch_size,) * 2, depth=1)
        encoder_steps(small, 1, device)[1][form]().backward()
        before += max(0, peak_memory.current(device) - before - bytes_of(encoder.parameters()))
    peak_memory.reset_peak(device)
    steps[form]().backward()
    return peak_memory.peak(device) - before


def count_points(config: CurvesBenchConfig, limit: float) -> Iterator[CurvePoint]:
    """Every form at every size, counted."""
    for side in config.image_sizes:
        for seconds in config.audio_seconds:
            for fusion in config.forms:
                encoder = config.encoder(fusion, side, seconds)
                pairs = encoder.num_image_patches * encoder.num_audio_patches
                for form, (flops, saved, peak) in count(encoder, config.batch_size).items():
                    numbers = (flops / 1e9, saved / GIB, peak / GIB)
                    yield CurvePoint(fusion, form, side, seconds, pairs, *numbers, fits=peak <= limit)


def measure(config: CurvesBenchConfig, device: str, limit: float, say: Callable[[str], None]) -> list[CurvePoint]:
    """Count every point; run those of the measured forms that fit and are small enough."""
    points = []
    for point in count_points(config, limit):
        say(f"counted {point.fusion}, {point.image_side} pixels, {point.audio_seconds:g} s")
        points.append(point)
    chosen = [p for p in points if p.fusion in config.measured and p.fits and p.gflop <= 1000 * config.max_tflop]
    times = _times(config, chosen, device, say)
    peaks = _peaks(config, chosen, device, say)
    return [replace(p, seconds=times.get(p), measured_peak_gib=peaks.get(p)) for p in points]


def _times(
    config: CurvesBenchConfig, points: list[CurvePoint], device: str, say: Callable[[str], None]
) -> dict[CurvePoint, float]:
    """Median seconds; passes of one fusion form and size take turns, and the first of each is not counted."""
    medians: dict[CurvePoint, float] = {}
    for fusion, side, seconds in dict.fromkeys((p.fusion, p.image_side, p.audio_seconds) for p in points):
        own = [p for p in points if (p.fusion, p.image_side, p.audio_seconds) == (fusion, side, seconds)]
        say(f"timing {fusion}, {side} pixels, {seconds:g} s")
        encoder, steps, _ = encoder_steps(config.encoder(fusion, side, seconds), config.batch_size, device)
        times: dict[CurvePoint, list[float]] = {p: [] for p in own}
        for _ in range(1 + config.repeats):
            for p in own:
                times[p].append(time_step(steps[p.form], device))
                release_gradients(encoder)
        medians |= {p: statistics.median(values[1:]) for p, values in times.items()}
    return medians


def _peaks(
    config: CurvesBenchConfig, points: list[CurvePoint], device: str, say: Callable[[str], None]
) -> dict[CurvePoint, float]:
    """Peak memory in GiB; none where the system does not tell."""
    if not peak_memory.can_measure(device):
        return {}
    peaks = {}
    with ProcessPoolExecutor(1, get_context("spawn"), peak_memory.give_back_at_once) as process:  # started when used
        for p in points:
            say(f"peak memory of {p.fusion} {p.form}, {p.image_side} pixels, {p.audio_seconds:g} s")
            arguments = (config.encoder(p.fusion, p.image_side, p.audio_seconds), config.batch_size, p.form, device)
            if device == "cuda":
                peaks[p] = measured_peak(*arguments) / GIB
            else:
                peaks[p] = process.submit(measured_peak, *arguments).result() / GIB
    return peaks


def run(config: CurvesBenchConfig) -> list[CurvePoint]:
    """Measure, print the table, and write the JSON file if asked for."""
    console, device = Console(), resolve_device(config.device)
    limit = peak_memory.total(device) if config.memory_gib is None else config.memory_gib * GIB
    with console.status("counting") as status:
        points = measure(config, device, limit, status.update)
    table = Table(
        title=f"one forward + backward of the encoder, batch {config.batch_size}, {device_name(device)}",
        caption=f"saved, peak (counted) and measured peak in GiB; out: more than {limit / GIB:.1f} GiB",
    )
    for column in ("picture", "sound", "fusion", "form"):
        table.add_column(column, no_wrap=True)
    for column in ("GFLOP", "saved", "peak", "", "measured", "s"):
        table.add_column(column, justify="right")
    for i, p in enumerate(points):
        measured = ("-" if value is None else f"{value:.2f}" for value in (p.measured_peak_gib, p.seconds))
        counted = (f"{p.gflop:.0f}", f"{p.saved_gib:.2f}", f"{p.peak_gib:.2f}", "" if p.fits else "out")
        last = i + 1 == len(points) or points[i + 1].num_pairs != p.num_pairs
        names = (str(p.image_side), f"{p.audio_seconds:g} s", p.fusion, p.form)
        table.add_row(*names, *counted, *measured, end_section=last)
    console.print(table)
    if config.json:
        record = {"torch": torch.__version__, "device": device_name(device), "memory_gib": limit / GIB}
        values = {**record, "config": asdict(config), "points": [asdict(p) for p in points]}
        write_text(config.json, json.dumps(values, indent=2) + "\n")
    return points
