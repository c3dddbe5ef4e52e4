"""The loop predicts every item exactly once, in order, whatever the number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch

from deepavfusion.evaluation.loop import OneProcess, Outcome, predict_all

CPU = torch.device("cpu")


class Squares:
    """Predicts the square of an item's number; remembers the batches it was asked for."""

    def __init__(self, count: int, broken: Sequence[int] = ()) -> None:
        self.count, self.broken, self.batches = count, broken, []

    @property
    def ids(self) -> list[str]:
        return [f"item{i}" for i in range(self.count)]

    @contextmanager
    def loader(self, positions: Sequence[int], batch_size: int, num_workers: int, device: torch.device):
        yield (list(positions[k : k + batch_size]) for k in range(0, len(positions), batch_size))

    def predict(self, batch: list[int], device: torch.device) -> Outcome:
        assert not torch.is_grad_enabled()
        self.batches.append(batch)
        values = {"square": torch.tensor(batch) ** 2, "pair": torch.tensor([[i, -i] for i in batch])}
        return Outcome(values, {k: f"broken {i}" for k, i in enumerate(batch) if i in self.broken})


class Member:
    """One of several processes, played by threads that meet in `gather`."""

    def __init__(self, rank: int, board: list[Any], meeting: Barrier) -> None:
        self.rank, self.count, self.board, self.meeting, self.device = rank, len(board), board, meeting, CPU

    def gather(self, value: Any) -> list[Any]:
        self.board[self.rank] = value
        self.meeting.wait(timeout=30)
        return self.board


@pytest.mark.parametrize("count", [1, 7, 8, 9])
@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_shares_join_to_the_whole(count: int, processes: int) -> None:
    board, meeting = [None] * processes, Barrier(processes)
    tasks = [Squares(count, broken=[0, 4]) for _ in range(processes)]
    with ThreadPoolExecutor(processes) as pool:
        members = [Member(rank, board, meeting) for rank in range(processes)]
        parts = list(pool.map(lambda task, member: predict_all(task, member, 2, 0), tasks, members))
    batches = [batch for task in tasks for batch in task.batches]
    whole = Squares(count, broken=[0, 4])
    alone = predict_all(whole, OneProcess(CPU), 2, 0)
    assert sorted(batches) == sorted(whole.batches)  # the very same batches
    for found in parts:
        assert found.ids == alone.ids == tuple(f"item{i}" for i in range(count) if i not in (0, 4))
        assert found.failed == {f"item{i}": f"broken {i}" for i in (0, 4) if i < count}
        np.testing.assert_array_equal(found.positions, alone.positions)
        for name, values in alone.values.items():
            np.testing.assert_array_equal(found.values[name], values)
        if len(alone.ids):
            np.testing.assert_array_equal(found.values["square"], found.positions**2)


def test_nothing_but_failures_leaves_no_values() -> None:
    found = predict_all(Squares(2, broken=[0, 1]), OneProcess(CPU), 4, 0)
    assert (found.ids, found.values) == ((), {})
    assert list(found.failed) == ["item0", "item1"]


def test_progress_and_mistakes() -> None:
    told: list[tuple[int, int]] = []
    predict_all(Squares(5), OneProcess(CPU), 2, 0, lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]
    with pytest.raises(ValueError, match="batch_size 0"):
        predict_all(Squares(5), OneProcess(CPU), 0, 0)
