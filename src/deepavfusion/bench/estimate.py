"""`estimate`: memory, operations and days of a pre-training configuration, without running it.

Memory of one GPU at the fullest moment of a step, P processes, M trainable values of M_all, float32 weights:

- weights 4 M_all, optimiser 8 M (AdamW's two moments; LARS 4 M), with `training.ema` the average of the weights 4 M:
  divided by P under fsdp.
- ddp: gradients and everything that the pass keeps or computes, at their largest sum (`LiveMemory`).
- fsdp: the same with gradients counted by their share 1 / P (in full with accumulation, where they stay whole until
  the last pass), plus the outermost unit's weights, which stay gathered, and for blocks two units of gathered weights
  with their receiving buffers and the gradients of one unit that are being sent.

Not included: the CUDA context and work space of libraries, NCCL's buffers, fragmentation. Compare the result with
`torch.cuda.max_memory_allocated`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from deepavfusion.atomic import write_text
from deepavfusion.bench.estimate_config import GPUS, EstimateConfig
from deepavfusion.bench.live_memory import LiveMemory, bytes_of, fake_mode
from deepavfusion.bench.reached_share import reached_share
from deepavfusion.models.masked_autoencoder import AudioVisualMAE
from deepavfusion.training.schedule import num_steps
from deepavfusion.training.sharding import units_of

MOMENTS = {"adamw": 2, "lars": 1}
"""Values an optimiser keeps for every weight it trains."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one GPU at the fullest moment of a step."""

    weights: float
    """Its share of the model's weights and buffers."""
    optimizer: float
    """Its share of the optimiser's moments, and of the average of the weights if one is kept (`training.ema`)."""
    gathered: float
    """Of other processes' shares, while they are needed (fsdp)."""
    activations: float
    """Kept for the backward pass when the forward pass ends, inputs included."""
    passing: float
    """Gradients and passing results beside them at the fullest moment."""

    @property
    def peak(self) -> float:
        """All together."""
        return self.weights + self.optimizer + self.gathered + self.activations + self.passing


@dataclass(frozen=True)
class Estimate:
    """What a configuration costs."""

    num_parameters: int
    strategy: str
    gpus: int
    micro_batch: int
    """Clips of one forward pass on one GPU."""
    memory: Memory
    """Of one GPU."""
    flop_per_sample: float
    """Matrix products of forward and backward of one clip; a multiply-add is two."""
    recomputed_flop_per_sample: float
    """What gradient checkpointing adds to them."""
    traffic: float
    """Bytes that one GPU sends in a step, with rings of all processes."""
    steps: int | None
    """Of the whole run; None without a number of clips."""
    days: float | None
    """Of the whole run; None without a number of clips or a speed."""
    mfu: float
    """Share of the GPU's speed that is reckoned with, where no samples_per_second are given."""
    mfu_source: str
    """Where that is from: `as given`, `assumed`, or `measured` and on what."""


def estimate(config: EstimateConfig) -> Estimate:
    """Cost of a configuration.

    Raises:
        ValueError: data.source is given and holds no clips.
    """
    training, sharded = config.training, config.training.strategy == "fsdp" and config.gpus > 1
    half = training.precision == "bfloat16" or (training.precision == "auto" and training.device != "cpu")
    with fake_mode():
        model = AudioVisualMAE(config.autoencoder_config).train()
        model.encoder.gradient_checkpointing = training.gradient_checkpointing
        units = [sum(bytes_of(m.parameters()) for m in unit) for unit in units_of(model)]
        weights, buffers = bytes_of(model.parameters()), bytes_of(model.buffers())
        activations, peak = _pass(model, config, half, sharded)
    share = config.gpus if sharded else 1
    gathered = 0.0
    if sharded:
        # In the middle of a run of blocks: this one's and the next one's weights, each with the buffer it arrived in.
        largest = max(units, default=0)
        gathered = weights - sum(units) + 4 * largest * (0.5 if half else 1) + largest
    memory = Memory(
        weights / share + buffers,
        (MOMENTS[config.optim.optimizer] + (training.ema > 0)) * weights / share,
        gathered,
        activations,
        peak - activations,
    )
    flop, recomputed = _flop(config)
    share_of_speed = reached_share(config, flop)
    return Estimate(
        weights // 4,
        training.strategy,
        config.gpus,
        config.micro_batch,
        memory,
        flop,
        recomputed,
        _traffic(weights, sum(units) * (0.5 if half else 1) + weights - sum(units), config, sharded),
        *_time(config, flop + recomputed, share_of_speed.value),
        share_of_speed.value,
        share_of_speed.source,
    )


def _pass(model: AudioVisualMAE, config: EstimateConfig, half: bool, sharded: bool) -> tuple[float, float]:
    """Bytes kept when the first forward pass ends, and the largest number alive, weights apart, over a step's passes.

    `model` is fake; a sharded one's units become bfloat16, as they are gathered, so that autocast keeps no copies.
    """
    if sharded and half:
        for module in [m for unit in units_of(model) for part in unit for m in part.modules()]:
            for name, p in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(p.detach().to(torch.bfloat16)))
    accumulation = config.training.accumulation
    gradient_share = 1 / config.gpus if sharded and accumulation == 1 else 1.0
    ddp = config.gpus > 1 and not sharded
    known = [*model.parameters(), *model.buffers()]
    activations = 0.0
    with LiveMemory(model.parameters(), known, gradient_share) as live:
        buckets = torch.empty(bytes_of(model.parameters()) if ddp else 0, dtype=torch.uint8)  # DDP's, always there
        base = live.other
        for micro in range(min(accumulation, 2)):  # a third pass is as the second
            inputs = _inputs(config, config.micro_batch)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                loss = _loss(model, inputs, config)
            if micro == 0:
                activations = live.other - base
            loss.backward()
            del loss
    peak = live.peak
    del buckets
    return activations, peak


