"""Configuration of the localizer: the encoder and a head that scores which patches sound. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from deepavfusion.models.config import EarlyFusionConfig, ModelConfig, check_classes, check_layers

MapPooling = Literal["top", "logsumexp"]


@dataclass(frozen=True, kw_only=True)
class LocalizerHeadConfig(ModelConfig):
    """What the head reads and how it pools its map to one score."""

    layers: tuple[int, ...] = ()
    """Zero-based layers whose image tokens are read; empty is three layers, evenly spaced, including the last."""
    dim: int = 256
    """Width in which patch and sound are compared."""
    view_dim: int = 48
    """Width of the convolutions through which the head also sees the image, a multiple of 8."""
    readings: int = 2
    """Cross-attention blocks in which patches read the audio and fusion tokens; 0 compares them only with the means of
    these tokens."""
    stride: int = 0
    """A score for every N x N pixels, N a power of 2 below the patch size, refined by convolutions over the image; 0: a
    score for every patch."""
    pooling: MapPooling = "top"
    """How a map becomes one score: top, the mean of its highest cells, or logsumexp, a log-sum-exp of all."""
    top_share: float = 0.1
    """Share of the cells that top pooling averages; at least one."""
    sharpness: float = 5.0
    """Factor on the logits in the log-sum-exp: near 0 it gives their mean, for large values their maximum."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(int(i) for i in self.layers))
        if self.dim < 1:
            raise ValueError(f"dim {self.dim} must be at least 1")
        if self.view_dim < 8 or self.view_dim % 8:
            raise ValueError(f"view_dim {self.view_dim} must be a positive multiple of 8")
        if self.readings < 0:
            raise ValueError(f"readings {self.readings} must be at least 0")
        if self.stride < 0 or self.stride & (self.stride - 1):
            raise ValueError(f"stride {self.stride} must be a power of 2, or 0 for a score of every patch")
        if self.pooling not in ("top", "logsumexp"):
            raise ValueError(f"pooling {self.pooling!r} must be top or logsumexp")
        if not 0 < self.top_share <= 1:
            raise ValueError(f"top_share {self.top_share} must be above 0 and at most 1")
        if self.sharpness <= 0:
            raise ValueError(f"sharpness {self.sharpness} must be positive")


@dataclass(frozen=True, kw_only=True)
class LocalizerConfig(LocalizerHeadConfig):
    """The encoder with a head that gives every image patch a score of whether it sounds, or one score per class."""

    encoder: EarlyFusionConfig = field(default_factory=EarlyFusionConfig)
    """The encoder."""
    classes: tuple[str, ...] = ()
    """Class names, with one map each, in the order of their numbers; empty gives one map of everything that sounds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "classes", tuple(self.classes))
        depth = self.encoder.depth
        if not self.layers:
            object.__setattr__(self, "layers", spread_layers(depth))
        check_layers(self.layers, depth)
        check_classes(self.classes)
        patch, sides = self.encoder.patch_size, self.encoder.image_size
        if self.stride and (self.stride >= patch or any(side % self.stride for side in sides)):
            raise ValueError(
                f"stride {self.stride} must be below the patch size {patch} and divide the image's {sides[0]} x "
                f"{sides[1]} pixels; 0 gives a score for every patch"
            )

    @property
    def num_maps(self) -> int:
        """Maps per picture."""
        return max(1, len(self.classes))

    @property
    def cell_size(self) -> int:
        """Pixels that a cell of the maps is high and wide."""
        return self.stride or self.encoder.patch_size

    @property
    def map_grid(self) -> tuple[int, int]:
        """Rows and columns of the maps."""
        height, width = self.encoder.image_size
        return height // self.cell_size, width // self.cell_size


def spread_layers(depth: int, count: int = 3) -> tuple[int, ...]:
    """At most `count` layer numbers, evenly spaced, the last layer among them: 3, 7, 11 of 12."""
    count = min(count, depth)
    return tuple(depth * (k + 1) // count - 1 for k in range(count))
