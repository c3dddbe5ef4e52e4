"""The Sound-of-Pixels protocol: its grid against an independent reading of it, masks, reconstruction."""

from __future__ import annotations

import numpy as np
import torch

from deepavfusion.evaluation.separation.sound_of_pixels import (
    NUM_SAMPLES,
    apply_masks,
    binary_masks,
    reconstruct,
    spectrogram,
    to_linear_bins,
    to_log_rows,
)
from deepavfusion.metrics.separation import si_sdr


def sources() -> torch.Tensor:
    times = torch.arange(NUM_SAMPLES, dtype=torch.float32) / 11025
    low = sum(torch.sin(2 * torch.pi * 220 * k * times) / k for k in (1, 2, 3))
    high = sum(torch.sin(2 * torch.pi * 1470 * k * times) / k for k in (1, 2))
    return 0.2 * torch.stack([low, high])  # type: ignore[list-item]


def test_sizes_are_the_protocols() -> None:
    spectrum = spectrogram(sources())
    assert spectrum.shape == (2, 512, 256)
    assert to_log_rows(spectrum.abs()).shape == (2, 256, 256)
    assert to_linear_bins(torch.zeros(2, 256, 256)).shape == (2, 512, 256)


def test_rows_are_spaced_by_the_published_formula() -> None:
    """Slow reference: each row reads a fractional bin of the linear axis, linearly between two."""
    values = torch.rand(1, 512, 3, generator=torch.Generator().manual_seed(0))
    for function, count, size, formula in (
        (to_log_rows, 256, 512, lambda y: (21 ** ((y + 1) / 2) - 11) / 10),
        (to_linear_bins, 512, 256, lambda y: np.log(10 * y + 11) / np.log(21) * 2 - 1),
    ):
        column = values[0, :size, 1].double().numpy()
        by_hand = []
        for y in np.linspace(-1, 1, count):
            place = (formula(y) + 1) / 2 * (size - 1)
            by_hand.append(np.interp(place, np.arange(size), column))
        found = function(values[:, :size])[0, :, 1]
        np.testing.assert_allclose(found.numpy(), by_hand, atol=1e-4)
    # Half of the rows lie under a quarter of the spectrum: 21^(1/2) of 1 to 21.
    ramp = torch.linspace(0, 1, 512)[None, :, None].expand(1, 512, 2)
    assert abs(float(to_log_rows(ramp)[0, 128, 0]) - 0.18) < 0.01


def test_a_constant_comes_back_constant_and_smooth_values_nearly_so() -> None:
    torch.testing.assert_close(to_linear_bins(to_log_rows(torch.full((1, 512, 4), 0.7))), torch.full((1, 512, 4), 0.7))
    smooth = torch.sin(torch.linspace(0, 6, 512))[None, :, None].expand(1, 512, 4)
    torch.testing.assert_close(to_linear_bins(to_log_rows(smooth)), smooth, atol=2e-3, rtol=0)


def test_masks_compare_with_half_the_mixture() -> None:
    parts = sources()
    masks = binary_masks(parts, parts.sum(0))
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    loud = to_log_rows(spectrogram(parts.sum(0)[None]).abs())[0] > 1
    # Unlike tones: nearly every cell in which something is heard belongs to one of them.
    assert (masks.sum(0)[loud] == 1).float().mean() > 0.95
    assert not binary_masks(torch.zeros(1, NUM_SAMPLES), torch.zeros(NUM_SAMPLES)).any()


def test_true_sources_are_reconstructed_and_a_clean_one_stays() -> None:
    parts = sources()
    estimates = reconstruct(parts, parts.sum(0))
    assert (si_sdr(parts, estimates) > 15).all()
    assert (si_sdr(parts, parts.sum(0).expand_as(parts)) < 5).all()
    torch.testing.assert_close(apply_masks(torch.ones(1, 256, 256), parts[0]), parts[:1], atol=1e-5, rtol=0)
    clean = reconstruct(parts[:1], parts[0])
    assert si_sdr(parts[:1], clean) > 20
