"""Short-time Fourier transform, its exact inverse, and masks on it (section 5 of the method, separation).

A mask multiplies the complex spectrogram of the mixture, whose phase the estimate so keeps. The frames are those of the
log-mel spectrogram (centred, every 250 samples), so that a mask predicted from it needs no resampling in time.

Shape legend: `B` batch, `N` sources, `S` samples, `F` frequency bins, `M` mel bands, `T` frames.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from deepavfusion.audio import HOP_LENGTH, SAMPLE_RATE, mel_filterbank

N_FFT = 1024
"""Window of 64 ms: bins of 15.6 Hz tell the harmonics of low notes apart."""
SILENT_MAGNITUDE = 1e-8
"""Magnitude under which a cell of the mixture counts as empty."""
UNCOVERED = 1e-9
"""A bin whose filters add up to less lies outside all of them, but for rounding."""


def stft(waveform: Tensor, n_fft: int = N_FFT, hop_length: int = HOP_LENGTH) -> Tensor:
    """Complex spectrogram: periodic Hann window, centred frames, reflect padding. Float32 or float64, no autocast.

    Args:
        waveform: `(..., S)`, more than n_fft / 2 samples.
        n_fft: samples per window.
        hop_length: samples from one frame to the next.

    Returns:
        `(..., F, T)` with `F = n_fft // 2 + 1`, `T = S // hop_length + 1`.

    Raises:
        ValueError: too short to reflect.
    """
    if waveform.shape[-1] <= n_fft // 2:
        raise ValueError(f"a window of {n_fft} needs more than {n_fft // 2} samples, got {waveform.shape[-1]}")
    with torch.autocast(waveform.device.type, enabled=False):
        flat = waveform.reshape(-1, waveform.shape[-1])
        flat = flat if flat.dtype == torch.float64 else flat.float()
        window = _window(n_fft, flat.dtype, flat.device)
        spectrum = torch.stft(flat, n_fft, hop_length, window=window, pad_mode="reflect", return_complex=True)
        return spectrum.reshape(*waveform.shape[:-1], *spectrum.shape[1:])


def istft(spectrum: Tensor, num_samples: int, n_fft: int = N_FFT, hop_length: int = HOP_LENGTH) -> Tensor:
    """Waveform `(..., num_samples)` of a complex spectrogram `(..., F, T)`: the least-squares inverse of `stft`."""
    with torch.autocast(spectrum.device.type, enabled=False):
        flat = spectrum.reshape(-1, *spectrum.shape[-2:])
        window = _window(n_fft, flat.real.dtype, flat.device)
        waveform = torch.istft(flat, n_fft, hop_length, window=window, length=num_samples)
        return waveform.reshape(*spectrum.shape[:-2], num_samples)


def ratio_mask(source: Tensor, mixture: Tensor) -> Tensor:
    """|source| / |mixture| clamped to [0, 1]: what a source kept of the mixture's magnitude; 0 where nothing is.

    Args:
        source: complex spectrogram.
        mixture: complex spectrogram of the same shape, or of one that broadcasts.
    """
    return (source.abs() / mixture.abs().clamp_min(SILENT_MAGNITUDE)).clamp(0, 1)


def dominance_mask(source: Tensor, others: Tensor) -> Tensor:
    """1 where a source is at least as loud as every other one, else 0; 0 where it is silent.

    Args:
        source: complex `(B, F, T)`.
        others: complex `(B, N - 1, F, T)`; none for a source alone.
    """
    own = source.abs()
    loud = own > SILENT_MAGNITUDE
    if others.shape[1] == 0:
        return loud.to(own.dtype)
    return (loud & (own >= others.abs().amax(dim=1))).to(own.dtype)


def mel_to_linear(mask: Tensor, n_fft: int = N_FFT) -> Tensor:
    """A mask over mel bands as one over frequency bins.

    sum_m fb(f, m) mask(m) / sum_m fb(f, m) with the filters fb of the log-mel spectrogram; a bin that no filter covers
    takes the nearest band. So a constant mask stays what it is.

    Args:
        mask: `(..., M, T)`.

    Returns:
        `(..., n_fft // 2 + 1, T)`.
    """
    return torch.einsum("fm,...mt->...ft", mel_mapping(mask.shape[-2], n_fft, mask.dtype, mask.device), mask)


def linear_to_mel(magnitude: Tensor, n_mels: int, n_fft: int = N_FFT) -> Tensor:
    """Magnitudes summed over each band's filter: `(..., F, T)` to `(..., M, T)`."""
    filters = mel_filterbank(n_mels, n_fft, dtype=magnitude.dtype).to(magnitude.device)
    return torch.einsum("fm,...ft->...mt", filters, magnitude)


@lru_cache(maxsize=8)
def mel_mapping(n_mels: int, n_fft: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The map of `mel_to_linear`, `(F, M)`, rows adding up to 1."""
    with torch.inference_mode(False):  # a cached inference tensor could not take part in a later backward pass
        filters = mel_filterbank(n_mels, n_fft, dtype=torch.float64)
        covered = filters.sum(dim=1, keepdim=True)
        nearest = torch.zeros_like(filters)
        nearest[torch.arange(len(filters)), _nearest_band(n_mels, n_fft)] = 1
        return torch.where(covered > UNCOVERED, filters / covered.clamp_min(UNCOVERED), nearest).to(device, dtype)


def _nearest_band(n_mels: int, n_fft: int) -> Tensor:
    """The band whose centre on the mel scale is nearest to each bin, `(F,)`."""
    frequencies = torch.linspace(0, SAMPLE_RATE / 2, n_fft // 2 + 1, dtype=torch.float64)
    mels = 2595 * torch.log10(1 + frequencies / 700)
    centres = torch.linspace(0, float(mels[-1]), n_mels + 2, dtype=torch.float64)[1:-1]
    return (mels[:, None] - centres).abs().argmin(dim=1)


@lru_cache(maxsize=8)
def _window(n_fft: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.hann_window(n_fft, periodic=True, dtype=torch.float64).to(device, dtype)
