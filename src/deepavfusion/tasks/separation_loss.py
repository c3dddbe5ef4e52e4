"""Losses of separation: distance of a predicted mask, spectrogram or waveform from the true source.

All are one value per sample, lower is better, and none depends on the mixture's level. A silent source is a target like
any other: the mask should be zero, and so the estimate.

Shape legend: `B` batch, `N` sources, `S` samples, `F T` spectrogram.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from deepavfusion.models.separator import SeparatorOutput
from deepavfusion.stft import dominance_mask, ratio_mask, stft

SOFT_LIMIT = 1e-3
"""Errors 30 dB under the source count little: Wisdom et al. 2020."""
_MASK_MARGIN = 1e-6
"""Keeps the cross-entropy of a mask that is exactly 0 or 1 finite."""
_TINY = 1e-8


def separation_loss(
    criterion: str, target: str, out: SeparatorOutput, source: Tensor, others: Tensor, mixture: Tensor
) -> Tensor:
    """The loss of each sample, float32 `(B,)`.

    Args:
        criterion: bce, magnitude, spectrum or snr.
        target: which mask a cross-entropy aims at, ratio or dominance.
        out: of the model.
        source: what the picture shows, `(B, S)`.
        others: what else sounds, `(B, N - 1, S)`, zeros where fewer do.
        mixture: their sum, `(B, S)`.
    """
    with torch.autocast(source.device.type, enabled=False):
        if criterion == "snr":
            return negative_snr(out.waveform(), source, mixture)
        truth = stft(source)
        if criterion == "bce":
            aim = ratio_mask(truth, out.mixture) if target == "ratio" else dominance_mask(truth, stft(others))
            return weighted_cross_entropy(out.mask, aim, out.mixture)
        return spectral_error(out.spectrum, truth, out.mixture, with_phase=criterion == "spectrum")


def weighted_cross_entropy(mask: Tensor, aim: Tensor, mixture: Tensor) -> Tensor:
    """Binary cross-entropy of masks, weighted by clamp(log(1 + |mixture|), 1e-3, 10), weights adding up to one.

    Args:
        mask, aim: `(B, F, T)` in [0, 1].
        mixture: complex `(B, F, T)`.
    """
    weight = torch.log1p(mixture.abs()).clamp(1e-3, 10)
    entropy = F.binary_cross_entropy(mask.clamp(_MASK_MARGIN, 1 - _MASK_MARGIN), aim, reduction="none")
    return (weight * entropy).sum(dim=(1, 2)) / weight.sum(dim=(1, 2))


def spectral_error(estimate: Tensor, truth: Tensor, mixture: Tensor, with_phase: bool) -> Tensor:
    """Mean absolute error of magnitudes, or of real and imaginary parts, over the mixture's mean magnitude.

    Args:
        estimate, truth, mixture: complex `(B, F, T)`.
        with_phase: compare complex values.
    """
    if with_phase:
        difference = torch.view_as_real(estimate - truth).abs().sum(dim=-1)
    else:
        difference = (_magnitude(estimate) - truth.abs()).abs()
    return difference.mean(dim=(1, 2)) / mixture.abs().mean(dim=(1, 2)).clamp_min(_TINY)


def negative_snr(estimate: Tensor, source: Tensor, mixture: Tensor) -> Tensor:
    """-SNR in dB, softly limited at 30 dB; for a silent source the estimate's energy under the mixture's.

    10 log10(|s - e|^2 + t |r|^2) - 10 log10 |r|^2 with t = 1e-3 and r the source s, or the mixture where s is silent
    (Wisdom et al. 2020, "Unsupervised sound separation using mixture invariant training").

    Args:
        estimate, source, mixture: `(B, S)`.
    """
    energy = source.square().sum(dim=1)
    scale = torch.where(energy > 0, energy, mixture.square().sum(dim=1)) + _TINY
    error = (source - estimate).square().sum(dim=1)
    return 10 * torch.log10(error / scale + SOFT_LIMIT)


def _magnitude(spectrum: Tensor) -> Tensor:
    """|spectrum| with a gradient also where it is zero."""
    return torch.view_as_real(spectrum).square().sum(dim=-1).add(1e-12).sqrt()
