"""Standardisation of the tokens that a head reads: every feature by its own mean and standard deviation.

Features of encoders trained by masked reconstruction are badly scaled: what all tokens have in common is many times
larger than what distinguishes them, and a LayerNorm, which looks at one token, does not change that. A head that has to
compare image and sound, by a product of two small differences, then gets almost no gradient at first. Linear probes of
masked autoencoders have a BatchNorm for this reason (He et al. 2022). Here the statistics are measured once, on the
first training samples, and stay fixed: predictions do not depend on the batch, and all processes agree.

Shape legend: `N` tokens of any leading dimensions, `D` features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_DEVIATION = 1e-3
"""Features that vary less, after a LayerNorm, are not blown up further."""


class TokenNorm(nn.Module):
    """LayerNorm without scale and shift, then standardised features; before `measuring` the LayerNorm alone."""

    mean: Tensor
    """`(D,)` of each feature over tokens of the training data."""
    deviation: Tensor
    """`(D,)` likewise."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))
        self.seen: list[Tensor] | None = None
        """While measured: float64 `(3, D)` of each call, count, sum and sum of squares."""

    def forward(self, x: Tensor) -> Tensor:
        """`(..., D)` -> `(..., D)`."""
        y = F.layer_norm(x, x.shape[-1:])
        if self.seen is not None:
            self.seen.append(_sums(x, y))
        return (y - self.mean) / self.deviation

    def settle(self, seen: Sequence[Tensor]) -> None:
        """Set the statistics from what was seen, `(3, D)` each; nothing seen leaves them as they are."""
        count, total, squares = sum(seen, torch.zeros(3, len(self.mean), dtype=torch.float64))
        if count[0] > 1:
            mean = total / count
            deviation = (squares / count - mean.square()).clamp_min(0).sqrt().clamp_min(LEAST_DEVIATION)
            self.mean.copy_(mean)
            self.deviation.copy_(deviation)


@contextmanager
def measuring(model: nn.Module) -> Iterator[None]:
    """What every `TokenNorm` of a model sees in this block becomes its statistics at the end of it."""
    with recording(model) as seen:
        yield
    for norm, own in zip(token_norms(model), seen, strict=True):
        norm.settle(own)


@contextmanager
def recording(model: nn.Module) -> Iterator[list[list[Tensor]]]:
    """What every `TokenNorm` of a model sees in this block: by norm (`token_norms`), by call, for `settle`."""
    norms = token_norms(model)
    seen: list[list[Tensor]] = [[] for _ in norms]
    for norm, own in zip(norms, seen, strict=True):
        norm.seen = own
    try:
        yield seen
    finally:
        for norm in norms:
            norm.seen = None


def token_norms(model: nn.Module) -> list[TokenNorm]:
    """Every `TokenNorm` of a model, in a fixed order."""
    return [module for module in model.modules() if isinstance(module, TokenNorm)]


def _sums(x: Tensor, y: Tensor) -> Tensor:
    """Count, sum and sum of squares of tokens, float64 `(3, D)` on the host.

    Tokens that are exactly zero stand for an absent picture or sound and are left out.
    """
    rows = y.detach()[x.detach().ne(0).any(dim=-1)].double()
    total = rows.sum(dim=0)
    return torch.stack([torch.full_like(total, len(rows)), total, rows.square().sum(dim=0)]).cpu()
