"""The loop: what a stopped and continued run, a divided batch and a failing clip must give."""

from __future__ import annotations

import csv
import io
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from rich.console import Console

from deepavfusion.configuration import DataConfig, OptimConfig, TrainingConfig
from deepavfusion.training import checkpoints
from deepavfusion.training.guards import FailureBudgetError, NonFiniteError
from deepavfusion.training.loop import RunResult, fit
from deepavfusion.training.run_folder import CsvTable
from deepavfusion.training.signals import PREEMPTED_EXIT_CODE
from tests.forks import Started, started
from tests.training import toy_task
from tests.training.toy_task import ToyConfig, ToyTask

TIMING_COLUMNS = ("samples_per_second", "data_wait_share", "memory_mib")


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def make(path: Path, workers: int = 0, epochs: float = 4, **training: object) -> ToyConfig:
    settings = {"batch_size": 8, "log_every": 2, "checkpoint_every": 100, **training}
    return ToyConfig(
        str(path),
        DataConfig(source="nowhere", num_workers=workers),
        OptimConfig(epochs=epochs, warmup_epochs=1, blr=0.3),
        TrainingConfig(**settings),  # type: ignore[arg-type]
    )


def run(config: ToyConfig, **task: object) -> RunResult:
    return fit(ToyTask(config, **task), config, quiet())  # type: ignore[arg-type]


def final_state(path: Path) -> dict:
    newest = checkpoints.latest(path / "checkpoints")
    assert newest is not None
    return checkpoints.load(newest)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMING_COLUMNS} for row in csv.DictReader(file)]


def assert_same(a: object, b: object) -> None:
    """Bit-equal, through dictionaries and lists."""
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor)
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert isinstance(b, list | tuple)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def stop_at(task: ToyTask, step: int) -> None:
    """Ask for a stop while a step is under way, as a scheduler would."""
    task.on_step = lambda now: os.kill(os.getpid(), signal.SIGTERM) if now == step else None


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_equals_one_never_stopped_bit_for_bit(tmp_path: Path, workers: int) -> None:
    whole = make(tmp_path / "whole")
    assert run(whole, dropout=0.2).status == "finished"

    parts = make(tmp_path / "parts", workers=workers)
    task = ToyTask(parts, dropout=0.2)
    stop_at(task, 4)  # in the middle of the second epoch, between two logged rows
    stopped = fit(task, parts, quiet())
    assert (stopped.status, stopped.step) == ("preempted", 5)
    again = replace(parts, data=replace(parts.data, num_workers=2 - workers))
    assert run(again, dropout=0.2) == RunResult("finished", 12, tmp_path / "parts", rows_last(tmp_path / "parts"), 0)

    a, b = final_state(tmp_path / "whole"), final_state(tmp_path / "parts")
    for key in ("model", "optimizer", "step"):
        assert_same(a[key], b[key])
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")


def rows_last(path: Path) -> dict[str, float]:
    with open(path / "metrics.csv", newline="") as file:
        return {name: float(value) for name, value in list(csv.DictReader(file))[-1].items()}


def test_every_sample_is_drawn_once_in_order_across_a_stop(tmp_path: Path) -> None:
    config = make(tmp_path / "run")
    task = ToyTask(config)
    stop_at(task, 6)
    fit(task, config, quiet())
    rest = ToyTask(config)
    fit(rest, config, quiet())
    drawn = {n for batch in (*task.seen, *rest.seen) for n in batch}
    assert drawn == set(range(4 * 24))


def test_crash_loses_at_most_the_steps_since_the_checkpoint(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", checkpoint_every=3)
    run(whole, dropout=0.2)
    config = make(tmp_path / "crash", checkpoint_every=3)
    task = ToyTask(config, dropout=0.2)

    def crash(step: int) -> None:
        if step == 7:
            raise OSError("the machine went away")

    task.on_step = crash
    with pytest.raises(OSError, match="went away"):
        fit(task, config, quiet())
    assert len(rows(tmp_path / "crash")) == 3  # steps 2, 4, 6
    run(config, dropout=0.2)
    assert rows(tmp_path / "whole") == rows(tmp_path / "crash")
    assert_same(final_state(tmp_path / "whole")["model"], final_state(tmp_path / "crash")["model"])


def test_accumulated_batch_equals_the_whole_batch(tmp_path: Path) -> None:
    # Parts of a step differ in how many of their samples have a picture; the mean is still over the whole step.
    run(make(tmp_path / "one"))
    run(make(tmp_path / "four", accumulation=4))
    a, b = final_state(tmp_path / "one")["model"], final_state(tmp_path / "four")["model"]
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-6)
    for x, y in zip(rows(tmp_path / "one"), rows(tmp_path / "four"), strict=True):
        assert float(x["loss_image"]) == pytest.approx(float(y["loss_image"]), rel=1e-5)
        assert float(x["gradient_norm"]) == pytest.approx(float(y["gradient_norm"]), rel=1e-5)


