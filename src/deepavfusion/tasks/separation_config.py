"""Settings of separation. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from deepavfusion.configuration import EncoderRunConfig, OptimConfig, TrainingConfig, check_rate
from deepavfusion.models.separator_config import SeparationDecodingConfig, SourceImage

BLR, BATCH = 3e-4, 512
"""Of the release."""


@dataclass(frozen=True)
class MixingConfig:
    """How training mixtures are made of clips with one sound each."""

    sources: tuple[int, int] = (2, 2)
    """Fewest and most sources of a mixture, 2 to 4."""
    silent: float = 0.05
    """Probability that the source shown is silent in the mixture; the target is silence."""
    single: float = 0.05
    """Probability that the source shown sounds alone; the target is the mixture itself."""
    partners: Literal["any", "different"] = "any"
    """any: mix any clips; different: only clips of different classes."""
    pictures: SourceImage = "whole"
    """Image of a source: whole, the whole frame; source, the frame with the other sources painted over; box, the
    source's box, enlarged. The last two need Bandstand's annotations."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(self.sources))
        if len(self.sources) != 2 or not 2 <= self.sources[0] <= self.sources[1] <= 4:
            raise ValueError(f"sources {list(self.sources)} must be two ascending counts from 2 to 4")
        if min(self.silent, self.single) < 0 or self.silent + self.single > 1:
            raise ValueError(f"silent {self.silent} and single {self.single} must be probabilities, together at most 1")

    @property
    def group(self) -> int:
        """Clips that may be mixed with each other: as many consecutive samples."""
        return self.sources[1]


@dataclass(frozen=True, kw_only=True)
class SeparationConfig(EncoderRunConfig):
    """Train the encoder and a decoder to separate, from a mixture, the sound of the source that an image shows."""

    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(blr=BLR, epochs=300.0, warmup_share=40 / 300, pretrained_ramp=0.0)
    )
    """Optimiser and learning-rate schedule."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The training loop."""
    mixing: MixingConfig = field(default_factory=MixingConfig)
    """How training mixtures are made."""
    decoding: SeparationDecodingConfig = field(default_factory=SeparationDecodingConfig)
    """The decoder and its masks."""
    loss: Literal["auto", "bce", "magnitude", "spectrum", "snr"] = "auto"
    """bce: cross-entropy of the mask, weighted by the mixture's level; magnitude, spectrum: absolute error of the
    masked magnitudes or complex values; snr: signal-to-noise ratio of the waveform; auto is spectrum."""

    def __post_init__(self) -> None:
        check_rate(self.optim, self.training.batch_size, "separation", recipe_blr=BLR, recipe_batch=BATCH)
        share = self.training.batch_size // self.training.accumulation
        if share % self.mixing.group:
            raise ValueError(
                f"mixing.sources {list(self.mixing.sources)} mixes {self.mixing.group} consecutive clips, which the "
                f"{share} of a forward pass cannot be divided into: change --training.batch_size or accumulation"
            )
        self.check_keeping()
        if self.untrained and self.freeze_encoder:
            raise ValueError("freeze_encoder with --untrained true would keep a random encoder")

    @property
    def criterion(self) -> str:
        """The loss that `auto` stands for."""
        return "spectrum" if self.loss == "auto" else self.loss

    def without_effect(self) -> list[str]:
        """Settings that were changed and do nothing beside the others, one sentence each."""
        idle = self.idle_beside_encoder(drop_path=None, heads=[f"decoding.{f.name}" for f in fields(self.decoding)])
        if self.decoding.decoder == "release" and self.decoding.decoder_dim != SeparationDecodingConfig().decoder_dim:
            idle.append("--decoding.decoder_dim has no effect on the release's decoder")
        if self.decoding.target == "dominance" and self.criterion != "bce":
            idle.append("--decoding.target dominance has no effect but with --loss bce: the others compare sounds")
        return idle
