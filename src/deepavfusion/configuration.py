"""Training configuration: one typed source for YAML, command line and Python. Never imports torch.

The settings of a command are one frozen dataclass made of the sections below. A field's docstring is its help text and
its name is its flag: `OptimConfig.blr` under `optim` is `--optim.blr` and `optim: {blr: ...}` in YAML. Checks across
sections are in the command's own dataclass and name the flags. That dataclass stands beside the command's task; those
of training commands extend `RunConfig`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeVar, cast, get_args, get_type_hints

Config = TypeVar("Config", bound="EncoderRunConfig")


FramePlace = Literal["random", "middle"]


@dataclass(frozen=True)
class DataConfig:
    """The clips, and how training views of them are drawn."""

    source: str
    """A folder of video files (searched recursively), a manifest, shards (a folder or a URL), or a data set of the
    Hugging Face Hub, hf:OWNER/NAME[:SPLIT] (docs/data.md)."""
    num_workers: int = 2
    """Processes that read clips; 0 reads in the training process."""
    accept_changed: bool = False
    """Continue a run although files of its clips were replaced or changed since it began."""
    frame: FramePlace = "random"
    """Where in its window of sound the only frame is: random, as published, or middle, as in a trained model's use. In
    the middle it can be learned that what is struck now is heard now. Several frames always have the same places."""
    crop_area: tuple[float, float] = (0.5, 1.0)
    """Smallest and largest area of a random crop, as a share of the frame."""
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    """Smallest and largest width / height of a random crop."""
    flip: float = 0.5
    """Probability of mirroring the image left to right."""
    gain_db: float = 6.0
    """Largest random gain of the sound in dB; the gain is uniform between minus and plus this value."""
    colour: float = 0.0
    """Strength of random colour changes, of every colour channel: contrast by up to this share, tint and shading by up
    to a quarter of it. 0 leaves the colours as they are."""
    noise: float = 0.0
    """Largest amplitude of white noise that is added to the sound (full scale is 1); the amplitude is drawn
    log-uniformly from a hundredth of it. 0 adds none."""
    still: float = 0.0
    """Share of the samples whose several frames all show the middle one. A model that has seen nothing but movement
    takes a photo for something at rest, and so for silent."""

    def __post_init__(self) -> None:
        if self.frame not in get_args(FramePlace):
            raise ValueError(f"frame {self.frame!r} must be random or middle")
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
        for name in ("colour", "noise", "still"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} must be between 0 and 1")


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser and learning-rate schedule: lr = blr * batch_size / 256, linear warm-up, then cosine decay to 0."""

    FILLED_IN: ClassVar[tuple[str, ...]] = ("warmup_epochs",)
    optimizer: Literal["adamw", "lars"] = "adamw"
    """adamw, or lars (for large batches on frozen features)."""
    blr: float = 1.5e-4
    """Base learning rate, for a batch size of 256."""
    epochs: float = 200.0
    """Passes over the clips; fractions are allowed."""
    warmup_share: float = 0.2
    """Share of the run with linear warm-up of the learning rate."""
    warmup_epochs: float | None = None
    """Warm-up in epochs, as a part of optim.epochs (fractions are allowed); replaces warmup_share."""
    weight_decay: float = 0.05
    """Decoupled weight decay; not applied to 1-D parameters (biases, norms)."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Coefficients of AdamW's running averages; the first is also the momentum of LARS."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each layer to the one below it; 1 is the same rate for all layers."""
    clip_grad: float = 0.0
    """Clip the global gradient norm to this value; 0 does not clip."""
    unusual_blr: bool = False
    """Accept a base learning rate far outside that of the task's recipe."""
    pretrained_ramp: float = 0.5
    """Share of the run over which the learning rate of pre-trained weights rises to its full value, so that new
    parameters learn first."""

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
    """The training loop: batch, precision, device, checkpoints, logging."""

    batch_size: int = 512
    """Clips per optimiser step, of all processes and accumulations together."""
    accumulation: int = 1
    """Forward and backward passes per optimiser step (gradient accumulation)."""
    seed: int = 0
    """Seed of initialisation, order of clips, windows, augmentation and masks."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the forward pass; auto is bfloat16 on CUDA, else float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto is CUDA where there is a GPU, else the CPU."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """Several processes: ddp, each holds the whole model; fsdp, each holds a share of every weight, gradient and
    optimiser moment (FSDP2)."""
    compile: bool = False
    """Compile the model with torch.compile."""
    gradient_checkpointing: bool = False
    """Recompute the layers in the backward pass, to save memory."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights, such as 0.999: it is what figures, probes and the saved
    model have. 0 keeps none."""
    checkpoint_every: int = 500
    """Optimiser steps between checkpoints."""
    keep_checkpoints: int = 2
    """Number of latest checkpoints that are kept."""
    log_every: int = 10
    """Optimiser steps between rows of metrics.csv."""
    picture_every: float = 10.0
    """Epochs between figures of the task, which are also drawn at the end; 0 draws only the learning curve."""
    probe_every: float = 10.0
    """Epochs between probes: scores on some clips during training, for tasks that have them, also taken at the end. 0
    takes none; a number larger than optim.epochs takes only the one at the end."""
    max_failures: float = 0.05
    """Share of the drawn clips that may be unreadable; above it, and after at least 20 such clips, the run stops."""
    wandb: str | None = None
    """Weights & Biases project that metrics are sent to (needs the extra wandb); by default none."""
    mlflow: str | None = None
    """MLflow experiment that metrics are sent to, at the server that MLFLOW_TRACKING_URI names (needs the extra
    mlflow); by default none."""

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
            raise ValueError("strategy fsdp and compile cannot be combined yet: drop --training.compile or take ddp")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema {self.ema} must be 0 or a decay below 1: give --training.ema 0.999, for one")
        for name in ("picture_every", "probe_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} must not be negative")
        if not 0 <= self.max_failures <= 1:
            raise ValueError(f"max_failures {self.max_failures} must be a share between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The settings that all training commands share."""

    run_dir: str
    """Folder of the run; a run that was stopped continues there."""
    data: DataConfig
    """The clips, and how training views of them are drawn."""
    optim: OptimConfig
    """Optimiser and learning-rate schedule."""
    training: TrainingConfig
    """The training loop."""

    def without_effect(self) -> list[str]:
        """Settings that were changed and do nothing beside the others, one sentence each."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """A JSON- and YAML-ready dictionary, tuples as lists."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return content


