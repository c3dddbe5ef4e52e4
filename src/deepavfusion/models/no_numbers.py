"""Detects model outputs that are NaN or infinite, for example of weights from a run that diverged.

They are the model's fault, not a file's, and must not be taken for a result.

Shape legend: `B` samples of a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

NO_NUMBERS = "the model gives no numbers (NaN)"


class NoNumbersError(ArithmeticError):
    """A model's output is not finite."""

    def __init__(self, where: str = "") -> None:
        super().__init__(f"{NO_NUMBERS}{where}")


def check_numbers(*outputs: Tensor) -> None:
    """Raise NoNumbersError unless every value is finite."""
    if not all(bool(output.isfinite().all()) for output in outputs):
        raise NoNumbersError


def check_weights(model: nn.Module, source: str) -> None:
    """Raise NoNumbersError if a tensor of the model, which comes from `source`, holds a value that is not finite."""
    bad = [name for name, value in model.state_dict().items() if not bool(value.isfinite().all())]
    if bad:
        raise NoNumbersError(f": {len(bad)} tensors from {source} hold none, such as {bad[0]}")


def without_numbers(output: Tensor, present: Tensor | None = None) -> frozenset[int]:
    """Samples of `(B, ...)` of which a value is not finite, among those whose flag `(B,)` is set."""
    bad = ~output.detach().isfinite().reshape(len(output), -1).all(dim=1)
    bad = bad if present is None else bad & present.bool()
    return frozenset(torch.nonzero(bad)[:, 0].tolist())
