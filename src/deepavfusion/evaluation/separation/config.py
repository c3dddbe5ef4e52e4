"""Settings of the evaluation of separation. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from deepavfusion.evaluation.config import EvaluationConfig
from deepavfusion.models.separator_config import SourceImage

OWN_BASELINES = ("mixture", "wrong picture", "swapped pictures", "oracle mask")
"""Baselines that every evaluation has."""


@dataclass(frozen=True)
class EvaluateSeparationConfig(EvaluationConfig):
    """Score a separator on mixtures whose sources are known."""

    mixtures: Literal["clips", "duets"] = "clips"
    """clips: sums of clips with one sound each; duets: recordings of several sources with stems, the separate sound of
    each source (Bandstand)."""
    pairs: str | None = None
    """A published list of pairs to mix, such as vggmusic_eval_ss.csv, instead of random pairs."""
    sources: int = 2
    """Sources per mixture; with duets, recordings with this many sources are used."""
    num_mixtures: int = 0
    """Number of random mixtures; 0 makes one per clip."""
    pairing: Literal["auto", "any", "different", "same"] = "auto"
    """Classes that are mixed; auto alternates between different classes and one class where clips have classes, else
    any."""
    pictures: SourceImage = "whole"
    """Image of a source: whole, the whole frame; source, the frame with the other sources painted over (needs
    annotations); box, the source's box, cut out and enlarged. Take what the model was trained with; duets need source
    or box."""
    protocol: Literal["standard", "sound_of_pixels"] = "standard"
    """standard: the model's window at 16 kHz, its own mask, original levels; or sound_of_pixels, the protocol of The
    Sound of Pixels."""
    baselines: tuple[str, ...] = field(default=(), kw_only=True)
    """Other models to compare with on the same mixtures, [NAME=RUN,...], such as one that only hears."""
    clean: bool = True
    """Also give the model every source alone, to measure how much of a clean sound it removes."""
    examples: int = 3
    """Number of mixtures whose sounds and spectrograms are written: the best, the worst, and some evenly between."""
    seed: int = 0
    """Seed of the choice of mixtures and of wrong images."""
    batch_size: int = field(default=8, kw_only=True)
    """Mixtures per forward pass of one process."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.sources <= 4:
            raise ValueError(f"sources {self.sources} must be 2 to 4")
        self.at_least(0, "num_mixtures", "examples", "seed")
        if self.pairs is not None and (
            (self.mixtures, self.sources, self.num_mixtures, self.pictures) != ("clips", 2, 0, "whole")
        ):
            raise ValueError(
                f"pairs {self.pairs}: the list defines the mixtures; leave out mixtures, sources, num_mixtures "
                f"and pictures"
            )
        taken = sorted(set(self.places) & set(OWN_BASELINES))
        if taken:
            raise ValueError(f"baselines names {taken[0]!r}, which is always there")
