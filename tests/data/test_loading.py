"""Who reads which samples, and what becomes of workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from deepavfusion.data.clips import Clip, find_clips
from deepavfusion.data.dataset import Batch, ClipSet, ClipStream
from deepavfusion.data.loading import ShareSampler, StepSampler, evaluation_loader, training_loader
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.data.views import CentreView, TrainingView
from deepavfusion.data.workers import LINUX

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    folder = tmp_path_factory.mktemp("clips")
    write_sample_clips(folder, 5, duration_seconds=1.0, size=64)
    (folder / "zz.mp4").write_bytes(b"not a video")
    return find_clips(str(folder))


def stream(clips: list[Clip]) -> ClipStream:
    return ClipStream(clips, TrainingView((16, 16), 0.5), seed=1, num_patches=(4, 6))


def read(clips: list[Clip], num_workers: int, *sampler: int) -> dict[int, tuple[torch.Tensor, ...]]:
    """Every sample by its number."""
    with training_loader(stream(clips), StepSampler(*sampler), num_workers, CPU) as loader:
        return by_number(list(loader))


def by_number(batches: list[Batch]) -> dict[int, tuple[torch.Tensor, ...]]:
    samples = {}
    for batch in batches:
        for i, number in enumerate(batch.sample_numbers):
            assert number not in samples
            samples[number] = tuple(tensor[i] for tensor in batch.tensors().values())
    return samples


def test_a_step_covers_the_same_samples_however_it_is_divided() -> None:
    for accumulation, num_processes in ((1, 1), (1, 2), (2, 1), (2, 2), (4, 2)):
        parts = [list(StepSampler(8, accumulation, num_processes, rank, 0, 3)) for rank in range(num_processes)]
        for step in range(3):
            own = slice(step * accumulation, (step + 1) * accumulation)
            seen = sorted(number for part in parts for micro in part[own] for number in micro)
            assert seen == list(range(8 * step, 8 * step + 8))
    assert list(StepSampler(8, 2, 2, 1, 1, 2)) == [[10, 11], [14, 15]]  # hand-computed


def test_a_resumed_sampler_goes_on_where_it_stopped() -> None:
    whole = list(StepSampler(8, 2, 2, 1, 0, 10))
    assert list(StepSampler(8, 2, 2, 1, 4, 10)) == whole[8:]
    assert len(StepSampler(8, 2, 2, 1, 4, 10)) == 12
    assert list(StepSampler(8, 2, 2, 1, 10, 10)) == []


def test_batches_that_cannot_be_divided_name_the_flag() -> None:
    with pytest.raises(ValueError, match=r"batch_size 8 .* 3 processes x 2 .*--training.batch_size as a multiple of 6"):
        StepSampler(8, 2, 3, 0, 0, 1)
    with pytest.raises(ValueError, match="start_step 5"):
        StepSampler(8, 1, 1, 0, 5, 4)


@pytest.mark.parametrize(("num_items", "num_processes"), [(10, 3), (3, 4), (8, 2)])
def test_shares_hold_every_item_once(num_items: int, num_processes: int) -> None:
    shares = [ShareSampler(num_items, 2, num_processes, rank) for rank in range(num_processes)]
    assert sorted(i for share in shares for batch in share for i in batch) == list(range(num_items))
    assert all(len(list(share)) == len(share) for share in shares)


def test_samples_do_not_depend_on_workers_processes_or_resuming(clips: list[Clip]) -> None:
    expected = read(clips, 0, 8, 1, 1, 0, 0, 3)
    assert sorted(expected) == list(range(24))
    runs = [
        read(clips, 2, 8, 1, 1, 0, 0, 3),
        read(clips, 1, 8, 2, 2, 0, 0, 3) | read(clips, 0, 8, 2, 2, 1, 0, 3),
        read(clips, 0, 8, 4, 1, 0, 0, 1) | read(clips, 2, 8, 4, 1, 0, 1, 3),
    ]
    for run in runs:
        assert sorted(run) == sorted(expected)
        for number, tensors in expected.items():
            assert all(torch.equal(a, b) for a, b in zip(tensors, run[number], strict=True)), number


def test_failures_come_through_workers(clips: list[Clip]) -> None:
    with training_loader(stream(clips), StepSampler(6, 1, 1, 0, 0, 2), 2, CPU) as loader:
        failures = [failure.clip_id for batch in loader for failure in batch.failures]
    assert failures == ["zz", "zz"]  # once per epoch


def test_evaluation_over_processes_counts_every_clip_once(clips: list[Clip]) -> None:
    items = ClipSet(clips, CentreView((16, 16), 0.5))
    loaders = [evaluation_loader(items, 2, 1 if rank else 0, CPU, num_processes=2, rank=rank) for rank in range(2)]
    for _ in range(2):  # workers persist over passes
        ids = sorted(name for loader in loaders for batch in loader for name in batch.ids)
        assert ids == sorted(clip.id for clip in clips)
    for loader in loaders:
        loader.close()


PROGRAM = """
import signal, sys, threading, time, torch
from deepavfusion.data.clips import find_clips
from deepavfusion.data.dataset import ClipStream
from deepavfusion.data.loading import StepSampler, training_loader
from deepavfusion.data.views import TrainingView

mode, folder = sys.argv[1:]
requested = []
if mode != "default":
    signal.signal(signal.SIGTERM, lambda *_: requested.append("SIGTERM"))
    signal.signal(signal.SIGINT, lambda *_: requested.append("SIGINT"))
stream = ClipStream(find_clips(folder), TrainingView((16, 16), 0.5), seed=1)
loader = training_loader(stream, StepSampler(2, 1, 1, 0, 0, 10**6), 2, torch.device("cpu"))
for step, batch in enumerate(loader):
    if step == 0:
        print(*(worker.pid for worker in loader._iterator._workers), flush=True)
    if requested:
        first = step if len(requested) == 1 else first
        requested.append(None)
        if len(requested) > 20:  # goes on reading long after the signal
            break
if mode == "close":
    loader.close()
print("saved after", requested[0], flush=True)  # otherwise the loader is left to the exit
"""


@pytest.mark.skipif(not LINUX, reason="workers are shielded on Linux only")
@pytest.mark.parametrize(
    ("mode", "number", "to_group"),
    [
        pytest.param("close", signal.SIGTERM, True, marks=pytest.mark.slow),
        ("exit", signal.SIGTERM, True),
        pytest.param("exit", signal.SIGINT, True, marks=pytest.mark.slow),
        pytest.param("default", signal.SIGTERM, False, marks=pytest.mark.slow),
        pytest.param("default", signal.SIGINT, True, marks=pytest.mark.slow),
        ("default", signal.SIGKILL, False),
    ],
)
def test_signals_and_workers(
    clips: list[Clip], tmp_path: Path, mode: str, number: signal.Signals, to_group: bool
) -> None:
    """Signalled as schedulers and terminals do; the program reads on, leaves when it wants, and nothing is left."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    folder = str(Path(clips[0].path).parents[1])
    with subprocess.Popen(
        [sys.executable, str(script), mode, folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as program:
        assert program.stdout is not None
        workers = [int(pid) for pid in program.stdout.readline().split()]
        assert len(workers) == 2
        assert all(alive(worker) for worker in workers)
        (os.killpg if to_group else os.kill)(program.pid, number)
        try:
            output, errors = program.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            raise
        if mode == "default":
            expected = -number
            assert program.returncode == expected, errors
        else:
            assert (program.returncode, output) == (0, f"saved after {number.name}\n"), errors
            assert errors == ""
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
