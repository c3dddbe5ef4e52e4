"""Losses of masks by hand."""

from __future__ import annotations

import math

import pytest
import torch

from deepavfusion.tasks.segmentation_loss import (
    binary_cross_entropy,
    binary_dice,
    cross_entropy,
    mean_where,
    semantic_dice,
)


def test_binary_losses_by_hand() -> None:
    probabilities = torch.tensor([[[0.8, 0.4]], [[0.5, 0.5]]], dtype=torch.float64)
    logits = probabilities.logit()[:, None]
    truth = torch.tensor([[[1, 0]], [[0, 0]]], dtype=torch.uint8)
    entropy = binary_cross_entropy(logits, truth)
    assert entropy.tolist() == pytest.approx([-(math.log(0.8) + math.log(0.6)) / 2, -math.log(0.5)])
    # 1 - 2 * 0.8 / (0.8 + 0.4 + 1), and nothing shared with empty truth.
    assert binary_dice(logits, truth).tolist() == pytest.approx([1 - 1.6 / 2.2, 1])
    perfect = torch.full((1, 1, 1, 2), 50.0, dtype=torch.float64) * torch.tensor([1, -1])
    assert binary_dice(perfect, truth[:1]).item() == pytest.approx(0)


def test_semantic_losses_by_hand() -> None:
    probabilities = torch.tensor([[[0.2, 0.7]], [[0.5, 0.2]], [[0.3, 0.1]]], dtype=torch.float64)[None]  # (1, 3, 1, 2)
    truth = torch.tensor([[[1, 0]]], dtype=torch.uint8)
    assert cross_entropy(probabilities.log(), truth).tolist() == pytest.approx([-(math.log(0.5) + math.log(0.7)) / 2])
    # Only class 1 is there: 1 - 2 * 0.5 / (0.5 + 0.2 + 1).
    assert semantic_dice(probabilities.log(), truth).tolist() == pytest.approx([1 - 1 / 1.7])
    both = torch.tensor([[[1, 2]]], dtype=torch.uint8)
    expected = ((1 - 1 / 1.7) + (1 - 2 * 0.1 / (0.3 + 0.1 + 1))) / 2
    assert semantic_dice(probabilities.log(), both).tolist() == pytest.approx([expected])
    assert semantic_dice(probabilities.log(), torch.zeros(1, 1, 2)).tolist() == [0]


def test_means_leave_out_what_is_not_chosen() -> None:
    losses = torch.tensor([1.0, float("nan"), 3.0])
    assert mean_where(losses, torch.tensor([True, False, True])).item() == 2
    assert mean_where(losses, torch.zeros(3, dtype=torch.bool)).item() == 0
