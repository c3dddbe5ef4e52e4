"""Waveform arithmetic: how a sound that is too short is continued."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def continue_sound(waveform: npt.NDArray[np.float32], num_samples: int) -> npt.NDArray[np.float32]:
    """Bring a sound to `num_samples` samples: a short one is followed by its own time-reversal, again and again.

    `waveform` is `(n,)`. The edge sample is repeated at every turn (1 2 3 becomes 1 2 3 3 2 1 1 2 ...), as the method
    asks of audio shorter than its window. A longer sound is cut at its end. Returns `(num_samples,)` of the same type;
    an input of the right length is returned as it is. Raises ValueError for an empty or multichannel waveform and for
    `num_samples` < 1.
    """
    if waveform.ndim != 1:
        raise ValueError(f"a waveform must have one dimension (mono samples), got shape {waveform.shape}")
    if waveform.size == 0:
        raise ValueError("an empty waveform cannot be continued: the clip has no sound in this window")
    if num_samples < 1:
        raise ValueError(f"num_samples must be positive, got {num_samples}")
    missing = num_samples - waveform.size
    if missing <= 0:
        return waveform[:num_samples]
    return np.pad(waveform, (0, missing), mode="symmetric")
