"""Checks and messages of a run before its first step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from deepavfusion.configuration import RunConfig
from deepavfusion.data.clips import Clip
from deepavfusion.data.loading import micro_batch_size
from deepavfusion.lock import sole_writer
from deepavfusion.training import checkpoints
from deepavfusion.training.optimizer import num_warmup_steps
from deepavfusion.training.processes import Processes
from deepavfusion.training.progress import TrainingProgress
from deepavfusion.training.run_folder import FilesCheck, RunFolder
from deepavfusion.training.task import Task


@contextmanager
def sole_run(run_dir: str, processes: Processes) -> Iterator[None]:
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


def prepare(
    task: Task[Any], config: RunConfig, processes: Processes, folder: RunFolder, progress: TrainingProgress
) -> Sequence[Clip]:
    """Check that settings, processes and files go together, and say what is about to be done.

    Returns:
        The clips, in the first process with size and time of their files.

    Raises:
        ValueError: they do not, or files were replaced since the run began.
    """
    settings = config.training
    micro_batch_size(settings.batch_size, settings.accumulation, processes.count)  # or a ValueError, before anything
    if processes.sharded and config.optim.optimizer == "lars":
        raise ValueError(
            "optim.optimizer lars and --training.strategy fsdp cannot be combined: LARS needs the norms of whole "
            "matrices; take --training.strategy ddp"
        )
    clips = _checked_files(task, config, processes, folder, progress)
    if processes.first:
        checkpoints.remove_unfinished(folder.checkpoints)
    _announce(task, config, processes, progress)
    return clips


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


def _announce(task: Task[Any], config: RunConfig, processes: Processes, progress: TrainingProgress) -> None:
    """Say what the run will do, and which settings have no effect."""
    batch_size, num_clips, total_steps = config.training.batch_size, len(task.clips), progress.total_steps
    warmup = num_warmup_steps(config.optim, total_steps)
    progress.say(
        f"{task.kind} on {task.summary}: {config.optim.epochs:g} epochs, {total_steps} steps of {batch_size}"
        + (f", the first {warmup} of them warm-up" if warmup else "")
    )
    for setting in config.without_effect():
        progress.say(f"warning: {setting}")
    if config.training.strategy == "fsdp" and not processes.sharded:
        progress.say(
            "warning: --training.strategy fsdp has no effect with one process: there is nothing to share; start the "
            "command under torchrun --nproc_per_node N"
        )
    if batch_size > num_clips:
        progress.say(
            f"warning: --training.batch_size {batch_size} is larger than the {num_clips} clips: every step draws some "
            f"of them more than once"
        )
