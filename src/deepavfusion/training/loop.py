"""The training loop of all tasks.

A step reads its share of the step's samples, averages every loss term over all samples of the step that have it
(whatever the number of processes and accumulations), and updates the weights. Everything random depends on the seed and
the sample's or step's number, so that a continued run equals the run that was never stopped, bit for bit on a CPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from torch import Tensor

from deepavfusion.configuration import RunConfig
from deepavfusion.data.dataset import Batch
from deepavfusion.data.loading import StepSampler
from deepavfusion.training.guards import FiniteGuard
from deepavfusion.training.optimizer import clipped_norm, set_lr
from deepavfusion.training.preflight import prepare, sole_run
from deepavfusion.training.processes import Processes, autocast_dtype
from deepavfusion.training.progress import TrainingProgress
from deepavfusion.training.record import RunRecord
from deepavfusion.training.run_folder import RunFolder
from deepavfusion.training.schedule import num_steps
from deepavfusion.training.sharding import whole
from deepavfusion.training.signals import PREEMPTED_EXIT_CODE, StopRequest
from deepavfusion.training.state import TrainingState
from deepavfusion.training.task import Task
from deepavfusion.training.watch import Watch
from deepavfusion.training.weight_average import update_average


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    status: Literal["finished", "preempted"]
    """`preempted`: stopped by a signal, after saving; the same command continues."""
    step: int
    """Optimiser steps done since the run began."""
    run_dir: Path
    """Folder of the run."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The last row of metrics.csv."""
    num_failures: int = 0
    """How many reads of clips failed."""

    @property
    def exit_code(self) -> int:
        """Of a command that ends with the run."""
        return PREEMPTED_EXIT_CODE if self.status == "preempted" else 0


def fit(task: Task[Any], config: RunConfig, console: Console | None = None) -> RunResult:
    """Train until the last step, or until SIGTERM or Ctrl-C; continue what the run folder holds.

    Raises:
        ValueError: the folder holds a run with other settings or clips, or another process writes it, or settings do
            not fit together.
        NonFiniteError: a loss or gradient is infinite or not a number.
        FailureBudgetError: too many clips could not be read, or none could.
        NothingLearnedError: no clip has what the task needs.
        KeyboardInterrupt: a second Ctrl-C.
    """
    settings, folder = config.training, RunFolder(config.run_dir)
    with StopRequest() as stop, ExitStack() as held:
        processes = Processes(settings)
        total_steps = num_steps(config.optim.epochs, len(task.clips), settings.batch_size)
        console = console or Console(markup=False, emoji=False)
        progress = TrainingProgress(console, total_steps, config.optim.epochs, settings.batch_size, processes.first)
        if not folder.model.is_dir():  # a finished run is only read: its folder may be nobody's to write
            held.enter_context(sole_run(config.run_dir, processes))
        folder.check(config.to_dict(), task.clips)
        if folder.model.is_dir():
            progress.say(f"{folder.path} is finished: all {total_steps} steps are done; the model is in {folder.model}")
            processes.close()
            return RunResult("finished", total_steps, folder.path, folder.last_metrics())
        clips = prepare(task, config, processes, folder, progress)
        state = TrainingState(task, config, processes, folder.checkpoints, progress)
        if state.step:
            progress.say(f"continuing {folder.path} after step {state.step} of {total_steps}")
        with closing(RunRecord(task, config, clips, processes, folder, progress, state.step)) as record:
            watch = Watch(state, record, stop, total_steps)
            sampler = StepSampler(
                settings.batch_size, settings.accumulation, processes.count, processes.rank, state.step, total_steps
            )
            with progress, task.loader(sampler, config.data.num_workers, processes.device) as loader:
                batches = iter(loader)
                while state.step < total_steps:
                    with record.waiting():
                        share = [next(batches) for _ in range(settings.accumulation)]
                    counts = [task.counts(batch) for batch in share]
                    totals = watch.agree(share, counts)
                    if totals is None:
                        break
                    lr = train_step(state, share, counts, totals, total_steps, watch.guard)
                    progress.advance(state.step)
                    watch.look(lr)
            stopped = state.step < total_steps
            if stopped:
                state.save()
                progress.say(f"stopped by {stop.requested} after step {state.step}: the same command continues the run")
            else:
                record.model(task.finished(state.whole_model()))
            for line in watch.summary():
                progress.say(line)
        processes.wait()
        status: Literal["finished", "preempted"] = "preempted" if stopped else "finished"
        result = RunResult(status, state.step, folder.path, folder.last_metrics(), watch.failures.count)
        processes.close()
    return result


def train_step(
    state: TrainingState,
    share: Sequence[Batch],
    counts: Sequence[Mapping[str, int]],
    totals: Mapping[str, float],
    total_steps: int,
    guard: FiniteGuard,
) -> float:
    """Do the step with number `state.step` and count it: forward and backward over this process's share of the samples,
    then one update. The host never waits for the device here.

    Args:
        state: what is trained.
        share: this process's micro-batches.
        counts: for each of them, the number of its samples over which each loss term is a mean.
        totals: for each loss term, the number of samples of the whole step, over all processes.
        total_steps: steps of the whole run, for the schedule.
        guard: checks that losses and gradient are finite.

    Returns:
        The learning rate.

    Raises:
        NonFiniteError: a loss or gradient is not finite (on CUDA that of the step before).
    """
    processes, optim, training = state.processes, state.config.optim, state.config.training
    device, fabric, dtype = (
        processes.device,
        processes.fabric,
        autocast_dtype(training.precision, processes.device.type),
    )
    torch.manual_seed(step_seed(training.seed, state.step, processes.rank))
    lr = set_lr(state.optimizer, optim, training.batch_size, state.step, total_steps)
    sums: dict[str, Tensor] = {}
    for i, (batch, counted) in enumerate(zip(share, counts, strict=True)):
        inputs = state.task.inputs(batch.to(device, non_blocking=True))
        with fabric.no_backward_sync(state.module, enabled=i < len(share) - 1):
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                terms = state.module(inputs)  # task.loss_terms of the model, under DDP or FSDP2
            # Weighted so that terms add up to their means over the whole step, as if it were one batch.
            terms = {name: terms[name] * (counted[name] / max(total, 1)) for name, total in totals.items()}
            # DDP and FSDP2 divide gradients by the number of processes.
            fabric.backward(torch.stack(list(terms.values())).sum() * processes.count)
        sums = {name: sums.get(name, 0.0) + value.detach() for name, value in terms.items()}
    gradient_norm = whole(clipped_norm(state.model, optim.clip_grad))
    guard.watch(state.step + 1, {**sums, "gradient_norm": gradient_norm}, share)
    state.fabric_optimizer.step()
    state.fabric_optimizer.zero_grad(set_to_none=True)
    # Every process knows the same norm and adds its part of it.
    state.means.add({**sums, "gradient_norm": gradient_norm / processes.count})
    state.step += 1
    if state.average:
        update_average(state.average, state.model, state.step, training.ema)
    return lr


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of torch's generator (drop path, mixing) in one step of one process, 63 bits."""
    digest = hashlib.blake2b(f"{seed} {step} {rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
