"""Settings of training for visual sound localization and the recipes they start from. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from deepavfusion.configuration import EncoderRunConfig
from deepavfusion.data.sounding_truth import BoxFormat
from deepavfusion.models.config import FramesEncoded
from deepavfusion.models.localizer_config import LocalizerHeadConfig

Recipe = Literal["self_supervised", "synchrony", "supervised"]
PER_PATCH = ("synchrony", "supervised")
"""Recipes that ask every patch for the share of it that sounds; they pool nothing and make no collages."""

_SHARED: dict[str, Any] = {
    "optim.blr": 3e-4,
    "optim.pretrained_ramp": 0.0,
    "optim.epochs": 50.0,
    "optim.warmup_share": 5 / 50,
    "optim.weight_decay": 0.05,
    "optim.layer_decay": 0.75,
    "training.batch_size": 256,
}
_PER_PATCH_RECIPE: dict[str, Any] = {
    **_SHARED,
    "contrast.mismatch_weight": 0.5,
    "contrast.silence_share": 1.0,
    "contrast.collage_weight": 0.0,
}
RECIPES: dict[str, dict[str, Any]] = {
    "self_supervised": _SHARED,
    "synchrony": _PER_PATCH_RECIPE,
    "supervised": _PER_PATCH_RECIPE,
}
"""What a recipe sets where nothing else is given; ours, nothing was published."""


@dataclass(frozen=True)
class ContrastConfig:
    """Mismatched pairs of image and sound, made from each batch."""

    mismatch_weight: float = 1.0
    """Weight of the loss of images with silence or another clip's sound, where nothing sounds; 0 makes no such
    pairs."""
    mismatch_share: float = 1.0
    """Share of a batch's images that are also encoded with a mismatched sound; at least one image."""
    silence_share: float = 0.3
    """Probability that the mismatched sound is digital silence; else it is another clip's sound."""
    collage_weight: float = 1.0
    """Weight of the loss of collages: four images in one, with the sound of one of them, whose quarter the map must
    find; 0 makes none."""
    quiet_db: float = -60.0
    """Clips whose sound is quieter than this (root mean square relative to full scale, in dB) do not count as
    sounding."""

    def __post_init__(self) -> None:
        for name in ("mismatch_weight", "collage_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} must not be negative")
        if not 0 <= self.silence_share <= 1:
            raise ValueError(f"silence_share {self.silence_share} must be a probability")
        if not 0 < self.mismatch_share <= 1:
            raise ValueError(f"mismatch_share {self.mismatch_share} must be above 0 and at most 1")


@dataclass(frozen=True, kw_only=True)
class LocalizationConfig(EncoderRunConfig):
    """Train a localizer, which marks where in the image the sound comes from."""

    RECIPES: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES

    contrast: ContrastConfig
    """Mismatched pairs; defaults are those of the recipe."""
    head: LocalizerHeadConfig = field(default_factory=LocalizerHeadConfig)
    """The head on the encoder."""
    recipe: Recipe = "self_supervised"
    """self_supervised: from matching and mismatched pairs; synchrony: from what moves when it sounds; both without
    boxes or labels. supervised: from masks or boxes."""
    splits: tuple[str, ...] = ()
    """Splits to train on, such as [pretrain,twins_train]; empty is all except the held-out ones."""
    exclude: str | None = None
    """A csv or text file whose first column names clips that must not be trained on, such as a test list."""
    boxes: str | None = None
    """Boxes for the supervised recipe; by default the annotations beside Bandstand's clips."""
    boxes_format: BoxFormat = "csv"
    """Format of --boxes: csv (id,label,x1,y1,x2,y2), or the official file of vggss, flickr or music."""
    boxes_folder: str | None = None
    """With --boxes_format flickr: the folder of XML files."""
    classes: str | None = None
    """One map per class: a file with a class name per line, or a shipped list (vggsound, bandstand)."""
    encode_frames: FramesEncoded = "all"
    """Which of several frames (--num_frames) the encoder reads: all, or only the middle one. The head looks at all of
    them with a few convolutions, which costs far less; what that gains or loses has not been measured."""
    drop_path: float = 0.0
    """Probability of dropping a residual branch of the encoder in training."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "splits", tuple(self.splits))
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path {self.drop_path} must be in [0, 1)")
        if self.boxes is not None and self.recipe != "supervised":
            raise ValueError(f"boxes {self.boxes}: only --recipe supervised uses them")
        if self.recipe == "self_supervised" and not (self.contrast.mismatch_weight or self.contrast.collage_weight):
            raise ValueError(
                "contrast.mismatch_weight and contrast.collage_weight are both 0: there is nothing to learn from"
            )
        if self.recipe in PER_PATCH and self.contrast.collage_weight:
            raise ValueError(
                f"contrast.collage_weight {self.contrast.collage_weight}: --recipe {self.recipe} makes no collages; "
                "set it to 0"
            )
        if self.recipe == "synchrony" and self.classes is not None:
            raise ValueError(f"classes {self.classes}: --recipe synchrony does not know the class of a source")
        self.check_keeping()
        if self.optim.optimizer == "adamw":
            self.check_recipe_rate(self.recipe)

    def without_effect(self) -> list[str]:
        """Settings that were changed and do nothing beside the others, one sentence each."""
        idle = self.idle_beside_encoder(heads=[f"head.{f.name}" for f in fields(self.head)])
        if self.recipe in PER_PATCH:
            plain = LocalizerHeadConfig()
            for name in ("pooling", "top_share", "sharpness"):
                if getattr(self.head, name) != getattr(plain, name):
                    idle.append(f"--head.{name} has no effect with --recipe {self.recipe}, which pools nothing")
        if self.boxes is None and self.boxes_format != "csv":
            idle.append("--boxes_format has no effect without --boxes")
        for name in ("silence_share", "mismatch_share") if not self.contrast.mismatch_weight else ():
            if getattr(self.contrast, name) not in (
                getattr(ContrastConfig(), name),
                RECIPES[self.recipe].get(f"contrast.{name}"),
            ):
                idle.append(f"--contrast.{name} has no effect with --contrast.mismatch_weight 0")
        return idle