def test_every_batch_is_counted_once(tmp_path: Path) -> None:
    config = make(tmp_path / "run", accumulation=2)
    task = ToyTask(config)
    fit(task, config, quiet())
    assert len(task.seen) == 12 * 2


@pytest.mark.parametrize(("every", "steps"), [(0, []), (2, [6, 12]), (100, [12])])
def test_probes_come_at_their_time_and_with_0_not_at_all(tmp_path: Path, every: float, steps: list[int]) -> None:
    run(make(tmp_path / "run", probe_every=every, picture_every=every))
    path = tmp_path / "run" / "probes.csv"
    assert (
        [int(line.split(",")[0]) for line in path.read_text().splitlines()[1:]] == steps if steps else not path.exists()
    )
    assert sorted(p.name for p in (tmp_path / "run" / "pictures").iterdir()) == [
        "learning_curve.png",
        *(f"toy_{step:08d}.png" for step in steps),
    ]


def test_a_run_of_before_the_share_of_warm_up_goes_on(tmp_path: Path) -> None:
    config = make(tmp_path / "run", epochs=1)
    run(config)
    path = tmp_path / "run" / "config.yaml"
    record = yaml.safe_load(path.read_text())
    del record["optim"]["warmup_share"]
    path.write_text(yaml.safe_dump(record))
    assert run(config).status == "finished"
    assert run(replace(config, optim=OptimConfig(epochs=1, warmup_share=1.0, blr=0.3))).status == "finished"
    with pytest.raises(ValueError, match=r"--optim\.warmup_epochs was 1, is 0\.5"):
        run(replace(config, optim=OptimConfig(epochs=1, warmup_share=0.5, blr=0.3)))


def test_it_learns(tmp_path: Path) -> None:
    run(make(tmp_path / "run", epochs=60, log_every=1))
    table = rows(tmp_path / "run")
    assert float(table[-1]["loss"]) < 0.2 * float(table[0]["loss"])
    assert float(table[0]["loss"]) == pytest.approx(
        float(table[0]["loss_image"]) + float(table[0]["loss_audio"]), rel=1e-6
    )


def test_finished_run_says_so_and_changes_nothing(tmp_path: Path) -> None:
    config = make(tmp_path / "run", epochs=1)
    first = run(config)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    console = quiet()
    again = fit(ToyTask(config), config, console)
    assert again.status == "finished"
    assert again.step == first.step == 3
    assert "is finished" in console.file.getvalue()  # type: ignore[attr-defined]
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")} == before


def test_other_settings_are_refused_by_flag(tmp_path: Path) -> None:
    config = make(tmp_path / "run", epochs=1)
    run(config)
    with pytest.raises(ValueError, match=r"--optim\.epochs was 1, is 2.*another --run_dir"):
        run(replace(config, optim=replace(config.optim, epochs=2)))
    with pytest.raises(ValueError, match=r"24 clips, now there are 23 \(gone: \['clip23'\]"):
        run(config, num_clips=23)
    assert run(replace(config, training=replace(config.training, log_every=5, accumulation=2))).status == "finished"


def test_start_is_announced_and_an_oversized_batch_warned_about(tmp_path: Path) -> None:
    config, console = make(tmp_path / "run", epochs=1), quiet()
    fit(ToyTask(config, num_clips=6), config, console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "toy on 6 made-up clips: 1 epochs, 1 steps of 8" in said
    assert "warning: --training.batch_size 8 is larger than the 6 clips" in said


def test_batch_that_does_not_divide_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"accumulation 3 does not divide batch_size 8"):
        make(tmp_path / "run", accumulation=3)
    assert not (tmp_path / "run").exists()


