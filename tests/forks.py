"""Functions of tests run in processes of their own that import nothing again: copies of this one, if it can be copied.

A process that has used a GPU, or one outside Linux, cannot be; there they are started afresh, which takes seconds.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from typing import Any

import torch


class Started:
    """A running function, the leader of a session of its own, and what it has said on both outputs at its end."""

    def __init__(self, process: BaseProcess, pipe: int) -> None:
        self.process, self.pid, self._parts = process, process.pid, []
        self._reader = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._reader.start()

    def _read(self, pipe: int) -> None:
        with open(pipe, "rb") as file:
            self._parts.append(file.read())

    def poll(self) -> int | None:
        """Its exit code, minus the signal that ended it; None while it runs."""
        return self.process.exitcode

    def end(self, seconds: float = 120) -> tuple[int, str]:
        """Wait for it; exit code and output."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still running after {seconds} seconds"
        self._reader.join(seconds)
        return self.process.exitcode, b"".join(self._parts).decode()


def _run(function: Callable[..., Any], arguments: tuple[Any, ...], variables: dict[str, str], pipe: Any) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.update(variables)
    torch.set_num_threads(1)
    descriptor = pipe.detach() if hasattr(pipe, "detach") else pipe
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.close(descriptor)
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
    sys.exit(function(*arguments))


@contextmanager
def started(function: Callable[..., Any], *arguments: Any, **variables: str) -> Iterator[Started]:
    """A function of a module in a process of its own, with more variables of the environment; killed at the end.

    What it returns is its exit code, as of `sys.exit`.
    """
    context = get_context("fork" if sys.platform == "linux" and not torch.cuda.is_available() else "spawn")
    read, write = os.pipe()
    pipe = write if context.get_start_method() == "fork" else DupFd(write)
    process = context.Process(target=_run, args=(function, arguments, variables, pipe))  # type: ignore[attr-defined]
    process.start()
    os.close(write)
    try:
        yield Started(process, read)
    finally:
        process.kill()
        process.join()


def ended(function: Callable[..., Any], *arguments: Any, **variables: str) -> tuple[int, str]:
    """Run a function to its end in a process of its own; exit code and output."""
    with started(function, *arguments, **variables) as process:
        return process.end()


def ended_together(function: Callable[..., Any], *arguments: Any, count: int = 2) -> list[tuple[int, str]]:
    """The same in `count` processes that find each other as those of torchrun do."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "tests"}
    world |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "GROUP_RANK": "0"}
    results: list[tuple[int, str]] = []

    def run(rank: int) -> None:
        if rank == count:
            return
        variables = {**world, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        with started(function, *arguments, **variables) as process:
            run(rank + 1)
            results.append(process.end())

    run(0)
    return results[::-1]
