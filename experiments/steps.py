"""Steps of an experiment: commands with a product, done once, several at a time."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path

from deepavfusion.training.signals import PREEMPTED_EXIT_CODE


@dataclass(frozen=True)
class Step:
    """One command of the package, and the file or folder that is there when it is done."""

    words: tuple[str, ...]
    """The command line after `deepavfusion`."""
    product: Path
    needs: tuple[Path, ...] = ()
    """Products of other steps that it reads."""

    @property
    def is_done(self) -> bool:
        return self.product.exists()


@dataclass(frozen=True)
class Making:
    """A step that is a function of Python, for what no command does."""

    make: Callable[[], None]
    """Writes the product; must be a function of a module, or a partial of one, so that a process can be sent it."""
    product: Path
    needs: tuple[Path, ...] = ()

    @property
    def is_done(self) -> bool:
        return self.product.exists()


AnyStep = Step | Making


def options(settings: Mapping[str, object]) -> list[str]:
    """Settings as words of a command line."""
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


QUICK: dict[str, dict[str, object]] = {
    "bandstand": {"clips": 120},
    "pretrain": {"optim.epochs": 0.5, "optim.warmup_epochs": 0.1},
    "train": {"optim.epochs": 0.5, "optim.warmup_epochs": 0.1},
}
"""Settings of a command that are cut to the least, by verb."""


def quickened(step: AnyStep) -> AnyStep:
    """The step with its long parts cut: it shows that all of it runs, and nothing else."""
    if not isinstance(step, Step) or step.words[0] not in QUICK:
        return step
    words = list(step.words)
    for name, value in QUICK[step.words[0]].items():
        if f"--{name}" in words:
            words[words.index(f"--{name}") + 1] = str(value)
        else:
            words += options({name: value})
    return Step(tuple(words), step.product, step.needs)


def needed(goals: Sequence[AnyStep], others: Sequence[AnyStep]) -> list[AnyStep]:
    """The goals that are not there, and of the others what they need, whatever needs those, and so on.

    What is done already needs nothing any more.
    """
    makers = {step.product: step for step in (*others, *goals)}
    chosen: dict[Path, AnyStep] = {}

    def choose(step: AnyStep) -> None:
        if step.product not in chosen:
            for need in () if step.is_done else step.needs:
                if need in makers:
                    choose(makers[need])
            chosen[step.product] = step

    for goal in goals:
        choose(goal)
    return list(chosen.values())


def run(steps: Sequence[AnyStep], logs: Path, jobs: int, say: Callable[[str], None]) -> int:
    """Run what is not done, in the order given as far as needs allow.

    Args:
        steps: all of them; two with the same product are one.
        logs: folder of what the commands print, a file per step.
        jobs: how many at a time, each with one thread.
        say: is told of every step that ends.

    Returns:
        Exit code: 0 all is done, 1 a step failed (the others were tried), 75 stopped and can be continued.

    Raises:
        ValueError: a step needs what no step makes and is not there.
    """
    steps = list({step.product: step for step in reversed(steps)}.values())[::-1]
    made = {step.product for step in steps}
    for step in steps:
        for need in () if step.is_done else step.needs:
            if need not in made and not need.exists():
                raise ValueError(f"{step.product}: needs {need}, which is not there and no step makes")
    logs.mkdir(parents=True, exist_ok=True)
    waiting = [step for step in steps if not step.is_done]
    say(f"{len(steps) - len(waiting)} of {len(steps)} steps are done")
    with _stoppable(), ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        try:
            return _run(waiting, len(steps), pool, logs, jobs, say)
        except (_Stopped, KeyboardInterrupt, BrokenProcessPool):
            for worker in active_children():  # a command that is asked to stop saves before it does
                worker.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
            return PREEMPTED_EXIT_CODE


class _Stopped(Exception):
    """A command was asked to stop."""


def _run(
    waiting: list[AnyStep], total: int, pool: ProcessPoolExecutor, logs: Path, jobs: int, say: Callable[[str], None]
) -> int:
    """Run steps as soon as what they need is there; returns 1 if one failed. Raises _Stopped."""
    running: dict[Future[tuple[int, float]], AnyStep] = {}
    done, code = total - len(waiting), 0
    while waiting or running:
        ready = [step for step in waiting if all(need.exists() for need in step.needs)]
        for step in ready[: jobs - len(running)]:
            waiting.remove(step)
            running[pool.submit(_do, step, logs / f"{_name(step)}.log")] = step
        if not running:
            break  # what is left needs a step that failed
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            step = running.pop(future)
            status, seconds = future.result()
            if status == PREEMPTED_EXIT_CODE:
                raise _Stopped
            done += status == 0
            how = "done" if status == 0 else f"exit {status}"
            say(f"[{done}/{total}] {how} {seconds:.0f} s: {_name(step)}")
            code = code or int(status != 0)
    return code


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C, so that nothing is left running behind a runner that was ended."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _name(step: AnyStep) -> str:
    return "-".join(step.product.parts[-5:])


def _one_thread() -> None:
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # read when a step loads torch


def _do(step: AnyStep, log: Path) -> tuple[int, float]:
    """Run one step in this process; what it prints goes to its log."""
    from deepavfusion.cli import main

    began = time.monotonic()
    with open(log, "a", encoding="utf-8") as file, _output_to(file.fileno()):
        if isinstance(step, Step):
            print("deepavfusion", *step.words, flush=True)
            status = main(step.words)
        else:
            step.make()
            status = 0
        if status == 0 and not step.is_done:
            print(f"the step ended without making {step.product}", flush=True)
            status = 1
    return status, time.monotonic() - began


@contextlib.contextmanager
def _output_to(descriptor: int) -> Iterator[None]:
    """Send file descriptors 1 and 2 to a file, those of child processes too."""
    kept = [os.dup(1), os.dup(2)]
    try:
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        yield
    finally:
        for own, number in zip(kept, (1, 2), strict=True):
            os.dup2(own, number)
            os.close(own)
