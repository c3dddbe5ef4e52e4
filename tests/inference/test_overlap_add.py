"""Windows over long sound: nothing is added, lost or blurred by cutting and joining."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from deepavfusion.data.waveforms import continue_sound
from deepavfusion.inference.overlap_add import consistent, fade_in, fill, overlap_add


def sound(num_samples: int) -> Tensor:
    return torch.randn(num_samples, generator=torch.Generator().manual_seed(num_samples))


def blocks(waveform: Tensor, size: int) -> list[Tensor]:
    return list(waveform.split(size)) if size else [waveform]


@pytest.mark.parametrize("num_samples", [1, 5, 63, 64, 65, 96, 97, 128, 129, 1000])
@pytest.mark.parametrize("block", [0, 7, 64, 300])
def test_a_process_that_does_nothing_gives_the_sound_back_exactly(num_samples: int, block: int) -> None:
    waveform = sound(num_samples)
    parts = list(overlap_add(blocks(waveform, block), 64, lambda window: torch.stack([window, 2 * window])))
    joined = torch.cat(parts, dim=1)
    assert torch.equal(joined[0], waveform)
    assert torch.equal(joined[1], 2 * waveform)


def test_windows_start_every_half_window_and_end_with_the_sound() -> None:
    waveform, seen = sound(150), []

    def process(window: Tensor) -> Tensor:
        seen.append(window.clone())
        return window[None]

    list(overlap_add(blocks(waveform, 11), 64, process))
    assert [torch.equal(w, waveform[32 * k : 32 * k + 64]) for k, w in enumerate(seen[:-1])] == [True] * 3
    last = waveform[96:]  # 54 samples, then their reversal
    assert torch.equal(seen[-1], torch.cat([last, last.flip(0)[:10]]))
    assert len(seen) == 4


def test_one_window_is_that_window() -> None:
    for num_samples in (20, 64):
        waveform = sound(num_samples)
        weights = sound(128).reshape(2, 64)
        whole = list(overlap_add([waveform], 64, lambda window: weights * window))  # noqa: B023
        assert len(whole) == 1
        assert torch.equal(whole[0], (weights * fill(waveform, 64))[:, :num_samples])


def test_overlaps_fade_from_one_window_to_the_next() -> None:
    numbers = iter([1.0, 2.0, 5.0])
    parts = overlap_add([torch.zeros(128)], 64, lambda _: torch.full((1, 64), next(numbers)))
    joined = torch.cat(list(parts), dim=1)[0]
    fade = torch.sin((torch.arange(32) + 0.5) / 32 * torch.pi / 2) ** 2
    by_hand = torch.cat([torch.ones(32), 1 + fade, 2 + 3 * fade, torch.full((32,), 5.0)])
    torch.testing.assert_close(joined, by_hand)
    torch.testing.assert_close(fade_in(32) + fade_in(32).flip(0), torch.ones(32))


def test_no_more_is_held_than_a_window_and_a_block() -> None:
    """The recording is endless: parts come out while it goes in."""
    read = 0

    def endless() -> object:
        nonlocal read
        while True:
            read += 16
            yield torch.ones(16)

    done = 0
    parts = overlap_add(endless(), 64, lambda window: window[None])  # type: ignore[arg-type]
    for _ in range(100):
        done += next(parts).shape[1]
        assert read - done <= 64 + 16
    assert done == 3200


def test_filling_is_the_continuation_of_training() -> None:
    for num_samples, wanted in ((3, 20), (7, 8), (5, 5)):
        waveform = sound(num_samples)
        np.testing.assert_array_equal(fill(waveform, wanted).numpy(), continue_sound(waveform.numpy(), wanted))


def test_consistent_estimates_add_up_and_change_as_little_as_possible() -> None:
    estimates, mixture = sound(60).reshape(3, 20), sound(20)
    made = consistent(estimates, mixture)
    torch.testing.assert_close(made.sum(0), mixture)
    change = made - estimates
    torch.testing.assert_close(change, change[:1].expand(3, -1))  # the projection: one and the same for all
    torch.testing.assert_close(consistent(made, mixture), made)


def test_what_cannot_be_processed_is_refused() -> None:
    with pytest.raises(ValueError, match="window 63 must be even"):
        list(overlap_add([sound(5)], 63, lambda window: window[None]))
    with pytest.raises(ValueError, match="without samples"):
        list(overlap_add([torch.zeros(0)], 64, lambda window: window[None]))