def _inputs(config: EstimateConfig, batch: int) -> list[dict[str, Tensor]]:
    """What the model gets: images, spectrograms and masking noise of one forward pass; of two moments if it aligns."""
    encoder = config.model
    return [
        {
            "image": torch.empty(batch, *encoder.image_shape),
            "audio": torch.empty(batch, 1, *encoder.audio_size),
            "image_noise": torch.empty(batch, encoder.num_image_patches),
            "audio_noise": torch.empty(batch, encoder.num_audio_patches),
        }
        for _ in range(2 if config.alignment.weight else 1)
    ]


def _loss(model: AudioVisualMAE, inputs: list[dict[str, Tensor]], config: EstimateConfig) -> Tensor:
    """The loss of one forward pass."""
    first, *others = inputs
    there = dict.fromkeys(("image_present", "audio_present"), torch.ones(len(first["image"]), dtype=torch.bool))
    out = model(**first, second={**others[0], **there} if others else None)
    aligned = [config.alignment.weight * term for term in out.alignment.values()]
    return torch.stack([config.autoencoder.weight * out.loss, *aligned]).sum() if aligned else out.loss


def _flop(config: EstimateConfig) -> tuple[float, float]:
    """Operations of one clip, forward and backward; and what gradient checkpointing does again."""
    counts = []
    for again in (False, True) if config.training.gradient_checkpointing else (False,):
        # Meta tensors are quicker than fake ones, but autocast, which alignment switches off, does not know them.
        with fake_mode() if config.alignment.weight else torch.device("meta"):
            model = AudioVisualMAE(config.autoencoder_config).train()
            model.encoder.gradient_checkpointing = again
            with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
                _loss(model, _inputs(config, 1), config).backward()
        counts.append(counter.get_total_flops())
    return float(counts[0]), float(counts[-1] - counts[0])


def _traffic(weights: float, gathered: float, config: EstimateConfig, sharded: bool) -> float:
    """Bytes one GPU sends in a step: a ring passes (P - 1) / P of a tensor per gathering or averaging into shares.

    ddp averages every gradient into shares and gathers it again; fsdp gathers the weights for every forward and every
    backward pass and averages the gradients into shares.
    """
    ring = (config.gpus - 1) / config.gpus
    return ring * (weights + 2 * gathered * config.training.accumulation) if sharded else ring * 2 * weights


def _time(config: EstimateConfig, flop: float, mfu: float) -> tuple[int | None, float | None]:
    """Steps and days."""
    clips = config.clips
    if clips is None and config.data.source:
        from deepavfusion.data.clips import find_clips
        from deepavfusion.data.splits import trained_on

        clips = len(trained_on(find_clips(config.data.source)))
    if not clips:
        return None, None
    batch = config.training.batch_size
    steps = num_steps(config.optim.epochs, clips, batch)
    speed = config.samples_per_second
    if speed is None:
        tflops = config.tflops or (GPUS[config.gpu][0] if config.gpu else None)
        speed = None if tflops is None else tflops * 1e12 * mfu / flop
    return steps, None if speed is None else steps * batch / (speed * config.gpus) / 86400


def run(config: EstimateConfig) -> Estimate:
    """Estimate, print the table, and write the JSON file if asked for."""
    console = Console()
    with console.status("counting"):
        result = estimate(config)
    m, gib = result.memory, 2**30
    many = f"{result.gpus} GPUs, {result.strategy}" if result.gpus > 1 else "1 GPU"
    table = Table(title=f"{result.num_parameters / 1e6:.1f} million parameters on {many}", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_row("clips per pass and GPU", str(result.micro_batch))
    for name in ("weights", "optimizer", "gathered", "activations", "passing"):
        table.add_row(name, f"{getattr(m, name) / gib:.2f} GiB")
    room = f" of {GPUS[config.gpu][1] * 1e9 / gib:.0f}" if config.gpu else ""
    table.add_row("peak of one GPU", f"{m.peak / gib:.2f}{room} GiB", end_section=True)
    table.add_row("operations per clip", f"{result.flop_per_sample / 1e9:.1f} GFLOP")
    if result.recomputed_flop_per_sample:
        table.add_row("recomputed per clip", f"{result.recomputed_flop_per_sample / 1e9:.1f} GFLOP")
    table.add_row("operations per step", f"{result.flop_per_sample * config.training.batch_size / 1e12:.1f} TFLOP")
    if result.gpus > 1:
        table.add_row("sent per GPU and step", f"{result.traffic / gib:.2f} GiB")
    table.add_row("steps", f"{result.steps:,}" if result.steps else "needs --clips")
    table.add_row("days", _days(result, config))
    console.print(table)
    if config.json:
        write_text(config.json, json.dumps(record(result), indent=2) + "\n")
    return result


def _days(result: Estimate, config: EstimateConfig) -> str:
    if result.days is None:
        return "needs --clips, and --gpu, --tflops or --samples_per_second"
    share = f"at {result.mfu:.0%} of the GPU's speed, {result.mfu_source}"
    source = "as measured" if config.samples_per_second else share
    return f"{result.days:.2f} ({source})"


def record(result: Estimate) -> dict[str, Any]:
    """The estimate as plain values, the peak beside its parts."""
    return {**asdict(result), "peak": result.memory.peak}
