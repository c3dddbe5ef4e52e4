"""Nearest neighbours against cases worked out by hand and a slow reference."""

from __future__ import annotations

import pytest
import torch

from deepavfusion.metrics.nearest_neighbour import leave_one_out_top1


def test_by_hand() -> None:
    # Angles 0, 10, 80, 95, 30 degrees: nearest are 1, 0, 3, 2, 1.
    angles = torch.deg2rad(torch.tensor([0.0, 10.0, 80.0, 95.0, 30.0]))
    features = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([1.0, 5.0, 0.1, 3.0, 2.0])[:, None]
    assert leave_one_out_top1([features], torch.tensor([0, 0, 1, 1, 1])) == pytest.approx(4 / 5)
    assert leave_one_out_top1([features], torch.tensor([0, 1, 1, 0, 2])) == 0.0


def test_several_features_add_their_cosines() -> None:
    a = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    b = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    # Sample 0: cosine with 1 about 1 - 1 = 0, with 2 it is 0 + 1.
    labels = torch.tensor([0, 1, 0])
    assert leave_one_out_top1([a], labels) == 0.0
    assert leave_one_out_top1([a, b], labels) == pytest.approx(2 / 3)


def test_blocks_agree_with_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(37, 5), torch.randint(0, 4, (37,))
    units = features / features.norm(dim=1, keepdim=True)
    correct = 0
    for i in range(37):
        others = [j for j in range(37) if j != i]
        best = max(others, key=lambda j: float(units[i] @ units[j]))
        correct += int(labels[best] == labels[i])
    monkeypatch.setattr("deepavfusion.metrics.nearest_neighbour._ROWS", 8)
    assert leave_one_out_top1([features], labels) == pytest.approx(correct / 37)


def test_too_little_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least two samples"):
        leave_one_out_top1([torch.randn(1, 3)], torch.zeros(1))
