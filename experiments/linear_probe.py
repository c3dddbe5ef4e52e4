"""Linear probes: what a linear classifier tells from standardised features.

Shape legend: `N` samples to learn from, `M` samples of the test, `D` width of features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DECAY = 1e-2
"""Half of it times the squared weights is added to the cross-entropy."""


@torch.enable_grad()
def right(x: Tensor, classes: Tensor, x_test: Tensor, classes_test: Tensor, decay: float = DECAY) -> Tensor:
    """Which samples of the test a linear classifier on standardised features tells.

    Args:
        x: `(N, D)`.
        classes: `(N,)` numbers from 0.
        x_test: `(M, D)`.
        classes_test: `(M,)`.
        decay: half of it times the squared weights is added to the cross-entropy.

    Returns:
        `(M,)` bool.
    """
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    x, x_test = (x - mean) / deviation, (x_test - mean) / deviation
    classifier = nn.Linear(x.shape[1], int(classes.max()) + 1)
    nn.init.zeros_(classifier.weight)
    nn.init.zeros_(classifier.bias)
    optimizer = torch.optim.LBFGS(classifier.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(classifier(x), classes) + decay / 2 * classifier.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return classifier(x_test).argmax(1) == classes_test


def accuracy(x: Tensor, classes: Tensor, x_test: Tensor, classes_test: Tensor) -> float:
    """Share of samples of the test that a linear classifier tells; see `right`."""
    return float(right(x, classes, x_test, classes_test).float().mean())
