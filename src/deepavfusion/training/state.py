"""What a run trains and a checkpoint keeps: model, optimiser and the means not yet logged."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepavfusion.tasks.task import RunConfig, Task
from deepavfusion.training import checkpoints
from deepavfusion.training.optimizer import build_optimizer
from deepavfusion.training.processes import Processes, autocast_dtype
from deepavfusion.training.progress import TrainingProgress
from deepavfusion.training.running_means import RunningMeans


class LossModule(nn.Module):
    """The model and its loss as one forward pass under autocast: what Fabric and DDP wrap."""

    def __init__(self, task: Task, model: nn.Module, precision: str, device_type: str) -> None:
        super().__init__()
        self.model, self.task, self.device_type = model, task, device_type
        self.dtype = autocast_dtype(precision, device_type)

    def forward(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Loss terms by name."""
        with torch.autocast(self.device_type, dtype=self.dtype, enabled=self.dtype is not None):
            return self.task.loss_terms(self.model, inputs)


class TrainingState:
    """Model and optimiser on the device, as they begin or as the last checkpoint left them."""

    def __init__(
        self, task: Task, config: RunConfig, processes: Processes, directory: Path, progress: TrainingProgress
    ) -> None:
        """
        Args:
            task, config, processes: the run.
            directory: where checkpoints are; the newest whole one is loaded.
            progress: where to say what was loaded.

        Raises:
            ValueError: the checkpoints are of another task, or none of them can be read.
        """
        self.task, self.config, self.processes, self.directory = task, config, processes, directory
        self.step = 0
        """Optimiser steps done."""
        torch.manual_seed(config.training.seed)
        self.model = task.build_model()
        saved = checkpoints.load_latest(directory, progress.say)
        if saved is None:
            task.load_published(self.model, progress.say)
        elif saved["kind"] != task.kind:
            raise ValueError(f"{directory} holds checkpoints of {saved['kind']}, not of {task.kind}")
        else:
            self.model.load_state_dict(saved["model"])
        if config.training.compile:
            self.model.compile()
        self.model.train()
        self.optimizer = build_optimizer(self.model, config.optim, task.layer_ids(self.model), task.ramped(self.model))
        module = LossModule(task, self.model, config.training.precision, processes.device.type)
        self.module, self.fabric_optimizer = processes.fabric.setup(module, self.optimizer)
        self.means = RunningMeans(processes)
        if saved is not None:
            self.step = int(saved["step"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.means.load_state_dict(saved["means"])

    def save(self) -> None:
        """Write the checkpoint of this step. Every process must call it; the first one writes."""
        means = self.means.state_dict()
        if self.processes.first:
            content = {
                "kind": self.task.kind,
                "model_config": asdict(self.model.config),  # type: ignore[call-overload]
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "means": means,
                "config": self.config.to_dict(),
            }
            checkpoints.save(self.directory, self.step, content, self.config.training.keep_checkpoints)
        self.processes.wait()
