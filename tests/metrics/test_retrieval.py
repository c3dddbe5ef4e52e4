"""Ranks of the own item, by hand and against a slow reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepavfusion.metrics import retrieval
from deepavfusion.metrics.retrieval import own_ranks


def test_ranks_by_hand() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    gallery = torch.tensor([[3.0, 0.0], [1.0, 0.1], [1.0, 0.9]])
    # Query 0 finds item 0 first; query 1 (up) prefers item 2, then 1; query 2 (diagonal) finds item 2 first.
    assert own_ranks(queries, gallery).tolist() == [1, 2, 1]


def test_ranks_are_those_of_sorting_whatever_the_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    queries, gallery = rng.standard_normal((2, 50, 6))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, gallery))
    expected = [1 + list(np.argsort(-(a[n] @ b.T), kind="stable")).index(n) for n in range(50)]
    for rows in (7, 50, 1000):
        monkeypatch.setattr(retrieval, "_ROWS", rows)
        assert own_ranks(torch.from_numpy(queries), torch.from_numpy(gallery)).tolist() == expected


def test_features_that_are_all_alike_find_nothing() -> None:
    assert own_ranks(torch.ones(5, 3), torch.ones(5, 3)).tolist() == [5] * 5


def test_what_is_not_pairs_is_refused() -> None:
    for a, b in (
        (torch.ones(3, 2), torch.ones(4, 2)),
        (torch.ones(0, 2), torch.ones(0, 2)),
        (torch.ones(3), torch.ones(3)),
    ):
        with pytest.raises(ValueError, match="must be pairs of features"):
            own_ranks(a, b)
