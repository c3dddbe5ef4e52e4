"""`bench predict` measures every task in a process of its own, and two versions of the package in turn."""

import importlib
import json
from pathlib import Path

import pytest

import deepavfusion
from deepavfusion.bench.config import PredictBenchConfig
from deepavfusion.bench.predict import run
from deepavfusion.bench.predict_once import STAGES, StageClock


def test_every_timed_call_is_there() -> None:
    for place in (place for places in STAGES.values() for place in places):
        module, _, path = place.partition(":")
        found = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
        assert callable(found)


class Work:
    def outer(self) -> int:
        return sum(range(200_000)) + self.inner()

    def inner(self) -> int:
        return sum(range(4_000_000))


def test_a_stage_inside_another_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("outer", "inner"):  # put back after the test
        monkeypatch.setattr(Work, name, getattr(Work, name))
    clock = StageClock()
    here = f"{__name__}:Work"
    assert clock.watch({"a": (f"{here}.outer",), "b": (f"{here}.inner",), "c": (f"{here}.none", "nowhere:x")}) == [
        f"{here}.none",
        "nowhere:x",
    ]
    assert Work().outer() == sum(range(200_000)) + sum(range(4_000_000))
    assert set(clock.seconds) == {"a", "b"}
    assert clock.seconds["b"] > clock.seconds["a"] > 0


@pytest.mark.slow
def test_both_versions_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "costs.json"
    costs = run(
        PredictBenchConfig(
            models=("tiny",),
            tasks=("localization", "separation"),
            seconds=2,
            against=str(Path(deepavfusion.__file__).parents[1]),
            json=str(path),
        )
    )
    seen = [(c.version, c.task, c.film) for c in costs]
    assert seen == [
        (version, task, film)
        for task, film in (
            ("localization", True),
            ("localization", False),
            ("separation", False),
            ("localization, separation", True),
            ("localization, separation", False),
        )
        for version in ("this", "against")
    ]
    for cost in costs:
        assert 0 < sum(cost.stages.values()) <= cost.cpu_seconds + 0.05
        assert (cost.stages["drawing"] > 0) == ("localization" in cost.task)
        assert (cost.stages["writing"] > 0) == (cost.film or "separation" in cost.task)
        assert all(cost.stages[stage] > 0 for stage in ("decoding", "encoder"))
    assert len(json.loads(path.read_text())["costs"]) == 10
    assert "separation" in capsys.readouterr().out


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="films is empty"):
        PredictBenchConfig(films=())
    with pytest.raises(ValueError, match="seconds 0 must be at least 1"):
        PredictBenchConfig(seconds=0)
