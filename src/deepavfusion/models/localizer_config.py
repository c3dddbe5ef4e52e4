"""Configuration of the localizer, the encoder with a head that says which patches sound. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from deepavfusion.models.config import EarlyFusionConfig, ModelConfig, check_classes, check_layers

MapPooling = Literal["top", "logsumexp"]


@dataclass(frozen=True, kw_only=True)
class LocalizerHeadConfig(ModelConfig):
    """What the head reads and how it pools its map."""

    layers: tuple[int, ...] = ()
    """Zero-based layers whose image tokens are read; empty takes three, evenly spaced, the last one included."""
    dim: int = 256
    """Width in which patch and sound are compared."""
    view_dim: int = 48
    """Width of the convolutional view of the picture that patches are seen by beside their tokens, a multiple of 8."""
    readings: int = 2
    """Blocks in which patches read the tokens of the sound one by one; 0 compares them with its mean alone."""
    pooling: MapPooling = "top"
    """How a map becomes one number: the mean of its top share, or a log-sum-exp."""
    top_share: float = 0.1
    """Share of patches that top pooling averages; at least one patch."""
    sharpness: float = 5.0
    """Factor on the logits inside the log-sum-exp: towards 0 it is the mean, for large ones the maximum."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(int(i) for i in self.layers))
        if self.dim < 1:
            raise ValueError(f"dim {self.dim} must be at least 1")
        if self.view_dim < 8 or self.view_dim % 8:
            raise ValueError(f"view_dim {self.view_dim} must be a positive multiple of 8")
        if self.readings < 0:
            raise ValueError(f"readings {self.readings} must be at least 0")
        if self.pooling not in ("top", "logsumexp"):
            raise ValueError(f"pooling {self.pooling!r} must be top or logsumexp")
        if not 0 < self.top_share <= 1:
            raise ValueError(f"top_share {self.top_share} must be above 0 and at most 1")
        if self.sharpness <= 0:
            raise ValueError(f"sharpness {self.sharpness} must be positive")


@dataclass(frozen=True, kw_only=True)
class LocalizerConfig(LocalizerHeadConfig):
    """The encoder with a head that gives every image patch a score of sounding, or one for each class."""

    encoder: EarlyFusionConfig = field(default_factory=EarlyFusionConfig)
    """The encoder."""
    classes: tuple[str, ...] = ()
    """Class names, one map each, in the order of their numbers; empty gives a single map of all that sounds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "classes", tuple(self.classes))
        depth = self.encoder.depth
        if not self.layers:
            object.__setattr__(self, "layers", spread_layers(depth))
        check_layers(self.layers, depth)
        check_classes(self.classes)

    @property
    def num_maps(self) -> int:
        """Maps per picture."""
        return max(1, len(self.classes))


def spread_layers(depth: int, count: int = 3) -> tuple[int, ...]:
    """At most `count` layer numbers, evenly spaced, the last layer among them: 3, 7, 11 of 12."""
    count = min(count, depth)
    return tuple(depth * (k + 1) // count - 1 for k in range(count))