def test_run_folder_holds_what_it_says(tmp_path: Path) -> None:
    run(make(tmp_path / "run", epochs=2, checkpoint_every=2, keep_checkpoints=2))
    folder = tmp_path / "run"
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if "tensorboard" not in str(p.relative_to(folder))}
    assert names == {
        *("config.yaml", "environment.json", "clips.csv", "metrics.csv", "probes.csv", "model", "model/model.pt"),
        *("checkpoints", "checkpoints/step_00000004.pt", "checkpoints/step_00000006.pt"),
        *("pictures", "pictures/learning_curve.png", "pictures/toy_00000006.png"),
    }
    assert any((folder / "tensorboard").iterdir())
    assert list(rows(folder)[0]) == ["step", "epoch", "lr", "loss", "loss_image", "loss_audio", "gradient_norm"]


def test_columns_that_came_later_are_empty_in_earlier_rows(tmp_path: Path) -> None:
    table = CsvTable(tmp_path / "probes.csv")
    table.append([{"step": 1, "top1": 0.5}])
    table.append([{"step": 2, "worth": 0.1, "top1": 0.25}])
    table.append([{"step": 3, "top1": 0.75}])
    assert (tmp_path / "probes.csv").read_text() == "step,top1,worth\n1,0.5,\n2,0.25,0.1\n3,0.75,\n"
    table.cut(2)
    assert (tmp_path / "probes.csv").read_text() == "step,top1,worth\n1,0.5,\n2,0.25,0.1\n"


def test_clips_that_fail_are_counted_named_and_leave_the_loss_finite(tmp_path: Path) -> None:
    config = make(tmp_path / "run", epochs=2, max_failures=0.5)
    console = quiet()
    result = fit(ToyTask(config, broken=["clip3", "clip5"]), config, console)
    assert result.num_failures == 4  # two clips, two epochs
    with open(tmp_path / "run" / "failures.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert {row["clip"] for row in table} == {"clip3", "clip5"}
    assert {row["cause"] for row in table} == {"made to fail"}
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "2 clips could not be read (4 times)" in said


def test_too_many_failures_stop_the_run(tmp_path: Path) -> None:
    config = make(tmp_path / "run", epochs=10)
    with pytest.raises(FailureBudgetError, match=r"20 of \d+ clips drawn .*--training.max_failures 0\.05.*clip[35]"):
        run(config, broken=["clip3", "clip5"])


def test_non_finite_loss_stops_the_run_and_keeps_the_batch(tmp_path: Path) -> None:
    config = make(tmp_path / "run", checkpoint_every=1)
    with pytest.raises(NonFiniteError, match=r"step 4: image is nan, audio is nan, gradient_norm is nan .*clip"):
        run(config, bad_step=3)
    saved = torch.load(tmp_path / "run" / "nonfinite" / "step_00000004_process_0.pt", weights_only=True)
    assert saved["step"] == 4
    assert saved["batches"][0]["sample_numbers"] == list(range(24, 32))
    assert len(saved["batches"][0]["ids"]) == 8
    state = final_state(tmp_path / "run")  # from before: the bad step has not reached the weights
    assert state["step"] == 3
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    run(make(tmp_path / "run", epochs=1))
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


def test_damaged_checkpoint_is_named_and_the_one_before_it_taken(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", checkpoint_every=3)
    run(whole)
    config = make(tmp_path / "run", checkpoint_every=3)
    task = ToyTask(config)
    stop_at(task, 7)
    fit(task, config, quiet())
    newest = checkpoints.latest(tmp_path / "run" / "checkpoints")
    assert newest is not None
    assert newest.name == "step_00000008.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newest.write_bytes(content)
    console = quiet()
    assert fit(ToyTask(config), config, console).status == "finished"
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "step_00000008.pt is damaged" in said
    assert "continuing from step_00000006.pt" in said
    assert_same(final_state(tmp_path / "whole")["model"], final_state(tmp_path / "run")["model"])
    assert rows(tmp_path / "whole") == rows(tmp_path / "run")


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 2), (signal.SIGINT, 0)])
def test_signal_to_the_process_group_saves_and_exits_with_its_own_code(
    tmp_path: Path, number: signal.Signals, workers: int
) -> None:
    with started(toy_task.main, str(tmp_path / "run"), str(workers), "0.05", "0.1") as process:
        wait_for(tmp_path / "run" / "metrics.csv", process)
        os.killpg(process.pid, number)
        code, output = process.end()
    assert code == PREEMPTED_EXIT_CODE, output
    assert f"stopped by {number.name}" in output
    step = final_state(tmp_path / "run")["step"]
    assert 0 < step < 24
    assert "Traceback" not in output


def wait_for(path: Path, process: Started, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, "the run ended before it was stopped"
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)
