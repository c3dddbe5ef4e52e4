"""Metrics of source separation, in dB: how close estimated sources come to the true ones.

BSS-eval version 3 (Vincent et al. 2006; numbers of the classic toolbox and of mir_eval's `bss_eval_sources` without
permutation) by fast_bss_eval: the estimate is split into target, interference and artefacts by projection on 512 shifts
of the references. SI-SDR (Le Roux et al. 2019) on signals without their mean. Every score is given beside that of the
unprocessed mixture as the estimate of each source, and the improvement over it.

All are in dB, higher is better, kept within +-100 dB (a perfect estimate has no finite ratio; values beyond are
rounding errors). Means are over the sources of a mixture, then over mixtures.

Shapes: `B` mixtures, `N` sources, `T` samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from fast_bss_eval.torch.metrics import square_cosine_metrics
from torch import Tensor

from deepavfusion.metrics.tally import Tally, by_cause

SILENCE = 1e-5
"""Energy (sum of squared samples) below which a signal is silent."""
FLOOR_DB = -30.0
"""SDR and SI-SDR of a silent or unusable prediction."""
LIMIT_DB = 100.0
"""Largest absolute value of any ratio."""
FILTER_LENGTH = 512
"""Taps of the distortion filter that BSS-eval allows."""
PROTOCOL = "BSS-eval v3 with 512 taps, no permutation; SI-SDR of zero-mean signals"


@dataclass(frozen=True, eq=False)
class Ratios:
    """One value per mixture and source, float64 `(B, N)`, dB."""

    sdr: Tensor
    sir: Tensor
    """NaN for a silent or unusable prediction, and with one source (nothing can interfere)."""
    sar: Tensor
    """NaN for a silent or unusable prediction."""
    si_sdr: Tensor

    @staticmethod
    def join(parts: Sequence[Ratios]) -> Ratios:
        """Mixtures of several batches one after the other."""
        return Ratios(
            sdr=torch.cat([part.sdr for part in parts]),
            sir=torch.cat([part.sir for part in parts]),
            sar=torch.cat([part.sar for part in parts]),
            si_sdr=torch.cat([part.si_sdr for part in parts]),
        )


@dataclass(frozen=True, eq=False)
class MixtureScores:
    """Mixtures on their own, in the order they were given. The first three fields are `(B, N)`."""

    estimate: Ratios
    mixture: Ratios
    """Of the unprocessed mixture as the estimate of every source."""
    silent: Tensor
    """bool: the prediction has hardly any energy."""
    not_finite: Tensor
    """bool: the prediction holds values that are no numbers."""
    reference_silent: Tensor
    """bool `(B,)`: a reference has hardly any energy; all ratios of the mixture are NaN."""
    singular: Tensor
    """bool `(B,)`: references so alike that the projection had to be regularised."""

    @staticmethod
    def join(parts: Sequence[MixtureScores]) -> MixtureScores:
        """Mixtures of several batches one after the other. Raises ValueError on none."""
        if not parts:
            raise ValueError("no mixtures to join")
        return MixtureScores(
            estimate=Ratios.join([part.estimate for part in parts]),
            mixture=Ratios.join([part.mixture for part in parts]),
            silent=torch.cat([part.silent for part in parts]),
            not_finite=torch.cat([part.not_finite for part in parts]),
            reference_silent=torch.cat([part.reference_silent for part in parts]),
            singular=torch.cat([part.singular for part in parts]),
        )


@dataclass(frozen=True)
class MeanRatios:
    """Means over sources, then mixtures, dB. NaN where no source has the value."""

    sdr: float
    sir: float
    sar: float
    si_sdr: float


@dataclass(frozen=True, eq=False)
class SeparationScores(Tally):
    """Scores of a set of mixtures, dB, higher is better."""

    estimate: MeanRatios
    mixture: MeanRatios
    improvement: MeanRatios
    """Mean of estimate minus mixture, over the sources for which both exist."""
    num_without_sir_sar: int
    """Predictions left out of SIR and SAR because they are silent or unusable."""
    num_at_limit: int
    """SDR values of estimates that reached the limit of 100 dB."""
    num_singular: int
    """Scored mixtures whose references were too alike."""
    sdr: Tensor
    """float64: mean over sources of each scored mixture."""
    sdr_improvement: Tensor
    """float64: the same, over the mixture's own."""
    scored: Tensor
    """int64: places of the scored mixtures in the input."""


