"""Overlap-add: long sound is cut into windows, processed and put together. Pure functions on tensors and iterators.

Windows of `W` samples start every `W / 2`. In an overlap the earlier one fades out as the later one fades in, with
weights 1 - sin^2 and sin^2; where only one window lies its weight is one. So a process that returns its input gives
exactly the input, and a recording that fits into one window is processed as that window.

Shape legend: `W` samples of a window, `N` outputs of the process, `S` samples of a recording.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

Process = Callable[[Tensor], Tensor]
"""From a window `(W,)` to outputs `(N, W)`."""


def fade_in(num_samples: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """sin^2 from near 0 to near 1, `(num_samples,)`; reversed it is 1 minus itself, but for rounding."""
    angles = (torch.arange(num_samples, dtype=torch.float64) + 0.5) / num_samples * (math.pi / 2)
    return torch.sin(angles).square().to(dtype)


def overlap_add(blocks: Iterable[Tensor], window: int, process: Process) -> Iterator[Tensor]:
    """Process a recording of any length in bounded memory.

    Where the recording ends within a window it is followed there by its own time-reversal, as short inputs of the
    encoder are; outputs end with the recording.

    Args:
        blocks: the recording, one part after the other, each `(n,)` of any length.
        window: samples of a window, `W`, even.
        process: what is done with each window.

    Yields:
        Parts of the outputs `(N, n)`, one after the other, as many samples in all as the recording has.

    Raises:
        ValueError: an odd or too small window, or a recording without samples.
    """
    if window < 2 or window % 2:
        raise ValueError(f"window {window} must be even and at least 2")
    hop = window // 2
    held = torch.zeros(0)  # what is known of the recording from the start of the next window on
    tail: Tensor | None = None  # second half of the last window's outputs
    for block in blocks:
        held = torch.cat([held, block])
        while len(held) > window:  # only then is this window not the last
            outputs = process(held[:window])
            yield _crossfade(tail, outputs[:, :hop])
            tail, held = outputs[:, hop:], held[hop:]
    if not len(held):
        raise ValueError("a recording without samples cannot be processed")
    outputs = process(fill(held, window))
    if tail is None:
        yield outputs[:, : len(held)]
    else:
        yield torch.cat([_crossfade(tail, outputs[:, :hop]), outputs[:, hop:]], dim=1)[:, : len(held)]


def fill(waveform: Tensor, num_samples: int) -> Tensor:
    """A sound followed by its time-reversal, again and again, until it has `num_samples`: `(n,)`, n at least 1."""
    period = torch.cat([waveform, waveform.flip(0)])
    return period.repeat(-(-num_samples // len(period)))[:num_samples]


def consistent(estimates: Tensor, mixture: Tensor) -> Tensor:
    """Estimates that add up to the mixture: the difference is divided evenly among them (Wisdom et al. 2019).

    Args:
        estimates: `(..., N, S)`.
        mixture: `(..., S)`.

    Returns:
        `(..., N, S)`.
    """
    lacking = mixture - estimates.sum(dim=-2)
    return estimates + (lacking / estimates.shape[-2]).unsqueeze(-2)


def _crossfade(earlier: Tensor | None, later: Tensor) -> Tensor:
    if earlier is None:
        return later
    # As earlier + fade * (later - earlier) it is exact where the two agree.
    return torch.lerp(earlier, later, fade_in(later.shape[1], later.dtype).to(later.device))
