"""Trackers of a run's metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deepavfusion.configuration import TrainingConfig
from deepavfusion.training.metrics_log import MetricsLog
from deepavfusion.training.run_folder import RunFolder
from deepavfusion.training.trackers import MLflow, TensorBoard, WeightsAndBiases, open_trackers

CONFIG = {"model": {"depth": 4}, "training": {"seed": 1}}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


class Unwilling:
    """A tracker that takes nothing."""

    name = "Unwilling"
    failures = (ConnectionError,)

    def values(self, values: Mapping[str, float], step: int) -> None:
        raise ConnectionError("no route\nto host")

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        raise ConnectionError("no route")

    def close(self) -> None:
        raise ConnectionError("no route")


def test_a_tracker_that_fails_is_named_and_the_run_goes_on(folder: RunFolder) -> None:
    said: list[str] = []
    log = MetricsLog(folder, 0, [Unwilling(), TensorBoard(folder, 0)], said.append)
    log.row({"step": 10, "loss": 0.5})
    log.probe({"top1": 0.25}, 10)
    log.picture("curve", Figure(), 10)
    log.close()
    assert said == [
        "Unwilling did not take step 10: no route to host",
        "Unwilling did not take the probe of step 10: no route to host",
        "Unwilling did not take curve_00000010.png: no route",
        "Unwilling did not take the end of the run: no route",
    ]
    assert folder.metrics.read_text() == "step,loss\n10,0.5\n"
    events = EventAccumulator(str(folder.tensorboard))
    events.Reload()
    assert [event.value for event in events.Scalars("probe/top1")] == [0.25]
    assert [event.step for event in events.Images("curve")] == [10]


def test_a_missing_package_is_named(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
        settings = replace(TrainingConfig(), **{name: "trials"})
        message = rf"training\.{name} needs the {name} package: pip install 'deepavfusion\[{name}\]'"
        with pytest.raises(ValueError, match=message):
            open_trackers(folder, 0, CONFIG, settings)


def test_mlflow_has_settings_values_and_pictures_and_a_continued_run_is_the_same_one(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    first = MLflow(folder, CONFIG, "trials")
    first.values({"loss": 2.0, "probe/top1": 0.5}, 10)
    first.picture("curve", Image.new("RGB", (8, 6)), 10)
    first.close()
    again = MLflow(folder, CONFIG, "trials")
    again.values({"loss": 1.0}, 20)
    again.close()
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("trials").experiment_id])
    assert run.info.run_name == "run"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"model.depth": "4", "training.seed": "1"}
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")] == [(10, 2.0), (20, 1.0)]
    assert run.data.metrics["probe/top1"] == 0.5
    assert [file.path for file in client.list_artifacts(run.info.run_id, "pictures")] == ["pictures/curve_00000010.png"]


def test_mlflow_that_cannot_be_reached_is_one_line(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"^training\.mlflow trials: [^\n]*$"):
        MLflow(folder, CONFIG, "trials")


def test_weights_and_biases_offline_is_written_into_the_run(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs the extra wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = WeightsAndBiases(folder, CONFIG, "trials")
    tracker.values({"loss": 2.0}, 10)
    tracker.picture("curve", Image.new("RGB", (8, 6)), 10)
    tracker.close()
    assert list((folder.path / "wandb").glob("offline-run-*/run-*.wandb"))
