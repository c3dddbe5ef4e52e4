"""The training loop, one for every task.

A step draws its share of the step's samples, averages every loss term over all samples of the step that have it
(whatever the number of processes and accumulations), and updates the weights. Everything random depends on the seed
and the sample's or step's number, so that a continued run is the run that was never stopped, bit for bit on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from deepavfusion.configuration import RunConfig
from deepavfusion.data.clips import Clip
from deepavfusion.data.dataset import Batch
from deepavfusion.data.loading import StepSampler, micro_batch_size
from deepavfusion.lock import sole_writer
from deepavfusion.training import checkpoints
from deepavfusion.training.guards import FailureLog, FiniteGuard
from deepavfusion.training.intake import FIRST_LOOK, Intake
from deepavfusion.training.optimizer import num_warmup_steps
from deepavfusion.training.processes import Processes
from deepavfusion.training.progress import TrainingProgress
from deepavfusion.training.record import RunRecord
from deepavfusion.training.run_folder import FilesCheck, RunFolder
from deepavfusion.training.schedule import is_due, num_steps
from deepavfusion.training.signals import PREEMPTED_EXIT_CODE, StopRequest
from deepavfusion.training.state import TrainingState
from deepavfusion.training.step import TrainingStep
from deepavfusion.training.task import Task


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
    with StopRequest() as stop:
        processes = Processes(config.training)
        # A finished run is only read: its folder may be nobody's to write.
        with nullcontext() if RunFolder(config.run_dir).model.is_dir() else _sole_run(config.run_dir, processes):
            result = _fit(task, config, processes, stop, console or Console(markup=False, emoji=False))
        processes.close()
    return result


@contextmanager
def _sole_run(run_dir: str, processes: Processes) -> Iterator[None]:
    """The first process locks the run folder; all raise ValueError if another run has it."""
    with ExitStack() as stack:
        problem = None
        if processes.first:
            try:
                stack.enter_context(sole_writer(run_dir, "--run_dir"))
            except (ValueError, OSError) as error:
                problem = str(error)
        problem = processes.gather(problem)[0]
        if problem is not None:
            raise ValueError(problem)
        yield


def _fit(task: Task[Any], config: RunConfig, processes: Processes, stop: StopRequest, console: Console) -> RunResult:
    settings, folder = config.training, RunFolder(config.run_dir)
    total_steps = num_steps(config.optim.epochs, len(task.clips), settings.batch_size)
    progress = TrainingProgress(console, total_steps, config.optim.epochs, settings.batch_size, visible=processes.first)
    folder.check(config.to_dict(), task.clips)
    if folder.model.is_dir():
        progress.say(f"{folder.path} is finished: all {total_steps} steps are done; the model is in {folder.model}")
        return RunResult("finished", total_steps, folder.path, folder.last_metrics())
    micro_batch_size(settings.batch_size, settings.accumulation, processes.count)  # or a ValueError, before anything
    if processes.sharded and config.optim.optimizer == "lars":
        raise ValueError(
            "optim.optimizer lars and --training.strategy fsdp do not go together: LARS needs the norms of whole "
            "matrices; take --training.strategy ddp"
        )
    clips = _checked_files(task, config, processes, folder, progress)
    if processes.first:
        checkpoints.remove_unfinished(folder.checkpoints)

    _announce(task, config, processes, progress, total_steps)
    state = TrainingState(task, config, processes, folder.checkpoints, progress)
    if state.step:
        progress.say(f"continuing {folder.path} after step {state.step} of {total_steps}")
    record = RunRecord(task, config, clips, processes, folder, progress, state.step)
    try:
        loop = TrainingLoop(task, config, processes, state, record, stop)
        with progress:
            stopped = loop.run(total_steps)
        if stopped:
            state.save()
            progress.say(f"stopped by {stop.requested} after step {state.step}: the same command continues the run")
        else:
            record.model(state.whole_model())
        for line in loop.summary():
            progress.say(line)
    finally:
        record.close()
    processes.wait()
    return RunResult(
        "preempted" if stopped else "finished",
        state.step,
        folder.path,
        folder.last_metrics(),
        loop.failures.count,
    )


def _checked_files(
    task: Task[Any], config: RunConfig, processes: Processes, folder: RunFolder, progress: TrainingProgress
) -> Sequence[Clip]:
    """The clips, in the first process with size and time of their files; all raise ValueError if some were replaced.

    Nobody writes before all have compared.
    """
    found, problem = FilesCheck(task.clips), None
    if processes.first:
        try:
            found = folder.check_files(task.clips, config.data.accept_changed)
        except ValueError as error:
            problem = str(error)
    problem = processes.gather(problem)[0]
    if problem is not None:
        raise ValueError(problem)
    if found.message is not None:
        progress.say(found.message)
    if found.news:
        folder.write_clips(found.clips)
    return found.clips


def _announce(
    task: Task[Any], config: RunConfig, processes: Processes, progress: TrainingProgress, total_steps: int
) -> None:
    """Say what is about to be done, and what was asked for in vain."""
    batch_size, num_clips = config.training.batch_size, len(task.clips)
    warmup = num_warmup_steps(config.optim, total_steps)
    progress.say(
        f"{task.kind} on {task.summary}: {config.optim.epochs:g} epochs, {total_steps} steps of {batch_size}"
        + (f", the first {warmup} of them warm-up" if warmup else "")
    )
    for setting in config.without_effect():
        progress.say(f"warning: {setting}")
    if config.training.strategy == "fsdp" and not processes.sharded:
        progress.say(
            "warning: --training.strategy fsdp has no effect with one process: nothing is shared out; start the "
            "command under torchrun --nproc_per_node N"
        )
    if batch_size > num_clips:
        progress.say(
            f"warning: --training.batch_size {batch_size} is larger than the {num_clips} clips: every step draws some "
            f"of them more than once"
        )


class TrainingLoop:
    """Steps of one start of a run."""

    def __init__(
        self,
        task: Task[Any],
        config: RunConfig,
        processes: Processes,
        state: TrainingState,
        record: RunRecord,
        stop: StopRequest,
    ) -> None:
        self.task, self.config, self.settings, self.processes = task, config, config.training, processes
        self.state, self.record, self.stop = state, record, stop
        folder, first = record.folder, processes.first
        self.failures = FailureLog(folder.failures, self.settings.max_failures, state.step, write=first)
        self.guard = FiniteGuard(folder.path / "nonfinite", processes.rank)
        self.step = TrainingStep(task, config, processes, state, self.guard)

    def run(self, total_steps: int) -> bool:
        """Step until the end. Returns whether a stop was asked for before that."""
        settings, processes, state, record = self.settings, self.processes, self.state, self.record
        sampler = StepSampler(
            settings.batch_size, settings.accumulation, processes.count, processes.rank, state.step, total_steps
        )
        with self.task.loader(sampler, self.config.data.num_workers, processes.device) as loader:
            batches = iter(loader)
            while state.step < total_steps:
                with record.waiting():
                    share = [next(batches) for _ in range(settings.accumulation)]
                counts = [self.task.counts(batch) for batch in share]
                totals = self._agree(share, counts)
                if totals is None:
                    return True
                self._check_intake(next(iter(totals)), last=state.step + 1 == total_steps)
                lr = self.step(share, counts, totals, total_steps)
                record.progress.advance(state.step)
                self._look(lr, last=state.step == total_steps)
        return False

    def summary(self) -> list[str]:
        """What is worth a line at the end."""
        idle = [f"warning: loss_{term} was a mean over no clip at all" for term in self.state.intake.idle_terms()]
        unread = self.failures.summary()
        return idle if unread is None else [*idle, unread]

    def _agree(self, share: list[Batch], counts: list[dict[str, int]]) -> dict[str, float] | None:
        """What all processes must know before a step, in one exchange.

        Returns:
            For each loss term, over how many samples of the whole step it is a mean; None if any process was asked to
            stop, so that all stop at the same step.
        """
        totals = {term: sum(count[term] for count in counts) for term in counts[0]}
        failed = [{"clip": f.clip_id, "cause": f.cause} for batch in share for f in batch.failures]
        tracks = Intake.of(share)
        stopping, num_failed, *sums = self.processes.sum(
            [self.stop.requested is not None, len(failed), *tracks.values(), *totals.values()]
        )
        if stopping:
            return None
        self.state.intake.add(dict(zip([*tracks, *totals], sums, strict=True)))
        if num_failed:
            rows = [row for part in self.processes.gather(failed) for row in part]
            step = self.state.step + 1
            self.failures.record(step, rows, step * self.settings.batch_size)
        return dict(zip(totals, sums[len(tracks) :], strict=True))

    def _check_intake(self, main_term: str, last: bool) -> None:
        """Stop a run that has had nothing to learn from in an epoch, or by its end."""
        num_drawn = (self.state.step + 1) * self.settings.batch_size
        if last or num_drawn >= min(len(self.task.clips), FIRST_LOOK):
            self.failures.check_some_read(num_drawn)
            self.state.intake.check(self.task.needs, main_term, num_drawn, self.config.data.source)

    def _look(self, lr: float, last: bool) -> None:
        """What follows a step at its time: a row, a checkpoint, pictures, a probe."""
        settings, state, record = self.settings, self.state, self.record
        step, epochs_per_step = state.step, record.epochs_per_step
        if last or step % settings.log_every == 0:
            record.row(step, lr, state.means)
        with record.aside():
            if last or step % settings.checkpoint_every == 0:
                self.guard.check()
                state.save()
            if is_due(settings.picture_every, step, epochs_per_step, last):
                record.pictures(step, state.whole_model())
            if last or is_due(settings.picture_every, step, epochs_per_step):
                record.learning_curve()
            if is_due(settings.probe_every, step, epochs_per_step, last):
                record.probe(step, state.whole_model())
