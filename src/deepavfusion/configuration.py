"""Training configuration: one typed source for YAML, command line and Python. Never imports torch.

Every command's settings are one frozen dataclass made of the sections below. A field's docstring is its help text
and its name is its flag: `OptimConfig.blr` under `optim` is `--optim.blr` and `optim: {blr: ...}` in YAML.
Checks that cross sections live in the command's own dataclass and name the flags. Each command's dataclass stands
beside its task; those of trainings are a `RunConfig`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeVar, cast, get_type_hints

Config = TypeVar("Config", bound="EncoderRunConfig")


@dataclass(frozen=True)
class DataConfig:
    """Where the clips are and how a training view of one is drawn."""

    source: str
    """A folder of video files, searched recursively, or a manifest written by this package."""
    num_workers: int = 2
    """Processes that read clips; 0 reads in the training process."""
    accept_changed: bool = False
    """Go on with a run though files of its clips were replaced or written anew since it began."""
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


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The settings that every training command has; each adds its own."""

    run_dir: str
    """Folder of the run; a run that stopped there continues."""
    data: DataConfig
    """Where the clips are and how a training view of one is drawn."""
    optim: OptimConfig
    """Optimiser and schedule."""
    training: TrainingConfig
    """The loop."""

    def without_effect(self) -> list[str]:
        """Settings that were changed and do nothing beside the others, one sentence each."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """A JSON- and YAML-ready dictionary, tuples as lists."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return content


@dataclass(frozen=True, kw_only=True)
class EncoderRunConfig(RunConfig):
    """The settings of every training on a pre-trained encoder."""

    RECIPES: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})
    """By name, what a recipe sets where nothing else is given, by flag such as `optim.blr`. A task that has some has
    a setting `recipe`."""

    from_: str
    """The encoder: a finished run, a model folder or its config.json, hf:OWNER/NAME, or a file of published weights."""
    num_frames: int | None = None
    """Frames of a clip seen together, whatever number the encoder was trained on; none is that number."""
    untrained: bool = False
    """Take the configuration of --from without its weights: what the architecture does by itself."""
    freeze_encoder: bool = False
    """Leave the encoder as it is and train what stands on it alone."""

    @classmethod
    def with_recipe(cls: type[Config], recipe: str, **settings: Any) -> Config:
        """The configuration that the command line makes of a recipe and the settings given beside it.

        Args:
            recipe: a name in `RECIPES`.
            settings: fields; a section such as `optim` is given as its object, or as a mapping of values that override
                the recipe's.
        """
        values: dict[str, Any] = {"recipe": recipe}
        for flag, value in cls.RECIPES[recipe].items():
            part, _, name = flag.rpartition(".")
            (values.setdefault(part, {}) if part else values)[name] = value
        for name, value in settings.items():
            values[name] = {**values.get(name, {}), **value} if isinstance(value, Mapping) else value
        for name, section in get_type_hints(cls).items():
            if is_dataclass(section) and (name in values or name in _required(cls)):
                given, build = values.get(name, {}), cast(Callable[..., Any], section)
                values[name] = build(**given) if isinstance(given, Mapping) else given
        return cls(**values)

    def check_recipe_rate(self, recipe: str) -> None:
        """Refuse a learning rate far from that of the recipe (see `check_rate`)."""
        blr, batch = (self.RECIPES[recipe][flag] for flag in ("optim.blr", "training.batch_size"))
        check_rate(self.optim, self.training.batch_size, f"--recipe {recipe}", recipe_blr=blr, recipe_batch=batch)

    def idle_beside_encoder(self, drop_path: str | None = "drop_path") -> list[str]:
        """Settings that were changed and do nothing because the encoder is frozen, or starts without weights.

        Args:
            drop_path: the flag of the encoder's drop path, if the task has one.
        """
        if not self.freeze_encoder:
            idle = self.untrained and self.optim.pretrained_ramp
            return ["--optim.pretrained_ramp has no effect with --untrained true"] if idle else []
        recipe = self.RECIPES.get(getattr(self, "recipe", ""), {})
        flags = ["optim.layer_decay", "optim.pretrained_ramp", "training.gradient_checkpointing"]
        flags += [drop_path] if drop_path else []
        return [
            f"--{flag} has no effect on a frozen encoder"
            for flag in flags
            if setting(self, flag) not in (recipe.get(flag), _IDLE[flag.rpartition(".")[2]])
        ]


_IDLE = {"layer_decay": 1.0, "pretrained_ramp": 0.0, "gradient_checkpointing": False, "drop_path": 0.0}
"""Values at which settings of an encoder's training do nothing."""


def _required(cls: type) -> set[str]:
    return {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}


def setting(config: Any, flag: str) -> Any:
    """The value of a nested setting such as `optim.blr`."""
    for name in flag.split("."):
        config = getattr(config, name)
    return config


RENAMED = {
    "tune_encoder": "--freeze_encoder true stands for --tune_encoder false",
    "decoding.grid": "--decoding.decoder says it: unet has masks on bins, release on mel bands",
    "decoding.picture": "--decoding.decoder says it: unet attends to the picture, release pools it",
    "decoding.complex_limit": "complex masks ended with version 0.1.0",
}
"""Settings that earlier versions called otherwise, and how they are written now."""


def in_todays_words(record: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a run on an encoder, as an earlier version wrote it, with the settings of this one."""
    config = dict(record)
    if "from_" in config and "freeze_encoder" not in config:
        recipes_that_freeze = ("probe", "attentive", "frozen")
        config["freeze_encoder"] = not config.pop("tune_encoder", config.get("recipe") not in recipes_that_freeze)
    decoding = dict(config.get("decoding", {}))
    form = tuple(decoding.get(name) for name in ("decoder", "grid", "picture"))
    if form in (("unet", "linear", "attention"), ("release", "mel", "pooled")):
        config["decoding"] = {k: v for k, v in decoding.items() if k not in ("grid", "picture", "complex_limit")}
    return config


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
    section, _, name = flag.rpartition(".")
    return bool(setting(config, flag) != getattr(type(setting(config, section))(), name))
