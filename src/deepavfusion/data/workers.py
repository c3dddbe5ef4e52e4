"""Worker processes that survive signals meant for the parent, end with it, and may crash without harm.

A scheduler's SIGTERM, like torchrun's, goes to the whole process group, and so does Ctrl-C in a terminal. The parent
decides what happens then. A worker that ignored SIGTERM altogether would hang the parent's exit, because that is also
how a parent ends its workers. So a worker checks who sent the signal: it obeys its parent alone, and leaves by itself
when the parent is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Literal, TypeVar

LINUX = sys.platform == "linux"
START_METHOD: Literal["fork", "spawn"] = "fork" if LINUX else "spawn"
"""Forked workers start in milliseconds and share the parent's data; where fork is not safe, workers are spawned."""
PARENT_CHECK_SECONDS = 1.0
"""How often a worker looks whether its parent still lives."""
LOOK_AHEAD = 4
"""How many results per worker are kept while an earlier one is still missing."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Hold SIGTERM and SIGINT back; workers started inside inherit this, so nothing hits them before they are ready."""
    if not LINUX:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def shield() -> None:
    """In a worker started under `blocked_signals`: obey the parent's SIGTERM alone, and end when the parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if LINUX:
        threading.Thread(target=_obey, args=(os.getppid(),), daemon=True).start()


def _obey(parent: int) -> None:
    # SIGTERM stays blocked in all threads, so that it is received here and nowhere else. The exit is hard: queues
    # that nobody reads any more would block an orderly one.
    while True:
        received = signal.sigtimedwait([signal.SIGTERM], PARENT_CHECK_SECONDS)
        if (received is not None and received.si_pid == parent) or os.getppid() != parent:
            os._exit(0)


@dataclass(frozen=True)
class Casualty:
    """What is returned for an item that a worker died or hung on."""

    cause: str


@dataclass
class _Worker(Generic[Item]):
    process: BaseProcess
    pipe: Connection
    index: int = -1  # of the item in work
    deadline: float = 0.0

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def map_isolated(
    function: Callable[[Item], Result], items: Iterable[Item], num_workers: int, timeout_seconds: float
) -> Generator[Result | Casualty, None, None]:
    """Apply a function to items in worker processes, so that foreign code may crash or hang on one of them.

    Args:
        function: at module level or a partial of one; its results can be pickled.
        items: are read as workers get free.
        num_workers: processes; 0 works in this process, without any protection.
        timeout_seconds: after this long on one item a worker is killed.

    Yields:
        The results in the order of the items; a `Casualty` for an item whose worker was killed.

    Closing the generator ends the workers.

    Raises:
        RuntimeError: the function raised an exception, whose traceback the worker has printed.
    """
    if num_workers == 0:
        yield from map(function, items)
        return
    queue = enumerate(items)
    done: dict[int, Result | Casualty] = {}
    idle: deque[_Worker[Item]] = deque(_start(function) for _ in range(num_workers))
    busy: list[_Worker[Item]] = []
    following, exhausted = 0, False
    try:
        while True:
            while idle and not exhausted and len(done) < LOOK_AHEAD * num_workers:
                try:
                    index, item = next(queue)
                except StopIteration:
                    exhausted = True
                    break
                worker = idle.popleft()
                worker.index, worker.deadline = index, time.monotonic() + timeout_seconds
                worker.pipe.send(item)
                busy.append(worker)
            while following in done:
                yield done.pop(following)
                following += 1
            if not busy:
                if exhausted:
                    return
                continue
            remaining = min(worker.deadline for worker in busy) - time.monotonic()
            wait([worker.pipe for worker in busy], max(0.0, remaining))
            for worker in list(busy):
                result = _collect(worker, timeout_seconds)
                if result is None:
                    continue
                busy.remove(worker)
                done[worker.index] = result[0]
                if isinstance(result[0], Casualty):
                    worker.stop()
                    worker = _start(function)
                idle.append(worker)
    finally:
        for worker in (*idle, *busy):
            worker.stop()


def _start(function: Callable[[Item], Any]) -> _Worker[Item]:
    context: Any = multiprocessing.get_context(START_METHOD)  # whose common base class has no Process
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(function, there), daemon=True)
    with blocked_signals():
        process.start()
    there.close()
    return _Worker(process, here)


def _work(function: Callable[[Any], Any], pipe: Connection) -> None:
    shield()
    while True:
        pipe.send(function(pipe.recv()))


def _collect(worker: _Worker[Item], timeout_seconds: float) -> tuple[Any] | None:
    """The worker's result in a tuple, None if it is still at work."""
    if worker.pipe.poll():
        try:
            return (worker.pipe.recv(),)
        except EOFError:  # the process has ended
            worker.process.join()
            code = worker.process.exitcode or 0
            if code >= 0:
                raise RuntimeError("a worker process failed; its traceback is above") from None
            return (Casualty(f"the reading process died of {signal.Signals(-code).name}"),)
    if time.monotonic() >= worker.deadline:
        return (Casualty(f"took longer than {timeout_seconds:g} s to read"),)
    return None
