"""Average precision against scikit-learn, cases by hand and a slow reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deepavfusion.metrics import average_precision as module
from deepavfusion.metrics.average_precision import average_precision


def slow(scores: Tensor, targets: Tensor) -> float:
    """Walk down the distinct scores."""
    total = int(targets.sum())
    value, before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = [bool(t) for s, t in zip(scores.tolist(), targets.tolist(), strict=True) if s >= threshold]
        recall = sum(chosen) / total
        value += (recall - before) * sum(chosen) / len(chosen)
        before = recall
    return value


def test_by_hand() -> None:
    scores = torch.tensor([[0.9], [0.8], [0.7], [0.6]])
    targets = torch.tensor([[1], [0], [1], [0]])
    assert average_precision(scores, targets).tolist() == pytest.approx([(1 / 1 + 2 / 3) / 2])


def test_equal_scores_are_retrieved_together() -> None:
    scores = torch.tensor([[1.0], [0.5], [0.5], [0.5]])
    for places in ([1], [2], [3]):
        targets = torch.zeros(4, 1)
        targets[places] = 1
        assert average_precision(scores, targets).item() == pytest.approx(1 / 4)
    constant = torch.zeros(5, 1)
    assert average_precision(constant, torch.tensor([[1], [0], [0], [1], [0]])).item() == pytest.approx(2 / 5)


@pytest.mark.parametrize("cells", [1 << 22, 100])
def test_equals_scikit_learn_and_a_slow_walk(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="compares with scikit-learn")
    monkeypatch.setattr(module, "_CELLS", cells)
    torch.manual_seed(0)
    scores = torch.randn(60, 9)
    scores[:, :4] = (scores[:, :4] * 2).round() / 2  # many ties
    scores[:, 8] = 0.25
    targets = torch.rand(60, 9) < torch.linspace(0.05, 0.9, 9)
    targets[:, 5] = False
    values = average_precision(scores, targets)
    assert values[5].isnan()
    for c in (0, 1, 2, 3, 4, 6, 7, 8):
        expected = metrics.average_precision_score(targets[:, c].numpy(), scores[:, c].numpy())
        assert values[c].item() == pytest.approx(expected, abs=1e-12)
        assert values[c].item() == pytest.approx(slow(scores[:, c], targets[:, c]), abs=1e-12)


def test_what_cannot_be_ranked_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        average_precision(torch.tensor([[torch.nan], [0.0]]), torch.ones(2, 1))
    with pytest.raises(ValueError, match="one shape"):
        average_precision(torch.zeros(3, 2), torch.zeros(3, 1))
