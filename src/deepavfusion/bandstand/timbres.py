"""The four timbres: notes synthesised from partials, with clearly different spectra and envelopes.

`pluck` is a string: all harmonics, quick attack, high ones die first. `chime` is a struck bar: a few partials off the
harmonic series (those of a free bar), long ring. `reed` is a stopped pipe: odd harmonics, soft attack, vibrato and
breath. `brass` is a horn: all harmonics under a formant, the high ones arriving late.

All timbres play the same notes over the same range; the score alone decides how long a note lasts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float32]
RELEASE_SECONDS = 0.04
HIGHEST_HARMONIC = 24
_BAR = ((1.0, 1.0, 2.2), (2.756, 0.6, 4.5), (5.404, 0.35, 8.0), (8.933, 0.2, 13.0))
"""Partials of a free bar: frequency ratio, amplitude, decay per second. Ratios from the Euler-Bernoulli beam."""


def _harmonics(phase: NDArray[np.float64], gains: NDArray[np.float64], bloom: NDArray[np.float64] | None) -> Wave:
    """Sum of gains[k] * bloom^k * sin((k + 1) phase) by Chebyshev's recurrence: one sine and one cosine in all."""
    twice = 2 * np.cos(phase)
    before, now = np.zeros_like(phase), np.sin(phase)
    growth: NDArray[np.float64] | float = 1.0
    total = np.zeros_like(phase)
    for gain in gains:
        if gain:
            total += gain * growth * now
        before, now = now, twice * now - before
        if bloom is not None:
            growth = growth * bloom
    return total.astype(np.float32)


def _num_harmonics(hertz: float, sample_rate: int) -> int:
    return max(1, min(HIGHEST_HARMONIC, int(0.45 * sample_rate / hertz)))


def _pluck(hertz: float, time: NDArray[np.float64], sample_rate: int, rng: np.random.Generator) -> Wave:
    k = np.arange(1, _num_harmonics(hertz, sample_rate) + 1)
    gains = np.sin(np.pi * k * 0.19) / k**0.8
    # Harmonic k falls off as exp(-(2 + k) t): one common factor and a power of exp(-t).
    body = _harmonics(2 * np.pi * hertz * time, gains, np.exp(-1.1 * time))
    return body * (np.exp(-2.0 * time) * np.clip(time / 0.003, 0, 1)).astype(np.float32)


def _chime(hertz: float, time: NDArray[np.float64], sample_rate: int, rng: np.random.Generator) -> Wave:
    total = np.zeros_like(time)
    for ratio, gain, decay in _BAR:
        if ratio * hertz < 0.45 * sample_rate:
            total += gain * np.exp(-decay * time) * np.sin(2 * np.pi * ratio * hertz * time)
    strike = rng.standard_normal(len(time)) * np.exp(-time / 0.004)
    return ((total + 0.3 * strike) * np.clip(time / 0.001, 0, 1)).astype(np.float32)


def _reed(hertz: float, time: NDArray[np.float64], sample_rate: int, rng: np.random.Generator) -> Wave:
    k = np.arange(1, _num_harmonics(hertz, sample_rate) + 1)
    gains = np.where(k % 2 == 1, 1 / k**0.9, 0.0)
    depth = 0.012 * np.clip((time - 0.1) / 0.2, 0, 1)
    wobble = 2 * np.pi * rng.uniform(5.0, 6.5)
    phase = 2 * np.pi * hertz * (time - depth * np.cos(wobble * time) / wobble)
    breath = 0.04 * rng.standard_normal(len(time))
    return (_harmonics(phase, gains, None) + breath).astype(np.float32) * _soft(time, 0.045)


def _brass(hertz: float, time: NDArray[np.float64], sample_rate: int, rng: np.random.Generator) -> Wave:
    k = np.arange(1, _num_harmonics(hertz, sample_rate) + 1)
    formant = 0.25 + np.exp(-0.5 * ((k * hertz - 1300) / 600) ** 2)
    bloom = 0.97 - 0.30 * np.exp(-time / 0.06)
    return _harmonics(2 * np.pi * hertz * time, formant / k**0.5, bloom) * _soft(time, 0.03)


def _soft(time: NDArray[np.float64], attack_seconds: float) -> Wave:
    return np.clip(time / attack_seconds, 0, 1).astype(np.float32)


TIMBRES: dict[str, Callable[[float, NDArray[np.float64], int, np.random.Generator], Wave]] = {
    "pluck": _pluck,
    "chime": _chime,
    "reed": _reed,
    "brass": _brass,
}


def play(timbre: str, hertz: float, duration_seconds: float, sample_rate: int, rng: np.random.Generator) -> Wave:
    """One note of unit strength.

    Args:
        timbre: a name in `TIMBRES`.
        hertz: its pitch.
        duration_seconds: its length; it fades over the last `RELEASE_SECONDS`.
        sample_rate: samples per second.
        rng: chance for breath, vibrato and strike noise.

    Returns:
        float32 samples, root mean square 1 over the note's first 0.15 s, so that all families strike equally loud.
    """
    time = np.arange(round(duration_seconds * sample_rate)) / sample_rate
    wave = TIMBRES[timbre](hertz, time, sample_rate, rng)
    wave *= np.clip((duration_seconds - time) / RELEASE_SECONDS, 0, 1).astype(np.float32)
    head = wave[: round(0.15 * sample_rate)]
    return wave / np.float32(np.sqrt(np.mean(head * head)) + 1e-9)
