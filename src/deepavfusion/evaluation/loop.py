"""The evaluation loop of all tasks: predictions of each item exactly once, over any number of processes.

Items are divided into batches first, and whole batches are distributed to the processes. So every forward pass has the
same shapes and contents as in one process, and the predictions of many processes are those of one, bit for bit where
the arithmetic is deterministic. Nothing is padded, so no padding can be counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepavfusion.models.no_numbers import NoNumbersError

Progress = Callable[[int, int], None]
"""Is called with the number of items done by this process and its share."""


@dataclass(frozen=True)
class Outcome:
    """What a task predicts for a batch of `b` items."""

    values: dict[str, Tensor]
    """By name, `(b, ...)`: the same names, types and further dimensions in every batch."""
    failed: dict[int, str] = field(default_factory=dict)
    """Items without a prediction, by place in the batch, with the cause; their rows of `values` are dropped."""
    without_numbers: frozenset[int] = frozenset()
    """Places of items for which the model's answer is not finite, whatever becomes of their rows."""


class Evaluator(Protocol):
    """What the loop asks of a task."""

    @property
    def ids(self) -> Sequence[str]:
        """Names of the items, in a fixed order."""

    def loader(
        self, positions: Sequence[int], batch_size: int, num_workers: int, device: torch.device
    ) -> AbstractContextManager[Iterable[Any]]:
        """Batches of the items at `positions`: the first `batch_size`, the next, ...; the last may be smaller."""

    def predict(self, batch: Any, device: torch.device) -> Outcome:
        """Predictions for one batch, without gradients; the model is in evaluation mode already."""


class Exchange(Protocol):
    """The processes of an evaluation (`training.processes.Processes`)."""

    @property
    def rank(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    def gather(self, value: Any) -> list[Any]: ...


@dataclass(frozen=True)
class OneProcess:
    """An evaluation in this process alone, such as a look at a model in training."""

    device: torch.device
    rank: int = 0
    count: int = 1

    def gather(self, value: Any) -> list[Any]:
        return [value]


@dataclass(frozen=True)
class Predictions:
    """Predictions of all items that have one, in the order of the items; the same in every process."""

    positions: NDArray[np.int64]
    """`(n,)`: which items these are."""
    ids: tuple[str, ...]
    """Their names."""
    values: dict[str, NDArray[Any]]
    """By name, `(n, ...)`; empty if there is no item."""
    failed: dict[str, str]
    """Items without a prediction, by name, with the cause."""
    num_without_numbers: int = 0
    """Items for which the model's answer is not finite; those that are predicted count as wrong."""

    def check_some(self, source: str) -> None:
        """Raise ValueError if there are items and none has a prediction."""
        if self.failed and not self.ids:
            name, cause = next(iter(self.failed.items()))
            raise ValueError(f"{source}: none of {len(self.failed)} could be read, for example {name}: {cause}")


def predict_all(
    evaluator: Evaluator, exchange: Exchange, batch_size: int, num_workers: int, progress: Progress | None = None
) -> Predictions:
    """Predict every item once. Every process must call it; each gets all predictions.

    Args:
        evaluator: the task.
        exchange: over which processes.
        batch_size: items per batch of one process.
        num_workers: processes that read for each process.
        progress: is told how far this process is.

    Raises:
        ValueError: a batch size below 1.
        NoNumbersError: the model's answer is finite for not one item.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size} must be at least 1")
    ids = evaluator.ids
    batches = [range(first, min(first + batch_size, len(ids))) for first in range(0, len(ids), batch_size)]
    own = batches[exchange.rank :: exchange.count]
    rows: list[tuple[int, dict[str, NDArray[Any]]]] = []
    failed: dict[int, str] = {}
    silent: set[int] = set()
    if own:
        positions = [position for batch in own for position in batch]
        with evaluator.loader(positions, batch_size, num_workers, exchange.device) as loader, torch.no_grad():
            for places, batch in zip(own, loader, strict=True):
                outcome = evaluator.predict(batch, exchange.device)
                values = {name: value.detach().cpu().numpy() for name, value in outcome.values.items()}
                silent |= {places[i] for i in outcome.without_numbers}
                for i, position in enumerate(places):
                    if i in outcome.failed:
                        failed[position] = outcome.failed[i]
                    else:
                        rows.append((position, {name: value[i] for name, value in values.items()}))
                if progress is not None:
                    progress(len(rows) + len(failed), len(positions))
    parts = exchange.gather((rows, failed, silent))
    merged = dict(row for part, _, _ in parts for row in part)
    causes = {position: cause for _, part, _ in parts for position, cause in part.items()}
    numberless = {position for _, _, part in parts for position in part}
    if numberless and merged.keys() <= numberless:
        raise NoNumbersError(f" for any of {len(numberless)}, such as {ids[min(numberless)]}")
    assert len(merged) + len(causes) == len(ids), "every item is predicted or has failed, exactly once"
    order = sorted(merged)
    names = merged[order[0]].keys() if order else ()
    return Predictions(
        positions=np.array(order, dtype=np.int64),
        ids=tuple(ids[position] for position in order),
        values={name: np.stack([merged[position][name] for position in order]) for name in names},
        failed={ids[position]: causes[position] for position in sorted(causes)},
        num_without_numbers=len(numberless),
    )
