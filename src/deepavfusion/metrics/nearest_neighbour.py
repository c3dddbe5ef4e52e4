"""Leave-one-out nearest-neighbour accuracy of features, a probe that needs no training.

Section 4 of the method ("Monitoring"). Shapes: `N` samples, `D` features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS = 1024
"""Rows of the similarity matrix computed at a time."""


def leave_one_out_top1(features: Sequence[Tensor], labels: Tensor) -> float:
    """Share of samples whose nearest other sample has their label.

    Similarity is the cosine; of several features it is the sum of their cosines. Of equally near samples the first
    counts.

    Args:
        features: one or more `(N, D)`, any scale.
        labels: `(N,)` class numbers.

    Returns:
        A share in [0, 1], higher is better.

    Raises:
        ValueError: fewer than two samples, no features, or lengths that differ.
    """
    if not features or len(labels) < 2 or any(len(f) != len(labels) for f in features):
        raise ValueError(
            f"nearest neighbours need at least two samples and as many features as labels, got {len(labels)} labels "
            f"and features {[tuple(f.shape) for f in features]}"
        )
    units = [F.normalize(f.float(), dim=1) for f in features]
    correct = 0
    for start in range(0, len(labels), _ROWS):
        rows = torch.arange(start, min(start + _ROWS, len(labels)), device=labels.device)
        similarity = torch.stack([u[rows] @ u.T for u in units]).sum(dim=0)  # (rows, N)
        similarity[torch.arange(len(rows), device=labels.device), rows] = -torch.inf  # not itself
        correct += int((labels[similarity.argmax(dim=1)] == labels[rows]).sum())
    return correct / len(labels)
