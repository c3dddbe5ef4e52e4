"""Settings of audio-visual segmentation and the recipes they start from. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from deepavfusion.configuration import DataConfig, EncoderRunConfig
from deepavfusion.models.segmenter_config import SegmentationDecoderForm

Recipe = Literal["finetune", "frozen"]

RECIPES: dict[str, dict[str, Any]] = {
    "finetune": {
        "optim.blr": 2e-4,
        "optim.pretrained_ramp": 0.0,
        "optim.epochs": 100.0,
        "optim.warmup_share": 20 / 100,
        "optim.weight_decay": 0.05,
        "training.batch_size": 512,
    },
    "frozen": {
        "freeze_encoder": True,
        "optim.blr": 5e-4,
        "optim.pretrained_ramp": 0.0,
        "optim.epochs": 60.0,
        "optim.warmup_share": 10 / 60,
        "optim.weight_decay": 0.05,
        "training.batch_size": 512,
    },
}
"""What a recipe sets where nothing else is given. Fine-tuning is the published one (section 5 of the method); the
decoder on a frozen encoder is ours."""


@dataclass(frozen=True)
class MaskDecodingConfig:
    """How masks are made of tokens, and what they are compared with."""

    form: SegmentationDecoderForm = "attentive"
    """attentive: image tokens read fusion and audio tokens; release: the mean audio token is spread over the maps."""
    dim: int = 128
    """Width of the attentive decoder; the least width of the release's."""
    stride: int = 4
    """Pixels from one logit of the attentive decoder to the next; the rest of the way to full size is bilinear."""
    layers: tuple[int, ...] = ()
    """Zero-based layers whose image tokens are read, ascending; none takes four, evenly spaced to the last."""
    dice: float = 1.0
    """Weight of the Dice loss beside the cross-entropy; 0 leaves it out."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if self.dice < 0:
            raise ValueError(f"dice {self.dice} must not be negative")


@dataclass(frozen=True)
class ListeningConfig:
    """Training samples whose sound is taken away or exchanged: nothing in their pictures sounds."""

    silent_share: float = 0.1
    """Share of samples given silence."""
    noise_share: float = 0.0
    """Share given white noise of any level."""
    foreign_share: float = 0.0
    """Share given another clip's sound, of another class where clips have labels."""

    def __post_init__(self) -> None:
        for name in ("silent_share", "noise_share", "foreign_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} must be a share between 0 and 1")
        if sum(self.shares.values()) > 1:
            told = ", ".join(f"{name}_share {share:g}" for name, share in self.shares.items())
            raise ValueError(f"{told}: together they must not exceed 1")

    @property
    def shares(self) -> dict[str, float]:
        """By what is heard instead."""
        return {"silent": self.silent_share, "noise": self.noise_share, "foreign": self.foreign_share}


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(EncoderRunConfig):
    """Train a segmenter: the pixels of what sounds, from pictures with masks and their sound."""

    RECIPES: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES

    data: DataConfig
    """A table of pictures with masks, or the clips of a Bandstand world; and how a training view is drawn."""
    decoder: MaskDecodingConfig = field(default_factory=MaskDecodingConfig)
    """Decoder and loss."""
    listening: ListeningConfig = field(default_factory=ListeningConfig)
    """Samples without their sound."""
    recipe: Recipe = "finetune"
    """finetune: all weights; frozen: the decoder alone, on a frozen encoder."""
    split: str = "auto"
    """The split to train on; auto is segmentation_train if there is one, else train, else a source without splits."""
    val_source: str | None = None
    """Pictures that are scored while training; default: the held-out splits of the same source."""
    classes: str | None = None
    """Semantic masks: avss, a file with a class per line, background first, or a label2idx.json, or looks (Bandstand:
    the looks of what sounds); none is one mask of whatever sounds."""
    image_size: tuple[int, int] | None = None
    """Height and width of the pictures, the encoder's positions resampled; none is the size it was trained on."""
    modalities: Literal["both", "image"] = "both"
    """image never hears anything: the baseline that guesses from the picture what sounds."""
    drop_path: float = 0.0
    """Probability of dropping a residual branch of the encoder; only where it is trained."""

    def __post_init__(self) -> None:
        if self.image_size is not None:
            object.__setattr__(self, "image_size", tuple(self.image_size))
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path {self.drop_path} must be in [0, 1)")
        if self.optim.optimizer == "adamw":
            self.check_recipe_rate(self.recipe)

    def without_effect(self) -> list[str]:
        """Settings that were changed and do nothing beside the others, one sentence each."""
        idle = self.idle_beside_encoder()
        if self.decoder.form == "release" and self.decoder.stride != MaskDecodingConfig().stride:
            idle.append("--decoder.stride has no effect with --decoder.form release")
        if self.modalities == "image" and self.listening != ListeningConfig():
            idle.append("--listening has no effect with --modalities image")
        return idle

    @property
    def replacements(self) -> dict[str, float]:
        """Shares of samples whose sound is replaced, by what is heard instead.

        None for a model that hears nothing: it could not know why a mask is empty, and would only predict less.
        """
        return self.listening.shares if self.modalities == "both" else {}
