"""LARS: momentum whose step for each weight matrix is proportional to the matrix's own norm (You et al. 2017).

It is used for large-batch training of a linear classifier on frozen features (section 5 of the method). Vectors
(biases, norms) take plain momentum steps.

A step at rate 1 changes a matrix by a hundredth of its norm (trust 0.001, momentum 0.9), whatever the gradient: over a
run weights can grow to about the sum of the rates times that. The published rate is for 10,000 steps; a small data set
of a few hundred steps needs one up to a thousand times higher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer

TRUST = 0.001
"""Size of a step at rate 1 and without momentum, as a share of the norm of the weights."""


class LARS(Optimizer):
    """With g the gradient plus weight_decay times the weights w:

        v <- momentum v + trust |w| / |g| g;  w <- w - lr v

    The ratio is 1 where either norm is 0, and for parameters with fewer than two dimensions, which are not decayed
    either.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        trust: float = TRUST,
    ) -> None:
        if lr < 0 or weight_decay < 0 or not 0 <= momentum < 1 or trust <= 0:
            raise ValueError(
                f"lr {lr}, weight_decay {weight_decay}, momentum {momentum} or trust {trust} is out of range"
            )
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; the host does not wait for the device. Returns what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is None:
                    continue
                update = w.grad
                if w.ndim > 1:
                    update = update + group["weight_decay"] * w
                    weight_norm, update_norm = w.norm(), update.norm()
                    both = (weight_norm > 0) & (update_norm > 0)
                    update = update * torch.where(both, group["trust"] * weight_norm / update_norm, 1.0)
                state = self.state[w]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(w)
                velocity = state["momentum_buffer"]
                velocity.mul_(group["momentum"]).add_(update)
                w.add_(velocity * -group["lr"])
        return loss
