"""Writes the files of a run while it trains: metrics, figures, probes, and the model at the end."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from deepavfusion.atomic import writing
from deepavfusion.configuration import RunConfig
from deepavfusion.data.clips import Clip
from deepavfusion.drawing.run import learning_curve_figure
from deepavfusion.training.metrics_log import MetricsLog
from deepavfusion.training.processes import Processes
from deepavfusion.training.progress import TrainingProgress
from deepavfusion.training.run_folder import CsvTable, RunFolder
from deepavfusion.training.running_means import RunningMeans
from deepavfusion.training.task import Task
from deepavfusion.training.trackers import open_trackers


class RunRecord:
    """The record of one start of a run, kept by the first process; the others take part where they must."""

    def __init__(
        self,
        task: Task[Any],
        config: RunConfig,
        clips: Sequence[Clip],
        processes: Processes,
        folder: RunFolder,
        progress: TrainingProgress,
        step: int,
    ) -> None:
        self.task, self.processes, self.folder, self.progress = task, processes, folder, progress
        self.batch_size = config.training.batch_size
        self.epochs_per_step = self.batch_size / len(task.clips)
        self._log = None
        if processes.first:
            folder.write_start(config.to_dict(), clips, step, processes.count)
            trackers = open_trackers(folder, step, config.to_dict(), config.training)
            self._log = MetricsLog(folder, step, trackers, progress.say)
        self._step, self._waited_seconds, self._since = step, 0.0, time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent in here is time spent waiting for data."""
        began = time.perf_counter()
        yield
        self._waited_seconds += time.perf_counter() - began

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Time spent in here does not count as training time."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began

    def row(self, step: int, lr: float, means: RunningMeans) -> None:
        """Write and show the means since the last row. Waits for the device; every process must call it."""
        values = means.means()
        seconds = max(time.perf_counter() - self._since, 1e-9)
        gradient_norm = values.pop("gradient_norm")
        losses = {"loss": sum(values.values()), **{f"loss_{name}": value for name, value in values.items()}}
        row = {
            "step": step,
            "epoch": step * self.epochs_per_step,
            "lr": lr,
            **losses,
            "samples_per_second": (step - self._step) * self.batch_size / seconds,
            "data_wait_share": min(1.0, self._waited_seconds / seconds),
            "gradient_norm": gradient_norm,
            "memory_mib": self.processes.memory_mib(),
        }
        if self._log is not None:
            self._log.row(row)
        self.progress.show(row, list(losses))
        self._step, self._waited_seconds, self._since = step, 0.0, time.perf_counter()

    def pictures(self, step: int, model: nn.Module) -> None:
        """Draw the task's pictures."""
        if self._log is not None:
            with _evaluating(model):
                for name, figure in self.task.pictures(model, self.processes.device).items():
                    self._log.picture(name, figure, step)

    def learning_curve(self) -> None:
        """Draw the losses so far."""
        if self._log is not None:
            rows = CsvTable(self.folder.metrics).rows()
            if rows:
                self.folder.write_figure("learning_curve", learning_curve_figure(rows, self.folder.path.name))

    def probe(self, step: int, model: nn.Module) -> None:
        """Measure what the task can measure by itself, into probes.csv."""
        if self._log is not None:
            with _evaluating(model):
                values = self.task.probe(model, self.processes.device)
            if values:
                self._log.probe(values, step)
                self.progress.say(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in values.items()))

    def model(self, model: nn.Module) -> None:
        """Save the trained model as the folder model/, whole or not at all."""
        if self.processes.first:
            temporary = self.folder.path / ".model.tmp"
            if temporary.exists():
                shutil.rmtree(temporary)
            try:
                with writing(self.folder.model):
                    model.save_pretrained(temporary)  # type: ignore[operator]
                    os.replace(temporary, self.folder.model)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            self.progress.say(f"the trained model is in {self.folder.model}")

    def close(self) -> None:
        """Flush everything."""
        if self._log is not None:
            self._log.close()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train()
