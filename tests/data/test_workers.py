"""Work in processes that may crash, hang or be signalled."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deepavfusion.data.workers import LINUX, Casualty, map_isolated


def behave(item: int) -> int:
    """Crash on 3, hang on 5, raise on 7, take the longer the smaller the item."""
    if item == 3:
        faulthandler.disable()  # a crash is wanted, its report is not
        ctypes.string_at(0)
    if item == 5:
        time.sleep(60)
    if item == 7:
        raise KeyError("a mistake in the program")
    time.sleep(0.002 * (6 - item % 6))
    return item * item


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(num_workers: int) -> None:
    items = [n for n in range(20) if n not in (3, 5, 7)]
    assert list(map_isolated(behave, iter(items), num_workers, 30)) == [n * n for n in items]


def test_crash_and_hang_cost_one_item_each() -> None:
    results = list(map_isolated(behave, [1, 3, 2, 5, 4, 6], 2, timeout_seconds=1))
    assert results == [
        1,
        Casualty("the reading process died of SIGSEGV"),
        4,
        Casualty("took longer than 1 s to read"),
        16,
        36,
    ]


def test_a_mistake_in_the_program_is_not_blamed_on_the_item() -> None:
    with pytest.raises(RuntimeError, match="a worker process failed"):
        list(map_isolated(behave, [1, 7, 2], 1, 30))


def test_an_abandoned_map_leaves_no_process() -> None:
    results = map_isolated(os_pid, range(100), 2, 30)
    pids = {next(results) for _ in range(6)}
    results.close()  # type: ignore[attr-defined]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)  # type: ignore[arg-type]


def os_pid(item: int) -> int:
    return os.getpid()


PARENT = """
import sys, time
from deepavfusion.data.workers import map_isolated
import os
def pid_then_hang(item):
    if item < 2:
        return os.getpid()
    time.sleep(600)
results = map_isolated(pid_then_hang, range(4), 2, 600)
print(next(results), next(results), flush=True)
next(results)
"""


@pytest.mark.skipif(not LINUX, reason="workers are shielded on Linux only")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_when_the_parent_is_killed(number: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        for worker in workers:
            os.kill(worker, signal.SIGTERM)  # of a stranger: no effect
            os.kill(worker, signal.SIGINT)
        time.sleep(0.2)
        assert all(alive(worker) for worker in workers)
        parent.send_signal(number)
        parent.wait(5)
        deadline = time.monotonic() + 5
        while any(alive(worker) for worker in workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(alive(worker) for worker in workers)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
