"""Class statistics: targets, log-odds, weights of a class-balanced loss, and the loss itself.

Shapes: `B` batch, `N` clips, `C` classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def multi_hot(labels: Sequence[Sequence[str]], classes: Sequence[str]) -> Tensor:
    """Targets float32 `(B, C)`, 1 at each clip's labels.

    Raises:
        ValueError: a label that is not among the classes.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    targets = torch.zeros(len(labels), len(classes))
    for row, own in enumerate(labels):
        for label in own:
            if label not in numbers:
                raise ValueError(f"label {label!r} is not among the {len(classes)} classes")
            targets[row, numbers[label]] = 1
    return targets


def class_counts(labels: Sequence[Sequence[str]], classes: Sequence[str], draws: NDArray[np.float64]) -> Tensor:
    """How many clips of each class there are if clip i counts `draws[i]` times: float64 `(C,)`."""
    totals = dict.fromkeys(classes, 0.0)
    for own, count in zip(labels, draws.tolist(), strict=True):
        for label in own:
            totals[label] += count
    return torch.tensor(list(totals.values()), dtype=torch.float64)


def log_odds(counts: Tensor, total: float) -> Tensor:
    """log(p / (1 - p)) of the class frequencies p = counts / total: biases under which an empty head is calibrated.

    Counts are kept half a clip away from none and from all, so that a class without clips has a finite bias.

    Args:
        counts: `(C,)` clips of each class, or how many are expected to be drawn.
        total: number of clips, at least 1.

    Returns:
        float32 `(C,)`.
    """
    p = counts.double().clamp(0.5, max(total - 0.5, 0.5)) / total
    return (p.log() - (1 - p).log()).float()


def class_weights(counts: Tensor, multi_label: bool) -> Tensor:
    """Weights of a class-balanced loss, inverse to the number of clips `(C,)`; 0 for a class without clips.

    One label per clip: every class contributes alike, and the mean weight of the training clips is 1. Several labels:
    the mean weight of the classes is 1.
    """
    counts = counts.double()
    there = counts > 0
    inverse = torch.where(there, 1 / counts.clamp_min(1), 0.0)
    scale = there.sum() / counts.sum() if not multi_label else inverse.sum() / there.sum()
    return (inverse / scale).float()


def classification_loss(logits: Tensor, targets: Tensor, multi_label: bool, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy, or for several labels the binary cross-entropies averaged over classes.

    Every class's term carries the class's own weight, also where mixup or smoothing spread a target over classes.

    Args:
        logits: `(B, C)`.
        targets: `(B, C)` in [0, 1]; rows add up to 1 unless there are several labels.
        multi_label: which of the two losses.
        weights: `(C,)`; None weighs all alike.

    Returns:
        `(B,)`, at least 0, to be minimised.
    """
    if multi_label:
        terms = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none") / logits.shape[1]
    else:
        terms = -targets * logits.float().log_softmax(dim=1)
    return (terms if weights is None else terms * weights).sum(dim=1)