def si_sdr(references: Tensor, estimates: Tensor) -> Tensor:
    """Scale-invariant SDR: 10 log10(|a s|^2 / |e - a s|^2), a = <e, s> / |s|^2, s and e without their means.

    Args:
        references: `(..., T)` s.
        estimates: `(..., T)` e.

    Returns:
        float64 `(...)` in dB within +-100; -30 where e or s is silent once its mean is taken away.
    """
    references, estimates = _zero_mean(references), _zero_mean(estimates)
    scale = (references * estimates).sum(dim=-1) / _energy(references)
    target = scale[..., None] * references
    ratio = 10 * torch.log10(_energy(target) / _energy(estimates - target))
    silent = (_energy(references) < SILENCE) | (_energy(estimates) < SILENCE)
    return torch.where(silent, FLOOR_DB, ratio.clamp(-LIMIT_DB, LIMIT_DB))


def score_systems(references: Tensor, systems: Mapping[str, Tensor], mixture: Tensor) -> dict[str, MixtureScores]:
    """Score several systems on the same mixtures; the mixture's own ratios are computed once.

    Args:
        references: `(B, N, T)` true sources.
        systems: by name, `(B, N, T)` predictions of them.
        mixture: `(B, T)` what the predictions were made from.

    Returns:
        By name.
        Ratios in float64 whatever the input. A prediction that is silent (energy below 1e-5) or not finite has an
        SDR and SI-SDR of -30 dB and neither SIR nor SAR. A mixture with a silent reference has no ratios.

    Raises:
        ValueError: shapes that do not fit, signals no longer than the filter, or references or a mixture with values
            that are no numbers.
    """
    for estimates in systems.values():
        if references.ndim != 3 or estimates.shape != references.shape or mixture.shape != references[:, 0].shape:
            shapes = [tuple(t.shape) for t in (references, estimates, mixture)]
            raise ValueError(f"expected references and estimates (B, N, T) and a mixture (B, T), got {shapes}")
    if references.shape[-1] <= FILTER_LENGTH:
        raise ValueError(f"BSS-eval needs more than {FILTER_LENGTH} samples, got {references.shape[-1]}")
    if not bool(references.isfinite().all() & mixture.isfinite().all()):
        raise ValueError("references or the mixture hold values that are no numbers")
    references, unprocessed = references.double(), mixture.double()[:, None].expand_as(references)
    not_finite = {name: ~estimates.isfinite().all(dim=-1) for name, estimates in systems.items()}
    usable = {name: torch.where(not_finite[name][..., None], 0.0, systems[name].double()) for name in systems}
    silent = {name: (_energy(usable[name]) < SILENCE) & ~not_finite[name] for name in systems}
    reference_silent = (_energy(references) < SILENCE).any(dim=1)
    signals = torch.stack([*usable.values(), unprocessed], dim=1)  # (B, E + 1, N, T)
    singular = torch.zeros_like(reference_silent)
    rows = []
    for b in range(len(references)):
        if reference_silent[b]:
            rows.append(references.new_full((3, *signals.shape[1:3]), torch.nan))
        else:
            ratios, singular[b] = _bss_eval(references[b], signals[b])
            rows.append(ratios)
    values = torch.stack(rows, dim=1)  # (3, B, E + 1, N)
    of_mixture = _ratios(values[:, :, -1], references, unprocessed, _energy(unprocessed) < SILENCE, reference_silent)
    return {
        name: MixtureScores(
            estimate=_ratios(
                values[:, :, e], references, usable[name], silent[name] | not_finite[name], reference_silent
            ),
            mixture=of_mixture,
            silent=silent[name],
            not_finite=not_finite[name],
            reference_silent=reference_silent,
            singular=singular,
        )
        for e, name in enumerate(systems)
    }


