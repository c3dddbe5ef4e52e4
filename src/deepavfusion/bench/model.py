"""`bench model`: operations, memory and time of one training step, for every fusion form, ours against written out.

- FLOPs: matrix products of forward and backward, attention included, counted with PyTorch's math attention so that the
  count does not depend on the device's kernels.
- Saved MiB: memory of the tensors that autograd keeps for the backward pass, parameters and buffers excluded, float32;
  shared memory counts once.
- Time: median over passes of the variants taken alternately, so that a ratio compares the same moments of the machine.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, UntypedStorage
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from deepavfusion.atomic import write_text
from deepavfusion.bench import plain
from deepavfusion.bench.config import DecoderBenchConfig, ModelBenchConfig
from deepavfusion.models.config import MaskedAutoencoderConfig
from deepavfusion.models.encoder import EarlyFusionEncoder
from deepavfusion.models.masked_autoencoder import AudioVisualMAE
from deepavfusion.training.processes import resolve_device

Step = Callable[[], Tensor]
"""A forward pass that ends in a scalar to differentiate."""


@dataclass(frozen=True)
class StepCost:
    """What one forward and backward pass costs."""

    fusion: str
    step: str
    """`pre-training` (masked autoencoder) or `unmasked encoder`."""
    form: str
    """`ours` or `written out`."""
    gflop: float
    saved_mib: float
    seconds: float | None
    """Median; None if not timed."""


def count_flops(step: Step) -> int:
    """Floating-point operations of forward and backward; a multiply-add is two."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        step().backward()
    return counter.get_total_flops()


def saved_bytes(step: Step, model: torch.nn.Module) -> int:
    """Bytes of the unique storages kept for the backward pass, without parameters and buffers, of fake tensors too."""
    known = {id(s): s for s in (t.untyped_storage() for t in (*model.parameters(), *model.buffers()))}
    kept: dict[int, UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()  # torch keeps one object per storage while the storage lives
        if id(storage) not in known:
            kept[id(storage)] = storage
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = step()
    total = sum(storage.nbytes() for storage in kept.values())
    kept.clear()  # so that the backward pass can let go of them
    loss.backward()
    return total


def steps_of(
    config: MaskedAutoencoderConfig, batch_size: int, device: str
) -> tuple[AudioVisualMAE, dict[tuple[str, str], Step]]:
    """A model and its four steps, by (step, form)."""
    torch.manual_seed(0)
    with torch.device(device):
        model = AudioVisualMAE(config)
        image = torch.randn(batch_size, *config.encoder.image_shape)
        audio = torch.randn(batch_size, 1, *config.encoder.audio_size)
        noise = [
            torch.rand(batch_size, n) for n in (config.encoder.num_image_patches, config.encoder.num_audio_patches)
        ]

    encoder_steps = unmasked_steps(model.encoder, image, audio)
    steps: dict[tuple[str, str], Step] = {
        ("pre-training", "ours"): lambda: model(image, audio, *noise).loss,
        ("pre-training", "written out"): lambda: sum(plain.masked_loss(model, image, audio, *noise), torch.zeros(())),
        **{("unmasked encoder", form): step for form, step in encoder_steps.items()},
    }
    return model, steps


def unmasked_steps(encoder: EarlyFusionEncoder, image: Tensor, audio: Tensor) -> dict[str, Step]:
    """An encoder's pass over all patches, by form."""

    def ours() -> Tensor:
        out = encoder(image, audio)
        assert out.image is not None
        assert out.audio is not None
        return out.image.mean() + out.audio.mean() + out.fusion.mean()

    def written_out() -> Tensor:
        return sum((x.mean() for x in plain.encode(encoder, image, audio)), torch.zeros(()))

    return {"ours": ours, "written out": written_out}


def measure(config: ModelBenchConfig) -> Iterator[StepCost]:
    """Costs of every form, one step after the other."""
    device = resolve_device(config.device)
    for form in config.forms:
        model_config = MaskedAutoencoderConfig.from_parts(replace(config.model, fusion=form), config.autoencoder)
        _, counted = steps_of(model_config, config.batch_size, "meta")
        flops = {key: count_flops(step) for key, step in counted.items()}
        model, steps = steps_of(model_config, config.batch_size, device)
        saved = {key: saved_bytes(step, model) for key, step in steps.items()}
        times: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
        for _ in range(config.repeats):
            for key, step in steps.items():
                times[key].append(time_step(step, device))
        for key in steps:
            seconds = statistics.median(times[key]) if times[key] else None
            yield StepCost(form, key[0], key[1], flops[key] / 1e9, saved[key] / 2**20, seconds)


def time_step(step: Step, device: str) -> float:
    """Seconds of one forward and backward pass."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step().backward()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def device_name(device: str) -> str:
    """What the figures were measured on."""
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def run(config: ModelBenchConfig) -> list[StepCost]:
    """Measure, print the table, and write the JSON file if asked for."""
    console = Console()
    with console.status("measuring"):
        costs = list(measure(config))
    m = config.model
    table = Table(
        title=f"one forward + backward, width {m.embed_dim}, depth {m.depth}, batch {config.batch_size}",
    )
    for column in ("fusion", "step", "form"):
        table.add_column(column)
    for column in ("GFLOP", "saved MiB", "ms"):
        table.add_column(column, justify="right")
    for i, cost in enumerate(costs):
        last = i + 1 == len(costs) or costs[i + 1].fusion != cost.fusion
        seconds = "-" if cost.seconds is None else f"{1e3 * cost.seconds:.0f}"
        row = (cost.fusion, cost.step, cost.form, f"{cost.gflop:.1f}", f"{cost.saved_mib:.0f}", seconds)
        table.add_row(*row, end_section=last)
    console.print(table)
    write_costs(config, costs)
    return costs


def write_costs(config: ModelBenchConfig | DecoderBenchConfig, costs: Sequence[Any]) -> None:
    """Write the costs, each a dataclass, with settings and machine, if a file was asked for."""
    if config.json:
        record = {"torch": torch.__version__, "device": device_name(resolve_device(config.device))}
        values = {**record, "config": asdict(config), "costs": [asdict(cost) for cost in costs]}
        write_text(config.json, json.dumps(values, indent=2) + "\n")
