"""Spectrograms and masks: exact inverses, masks that leave a clean source alone, mel bands on bins."""

from __future__ import annotations

import pytest
import torch

from deepavfusion.audio import log_mel, mel_filterbank
from deepavfusion.stft import (
    dominance_mask,
    istft,
    linear_to_mel,
    mel_mapping,
    mel_to_linear,
    ratio_mask,
    stft,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_inverse_gives_the_waveform_back() -> None:
    for n_fft, hop, samples in ((1024, 250, 8000), (1024, 250, 8001), (1022, 256, 65535), (64, 16, 500)):
        waveform = noise(2, 3, samples)
        spectrum = stft(waveform, n_fft, hop)
        assert spectrum.shape == (2, 3, n_fft // 2 + 1, samples // hop + 1)
        torch.testing.assert_close(istft(spectrum, samples, n_fft, hop), waveform, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="needs more than 512 samples, got 512"):
        stft(noise(512))


def test_frames_are_those_of_the_log_mel_spectrogram() -> None:
    click = torch.zeros(1, 16000)
    click[0, 250 * 40] = 1
    assert stft(click).abs().sum(1).argmax() == log_mel(click).exp().sum((1, 2)).argmax() == 40
    assert stft(click).shape[-1] == log_mel(click).shape[-1] + 1


def test_masks_of_a_clean_source_leave_it_alone() -> None:
    waveform = noise(1, 8000)
    spectrum = stft(waveform)
    nobody = spectrum.new_zeros(1, 0, *spectrum.shape[1:])
    for mask in (
        ratio_mask(spectrum, spectrum),
        dominance_mask(spectrum, nobody),
    ):
        torch.testing.assert_close(istft(mask * spectrum, 8000), waveform, rtol=0, atol=1e-9)


def test_ratio_and_dominance_by_hand() -> None:
    a, b = torch.tensor([[[3.0 + 0j, 1j, 0, 2, 1]]]), torch.tensor([[[1.0 + 0j, 1, 0, -2, -1.5]]])
    # Magnitudes 3, 1, 0, 2, 1 and 1, 1, 0, 2, 1.5; of the sum 4, sqrt 2, 0, 0, 0.5.
    torch.testing.assert_close(ratio_mask(a, a + b), torch.tensor([[[0.75, 0.5**0.5, 0.0, 1.0, 1.0]]]))
    torch.testing.assert_close(dominance_mask(a, b[:, None]), torch.tensor([[[1.0, 1, 0, 1, 0]]]))
    torch.testing.assert_close(dominance_mask(b, a[:, None]), torch.tensor([[[0.0, 1, 0, 1, 1]]]))
    three = torch.stack([b, 2 * a], dim=1)
    torch.testing.assert_close(dominance_mask(a, three), torch.zeros(1, 1, 5))


def test_mel_masks_follow_the_formula() -> None:
    mask = torch.rand(2, 16, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    filters = mel_filterbank(16, 256, dtype=torch.float64)  # (F, M)
    linear = mel_to_linear(mask, 256)
    assert linear.shape == (2, 129, 5)
    for f in range(129):
        total = filters[f].sum()
        if total > 1e-9:
            by_hand = sum(filters[f, m] * mask[:, m] for m in range(16)) / total
            torch.testing.assert_close(linear[:, f], by_hand)
    assert max(filters[0].sum(), filters[-1].sum()) < 1e-9  # no filter covers 0 Hz and Nyquist, but for rounding
    assert torch.equal(linear[:, 0], mask[:, 0])
    assert torch.equal(linear[:, -1], mask[:, -1])
    torch.testing.assert_close(mel_to_linear(torch.full((1, 128, 3), 0.3)), torch.full((1, 513, 3), 0.3))
    torch.testing.assert_close(mel_mapping(128, 1024, torch.float32, torch.device("cpu")).sum(1), torch.ones(513))
    ones = linear_to_mel(torch.ones(1, 129, 2, dtype=torch.float64), 16, 256)
    torch.testing.assert_close(ones[0, :, 0], filters.sum(0))
