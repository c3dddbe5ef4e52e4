"""Settings of audio-event classification and the recipes they start from. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from deepavfusion.configuration import DataConfig, EncoderRunConfig
from deepavfusion.models.config import Head, Modalities

Recipe = Literal["probe", "attentive", "finetune"]

RECIPES: dict[str, dict[str, Any]] = {
    "probe": {
        "freeze_encoder": True,
        "optim.optimizer": "lars",
        "optim.blr": 0.3,
        "optim.pretrained_ramp": 0.0,
        "optim.epochs": 60.0,
        "optim.warmup_share": 10 / 60,
        "optim.weight_decay": 0.0,
        "training.batch_size": 1024,
    },
    "attentive": {
        "freeze_encoder": True,
        "optim.blr": 1e-3,
        "optim.pretrained_ramp": 0.0,
        "optim.epochs": 60.0,
        "optim.warmup_share": 10 / 60,
        "optim.weight_decay": 0.0,
        "training.batch_size": 1024,
    },
    "finetune": {
        "optim.blr": 3e-4,
        "optim.pretrained_ramp": 0.0,
        "optim.epochs": 100.0,
        "optim.warmup_share": 20 / 100,
        "optim.weight_decay": 0.05,
        "optim.layer_decay": 0.75,
        "training.batch_size": 512,
        "augmentation.drop_path": 0.2,
        "augmentation.mixup": 1.0,
        "augmentation.label_smoothing": 0.1,
    },
}
"""What a recipe sets where nothing else is given. Probe and fine-tuning are the published ones (section 5 of the
method); the attentive probe is ours."""


@dataclass(frozen=True)
class AugmentationConfig:
    """Augmentation and regularisation in training, beside the random views."""

    mixup: float = 0.0
    """Parameter of the beta distribution of mixup weights, one per clip for image and audio together; 0 turns mixup
    off."""
    label_smoothing: float = 0.0
    """Share of every target that is spread evenly over all classes."""
    drop_path: float = 0.0
    """Probability of dropping a residual branch of the encoder (stochastic depth); only where the encoder is
    trained."""
    modality_dropout: float = 0.0
    """Probability of hiding the image or the audio of a clip that has both."""

    def __post_init__(self) -> None:
        if self.mixup < 0:
            raise ValueError(f"mixup {self.mixup} must not be negative")
        for name in ("label_smoothing", "drop_path", "modality_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(EncoderRunConfig):
    """Train an audio-event classifier on labelled clips: linear probe, attentive probe or fine-tuning."""

    RECIPES: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES

    augmentation: AugmentationConfig
    """Augmentation and regularisation; defaults are those of the recipe."""
    recipe: Recipe = "finetune"
    """probe: linear probe on the frozen encoder; attentive: attentive probe on the frozen encoder; finetune: train all
    weights."""
    labels: Literal["single", "multi"] = "single"
    """single: one label per clip; multi: several, joined by | in a manifest."""
    classes: str | None = None
    """A file with a class name per line, or a shipped list (vggsound); by default the labels of the training clips,
    sorted."""
    heads: Literal["auto"] | tuple[Head, ...] = "auto"
    """Classifiers: some of image, audio, fusion, concat; auto is the first three, as far as they have an input."""
    modalities: Modalities = "both"
    """Train on both modalities, or only on image or audio."""
    pooling: Literal["auto", "mean", "attentive"] = "auto"
    """Pooling of a stream in fine-tuning: mean, the mean token, or attentive, attention pooling, which helps with
    objects of few patches; auto is mean, as published. Probes pool as their recipe says."""
    balance: Literal["none", "sampling", "loss"] = "none"
    """Give all classes the same weight: sampling draws them equally often, loss weights the loss."""
    features: str | None = None
    """Train a probe on features that `embed` wrote with this encoder (--tokens all for an attentive probe) instead of
    on clips: faster, always on centre views."""

    def __post_init__(self) -> None:
        if not isinstance(self.heads, str):
            object.__setattr__(self, "heads", tuple(self.heads))
        if self.recipe != "finetune" and not self.freeze_encoder:
            raise ValueError(f"freeze_encoder false: --recipe {self.recipe} is a probe; use --recipe finetune")
        own = "attentive" if self.recipe == "attentive" else "mean"
        if self.recipe != "finetune" and self.head_pooling != own:
            raise ValueError(f"pooling {self.pooling}: --recipe {self.recipe} pools {own}; leave out --pooling")
        if self.keep_heads and (self.recipe != "finetune" or self.heads != "auto" or self.pooling != "auto"):
            raise ValueError("keep_heads true: needs --recipe finetune, and takes --heads and --pooling from --from")
        self.check_keeping()
        if self.features is not None and self.recipe == "finetune":
            raise ValueError(
                f"features {self.features}: the encoder is not run on them, so --recipe must be probe or attentive"
            )
        if self.features is not None and self.augmentation.mixup:
            raise ValueError(f"features {self.features}: stored features cannot be mixed; set --augmentation.mixup 0")
        if self.features is not None and self.augmentation.modality_dropout:
            raise ValueError(
                f"features {self.features}: they were made from both modalities; set --augmentation.modality_dropout 0"
            )
        if self.optim.optimizer == "adamw":  # a rate of LARS has another meaning, and depends on the number of steps
            self.check_recipe_rate(self.recipe if self.recipe != "probe" else "attentive")

    @property
    def head_pooling(self) -> Literal["mean", "attentive"]:
        """How heads read their stream, as the recipe or `pooling` says."""
        if self.pooling != "auto":
            return self.pooling
        return "attentive" if self.recipe == "attentive" else "mean"

    def without_effect(self) -> list[str]:
        """Settings that were changed and do nothing beside the others, one sentence each."""
        idle = self.idle_beside_encoder("augmentation.drop_path")
        if self.modalities != "both" and self.augmentation.modality_dropout:
            idle.append(f"--augmentation.modality_dropout has no effect with --modalities {self.modalities}")
        default = DataConfig(source=self.data.source)
        views = ("crop_area", "crop_ratio", "flip", "gain_db")
        if self.features is not None and any(getattr(self.data, n) != getattr(default, n) for n in views):
            idle.append("--data.crop_area, crop_ratio, flip and gain_db have no effect on --features")
        return idle
