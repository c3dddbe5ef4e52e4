"""Average precision of many rankings at once, as scikit-learn defines it.

Shapes: `N` ranked items (clips or pixels), `C` rankings (classes or maps).
"""

from __future__ import annotations

import torch
from torch import Tensor

_CELLS = 1 << 22
"""Cells of `N x C` sorted at a time."""


def average_precision(scores: Tensor, targets: Tensor) -> Tensor:
    """Sum over thresholds of the step in recall times the precision there, for each column.

    AP = sum_n (R_n - R_(n-1)) P_n over the distinct scores from the highest down: items with the same score are
    retrieved together (scikit-learn's `average_precision_score`; no interpolation). A column with one score
    throughout has its share of positives as AP.

    Args:
        scores: `(N, C)`, any range, infinities allowed.
        targets: `(N, C)`, true or 1 where the item is a positive.

    Returns:
        float64 `(C,)` in [0, 1], higher is better; NaN for a column without a positive.

    Raises:
        ValueError: shapes that differ or are no matrix, no items, or a score that is no number.
    """
    if scores.ndim != 2 or scores.shape != targets.shape or not len(scores):
        raise ValueError(f"expected scores and targets of one shape (N, C), got {scores.shape} and {targets.shape}")
    if bool(scores.isnan().any()):
        raise ValueError(f"{int(scores.isnan().sum())} of {scores.numel()} scores are NaN and cannot be ranked")
    width = max(1, _CELLS // len(scores))
    pairs = zip(scores.split(width, dim=1), targets.bool().split(width, dim=1), strict=True)
    return torch.cat([_of_columns(s, t) for s, t in pairs])


def _of_columns(scores: Tensor, targets: Tensor) -> Tensor:
    count = len(scores)
    scores, order = scores.sort(dim=0, descending=True)
    positive = targets.gather(0, order).double()
    rank = torch.arange(1, count + 1, device=scores.device)[:, None]
    found = positive.cumsum(dim=0)
    ends = torch.ones_like(scores, dtype=torch.bool)
    ends[:-1] = scores[:-1] != scores[1:]
    # Every item takes the precision at the end of its group of equal scores.
    group_end = torch.where(ends, rank, count).flip(0).cummin(dim=0).values.flip(0) - 1
    precision = (found / rank).gather(0, group_end)
    return (positive * precision).sum(dim=0) / found[-1]  # 0 / 0 = NaN without a positive
