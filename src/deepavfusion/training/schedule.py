"""Learning-rate factors as pure functions of the step (section 4 of the method).

A step is counted from 0; factors multiply the peak rate and are set before every optimiser step.
"""

from __future__ import annotations

import math


def peak_lr(blr: float, batch_size: int) -> float:
    """The linear scaling rule: `blr` is the rate for 256 samples per optimiser step."""
    return blr * batch_size / 256


def lr_factor(step: int, total_steps: int, warmup_steps: int) -> float:
    """Linear warm-up, then half a cosine to 0: a factor in (0, 1].

    The first step takes 1 / warmup_steps of the peak (a rate of 0 would waste it), the last warm-up step the peak;
    the cosine would touch 0 one step after the last.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, total_steps - warmup_steps)))


def ramp_factor(step: int, ramp_steps: float) -> float:
    """Half a cosine rising from 0 at the first step to 1 at `ramp_steps`, 1 from there on.

    Parameters that start from published weights take this factor on top, so that the newly initialised ones settle
    first.
    """
    if step >= ramp_steps:
        return 1.0
    return 0.5 * (1 - math.cos(math.pi * step / ramp_steps))


def num_steps(epochs: float, num_clips: int, batch_size: int) -> int:
    """Optimiser steps that draw every clip `epochs` times; the last step may reach into the next epoch."""
    return max(1, math.ceil(round(epochs * num_clips, 6) / batch_size))


def is_due(every_epochs: float, step: int, epochs_per_step: float, last: bool = False) -> bool:
    """Whether the first `step` steps have just completed another `every_epochs` epochs, or are all there are
    (`last`); 0 is never due."""
    if every_epochs <= 0:
        return False
    if last:
        return True
    return math.floor(step * epochs_per_step / every_epochs) > math.floor((step - 1) * epochs_per_step / every_epochs)
