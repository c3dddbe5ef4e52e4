"""Settings of audio-visual segmentation and the recipes they start from. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from deepavfusion.configuration import DataConfig, EncoderRunConfig
from deepavfusion.models.config import FramesEncoded
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
    """The decoder and its loss."""

    form: SegmentationDecoderForm = "attentive"
    """attentive: image tokens read fusion and audio tokens by cross-attention; comparing: the same, and they are
    compared with the sound before, as a localizer's head does, over several frames if there are; release: the published
    decoder, which concatenates the mean audio token to the feature maps."""
    dim: int = 128
    """Width of our decoders; smallest width of the release's."""
    stride: int = 4
    """Our decoders have a logit for every N x N pixels, which are upsampled bilinearly."""
    layers: tuple[int, ...] = ()
    """Zero-based layers whose image tokens are read, ascending; empty is four layers, evenly spaced, including the
    last."""
    dice: float = 1.0
    """Weight of the Dice loss, which is added to the cross-entropy; 0 leaves it out."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if self.dice < 0:
            raise ValueError(f"dice {self.dice} must not be negative")


@dataclass(frozen=True)
class ListeningConfig:
    """Training samples whose sound is removed or replaced, with an empty mask as the target."""

    silent_share: float = 0.1
    """Share of the samples that get silence."""
    noise_share: float = 0.0
    """Share of the samples that get white noise of random level."""
    foreign_share: float = 0.0
    """Share of the samples that get another clip's sound, of another class where clips have labels."""

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
    """Train a segmenter, which marks the pixels of what sounds, on frames with masks and their sound."""

    RECIPES: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES

    data: DataConfig
    """A table of frames with masks, or the clips of a Bandstand data set; and how training views are drawn."""
    decoder: MaskDecodingConfig = field(default_factory=MaskDecodingConfig)
    """Decoder and loss."""
    listening: ListeningConfig = field(default_factory=ListeningConfig)
    """Samples whose sound is removed or replaced."""
    recipe: Recipe = "finetune"
    """finetune: train all weights; frozen: train only the decoder, on a frozen encoder."""
    split: str = "auto"
    """The split to train on; auto is segmentation_train if there is one, else train, else a source without splits."""
    val_source: str | None = None
    """Frames that are scored during training; by default the held-out splits of the same source."""
    classes: str | None = None
    """Semantic masks: avss, looks (the looks of Bandstand's instruments), a file with a class per line, background
    first, or a label2idx.json; by default one mask of whatever sounds."""
    image_size: tuple[int, int] | None = None
    """Height and width of the images, with the encoder's position embedding resampled; by default those of its
    training."""
    modalities: Literal["both", "image"] = "both"
    """image: train without sound, as the image-only baseline."""
    encode_frames: FramesEncoded = "all"
    """Which of several frames (--num_frames) the encoder reads: all, or only the middle one. The decoder `comparing`
    looks at all of them with a few convolutions, which costs far less."""
    drop_path: float = 0.0
    """Probability of dropping a residual branch of the encoder (stochastic depth); only where the encoder is
    trained."""

    def __post_init__(self) -> None:
        if self.image_size is not None:
            object.__setattr__(self, "image_size", tuple(self.image_size))
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path {self.drop_path} must be in [0, 1)")
        self.check_keeping()
        if self.optim.optimizer == "adamw":
            self.check_recipe_rate(self.recipe)

    def without_effect(self) -> list[str]:
        """Settings that were changed and do nothing beside the others, one sentence each."""
        heads = [f"decoder.{f.name}" for f in fields(self.decoder) if f.name != "dice"]
        idle = self.idle_beside_encoder(heads=heads)
        if self.keep_heads:
            flags = {"modalities": self.modalities != "both", "image_size": self.image_size is not None}
            idle += [f"--{flag} has no effect with --keep_heads true" for flag, given in flags.items() if given]
        if self.decoder.form == "release" and self.decoder.stride != MaskDecodingConfig().stride:
            idle.append("--decoder.stride has no effect with --decoder.form release")
        if self.modalities == "image" and self.listening != ListeningConfig():
            idle.append("--listening has no effect with --modalities image")
        return idle

    @property
    def replacements(self) -> dict[str, float]:
        """Shares of samples whose sound is replaced, by the replacement.

        None for a model that hears nothing: it could not know why a mask is empty, and would only predict less.
        """
        return self.listening.shares if self.modalities == "both" else {}
