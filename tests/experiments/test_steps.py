"""Steps run once, in an order that their needs allow, and a failure does not stop what does not need it."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from experiments.__main__ import experiments
from experiments.encoders import SEEDS, SHIPPED, Encoders
from experiments.steps import Making, Step, needed, quickened, run
from experiments.worlds import Worlds, cut, join
from tests.experiments.little_steps import copy


def make(out: Path, *sources: Path) -> Making:
    return Making(partial(copy, sources, out), out, sources)


def test_steps_wait_for_what_they_need_and_are_done_once(tmp_path: Path) -> None:
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    said: list[str] = []
    steps = [make(c, a, b), make(b, a), make(a), make(a)]
    assert run(steps, tmp_path / "logs", 2, said.append) == 0
    assert c.read_text() == "start+start"
    assert said[0] == "0 of 3 steps are done"
    made = {path: path.stat().st_mtime_ns for path in (a, b, c)}
    assert run(steps, tmp_path / "logs", 2, said.append) == 0
    assert said[-1] == "3 of 3 steps are done"
    assert {path: path.stat().st_mtime_ns for path in made} == made
    with pytest.raises(ValueError, match="which is not there and no step makes"):
        run([make(tmp_path / "d", tmp_path / "x")], tmp_path / "logs", 1, said.append)
    assert run([make(c, tmp_path / "x")], tmp_path / "logs", 1, said.append) == 0  # what is done needs nothing


def test_only_what_the_goals_need_is_run(tmp_path: Path) -> None:
    a, b, c, d = (tmp_path / name for name in "abcd")
    others = [make(a), make(b, a), make(d, a)]
    goal = make(c, b)
    assert [step.product for step in needed([goal], others)] == [a, b, c]
    b.write_text("done before")  # and so does not need a
    assert [step.product for step in needed([goal], others)] == [b, c]
    assert [step.product for step in needed([goal, make(d, a)], others)] == [b, c, a, d]


def test_a_quick_step_is_the_same_command_with_its_length_cut(tmp_path: Path) -> None:
    words = ("train", "segmentation", "--optim.epochs", "16", "--run_dir", "r")
    quick = quickened(Step(words, tmp_path / "a"))
    assert isinstance(quick, Step)
    cut = ("train", "segmentation", "--optim.epochs", "0.5", "--run_dir", "r", "--optim.warmup_epochs", "0.1")
    assert quick.words == cut
    scoring = Step(("evaluate", "r"), tmp_path / "b")
    assert quickened(scoring) is scoring


def test_a_command_that_fails_is_told_with_its_log_and_the_rest_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    wrong = Step(("audit", str(tmp_path / "nothing"), "--out", str(tmp_path / "a.csv")), tmp_path / "wrong")
    assert run([wrong, make(tmp_path / "next", wrong.product), make(tmp_path / "a")], tmp_path / "logs", 1, said.append)
    assert (tmp_path / "a").exists()
    assert not (tmp_path / "next").exists()
    assert any("exit 1" in line and "wrong" in line for line in said)
    (log,) = [path for path in (tmp_path / "logs").iterdir() if path.name.endswith("wrong.log")]
    assert "deepavfusion audit" in log.read_text()


def test_manifests_are_joined_and_cut(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        rows = "".join(f"c{i},00000.tar#{i},{'ab'[i % 2]}\n" for i in range(4))
        (tmp_path / name / "clips.csv").write_text("id,path,label\n" + rows)
    join({"x": tmp_path / "one", "y": tmp_path / "two"}, tmp_path / "joint.csv")
    with open(tmp_path / "joint.csv", newline="") as file:
        joined = list(csv.DictReader(file))
    assert [row["id"] for row in joined] == [f"{part}/c{i}" for part in "xy" for i in range(4)]
    assert joined[-1]["path"] == "two/00000.tar#3"
    cut(tmp_path / "one", 2, tmp_path / "few.csv")
    with open(tmp_path / "few.csv", newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["a", "b"]


def test_a_runner_that_is_ended_leaves_nothing_running(tmp_path: Path) -> None:
    code = f"""
from functools import partial
from pathlib import Path
from experiments.steps import Making, run
from tests.experiments.little_steps import wait_long
out = Path({str(tmp_path)!r}) / "never"
raise SystemExit(run([Making(partial(wait_long, out), out)], out.parent / "logs", 1, print))
"""
    runner = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "began").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        runner.send_signal(signal.SIGTERM)
        assert runner.wait(30) == 75
    finally:
        runner.kill()
    worker = int((tmp_path / "began").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


@pytest.mark.parametrize("digits", [True, False])
def test_in_an_empty_folder_some_step_makes_whatever_a_step_needs(tmp_path: Path, digits: bool) -> None:
    worlds = Worlds(tmp_path / "worlds", tmp_path if digits else None)
    encoders = Encoders(tmp_path / "encoders", worlds)
    parts = experiments(tmp_path, worlds, encoders).values()
    steps = [
        *worlds.steps(),
        *encoders.steps(),
        *(step for seed in SEEDS for part in parts for step in part.steps(seed)),
    ]
    made = {step.product for step in steps}
    assert {need for step in steps for need in step.needs if not need.is_relative_to(SHIPPED)} <= made
