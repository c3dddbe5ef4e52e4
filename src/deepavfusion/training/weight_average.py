"""An exponential moving average of the weights, kept beside them while they are trained (`training.ema`).

After every step the average becomes `d * average + (1 - d) * weights`. After step t (from 1) d is the smaller of the
decay and (1 + t) / (10 + t), so that the initial weights are soon forgotten: the rule of `num_updates` in TensorFlow's
tf.train.ExponentialMovingAverage. A frozen weight is its own average and is left out. In a sharded run the average is
divided as the weights are.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def decay_at(step: int, decay: float) -> float:
    """The decay after `step` steps, from 1."""
    return min(decay, (1 + step) / (10 + step))


def first_average(model: nn.Module) -> dict[str, Tensor]:
    """The average before the first step, by name: a copy of every weight that is trained."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def update_average(average: Mapping[str, Tensor], model: nn.Module, step: int, decay: float) -> None:
    """Take the weights that a model has after `step` steps into the average, in place."""
    weights = dict(model.named_parameters())
    update = get_ema_multi_avg_fn(decay_at(step, decay))
    update(list(average.values()), [weights[name] for name in average], step)
