"""Where a run's metrics are watched, beside metrics.csv: TensorBoard always, Weights & Biases and MLflow if wanted.

A tracker's run is found again by the folder of the training run, so that a continued run continues its page.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from deepavfusion.atomic import writing
from deepavfusion.configuration import TrainingConfig
from deepavfusion.training.run_folder import RunFolder, flatten
from deepavfusion.weight_files import one_line

LONGEST_PARAMETER = 6000
"""Characters that MLflow takes of a setting."""


class Tracker(Protocol):
    """Takes what a run measures."""

    name: ClassVar[str]
    failures: tuple[type[Exception], ...]
    """What it raises when it cannot take something; a run goes on without."""

    def values(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of a step, by name."""

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """A figure of a step."""

    def close(self) -> None:
        """Flush everything."""


def open_trackers(folder: RunFolder, step: int, config: Mapping[str, Any], training: TrainingConfig) -> list[Tracker]:
    """Those that the settings name.

    Args:
        folder: of the run.
        step: it goes on behind; what TensorBoard has of later ones is dropped.
        config: all settings, to be kept beside the metrics.
        training: names the trackers.

    Raises:
        ValueError: a package is missing, or a service does not take the run.
    """
    found: list[Tracker] = [TensorBoard(folder, step)]
    if training.wandb:
        found.append(WeightsAndBiases(folder, config, training.wandb))
    if training.mlflow:
        found.append(MLflow(folder, config, training.mlflow))
    return found


class TensorBoard:
    """Event files in the run's own folder."""

    name: ClassVar[str] = "TensorBoard"
    failures: tuple[type[Exception], ...] = ()

    def __init__(self, folder: RunFolder, step: int) -> None:
        self._folder = folder.tensorboard
        with writing(self._folder):
            self._events = SummaryWriter(str(self._folder), purge_step=step + 1 if step else None)

    def values(self, values: Mapping[str, float], step: int) -> None:
        with writing(self._folder):
            for name, value in values.items():
                self._events.add_scalar(name, value, step)
            self._events.flush()

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        with writing(self._folder):
            self._events.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")
            self._events.flush()

    def close(self) -> None:
        with writing(self._folder):
            self._events.close()


class WeightsAndBiases:
    """A run of a project; WANDB_MODE=offline writes it into the run's folder, to be sent later."""

    name: ClassVar[str] = "Weights & Biases"
    failures: tuple[type[Exception], ...] = ()

    def __init__(self, folder: RunFolder, config: Mapping[str, Any], project: str) -> None:
        wandb = _package("wandb", "training.wandb", "wandb")
        place = folder.path.resolve()
        names = {"project": project, "id": _identity(folder), "name": place.name, "dir": str(place)}
        try:
            self._run = wandb.init(**names, resume="allow", config=dict(config))
        except wandb.errors.Error as error:
            advice = "log in with `wandb login`, or set WANDB_MODE=offline"
            raise ValueError(f"training.wandb {project}: {one_line(error)}; {advice}") from error
        self._run.define_metric("*", step_metric="step")
        self._image = wandb.Image

    def values(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({**values, "step": step})

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        self._run.log({name: self._image(image), "step": step})

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """A run of an experiment, at the server that MLFLOW_TRACKING_URI names."""

    name: ClassVar[str] = "MLflow"
    failures: tuple[type[Exception], ...]

    def __init__(self, folder: RunFolder, config: Mapping[str, Any], experiment: str) -> None:
        mlflow = _package("mlflow", "training.mlflow", "mlflow")
        self.failures = (mlflow.exceptions.MlflowException, OSError)
        tag = "deepavfusion.folder"
        try:
            self._client = mlflow.MlflowClient()
            known = self._client.get_experiment_by_name(experiment)
            place = known.experiment_id if known is not None else self._client.create_experiment(experiment)
            earlier = self._client.search_runs([place], f"tags.`{tag}` = '{_identity(folder)}'", max_results=1)
            if earlier:
                self._run = earlier[0].info.run_id
                self._client.update_run(self._run, "RUNNING")
            else:
                name = folder.path.resolve().name
                self._run = self._client.create_run(place, tags={tag: _identity(folder)}, run_name=name).info.run_id
                for key, value in flatten(dict(config)).items():
                    self._client.log_param(self._run, key, str(value)[:LONGEST_PARAMETER])
        except self.failures as error:
            advice = "name a server with MLFLOW_TRACKING_URI (`mlflow server` of the whole package starts one)"
            raise ValueError(f"training.mlflow {experiment}: {one_line(error)}; {advice}") from error

    def values(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=step)

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        self._client.log_image(self._run, image, f"pictures/{name}_{step:08d}.png")

    def close(self) -> None:
        self._client.set_terminated(self._run)


def _package(name: str, setting: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError(f"{setting} needs the {name} package: pip install 'deepavfusion[{extra}]'") from None


def _identity(folder: RunFolder) -> str:
    return hashlib.blake2b(str(folder.path.resolve()).encode(), digest_size=8).hexdigest()
