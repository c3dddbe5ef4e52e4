"""Means of the metrics since the last logged row, kept on the device so that the host need not wait."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deepavfusion.training.processes import Processes


class RunningMeans:
    """Sums of named scalars over steps and processes; part of a checkpoint, so that no row differs after a stop."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._names: list[str] = []
        self._sums: Tensor | None = None
        self.num_steps = 0

    def add(self, values: dict[str, Tensor]) -> None:
        """Add a step's scalars: this process's share of each, which all processes' shares add up to."""
        step = torch.stack([value.detach().double() for value in values.values()])
        self._sums = step if self._sums is None else self._sums + step
        self._names = list(values)
        self.num_steps += 1

    def means(self) -> dict[str, float]:
        """Mean per step over all processes; waits for the device. Starts afresh."""
        if self._sums is None:
            return {}
        total = self._processes.sum_tensor(self._sums).tolist()
        means = {name: value / self.num_steps for name, value in zip(self._names, total, strict=True)}
        self._sums, self.num_steps = None, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """Names, sums over all processes, and how many steps are in them. Every process must call it."""
        sums = None if self._sums is None else self._processes.sum_tensor(self._sums)
        if sums is not None:  # from here on the first process holds the sums of all, as after loading
            self._sums = sums if self._processes.first else torch.zeros_like(sums)
        return {"names": self._names, "sums": None if sums is None else sums.cpu(), "num_steps": self.num_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._names, self.num_steps = list(state["names"]), int(state["num_steps"])
        sums = state["sums"]
        if sums is not None:
            sums = sums.to(self._processes.device)
            self._sums = sums if self._processes.first else torch.zeros_like(sums)
