"""Logging of a run's metrics: metrics.csv and TensorBoard always, Weights & Biases if wanted."""

from __future__ import annotations

import hashlib
import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from deepavfusion.atomic import writing
from deepavfusion.training.run_folder import CsvTable, RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class MetricsLog:
    """Writes rows and pictures of one run; rows after `step`, from before an interruption, are dropped on opening."""

    def __init__(self, folder: RunFolder, step: int, config: dict[str, Any], wandb_project: str | None = None) -> None:
        self.folder = folder
        self.table = CsvTable(folder.metrics)
        self.probes = CsvTable(folder.probes)
        for table in (self.table, self.probes):
            table.cut(step)
        with writing(folder.tensorboard):
            self._events = SummaryWriter(str(folder.tensorboard), purge_step=step + 1 if step else None)
        self._wandb = _wandb_run(folder, config, wandb_project) if wandb_project else None

    def row(self, row: dict[str, Any]) -> None:
        """Log one row; `step` is required, the other columns are numbers."""
        self.table.append([_short(row)])
        self._send({key: value for key, value in row.items() if key != "step"}, row["step"])

    def probe(self, values: dict[str, float], step: int) -> None:
        """Log what a probe measured."""
        self.probes.append([_short({"step": step, **values})])
        self._send({f"probe/{name}": value for name, value in values.items()}, step)

    def _send(self, values: dict[str, float], step: int) -> None:
        with writing(self.folder.tensorboard):
            for name, value in values.items():
                self._events.add_scalar(name, value, step)
            self._events.flush()
        if self._wandb is not None:
            self._wandb.log({**values, "step": step})

    def picture(self, name: str, figure: Figure, step: int) -> None:
        """Save a figure under pictures/ as NAME_STEP.png and send it to TensorBoard."""
        path = self.folder.write_figure(f"{name}_{step:08d}", figure)
        # add_figure would draw it again, and with pyplot.
        with Image.open(path) as drawn:
            pixels = np.asarray(drawn.convert("RGB"))
        with writing(self.folder.tensorboard):
            self._events.add_image(name, pixels, step, dataformats="HWC")
            self._events.flush()

    def close(self) -> None:
        """Flush everything."""
        with writing(self.folder.tensorboard):
            self._events.close()
        if self._wandb is not None:
            self._wandb.finish()


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {key: f"{value:.8g}" if isinstance(value, float) else value for key, value in row.items()}


def _wandb_run(folder: RunFolder, config: dict[str, Any], project: str) -> Any:
    try:
        wandb = importlib.import_module("wandb")
    except ImportError:
        raise ValueError("training.wandb needs the wandb package: pip install 'deepavfusion[wandb]'") from None
    # The id comes from the folder, so that a continued run continues its page.
    name = folder.path.resolve()
    identity = hashlib.blake2b(str(name).encode(), digest_size=8).hexdigest()
    run = wandb.init(project=project, id=identity, name=name.name, resume="allow", config=config, dir=str(folder.path))
    run.define_metric("*", step_metric="step")
    return run
