"""Data loaders: which process reads which samples at which step, in worker processes.

Workers are forked on Linux. They start in milliseconds and share the list of clips, where forkserver and spawn would
import torch and unpickle the list in each; and a fork server would itself be killed by a signal sent to the process
group. Forked children must not use a thread pool of the parent: every worker computes with one torch thread and the
decoder with one thread of its own. If a worker died of a scheduler's SIGTERM, the training process would die before it
can save a checkpoint: `workers` describes how workers are protected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from deepavfusion.data.dataset import Batch, ClipSet, ClipStream, Sample, collate
from deepavfusion.data.workers import START_METHOD, blocked_signals, shield

PREFETCH_BATCHES = 2
"""Batches each worker has ready."""


def micro_batch_size(batch_size: int, accumulation: int, num_processes: int) -> int:
    """Samples of one micro-batch of one process.

    Args:
        batch_size: samples per optimiser step, over all processes and accumulations.
        accumulation: micro-batches per step and process.
        num_processes: how many processes read.

    Raises:
        ValueError: the batch cannot be divided evenly.
    """
    parts = accumulation * num_processes
    if batch_size < 1 or batch_size % parts:
        raise ValueError(
            f"batch_size {batch_size} cannot be divided evenly over {num_processes} processes x {accumulation} "
            f"accumulations: choose --training.batch_size as a multiple of {parts} or change --training.accumulation"
        )
    return batch_size // parts


class StepSampler(Sampler[list[int]]):
    """Sample numbers of each micro-batch, addressed by optimiser step.

    Step `k` covers samples `[k E, (k + 1) E)`, `E` the batch over all processes and accumulations. Micro-batch `m` of
    process `r` takes the `b` samples from `k E + (m P + r) b` on, `b = E / (accumulation P)`, `P` processes: however
    a step is divided, it sees the same samples.
    """

    def __init__(
        self, batch_size: int, accumulation: int, num_processes: int, rank: int, start_step: int, num_steps: int
    ) -> None:
        """
        Args:
            batch_size: `E`, over all processes and accumulations.
            accumulation: micro-batches per step and process.
            num_processes, rank: how many processes read, and which this is.
            start_step: the step to begin with; a resumed run passes the steps it has done.
            num_steps: steps of the whole run, those before `start_step` included.

        Raises:
            ValueError: the batch cannot be divided evenly.
        """
        self.micro_batch = micro_batch_size(batch_size, accumulation, num_processes)
        if not 0 <= rank < num_processes:
            raise ValueError(f"rank {rank} must be in 0 to {num_processes - 1}")
        if not 0 <= start_step <= num_steps:
            raise ValueError(f"start_step {start_step} must be in 0 to num_steps {num_steps}")
        self.batch_size, self.accumulation, self.num_processes, self.rank = (
            batch_size,
            accumulation,
            num_processes,
            rank,
        )
        self.start_step, self.num_steps = start_step, num_steps

    def __len__(self) -> int:
        return (self.num_steps - self.start_step) * self.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        count = self.micro_batch
        for step in range(self.start_step, self.num_steps):
            for micro in range(self.accumulation):
                first = step * self.batch_size + (micro * self.num_processes + self.rank) * count
                yield list(range(first, first + count))


class ShareSampler(Sampler[list[int]]):
    """Batches of a process's share of a set: every `num_processes`-th item from `rank` on, none twice, none padded.

    Shares may differ by one item, so the number of batches may differ by one between processes: evaluation must not
    wait for the others at every batch.
    """

    def __init__(self, num_items: int, batch_size: int, num_processes: int = 1, rank: int = 0) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size} must be at least 1")
        self.share, self.batch_size = range(rank, num_items, num_processes), batch_size

    def __len__(self) -> int:
        return -(-len(self.share) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for first in range(0, len(self.share), self.batch_size):
            yield list(self.share[first : first + self.batch_size])


class ClipLoader(DataLoader[Sample]):
    """A DataLoader of batches whose workers are shielded from signals from birth, and ended by `close`.

    Iterating yields `Batch`. Leaving it as a context manager closes it; so does the end of the program.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        with blocked_signals():  # inherited by workers, which so cannot be hit before they are ready
            return super().__iter__()

    def close(self) -> None:
        """End the workers, at once and without waiting for what they still read."""
        workers: Any = self._iterator  # persistent workers belong to it
        self._iterator = None
        if workers is not None:
            workers._shutdown_workers()

    def __enter__(self) -> ClipLoader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def training_loader(stream: ClipStream, sampler: StepSampler, num_workers: int, device: torch.device) -> ClipLoader:
    """Batches of a stream in the order of the sampler.

    Args:
        stream: what to read.
        sampler: which samples, in which order.
        num_workers: processes that read; 0 reads in this one.
        device: where the batches are going; CUDA gets them from page-locked memory.
    """
    return _loader(stream, sampler, num_workers, device)


def evaluation_loader(
    clips: ClipSet,
    batch_size: int,
    num_workers: int,
    device: torch.device,
    num_processes: int = 1,
    rank: int = 0,
    join: Callable[[Sequence[Any]], Any] = collate,
) -> ClipLoader:
    """Batches of this process's share of a set, each clip exactly once over all processes, the last batch smaller.

    Args:
        clips: what to read.
        batch_size: clips per batch of this process.
        num_workers: processes that read; 0 reads in this one.
        device: where the batches are going.
        num_processes, rank: over how many processes the set is shared, and which this is.
        join: makes a batch of samples, where a set has samples of its own kind.
    """
    return _loader(clips, ShareSampler(len(clips), batch_size, num_processes, rank), num_workers, device, join)


def _loader(
    dataset: ClipStream | ClipSet,
    sampler: Sampler[list[int]],
    num_workers: int,
    device: torch.device,
    join: Callable[[Sequence[Any]], Any] = collate,
) -> ClipLoader:
    workers: dict[str, Any] = {}
    if num_workers:
        workers = {
            "num_workers": num_workers,
            "multiprocessing_context": START_METHOD,
            "persistent_workers": True,
            "prefetch_factor": PREFETCH_BATCHES,
            "worker_init_fn": _start_worker,
        }
    return ClipLoader(dataset, batch_sampler=sampler, collate_fn=join, pin_memory=device.type == "cuda", **workers)


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)
    shield()
