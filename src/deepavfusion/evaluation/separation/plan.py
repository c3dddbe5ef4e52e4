"""Which mixtures an evaluation of separation scores, and which of the list are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepavfusion.data.mixtures import Mixture, mix_clips, mix_pairs, mix_recordings
from deepavfusion.data.separable import recordings, single_sources
from deepavfusion.data.sets.manifest_report import digest_ids
from deepavfusion.data.sets.pairs import read_mixture_pairs
from deepavfusion.evaluation.coverage import Coverage, select_clips
from deepavfusion.evaluation.separation import sound_of_pixels
from deepavfusion.evaluation.separation.config import EvaluateSeparationConfig
from deepavfusion.metrics.separation import PROTOCOL


class MixtureCoverage(Coverage):
    """How many mixtures of a list were scored."""

    def line(self) -> str:
        """The coverage in one line."""
        return super().line().replace("official clips", "mixtures", 1)


@dataclass(frozen=True)
class MixturePlan:
    """What is to be separated, and what the list lacks."""

    mixtures: tuple[Mixture, ...]
    official: tuple[str, ...]
    """Names of all mixtures of the list."""
    missing: tuple[str, ...]
    """Names of mixtures of which a clip is not there."""
    unusable: dict[str, str]
    """Clips that are not in any mixture, with the reason."""

    @property
    def recorded(self) -> bool:
        """Whether the sources were recorded together."""
        return self.mixtures[0].recording is not None

    def coverage(self, scored: Sequence[str], failed: Mapping[str, str]) -> MixtureCoverage:
        """What a score over the mixtures `scored` covers."""
        return MixtureCoverage(
            num_official=len(self.official),
            num_scored=len(scored),
            official_digest=digest_ids(self.official),
            scored_digest=digest_ids(scored),
            missing=self.missing,
            failed=dict(failed),
            unlabelled=(),
        )


def plan_mixtures(config: EvaluateSeparationConfig) -> MixturePlan:
    """The mixtures that a configuration asks for.

    Raises:
        ValueError: there are none, or the clips do not allow them.
    """
    selection = select_clips(config.data.source, config.data.split, needs_label=False)
    if config.pairs is not None:
        pairs = read_mixture_pairs(config.pairs)
        mixtures, missing = mix_pairs(pairs, selection.clips, config.seed)
        return MixturePlan(mixtures, tuple(" + ".join(pair.ids) for pair in pairs), missing, {})
    if config.mixtures == "duets":
        found, others = recordings(selection.clips, config.sources, config.pictures)
        if not found:
            raise ValueError(
                f"{config.data.source}: no clip of split {config.data.split} is a recording of {config.sources} "
                f"sources with stems{_first(others)}"
            )
        mixtures = mix_recordings(found, config.seed)
    else:
        parts, others = single_sources(selection.clips, config.pictures)
        if not parts:
            raise ValueError(f"{config.data.source}: no clip can be a source of a mixture{_first(others)}")
        mixtures = mix_clips(parts, config.sources, config.num_mixtures, config.pairing, config.seed)
    names = tuple(mixture.id for mixture in mixtures)
    return MixturePlan(mixtures, names, (), {**selection.quarantined, **others})


def protocol_name(config: EvaluateSeparationConfig, recorded: bool) -> str:
    """Everything about mixtures, pictures and reconstruction that could be done otherwise."""
    if config.pairs is not None:
        what = f"pairs of {Path(config.pairs).name}, summed"
    elif recorded:
        what = f"recordings of {config.sources} sources with stems"
    else:
        what = f"sums of {config.sources} clips (pairing {config.pairing}, seed {config.seed})"
    shown = "centre window, middle frame, whole picture"
    if config.pictures == "box":
        shown = "centre window, middle frame, boxes of the sources enlarged"
    elif recorded or config.pictures == "source":
        shown = (
            "centre window, annotated frame nearest to its middle, test crop moved to the source, boxes of other "
            "sources painted in the mean colour"
        )
    how = sound_of_pixels.NAME if config.protocol == "sound_of_pixels" else "16 kHz, levels as they are, mixture phase"
    return f"{PROTOCOL}; {what}; {shown}; {how}"


def _first(reasons: Mapping[str, str]) -> str:
    return next((f"; {name}: {cause}" for name, cause in reasons.items()), "")
