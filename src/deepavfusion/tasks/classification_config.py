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
    """What is done to a batch and to the network in training, beside the random views."""

    mixup: float = 0.0
    """Parameter of the beta distribution of mixing weights, one per clip for picture and sound; 0 does not mix."""
    label_smoothing: float = 0.0
    """Share of every target that goes to all classes alike."""
    drop_path: float = 0.0
    """Probability of dropping a residual branch of the encoder; only where it is trained."""
    modality_dropout: float = 0.0
    """Probability of hiding either the picture or the sound of a clip that has both."""

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
    """Mixing and dropping; defaults are the recipe's."""
    recipe: Recipe = "finetune"
    """probe: a linear layer on the frozen encoder; attentive: with a learned pooling; finetune: all weights."""
    labels: Literal["single", "multi"] = "single"
    """One label per clip, or several (joined by | in a manifest)."""
    classes: str | None = None
    """A file with a class name per line, or a list that ships (vggsound); default: the training labels, sorted."""
    heads: Literal["auto"] | tuple[Head, ...] = "auto"
    """Some of image, audio, fusion, concat; auto is the first three, without those that would have nothing to read."""
    modalities: Modalities = "both"
    """Train on both, or on image or audio alone."""
    pooling: Literal["auto", "mean", "attentive"] = "auto"
    """What a head reads of its stream when fine-tuning: the mean token, or what one learned query reads, which serves
    objects of few patches; auto is the published mean. Probes pool as their recipe says."""
    balance: Literal["none", "sampling", "loss"] = "none"
    """Treat all classes alike by drawing their clips equally often, or by weights in the loss."""
    keep_heads: bool = False
    """Go on from the heads of --from too, a classifier of the same classes, such as a probe: heads first, then all
    weights, which keeps features that a new head's gradients would spoil (Kumar et al., ICLR 2022)."""
    features: str | None = None
    """Train a probe on what `embed` wrote with this encoder (--tokens all for an attentive one) instead of on clips:
    quick, and always on centre views."""

    def __post_init__(self) -> None:
        if not isinstance(self.heads, str):
            object.__setattr__(self, "heads", tuple(self.heads))
        if self.recipe != "finetune" and not self.freeze_encoder:
            raise ValueError(f"freeze_encoder false: --recipe {self.recipe} is a probe; take --recipe finetune")
        own = "attentive" if self.recipe == "attentive" else "mean"
        if self.recipe != "finetune" and self.head_pooling != own:
            raise ValueError(f"pooling {self.pooling}: --recipe {self.recipe} pools {own}; leave --pooling away")
        if self.keep_heads and (self.recipe != "finetune" or self.heads != "auto" or self.pooling != "auto"):
            raise ValueError("keep_heads true: needs --recipe finetune, and takes --heads and --pooling from --from")
        if self.keep_heads and self.untrained:
            raise ValueError("keep_heads true: heads belong to the weights that --untrained true leaves out")
        if self.features is not None and self.recipe == "finetune":
            raise ValueError(
                f"features {self.features}: the encoder is not run on them, so --recipe must be probe or attentive"
            )
        if self.features is not None and self.augmentation.mixup:
            raise ValueError(f"features {self.features}: pictures cannot be mixed any more, set --augmentation.mixup 0")
        if self.features is not None and self.augmentation.modality_dropout:
            raise ValueError(
                f"features {self.features}: the encoder saw both modalities, set --augmentation.modality_dropout 0"
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
