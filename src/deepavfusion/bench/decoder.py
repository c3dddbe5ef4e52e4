"""`bench decoder`: operations, memory and time of the pre-training step with each decoder.

Counted and timed as in `bench model`; the decoders are timed alternately.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

from deepavfusion.bench.config import DecoderBenchConfig
from deepavfusion.bench.model import Step, count_flops, saved_bytes, steps_of, time_step, write_costs
from deepavfusion.models.config import DecoderForm, MaskedAutoencoderConfig
from deepavfusion.training.processes import resolve_device

VARIANTS: tuple[tuple[DecoderForm, float], ...] = (("self", 1.0), ("cross", 1.0), ("cross", 0.25))
"""Decoder form and predicted share, those of the paper first."""


@dataclass(frozen=True)
class DecoderCost:
    """What one forward and backward pass of the masked autoencoder costs."""

    decoder_form: DecoderForm
    predicted_share: float
    gflop: float
    saved_mib: float
    seconds: float | None
    """Median; None if not timed."""


def measure(config: DecoderBenchConfig) -> list[DecoderCost]:
    """Costs with every decoder."""
    device = resolve_device(config.device)
    counts: dict[tuple[DecoderForm, float], tuple[float, float]] = {}
    steps: dict[tuple[DecoderForm, float], Step] = {}
    for form, share in VARIANTS:
        decoding = replace(config.autoencoder, decoder_form=form, predicted_share=share)
        model_config = MaskedAutoencoderConfig.from_parts(config.model, decoding)
        flops = count_flops(steps_of(model_config, config.batch_size, "meta")[1]["pre-training", "ours"])
        model, own = steps_of(model_config, config.batch_size, device)
        steps[form, share] = own["pre-training", "ours"]
        counts[form, share] = flops / 1e9, saved_bytes(steps[form, share], model) / 2**20
    times: dict[tuple[DecoderForm, float], list[float]] = {key: [] for key in steps}
    for _ in range(config.repeats):
        for key, step in steps.items():
            times[key].append(time_step(step, device))
    medians = {key: statistics.median(values) if values else None for key, values in times.items()}
    return [DecoderCost(*key, *counts[key], medians[key]) for key in counts]


def run(config: DecoderBenchConfig) -> list[DecoderCost]:
    """Measure, print the table, and write the JSON file if asked for."""
    console = Console()
    with console.status("measuring"):
        costs = measure(config)
    m = config.model
    table = Table(title=f"pre-training step, {m.fusion} fusion, width {m.embed_dim}, batch {config.batch_size}")
    for column in ("decoder", "predicted", "GFLOP", "saved MiB", "ms"):
        table.add_column(column, justify="left" if column == "decoder" else "right")
    for c in costs:
        seconds = "-" if c.seconds is None else f"{1e3 * c.seconds:.0f}"
        table.add_row(c.decoder_form, f"{c.predicted_share:.0%}", f"{c.gflop:.1f}", f"{c.saved_mib:.0f}", seconds)
    console.print(table)
    write_costs(config, costs)
    return costs
