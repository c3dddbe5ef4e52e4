"""Settings of the benchmarks; torch-free, for the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from deepavfusion.models.config import EarlyFusionConfig, FusionForm, MaskedAutoencoderConfig, MaskedDecodingConfig


@dataclass(frozen=True)
class ModelBenchConfig:
    """Cost of a forward and backward pass of every fusion form, ours against the method written out."""

    model: EarlyFusionConfig = field(default_factory=EarlyFusionConfig)
    """The encoder; ViT-B by default. Its fusion form is replaced by each of forms."""
    autoencoder: MaskedDecodingConfig = field(default_factory=MaskedDecodingConfig)
    """Masks and decoders of the pre-training step."""
    forms: tuple[FusionForm, ...] = ("token", "dense", "factorized", "bilinear")
    """Fusion forms to measure."""
    batch_size: int = 1
    """Clips per pass."""
    repeats: int = 3
    """Timed passes of each variant, interleaved; 0 counts operations and memory only."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to measure time and memory; auto takes CUDA if there is one."""
    json: str | None = None
    """Also write the figures to this JSON file."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "forms", tuple(self.forms))
        if self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} must be at least 1")
        if self.repeats < 0:
            raise ValueError(f"repeats {self.repeats} must not be negative")
        if not self.forms:
            raise ValueError("forms is empty: name at least one of token, dense, factorized, bilinear")
        MaskedAutoencoderConfig.from_parts(self.model, self.autoencoder)
