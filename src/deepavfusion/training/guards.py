"""Checks that stop a run: values that are not finite, and too many unreadable clips."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepavfusion.atomic import writing
from deepavfusion.data.dataset import Batch
from deepavfusion.training.run_folder import CsvTable
from deepavfusion.training.saving import save_tensors

FEWEST_FAILURES = 20
"""A share of failures means nothing before this many."""


class NonFiniteError(ArithmeticError):
    """A loss or gradient that is infinite or not a number; the message names step, terms and the file saved."""


class FailureBudgetError(ValueError):
    """Too many clips could not be read; the message names some and the table of all."""


class FiniteGuard:
    """Stops the run at the first loss term or gradient norm that is not finite, and keeps what led there.

    On CUDA the numbers of a step are looked at while the next one is under way, so that the host never waits for
    them; elsewhere at once, before they reach the weights.
    """

    def __init__(self, directory: Path, rank: int = 0) -> None:
        self.directory, self.rank = directory, rank
        self._pending: tuple[int, Tensor, torch.cuda.Event | None, list[str], Sequence[Batch]] | None = None

    def watch(self, step: int, values: dict[str, Tensor], batches: Sequence[Batch]) -> None:
        """Take the scalars of a step and the batches they came from. Raises NonFiniteError for an earlier step's."""
        scalars = torch.stack([value.detach().float() for value in values.values()])
        event = None
        if scalars.is_cuda:
            self.check()
            host = torch.empty(scalars.shape, dtype=scalars.dtype, pin_memory=True)
            host.copy_(scalars, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            scalars = host
        self._pending = (step, scalars, event, list(values), batches)
        if event is None:
            self.check()

    def check(self) -> None:
        """Look at what is still pending. Raises NonFiniteError."""
        if self._pending is None:
            return
        step, scalars, event, names, batches = self._pending
        self._pending = None
        if event is not None:
            event.synchronize()
        found = dict(zip(names, scalars.tolist(), strict=True))
        bad = {name: value for name, value in found.items() if not math.isfinite(value)}
        if not bad:
            return
        path = self.directory / f"step_{step:08d}_process_{self.rank}.pt"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            save_tensors({"step": step, "values": found, "batches": [_plain(batch) for batch in batches]}, path)
        ids = [clip for batch in batches for clip in batch.ids]
        raise NonFiniteError(
            f"step {step}: {', '.join(f'{name} is {value}' for name, value in bad.items())} "
            f"(all: {', '.join(f'{name} {value:.4g}' for name, value in found.items())}). The batch of "
            f"{len(ids)} clips ({', '.join(ids[:4])}{', ...' if len(ids) > 4 else ''}) is saved in {path}. The last "
            f"checkpoint is from before. Usual causes: a learning rate too high (--optim.blr), no warm-up, or a "
            f"damaged clip among those named"
        )


class FailureLog:
    """Clips that could not be read: named in failures.csv, counted against a budget."""

    def __init__(self, path: Path, max_share: float, step: int, write: bool) -> None:
        self.table, self.max_share, self.write = CsvTable(path), max_share, write
        if write:
            self.table.cut(step)
        rows = [row for row in self.table.rows() if int(row["step"]) <= step]
        self.clips = Counter(row["clip"] for row in rows)
        self._cause = f"{rows[0]['clip']}: {rows[0]['cause']}" if rows else ""

    @property
    def count(self) -> int:
        """How many reads failed since the start of the run."""
        return self.clips.total()

    def record(self, step: int, failures: Sequence[dict[str, Any]], num_drawn: int) -> None:
        """Add the failures of a step.

        Args:
            step: the optimiser step they belong to, counted from 1.
            failures: rows with `clip` and `cause`, of all processes.
            num_drawn: samples drawn since the start of the run.

        Raises:
            FailureBudgetError: at least 20 failures and more than the allowed share.
        """
        if self.write:
            self.table.append([{"step": step, **failure} for failure in failures])
        self.clips.update(failure["clip"] for failure in failures)
        self._cause = self._cause or f"{failures[0]['clip']}: {failures[0]['cause']}"
        if self.count >= FEWEST_FAILURES and self.count > self.max_share * num_drawn:
            raise FailureBudgetError(
                f"{self.count} of {num_drawn} clips drawn could not be read, more than --training.max_failures "
                f"{self.max_share:g} allows; most often {', '.join(name for name, _ in self.clips.most_common(5))}; "
                f"causes are in {self.table.path}"
            )

    def check_some_read(self, num_drawn: int) -> None:
        """Raise FailureBudgetError if none of the samples drawn since the start of the run could be read."""
        if self.count >= num_drawn:
            raise FailureBudgetError(
                f"none of {num_drawn} clips drawn could be read, for example {self._cause}; all causes are in "
                f"{self.table.path}"
            )

    def summary(self) -> str | None:
        """One sentence for the end of the run, None if all was read."""
        if not self.clips:
            return None
        names = ", ".join(name for name, _ in self.clips.most_common(5)) + (", ..." if len(self.clips) > 5 else "")
        return f"{len(self.clips)} clips could not be read ({self.count} times): {names}; see {self.table.path}"


def _plain(batch: Any) -> Any:
    """A batch as a dictionary of tensors and plain values, which loads without running code."""
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: _plain(getattr(batch, field.name)) for field in dataclasses.fields(batch)}
    if isinstance(batch, dict):
        return {key: _plain(value) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return [_plain(value) for value in batch]
    return batch if isinstance(batch, (Tensor, str, int, float, bool, type(None))) else str(batch)
