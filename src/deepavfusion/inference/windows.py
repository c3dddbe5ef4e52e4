"""Windows of sound and moments of a recording of any length, and the mean over windows.

Pure functions. All times are seconds from the start of the recording. The rules are those of evaluation (`data.views`):
windows are evenly spaced from the start of a recording to its end, each with its middle frame, and a recording that is
no longer than a window is one window with the frame in its own middle.

Shape legend: `T` windows, `C` numbers per window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepavfusion.models.config import reference_frame

MAX_SECONDS = 12 * 3600.0
"""Longer recordings are refused: files claim lengths that they do not have, and a wav file of 16 kHz floats ends
before 19 hours."""
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Windows:
    """Evenly spaced windows of a recording."""

    start_seconds: NDArray[np.float64]
    """`(T,)`, ascending; the first is 0, the last window ends with the recording."""
    length_seconds: float
    """Of the recording that a window covers: less than the model's window where the recording is shorter."""

    @property
    def centre_seconds(self) -> NDArray[np.float64]:
        """`(T,)` the middle of each window, where its frame is taken."""
        return self.start_seconds + self.length_seconds / 2

    def frame_seconds(self, num_frames: int) -> NDArray[np.float64]:
        """`(T, num_frames)`: the centres of equal parts of each window, where its frames are taken."""
        return self.start_seconds[:, None] + self.length_seconds * ((np.arange(num_frames) + 0.5) / num_frames)


def check_duration(duration_seconds: float) -> None:
    """Raise ValueError for a length that is no length, or longer than is ever read."""
    if not 0 <= duration_seconds < math.inf:
        raise ValueError(f"claims a length of {duration_seconds} s")
    if duration_seconds > MAX_SECONDS:
        raise ValueError(
            f"claims to be {duration_seconds / 3600:.1f} hours long; at most {MAX_SECONDS / 3600:g} are supported: "
            f"cut it into parts"
        )


def split(duration_seconds: float, window_seconds: float, hop_seconds: float) -> Windows:
    """Windows that cover a recording, as few as lie at most a hop apart.

    Args:
        duration_seconds: of the recording, 0 for a photo.
        window_seconds: of the model.
        hop_seconds: from one window's start to the next at most.

    Raises:
        ValueError: a hop or window that is not positive, or a length that is not read.
    """
    check_duration(duration_seconds)
    if window_seconds <= 0 or hop_seconds <= 0:
        raise ValueError(f"window {window_seconds} s and hop_seconds {hop_seconds} must be positive")
    spare = duration_seconds - window_seconds
    if spare <= _ROUNDING:
        return Windows(np.zeros(1), min(duration_seconds, window_seconds))
    count = math.ceil(spare / hop_seconds - _ROUNDING) + 1
    return Windows(np.arange(count) / max(1, count - 1) * spare, window_seconds)


def step_times(duration_seconds: float, step_seconds: float) -> NDArray[np.float64]:
    """Moments `(T,)` from 0 on, one every step, before the end of a recording; at least one.

    Raises:
        ValueError: a step that is not positive, or a length that is not read.
    """
    check_duration(duration_seconds)
    if step_seconds <= 0:
        raise ValueError(f"step_seconds {step_seconds} must be positive")
    count = max(1, math.ceil(duration_seconds / step_seconds - _ROUNDING))
    return np.arange(count, dtype=np.float64) * np.float64(step_seconds)


def around(moment_seconds: float, window_seconds: float, duration_seconds: float) -> float:
    """Start of the window around a moment; at the ends of a recording of the first or last whole window."""
    return min(max(0.0, moment_seconds - window_seconds / 2), max(0.0, duration_seconds - window_seconds))


def times_around(
    moments_seconds: NDArray[np.float64], window_seconds: float, num_frames: int, duration_seconds: float
) -> NDArray[np.float64]:
    """When the frames around some moments are shown, `(B, T)`, a T-th of a window apart, the reference at the moment.

    At the ends of a recording its first and last frame stand for what is not there.
    """
    steps = (np.arange(num_frames) - reference_frame(num_frames)) * (window_seconds / num_frames)
    times = moments_seconds[:, None] + steps
    return times if num_frames == 1 else times.clip(0, duration_seconds)


def mean_over_windows(values: NDArray[np.float32], present: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Mean `(C,)` of `(T, C)` over the windows that count, in double precision; zeros if none does.

    One window gives its own values back, bit by bit.
    """
    if not present.any():
        return np.zeros(values.shape[1], np.float32)
    return values[present].mean(axis=0, dtype=np.float64).astype(np.float32)