@dataclass(frozen=True)
class AdapterConfig:
    """Low-rank adapters (LoRA) in place of training all of the encoder's weights."""

    rank: int = 0
    """Rank of an adapter beside every linear map of the encoder's attention and MLPs (needs the extra lora): only
    adapters and new parts are trained, and the saved model has the adapters in its weights. 0 trains all weights."""
    alpha: float = 16.0
    """Adapters are scaled by alpha / rank."""

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ValueError(f"rank {self.rank} must not be negative")
        if self.alpha <= 0:
            raise ValueError(f"alpha {self.alpha:g} must be positive")


@dataclass(frozen=True, kw_only=True)
class EncoderRunConfig(RunConfig):
    """The settings of every training on a pre-trained encoder."""

    RECIPES: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})
    """By name, what a recipe sets where nothing else is given, by flag such as `optim.blr`. A task that has some has
    a setting `recipe`."""

    from_: str
    """The encoder to start from: a finished run, a model folder, a bundle, shipped:NAME, hf:OWNER/NAME, or a file of
    published weights. With --untrained also a config.json."""
    num_frames: int | None = None
    """Frames per clip, whatever the encoder was trained with; by default the encoder's number."""
    untrained: bool = False
    """Use the configuration of --from without its weights, to train from scratch."""
    freeze_encoder: bool = False
    """Keep the encoder fixed and train only the new parts."""
    keep_heads: bool = False
    """Continue from the whole model of --from, which has been trained for this task: its encoder, its heads and their
    settings. By default heads are new."""
    lora: AdapterConfig = field(default_factory=AdapterConfig)
    """Low-rank adapters of the encoder."""

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

    def check_keeping(self) -> None:
        """Refuse heads that are kept without the weights that they belong to."""
        if self.keep_heads and self.untrained:
            raise ValueError("keep_heads true: heads belong to the weights that --untrained true leaves out")

    def idle_beside_encoder(self, drop_path: str | None = "drop_path", heads: Sequence[str] = ()) -> list[str]:
        """Settings that were changed and do nothing because of what the run starts from: trained heads, an encoder that
        is frozen, of several frames, without weights.

        Args:
            drop_path: the flag of the encoder's drop path, if the task has one.
            heads: flags of settings that belong to the heads.
        """
        found = []
        if self.keep_heads:
            found = [f"--{flag} has no effect with --keep_heads true" for flag in heads if is_changed(self, flag)]
        if self.num_frames not in (None, 1) and self.data.frame != "random":
            found.append("--data.frame has no effect with --num_frames")
        if self.num_frames == 1 and self.data.still:
            found.append("--data.still has no effect with one frame")
        if not self.freeze_encoder:
            if not self.lora.rank and is_changed(self, "lora.alpha"):
                found.append("--lora.alpha has no effect without --lora.rank")
            without_ramp = "--untrained true" if self.untrained else "--lora.rank" if self.lora.rank else None
            if without_ramp and self.optim.pretrained_ramp:
                found.append(f"--optim.pretrained_ramp has no effect with {without_ramp}")
            return found
        recipe = self.RECIPES.get(getattr(self, "recipe", ""), {})
        flags = ["optim.layer_decay", "optim.pretrained_ramp", "training.gradient_checkpointing"]
        flags += ["lora.rank", "lora.alpha"]
        flags += [drop_path] if drop_path else []
        return [
            *found,
            *(
                f"--{flag} has no effect on a frozen encoder"
                for flag in flags
                if setting(self, flag) not in (recipe.get(flag), _IDLE[flag.rpartition(".")[2]])
            ),
        ]


_IDLE = {
    "layer_decay": 1.0,
    "pretrained_ramp": 0.0,
    "gradient_checkpointing": False,
    "drop_path": 0.0,
    "rank": 0,
    "alpha": AdapterConfig.alpha,
}
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
            f"{usual:.2g}. Choose a rate near it, or accept this one with --optim.unusual_blr true"
        )


def is_changed(config: Any, flag: str) -> bool:
    """Whether a nested setting has another value than its section's default."""
    section, _, name = flag.rpartition(".")
    return bool(setting(config, flag) != getattr(type(setting(config, section))(), name))
