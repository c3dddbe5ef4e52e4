"""Trained models behind one interface: a bundle, the one model of a run, or models in memory.

Each has `tasks`, `load(task)` and `load_encoder()`. `open_models` finds out which it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deepavfusion.models.encoder import EarlyFusionEncoder
from deepavfusion.models.tasks import TASK_MODELS
from deepavfusion.storage.bundle import BUNDLE, MODEL_CLASSES, Bundle, TaskModel, encoder_at, lacking
from deepavfusion.storage.model_configs import read_model_config
from deepavfusion.storage.starting_point import SHIPPED_PREFIX, WEIGHT_SUFFIXES, model_folder
from deepavfusion.storage.weights import HUB_PREFIX
from deepavfusion.weight_files import one_line


@dataclass(frozen=True)
class SingleModel:
    """One saved model, such as that of a finished run, or published weights, with what a bundle offers."""

    place: str
    tasks: tuple[str, ...]

    def load(self, task: str) -> TaskModel:
        """The model of its task, in evaluation mode on the CPU. Raises ValueError if it is another task's."""
        if task not in self.tasks:
            raise ValueError(lacking(self.place, task, self.tasks))
        return MODEL_CLASSES[task].from_pretrained(model_folder(self.place))

    def load_encoder(self) -> EarlyFusionEncoder:
        """Its encoder, in evaluation mode on the CPU. Raises ValueError if there are no weights."""
        return encoder_at(self.place)


@dataclass(frozen=True)
class LoadedModels:
    """Models that are in memory already, by task; the encoder is that of the first."""

    models: Mapping[str, TaskModel]
    encoder: EarlyFusionEncoder | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.models)

    def load(self, task: str) -> TaskModel:
        """Raises ValueError if there is none."""
        if task not in self.models:
            raise ValueError(lacking("this predictor", task, self.tasks))
        return self.models[task]

    def load_encoder(self) -> EarlyFusionEncoder:
        if self.encoder is not None:
            return self.encoder
        return next(iter(self.models.values())).encoder


TrainedModels = Bundle | SingleModel | LoadedModels


def open_models(place: str | Path) -> Bundle | SingleModel:
    """What is at a place: a bundle, or the single model of a run.

    Args:
        place: a bundle, a finished run, a model folder, `shipped:NAME`, `hf:OWNER/NAME`, or published weights.

    Raises:
        ValueError: nothing of these is there; names the place and the fix.
    """
    name = str(place)
    if name.startswith(HUB_PREFIX):
        return open_models(_download(name))
    path = Path(name)
    if (path / BUNDLE).is_file():
        return Bundle.open(path)
    if path.suffix in WEIGHT_SUFFIXES and path.is_file():
        return SingleModel(name, ())
    try:
        folder = model_folder(name)
    except ValueError as error:
        hint = (
            ""
            if path.exists() or name.startswith(SHIPPED_PREFIX)
            else f"; a model on the hub is {HUB_PREFIX}OWNER/NAME"
        )
        raise ValueError(f"{error}{hint}") from error
    if (folder / BUNDLE).is_file():
        return Bundle.open(folder)
    kind, _ = read_model_config(folder / "config.json")
    return SingleModel(name, tuple(task for task, name in TASK_MODELS.items() if name == kind))


def _download(place: str) -> Path:
    """A repository of the hub as a local folder."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name = place.removeprefix(HUB_PREFIX)
    if not re.fullmatch(r"[^/]+/[^/]+", name):
        raise ValueError(f"{place}: expected {HUB_PREFIX}OWNER/NAME")
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "README.md"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(f"{place}: cannot be fetched from the hub ({one_line(error)})") from error
