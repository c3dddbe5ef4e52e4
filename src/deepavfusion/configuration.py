"""Training configuration: one typed source for YAML, command line and Python. Never imports torch.

Every command's settings are one frozen dataclass made of the sections below. A field's docstring is its help text
and its name is its flag: `OptimConfig.blr` under `optim` is `--optim.blr` and `optim: {blr: ...}` in YAML.
Checks that cross sections live in the command's own dataclass and name the flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal


@dataclass(frozen=True)
class DataConfig:
    """Where the clips are and how a training view of one is drawn."""

    source: str
    """A folder of video files, searched recursively, or a manifest written by this package."""
    num_workers: int = 2
    """Processes that read clips; 0 reads in the training process."""
    crop_area: tuple[float, float] = (0.5, 1.0)
    """Smallest and largest share of the picture that a random crop covers."""
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    """Smallest and largest width / height of a random crop."""
    flip: float = 0.5
    """Probability of mirroring the picture left to right."""
    gain_db: float = 6.0
    """Random gain of the sound is uniform in plus or minus this many decibels."""

    def __post_init__(self) -> None:
        for name in ("crop_area", "crop_ratio"):
            low, high = getattr(self, name)
            object.__setattr__(self, name, (float(low), float(high)))
            if not 0 < low <= high:
                raise ValueError(f"{name} [{low}, {high}] must be ascending and positive")
        if self.crop_area[1] > 1:
            raise ValueError(f"crop_area {list(self.crop_area)} must not exceed 1")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip {self.flip} must be a probability")
        if self.num_workers < 0:
            raise ValueError(f"num_workers {self.num_workers} must not be negative")
        if self.gain_db < 0:
            raise ValueError(f"gain_db {self.gain_db} must not be negative")


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser and schedule: lr = blr * batch_size / 256, linear warm-up, cosine to 0, set at every step."""

    FILLED_IN: ClassVar[tuple[str, ...]] = ("warmup_epochs",)
    optimizer: Literal["adamw", "lars"] = "adamw"
    """adamw, or lars (large batches on frozen features)."""
    blr: float = 1.5e-4
    """Base learning rate, for a batch of 256."""
    epochs: float = 200.0
    """Passes over the clips; fractions are fine."""
    warmup_share: float = 0.2
    """Share of the run that is linear warm-up, however long the run is."""
    warmup_epochs: float | None = None
    """The same in epochs, counted inside epochs: where it is given, warmup_share does not count."""
    weight_decay: float = 0.05
    """Decoupled weight decay; none on 1-D parameters."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's running-average coefficients; the first is LARS's momentum."""
    layer_decay: float = 1.0
    """Learning-rate factor from each layer to the one below it; 1 treats all layers alike."""
    clip_grad: float = 0.0
    """Largest global gradient norm; 0 does not clip."""
    unusual_blr: bool = False
    """Accept a base learning rate far outside the task's recipe."""
    pretrained_ramp: float = 0.5
    """Share of training over which what starts from published weights or a pre-trained encoder rises to the full
    rate, so that new parameters learn first."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        if self.blr <= 0:
            raise ValueError(f"blr {self.blr} must be positive")
        if self.epochs <= 0:
            raise ValueError(f"epochs {self.epochs} must be positive")
        if not 0 <= self.warmup_share <= 1:
            raise ValueError(f"warmup_share {self.warmup_share:g} must be in [0, 1]")
        if self.warmup_epochs is None:
            object.__setattr__(self, "warmup_epochs", self.warmup_share * self.epochs)
        assert self.warmup_epochs is not None
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs:g} must lie between 0 and epochs {self.epochs:g}: lower "
                f"--optim.warmup_epochs, raise --optim.epochs, or give --optim.warmup_epochs null for a share of the "
                f"run (--optim.warmup_share)"
            )
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay {self.layer_decay} must be in (0, 1]")
        if not 0 <= self.pretrained_ramp <= 1:
            raise ValueError(f"pretrained_ramp {self.pretrained_ramp} must be in [0, 1]")
        if self.weight_decay < 0 or self.clip_grad < 0:
            raise ValueError("weight_decay and clip_grad must not be negative")


@dataclass(frozen=True)
class TrainingConfig:
    """The loop: batch, precision, device, checkpoints, what is watched."""

    batch_size: int = 512
    """Clips per optimiser step, over all processes and accumulations together."""
    accumulation: int = 1
    """Forward-backward passes per optimiser step."""
    seed: int = 0
    """Seed of initialisation, order, windows, augmentation and masks."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward pass; auto is bfloat16 on CUDA and float32 elsewhere."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes CUDA if there is one."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """How several processes share the model: ddp, each has it whole; fsdp, each has a share of every weight, gradient
    and optimiser moment (FSDP2)."""
    compile: bool = False
    """Compile the model with torch.compile."""
    gradient_checkpointing: bool = False
    """Recompute layers in the backward pass to save memory."""
    checkpoint_every: int = 500
    """Optimiser steps between checkpoints."""
    keep_checkpoints: int = 2
    """How many of the latest checkpoints stay on disk."""
    log_every: int = 10
    """Optimiser steps between rows of metrics.csv."""
    picture_every: float = 10.0
    """Epochs between the task's pictures, which are also drawn at the end; 0 draws none but the learning curve."""
    probe_every: float = 10.0
    """Epochs between probes, scores on a part of the clips that a task takes while it trains, where the clips allow it;
    also taken at the end. 0 takes none, a number larger than optim.epochs only that at the end."""
    max_failures: float = 0.05
    """Largest share of clips drawn that may fail to read; beyond it, and after at least 20, the run stops."""
    wandb: str | None = None
    """Weights & Biases project to send metrics to (needs the extra wandb); none by default."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulation", "checkpoint_every", "keep_checkpoints", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"accumulation {self.accumulation} does not divide batch_size {self.batch_size}: "
                f"change --training.accumulation or --training.batch_size"
            )
        if self.strategy == "fsdp" and self.compile:
            raise ValueError("strategy fsdp and compile do not go together yet: drop --training.compile or take ddp")
        for name in ("picture_every", "probe_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} must not be negative")
        if not 0 <= self.max_failures <= 1:
            raise ValueError(f"max_failures {self.max_failures} must be a share between 0 and 1")


def recipe_sections(flags: Mapping[str, Any], **given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Values of configuration sections: a recipe's, and what is given over them.

    Args:
        flags: the recipe's settings by flag, such as `optim.blr`.
        given: by section, values that override the recipe's.

    Returns:
        By section, the arguments of its dataclass.
    """
    sections: dict[str, dict[str, Any]] = {name: {} for name in given}
    for flag, value in flags.items():
        section, name = flag.split(".")
        sections[section][name] = value
    return {name: {**own, **given[name]} for name, own in sections.items()}


