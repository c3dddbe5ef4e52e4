"""Configuration of the separator: plain frozen dataclasses. Never imports torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from deepavfusion.models.config import EarlyFusionConfig, ModelConfig

SourceImage = Literal["whole", "source", "box"]
"""What pictures ask for a source: whole ones; such in which the other sources are painted over; its enlarged box."""
NUM_MAPS = 5
"""Layers that the published decoder reads: 0, 2, 5, 8, 11 of 12."""


@dataclass(frozen=True, kw_only=True)
class SeparationDecodingConfig(ModelConfig):
    """The mask that is predicted on top of the encoder, and the decoder that predicts it."""

    decoder: Literal["unet", "release"] = "unet"
    """unet: ours, convolutions over the spectrogram with a mask on STFT bins; release: the published decoder, with a
    mask on mel bands from the audio tokens and the mean image token."""
    target: Literal["ratio", "dominance"] = "ratio"
    """Target of the mask: ratio, the source's share of the magnitude, or dominance, whether the source is the
    loudest."""
    condition: Literal["picture", "none"] = "picture"
    """none hides the image, also from the encoder: a baseline of the same size that only hears."""
    decoder_dim: int = 256
    """Width of the decoder at its coarsest level; every finer level has half of it, at least 8."""

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r} must be {' or '.join(allowed)}")
        if self.decoder_dim < 16 or self.decoder_dim % 16:
            raise ValueError(f"decoder_dim {self.decoder_dim} must be a positive multiple of 16")


@dataclass(frozen=True, kw_only=True)
class SeparatorConfig(SeparationDecodingConfig):
    """The encoder and a decoder that predicts the mask of the source that an image shows."""

    encoder: EarlyFusionConfig = field(default_factory=EarlyFusionConfig)
    """The encoder."""
    shows: SourceImage = "whole"
    """How images showed a source in training (`--mixing.pictures`); a part of a recording's frame is prepared in the
    same way: whole, cut out and enlarged; source, at its size with the other parts painted over; box, enlarged with
    some margin."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shows not in get_args(SourceImage):
            raise ValueError(f"shows {self.shows!r} must be {' or '.join(get_args(SourceImage))}")
        patch = self.encoder.patch_size
        if patch < 2 or patch & (patch - 1):
            raise ValueError(f"encoder.patch_size {patch} must be a power of 2: the decoder doubles its grid")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SeparatorConfig:
        """Build from a JSON-like dictionary, also from one of version 0.1.0, whose decoders had further forms.

        Raises:
            ValueError: as of all model configurations, or a form that is no more.
        """
        found = dict(values)
        implied = _FORMS_OF_0_1_0.get(str(found.get("decoder", "unet")), {})
        for name, value in implied.items():
            if found.pop(name, value) != value:
                raise ValueError(f"{name} {values[name]!r}: this form of the decoder was removed after version 0.1.0")
        if found.get("target") == "complex":
            raise ValueError("target 'complex': this form of the decoder was removed after version 0.1.0")
        found.pop("complex_limit", None)
        return super().from_dict(found)

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
        cls, encoder: EarlyFusionConfig, decoding: SeparationDecodingConfig, shows: SourceImage
    ) -> SeparatorConfig:
        """Join what a training configuration keeps apart."""
        return cls(encoder=encoder, shows=shows, **asdict(decoding))


_CHOICES = {
    "decoder": ("unet", "release"),
    "target": ("ratio", "dominance"),
    "condition": ("picture", "none"),
}
_FORMS_OF_0_1_0 = {
    "unet": {"grid": "linear", "picture": "attention"},
    "release": {"grid": "mel", "picture": "pooled"},
}
"""Settings that each decoder now implies."""
