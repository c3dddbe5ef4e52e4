"""The sound of a recording in successive windows, each sample read from the file once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from deepavfusion.audio import SAMPLE_RATE
from deepavfusion.inference.inputs import Recording

BLOCK_SECONDS = 30.0
"""How much sound is read at a time."""


class SlidingSound:
    """Windows of a recording's sound at 16 kHz, in bounded memory."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._held = np.zeros(0, np.float32)
        self._first = 0
        """Number of the first sample held."""
        self._num_blocks = 0
        self._ended = not recording.info.has_sound

    def window(self, start_seconds: float, duration_seconds: float) -> NDArray[np.float32]:
        """Samples `(n,)` of a window; fewer than asked, or none, where the sound ends.

        Raises:
            ValueError: a start before the last one's.
            MediaError: the sound cannot be read.
        """
        first = round(start_seconds * SAMPLE_RATE)
        last = first + round(duration_seconds * SAMPLE_RATE)
        if first < self._first:
            raise ValueError(f"windows must ascend: sample {first} comes after {self._first}")
        parts, end = [self._held], self._first + len(self._held)
        while end < last and not self._ended:
            block = self._next_block()
            parts.append(block)
            end += len(block)
            if first > end:  # nothing of what is held is wanted any more
                parts, self._first = [np.zeros(0, np.float32)], end
        held = np.concatenate(parts) if len(parts) > 1 else parts[0]
        self._held, self._first = held[max(0, first - self._first) :], max(first, self._first)
        return self._held[: last - self._first]

    def _next_block(self) -> NDArray[np.float32]:
        block = self._recording.sound(self._num_blocks * BLOCK_SECONDS, BLOCK_SECONDS)
        self._num_blocks += 1
        self._ended = len(block) < round(BLOCK_SECONDS * SAMPLE_RATE)
        return block


def sound_blocks(recording: Recording) -> Iterator[NDArray[np.float32]]:
    """The whole sound from its start to its end, in parts `(n,)`."""
    number = 0
    while True:
        block = recording.sound(number * BLOCK_SECONDS, BLOCK_SECONDS)
        if len(block):
            yield block
        if len(block) < round(BLOCK_SECONDS * SAMPLE_RATE):
            return
        number += 1