def check_rate(optim: OptimConfig, batch_size: int, task: str, recipe_blr: float, recipe_batch: int = 512) -> None:
    """Refuse a learning rate from another task's recipe, such as the linear probe's 0.3 for AdamW.

    Too high is a base rate over 100 times the recipe's that also gives over 10 times its peak (small batches are
    trained with larger base rates); too low is under a thousandth.

    Raises:
        ValueError: naming the flag, the recipe and the way to insist.
    """
    peak, usual = optim.blr * batch_size / 256, recipe_blr * recipe_batch / 256
    high = optim.blr > 100 * recipe_blr and peak > 10 * usual
    if not optim.unusual_blr and (high or optim.blr < recipe_blr / 1000):
        raise ValueError(
            f"optim.blr {optim.blr:g} with --training.batch_size {batch_size} gives a peak learning rate of "
            f"{peak:.2g}; {task} was tuned with --optim.blr {recipe_blr:g} and batch {recipe_batch}, a peak of "
            f"{usual:.2g}. Take a rate near it, or insist with --optim.unusual_blr true"
        )


def is_changed(config: Any, flag: str) -> bool:
    """Whether a nested setting has another value than its section's default."""
    *sections, name = flag.split(".")
    for section in sections:
        config = getattr(config, section)
    return bool(getattr(config, name) != getattr(type(config)(), name))


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value