def separation_scores(mixtures: MixtureScores) -> SeparationScores:
    """Means over sources, then mixtures; mixtures with a silent reference are left out and counted.

    Raises:
        ValueError: no mixture can be scored.
    """
    kept = ~mixtures.reference_silent
    if not bool(kept.any()):
        raise ValueError(f"all of the {len(kept)} mixtures have a silent reference")
    estimate, mixture = _of(mixtures.estimate, kept), _of(mixtures.mixture, kept)
    gain = Ratios(
        sdr=estimate.sdr - mixture.sdr,
        sir=estimate.sir - mixture.sir,
        sar=estimate.sar - mixture.sar,
        si_sdr=estimate.si_sdr - mixture.si_sdr,
    )
    silent, not_finite = mixtures.silent[kept], mixtures.not_finite[kept]
    return SeparationScores(
        protocol=PROTOCOL,
        num_scored=int(kept.sum()),
        left_out=by_cause(silent_reference=int((~kept).sum())),
        counted_as_wrong=by_cause(silent_prediction=int(silent.sum()), prediction_not_finite=int(not_finite.sum())),
        estimate=_means(estimate),
        mixture=_means(mixture),
        improvement=_means(gain),
        num_without_sir_sar=int((silent | not_finite).sum()),
        num_at_limit=int((estimate.sdr >= LIMIT_DB).sum()),
        num_singular=int(mixtures.singular[kept].sum()),
        sdr=estimate.sdr.mean(dim=1),
        sdr_improvement=gain.sdr.mean(dim=1),
        scored=kept.nonzero()[:, 0],
    )


def _bss_eval(references: Tensor, estimates: Tensor) -> tuple[Tensor, bool]:
    """SDR, SIR and SAR `(3, E, N)` of E sets of estimates `(E, N, T)` of `(N, T)`, and if they were regularised.

    The distortion filters of all sets are solved for at once, for they share the references.
    """
    sizes = estimates.shape[:2]
    compare = partial(square_cosine_metrics, references, estimates.flatten(0, 1), filter_length=FILTER_LENGTH)
    try:
        cosines, singular = compare(), False
    except torch.linalg.LinAlgError:  # a reference is a filtered copy of another: many filters do, take a small one
        cosines, singular = compare(load_diag=1e-12), True
    # Shares of an estimate's energy in the space of its reference's shifts and in that of all references' together.
    own, spanned = (cosine.unflatten(1, sizes).diagonal(dim1=0, dim2=2) for cosine in cosines)  # (E, N)
    shares = torch.stack([own, own / spanned, spanned]).clamp(0, 1)
    return (10 * torch.log10(shares / (1 - shares))).clamp(-LIMIT_DB, LIMIT_DB), singular


def _ratios(
    values: Tensor, references: Tensor, estimates: Tensor, unusable: Tensor, reference_silent: Tensor
) -> Ratios:
    """Ratios from SDR, SIR and SAR `(3, B, N)`, with what stands for those of unusable estimates."""
    sdr, sir, sar = values
    nothing = reference_silent[:, None]
    if references.shape[1] == 1:
        sir = torch.full_like(sir, torch.nan)
    return Ratios(
        sdr=torch.where(unusable & ~nothing, FLOOR_DB, sdr),
        sir=sir.masked_fill(unusable, torch.nan),
        sar=sar.masked_fill(unusable, torch.nan),
        si_sdr=si_sdr(references, estimates).masked_fill(unusable, FLOOR_DB).masked_fill(nothing, torch.nan),
    )


def _of(ratios: Ratios, kept: Tensor) -> Ratios:
    return Ratios(sdr=ratios.sdr[kept], sir=ratios.sir[kept], sar=ratios.sar[kept], si_sdr=ratios.si_sdr[kept])


def _means(ratios: Ratios) -> MeanRatios:
    def mean(values: Tensor) -> float:
        return float(values.nanmean(dim=1).nanmean())

    return MeanRatios(sdr=mean(ratios.sdr), sir=mean(ratios.sir), sar=mean(ratios.sar), si_sdr=mean(ratios.si_sdr))


def _zero_mean(signals: Tensor) -> Tensor:
    signals = signals.double()
    return signals - signals.mean(dim=-1, keepdim=True)


def _energy(signals: Tensor) -> Tensor:
    return signals.square().sum(dim=-1)
