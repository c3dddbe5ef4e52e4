"""Log-mel against the stored reference, a slow independent form, and what must not change it."""

import numpy as np
import pytest
import torch

from deepavfusion.audio import HOP_LENGTH, N_FFT, SAMPLE_RATE, log_mel, mel_filterbank
from tests.models.reference_cases import log_mel_deviation


def test_reference() -> None:
    assert log_mel_deviation() < 1e-4


def test_equals_the_definition_frame_by_frame() -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal(4000)
    padded = np.pad(x, N_FFT // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    bands = 128
    top = 2595 * np.log10(1 + 8000 / 700)
    edges = 700 * (10 ** (np.arange(bands + 2) / (bands + 1) * top / 2595) - 1)
    frequencies = np.arange(N_FFT // 2 + 1) * SAMPLE_RATE / N_FFT
    found = log_mel(torch.tensor(x)[None])[0, 0].numpy()
    assert found.shape == (128, 16)
    for frame in (0, 7, 15):
        power = np.abs(np.fft.rfft(padded[frame * HOP_LENGTH :][:N_FFT] * window)) ** 2
        for band in (0, 3, 60, 127):
            low, peak, high = edges[band : band + 3]
            triangle = np.interp(frequencies, [low, peak, high], [0, 1, 0], left=0, right=0)
            assert found[band, frame] == pytest.approx(np.log10(triangle @ power + 1e-7), abs=1e-9)


def test_silence_and_gain() -> None:
    assert torch.all(log_mel(torch.zeros(2, 8000)) == -7)
    x = torch.randn(1, 8000)
    torch.testing.assert_close(log_mel(10 * x) - log_mel(x), torch.full((1, 1, 128, 32), 2.0), atol=1e-2, rtol=0)


def test_a_tone_lights_its_band() -> None:
    t = torch.arange(SAMPLE_RATE) / SAMPLE_RATE
    spectrum = log_mel(torch.sin(2 * torch.pi * 1000 * t)[None])[0, 0, :, 32]
    centre = 700 * (10 ** ((spectrum.argmax().item() + 1) / 129 * 2595 * np.log10(1 + 8000 / 700) / 2595) - 1)
    assert abs(centre - 1000) < 30


def test_precision_does_not_follow_autocast() -> None:
    x = torch.randn(1, 8000)
    with torch.autocast("cpu", torch.bfloat16):
        found = log_mel(x)
    assert torch.equal(found, log_mel(x))


def test_usable_in_training_after_inference_mode() -> None:
    with torch.inference_mode():
        log_mel(torch.randn(1, 8000), n_mels=40)
    x = torch.randn(1, 8000, requires_grad=True)
    log_mel(x, n_mels=40).sum().backward()
    assert x.grad is not None


def test_filters_cover_the_band() -> None:
    filters = mel_filterbank(dtype=torch.float64)
    assert filters.shape == (401, 128)
    assert filters.min() >= 0
    assert filters.max() <= 1
    inside = filters.sum(dim=1)[5:-10]  # neighbouring triangles add up to 1
    torch.testing.assert_close(inside, torch.ones_like(inside))


@pytest.mark.parametrize("shape", [(48_000,), (1, 1, 48_000), (1, 400)])
def test_bad_shapes_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="log_mel needs"):
        log_mel(torch.zeros(shape))
