"""The evaluation protocol of "The Sound of Pixels" (Zhao et al. 2018), which most tables on MUSIC follow.

Sound at 11,025 Hz, 65,535 samples, sources divided by their number before they are summed; STFT 1022 / 256, centred;
frequencies resampled to 256 log-spaced rows by bilinear interpolation, and back; binary masks thresholded at 0.5,
applied to the mixture with its phase. True masks: |s_n| > 0.5 |mixture| on those rows.

Any separator can be scored under it: its estimate's share of the mixture, |e| / |mixture| on those rows, is the mask
that is thresholded.

Shape legend: `N` sources, `S` samples, `F` bins (512), `R` rows (256), `T` frames (256).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from deepavfusion.stft import SILENT_MAGNITUDE, istft, stft

SAMPLE_RATE = 11_025
NUM_SAMPLES = 65_535
N_FFT, HOP_LENGTH = 1022, 256
NUM_ROWS = 256
THRESHOLD = 0.5
NAME = "Sound of Pixels: 11,025 Hz, 65,535 samples, STFT 1022/256, 256 log-spaced rows, masks thresholded at 0.5"


def spectrogram(waveform: Tensor) -> Tensor:
    """Complex `(..., F, T)` of `(..., S)`."""
    return stft(waveform, N_FFT, HOP_LENGTH)


def to_log_rows(values: Tensor) -> Tensor:
    """Frequency bins `(N, F, T)` to log-spaced rows `(N, R, T)`.

    Row y in [-1, 1] reads bin (21^((y + 1) / 2) - 11) / 10, -1 being the first and 1 the last of each.
    """
    y = torch.linspace(-1, 1, NUM_ROWS, dtype=torch.float64)
    return _read_rows(values, (21 ** ((y + 1) / 2) - 11) / 10)


def to_linear_bins(values: Tensor) -> Tensor:
    """Log-spaced rows `(N, R, T)` back to bins `(N, F, T)`."""
    y = torch.linspace(-1, 1, N_FFT // 2 + 1, dtype=torch.float64)
    return _read_rows(values, torch.log(10 * y + 11) / torch.log(torch.tensor(21.0, dtype=torch.float64)) * 2 - 1)


def binary_masks(sources: Tensor, mixture: Tensor) -> Tensor:
    """1 where a source, or an estimate of one, has more than half of the mixture's magnitude, on log-spaced rows.

    Args:
        sources: `(N, S)`.
        mixture: `(S,)`.

    Returns:
        `(N, R, T)`.
    """
    magnitudes = to_log_rows(spectrogram(sources).abs())
    whole = to_log_rows(spectrogram(mixture[None]).abs())
    return (magnitudes > THRESHOLD * whole.clamp_min(SILENT_MAGNITUDE)).to(magnitudes.dtype)


def apply_masks(masks: Tensor, mixture: Tensor) -> Tensor:
    """Sounds `(N, S)` of masks `(N, R, T)` on a mixture `(S,)`: back to bins, times its complex spectrogram."""
    return istft(to_linear_bins(masks) * spectrogram(mixture), len(mixture), N_FFT, HOP_LENGTH)


def reconstruct(estimates: Tensor, mixture: Tensor) -> Tensor:
    """What the protocol makes of estimates `(N, S)`: their binary masks on the mixture `(S,)`."""
    return apply_masks(binary_masks(estimates, mixture), mixture)


def _read_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Values at rows in [-1, 1], -1 the first and 1 the last, interpolated linearly."""
    count, frames = len(rows), values.shape[-1]
    x = torch.linspace(-1, 1, frames, dtype=values.dtype, device=values.device)
    grid = torch.stack(
        torch.broadcast_tensors(x[None], rows.to(values.device, values.dtype)[:, None]), dim=-1
    )  # (rows, T, 2)
    grid = grid.expand(len(values), count, frames, 2)
    return F.grid_sample(values[:, None], grid, mode="bilinear", align_corners=True)[:, 0]
