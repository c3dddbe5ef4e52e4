"""Settings of the evaluation of separation. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from deepavfusion.evaluation.config import EvaluationConfig
from deepavfusion.models.separator_config import Shown

OWN_BASELINES = ("mixture", "wrong picture", "swapped pictures", "oracle mask")
"""Baselines that every evaluation has."""


@dataclass(frozen=True)
class EvaluateSeparationConfig(EvaluationConfig):
    """Score a separator on mixtures whose sources are known."""

    mixtures: Literal["clips", "duets"] = "clips"
    """clips: sum clips of one sound each; duets: recordings of several sources with stems (Bandstand)."""
    pairs: str | None = None
    """A published list of pairs to mix, such as vggmusic_eval_ss.csv, instead of drawn ones."""
    sources: int = 2
    """Sources per mixture; of duets, those with as many are taken."""
    num_mixtures: int = 0
    """How many mixtures are drawn; 0 draws one per clip."""
    pairing: Literal["auto", "any", "different", "same"] = "auto"
    """Classes of what is mixed; auto: in turn of different classes and of one, where clips have classes, else any."""
    pictures: Shown = "whole"
    """Show whole pictures; paint over what else stands in them (source: needs annotations; duets are never whole); or
    enlarge the box of what sounds (box), as the model was trained."""
    protocol: Literal["standard", "sound_of_pixels"] = "standard"
    """standard: the model's window at 16 kHz, its mask, levels as they are; or the Sound-of-Pixels protocol."""
    baselines: tuple[str, ...] = field(default=(), kw_only=True)
    """Other runs on the same mixtures, [NAME=RUN,...], such as one that hears only."""
    clean: bool = True
    """Also ask for every source when it sounds alone: how much of it is lost?"""
    examples: int = 3
    """Mixtures of which sounds and spectrograms are written: the best, the worst and evenly between."""
    seed: int = 0
    """Of the drawing of mixtures and wrong pictures."""
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
                f"pairs {self.pairs}: the list says what is mixed; leave mixtures, sources, num_mixtures and pictures"
            )
        taken = sorted(set(self.places) & set(OWN_BASELINES))
        if taken:
            raise ValueError(f"baselines names {taken[0]!r}, which there is anyway")
