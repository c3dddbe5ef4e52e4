"""`inspect`: shows what a checkpoint, run folder, model folder or weight file contains, without running its code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class InspectConfig:
    """Show what a checkpoint, run folder, model folder or weight file contains."""

    checkpoint: str
    """A run folder, one of its checkpoints, a model folder, or a safetensors or PyTorch weight file."""


@dataclass(frozen=True)
class Holding:
    """What was found at a path."""

    kind: str
    """Run folder, checkpoint, model folder or weight file."""
    facts: dict[str, str]
    """One line each."""
    config: dict[str, Any] | None
    """The model configuration, where the file knows it."""
    tensors: dict[str, Tensor]
    """The model's state dict."""


def inspect(config: InspectConfig, console: Console | None = None) -> Holding:
    """Print what is there.

    Raises:
        ValueError: nothing readable at the path.
    """
    console = console or Console(markup=False, emoji=False)
    holding = read(Path(config.checkpoint))
    table = Table(title=f"{holding.kind} {config.checkpoint}", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, fact in holding.facts.items():
        table.add_row(name, fact)
    for name, value in flat(holding.config or {}):
        table.add_row(name, value)
    console.print(table)
    groups = Table(title="tensors", title_justify="left")
    for column in ("part", "tensors", "values", "type"):
        groups.add_column(column, justify="left" if column in ("part", "type") else "right")
    for part, members in group_tensors(holding.tensors).items():
        types = ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in members}))
        groups.add_row(part, str(len(members)), f"{sum(t.numel() for t in members):,}", types)
    bad = [name for name, t in holding.tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    if bad:
        console.print(f"NaN in {len(bad)} tensors, such as {bad[0]}", style="bold red", soft_wrap=True)
    total = sum(t.numel() for t in holding.tensors.values())
    groups.add_row("all", str(len(holding.tensors)), f"{total:,}", "", style="bold")
    console.print(groups)
    return holding


def read(path: Path) -> Holding:
    """What is at `path`.

    Raises:
        ValueError: nothing is there, or nothing this package can read.
    """
    from deepavfusion.storage.model_configs import read_model_config
    from deepavfusion.storage.weights import read_state_dict
    from deepavfusion.training import checkpoints
    from deepavfusion.training.run_folder import RunFolder
    from deepavfusion.weight_files import read_safetensors

    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if path.is_dir() and (path / "model.safetensors").is_file():
        name, model_config = read_model_config(path / "config.json")
        facts = {"model": name, "bytes": f"{(path / 'model.safetensors').stat().st_size:,}"}
        return Holding("model folder", facts, dict(vars(model_config)), read_safetensors(path / "model.safetensors"))
    if path.is_dir() and checkpoints.is_checkpoint(path):
        return _checkpoint(path)
    if path.is_dir():
        folder = RunFolder(path)
        latest = checkpoints.latest(folder.checkpoints)
        if latest is None and (path / "config.json").is_file():
            raise ValueError(f"{path} has a config.json but no model.safetensors")
        if latest is None and not folder.model.is_dir():
            raise ValueError(f"{path}: neither a run folder with a checkpoint nor a model folder")
        inner = read(latest) if latest is not None else read(folder.model)
        facts = {"state": "finished" if folder.model.is_dir() else "can be continued"}
        facts |= {"checkpoint": latest.name} if latest is not None else {}
        facts |= {f"last {name}": f"{value:g}" for name, value in folder.last_metrics().items()}
        return Holding("run folder", facts | inner.facts, inner.config, inner.tensors)
    if path.suffix == ".pt":
        try:
            return _checkpoint(path)
        except ValueError:  # under another name it may be a weight file
            if checkpoints.is_checkpoint(path):
                raise
    state = read_state_dict(path)
    return Holding("weight file", {"layout": layout_of(state)}, None, state)


def _checkpoint(path: Path) -> Holding:
    from deepavfusion.training import checkpoints

    content = checkpoints.load(path)
    lacking = {"kind", "step", "model_config", "model"} - content.keys()
    if lacking:
        raise ValueError(f"{path}: a checkpoint without {', '.join(sorted(lacking))}, so not one of this package")
    facts = {"task": str(content["kind"]), "step": str(content["step"]), "format": str(content["format"])}
    return Holding("checkpoint", facts, content["model_config"], content["model"])


def layout_of(state: dict[str, Tensor]) -> str:
    """Whose key names a state dict uses."""
    if any(".norm1_mm." in key for key in state):
        forms = {"attn.attn_v.": "factorized", "attn.kv.": "dense or token"}
        form = next((form for mark, form in forms.items() if any(mark in key for key in state)), "unknown")
        return f"released DeepAVFusion, {form} fusion"
    if any(key.startswith(("fusion_blocks.", "encoder.fusion_blocks.")) for key in state):
        return "deepavfusion"
    if "patch_embed.proj.weight" in state:
        channels = state["patch_embed.proj.weight"].shape[1]
        return {1: "audio ViT (AudioMAE)", 3: "image ViT (MAE)"}.get(channels, f"ViT with {channels} channels")
    return "unknown"


def group_tensors(state: dict[str, Tensor]) -> dict[str, list[Tensor]]:
    """Tensors by the part of the model they belong to: `encoder.image.blocks`, `image_decoder.blocks`, ..."""
    groups: dict[str, list[Tensor]] = {}
    for key, tensor in state.items():
        parts = key.split(".")
        numbers = [i for i, part in enumerate(parts) if part.isdigit()]
        name = ".".join(parts[: numbers[0]] if numbers else parts[: max(1, len(parts) - 2)])
        groups.setdefault(name, []).append(tensor)
    return groups


def flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Configuration values by dotted name."""
    rows: list[tuple[str, str]] = []
    for name, value in config.items():
        value = vars(value) if hasattr(value, "__dataclass_fields__") else value
        rows += flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, str(value))]
    return rows
