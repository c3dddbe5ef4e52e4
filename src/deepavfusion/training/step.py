"""One optimiser step: forward and backward over this process's share of the samples, then one update."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from deepavfusion.configuration import RunConfig
from deepavfusion.data.dataset import Batch
from deepavfusion.training.guards import FiniteGuard
from deepavfusion.training.optimizer import set_lr
from deepavfusion.training.processes import Processes
from deepavfusion.training.sharding import whole
from deepavfusion.training.state import TrainingState
from deepavfusion.training.task import Task


class TrainingStep:
    """Updates a `TrainingState`. The host never waits for the device in here."""

    def __init__(
        self, task: Task[Any], config: RunConfig, processes: Processes, state: TrainingState, guard: FiniteGuard
    ) -> None:
        self.task, self.config, self.processes, self.state, self.guard = task, config, processes, state, guard

    def __call__(
        self, share: list[Batch], counts: list[dict[str, int]], totals: dict[str, float], total_steps: int
    ) -> float:
        """Do the step with number `state.step` and count it.

        Args:
            share: this process's micro-batches.
            counts: for each of them, over how many of its samples each loss term is a mean.
            totals: for each loss term, over how many samples of the whole step, all processes together, it is a mean.
            total_steps: steps of the whole run, for the schedule.

        Returns:
            The learning rate.

        Raises:
            NonFiniteError: a loss or gradient is not finite (on CUDA that of the step before).
        """
        state, device, fabric = self.state, self.processes.device, self.processes.fabric
        optim, training = self.config.optim, self.config.training
        torch.manual_seed(step_seed(training.seed, state.step, self.processes.rank))
        lr = set_lr(state.optimizer, optim, training.batch_size, state.step, total_steps)
        sums: dict[str, Tensor] = {}
        for i, (batch, counted) in enumerate(zip(share, counts, strict=True)):
            inputs = self.task.inputs(batch.to(device, non_blocking=True))
            with fabric.no_backward_sync(state.module, enabled=i < len(share) - 1):
                terms = state.module(inputs)
                # Weighted so that terms add up to their means over the whole step, as if it were one batch.
                terms = {name: terms[name] * (counted[name] / max(total, 1)) for name, total in totals.items()}
                # DDP and FSDP2 divide gradients by the number of processes.
                fabric.backward(torch.stack(list(terms.values())).sum() * self.processes.count)
            sums = {name: sums.get(name, 0.0) + value.detach() for name, value in terms.items()}
        gradient_norm = whole(nn.utils.clip_grad_norm_(state.model.parameters(), optim.clip_grad or float("inf")))
        self.guard.watch(state.step + 1, {**sums, "gradient_norm": gradient_norm}, share)
        state.fabric_optimizer.step()
        state.fabric_optimizer.zero_grad(set_to_none=True)
        # Every process knows the same norm and adds its part of it.
        state.means.add({**sums, "gradient_norm": gradient_norm / self.processes.count})
        state.step += 1
        return lr


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of torch's generator (drop path, mixing) in one step of one process, 63 bits."""
    digest = hashlib.blake2b(f"{seed} {step} {rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
