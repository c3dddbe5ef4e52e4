"""Configuration of the separator: plain frozen dataclasses that do not import torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

from deepavfusion.models.config import EarlyFusionConfig, ModelConfig

Shown = Literal["whole", "source", "box"]
"""What pictures ask for a source: whole ones; such in which the other sources are painted over; its enlarged box."""
NUM_MAPS = 5
"""Layers that the published decoder reads: 0, 2, 5, 8, 11 of 12."""


@dataclass(frozen=True, kw_only=True)
class SeparationDecodingConfig(ModelConfig):
    """What stands on the encoder: which mask is predicted, and how."""

    decoder: Literal["unet", "release"] = "unet"
    """unet: ours, with a convolutional road from the spectrogram itself; release: the published form."""
    target: Literal["ratio", "dominance", "complex"] = "ratio"
    """The mask: share of the magnitude, loudest source or not, or a bounded complex factor."""
    grid: Literal["linear", "mel"] = "linear"
    """Where the mask lives: on the bins of the STFT, or on mel bands from where it is mapped to bins."""
    picture: Literal["attention", "pooled"] = "attention"
    """How audio tokens look at the picture: at each of its patches, by attention, or at means over the picture."""
    condition: Literal["picture", "none"] = "picture"
    """none hides the picture, from the encoder too: a baseline that hears only, of the same size."""
    decoder_dim: int = 256
    """Width of the decoder at its coarsest level; every finer one has half, at least 8."""
    complex_limit: float = 2.0
    """Largest absolute value of a complex mask."""

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r} must be {' or '.join(allowed)}")
        if self.decoder_dim < 16 or self.decoder_dim % 16:
            raise ValueError(f"decoder_dim {self.decoder_dim} must be a positive multiple of 16")
        if self.complex_limit <= 0:
            raise ValueError(f"complex_limit {self.complex_limit} must be positive")
        if self.decoder == "release" and (self.grid, self.picture) != ("mel", "pooled"):
            raise ValueError(
                f"decoder release predicts masks on mel bands and pools the picture: set grid mel and picture pooled, "
                f"not {self.grid} and {self.picture}"
            )
        if self.target == "complex" and self.grid == "mel":
            raise ValueError("target complex needs grid linear: a mel band has no phase of its own")


@dataclass(frozen=True, kw_only=True)
class SeparatorConfig(SeparationDecodingConfig):
    """The encoder and a decoder that predicts the mask of the source a picture shows."""

    encoder: EarlyFusionConfig = field(default_factory=EarlyFusionConfig)
    """The encoder."""
    shows: Shown = "whole"
    """What pictures it was trained to be asked by (`--mixing.pictures`), so that a part of a recording's picture is
    brought to it likewise: enlarged, kept at its size with the others painted over, or enlarged with some room."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shows not in get_args(Shown):
            raise ValueError(f"shows {self.shows!r} must be {' or '.join(get_args(Shown))}")
        patch = self.encoder.patch_size
        if patch < 2 or patch & (patch - 1):
            raise ValueError(f"encoder.patch_size {patch} must be a power of 2: the decoder doubles its grid")

    @property
    def num_levels(self) -> int:
        """Doublings from the grid of audio tokens to that of the spectrogram."""
        return self.encoder.patch_size.bit_length() - 1

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers whose audio tokens are read, evenly spread; in a shallow encoder some come twice."""
        count = self.num_levels + 1 if self.decoder == "release" else NUM_MAPS
        return tuple(i * (self.encoder.depth - 1) // (count - 1) for i in range(count))

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of the decoder's levels, the finest first."""
        return tuple(max(8, self.decoder_dim >> (self.num_levels - k)) for k in range(self.num_levels + 1))

    @property
    def num_samples(self) -> int:
        """Samples of sound that the model looks at: 250 per frame of the log-mel spectrogram."""
        return 250 * self.encoder.audio_size[1]

    @classmethod
    def from_parts(
        cls, encoder: EarlyFusionConfig, decoding: SeparationDecodingConfig, shows: Shown
    ) -> SeparatorConfig:
        """Join what a training configuration keeps apart."""
        return cls(encoder=encoder, shows=shows, **asdict(decoding))


_CHOICES = {
    "decoder": ("unet", "release"),
    "target": ("ratio", "dominance", "complex"),
    "grid": ("linear", "mel"),
    "picture": ("attention", "pooled"),
    "condition": ("picture", "none"),
}
