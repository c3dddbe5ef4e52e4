"""Losses of predicted masks: cross-entropy of every pixel, and the Dice loss.

Cross-entropy alone hardly punishes missing a small object. Dice, 1 - 2 |P T| / (|P| + |T|), does, but is not useful for
images in which nothing sounds. So cross-entropy is a mean over all samples, and Dice over those in which something
sounds.

Shape legend: `B` batch, `C` classes, `H W` pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def binary_cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean over the pixels of each sample, `(B,)`, 0 or more; logits `(B, 1, H, W)`, truth `(B, H, W)` 0 or 1."""
    return F.binary_cross_entropy_with_logits(logits[:, 0], truth.to(logits.dtype), reduction="none").mean(dim=(1, 2))


def binary_dice(logits: Tensor, truth: Tensor) -> Tensor:
    """Dice loss of each sample, `(B,)` in 0 to 1, of probabilities; arguments as `binary_cross_entropy`."""
    return _dice(logits[:, 0].sigmoid(), truth.to(logits.dtype))


def cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean over the pixels of each sample, `(B,)`, 0 or more; logits `(B, C, H, W)`, truth int `(B, H, W)`."""
    return F.cross_entropy(logits, truth.long(), reduction="none").mean(dim=(1, 2))


def semantic_dice(logits: Tensor, truth: Tensor) -> Tensor:
    """Dice loss of each sample, `(B,)` in 0 to 1: the mean over the classes but the background in its truth.

    Without any it means nothing. Arguments as `cross_entropy`.
    """
    probabilities = logits.softmax(dim=1)[:, 1:]
    one_hot = F.one_hot(truth.long(), logits.shape[1]).movedim(-1, 1)[:, 1:].to(logits.dtype)
    losses = _dice(probabilities.flatten(0, 1), one_hot.flatten(0, 1)).unflatten(0, one_hot.shape[:2])
    there = one_hot.flatten(2).any(dim=2)
    return (losses * there).sum(dim=1) / there.sum(dim=1).clamp_min(1)


def mean_where(losses: Tensor, chosen: Tensor) -> Tensor:
    """Mean of losses `(B,)` over the samples chosen, bool `(B,)`; 0 over none."""
    return torch.where(chosen, losses, 0.0).sum() / chosen.sum().clamp_min(1)


def _dice(probabilities: Tensor, truth: Tensor) -> Tensor:
    shared, total = ((x).flatten(1).sum(dim=1) for x in (probabilities * truth, probabilities + truth))
    return 1 - 2 * shared / total.clamp_min(1e-6)
