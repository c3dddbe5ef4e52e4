"""What a run trains and a checkpoint holds: model, average, optimiser, and the means not yet logged."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from deepavfusion.configuration import RunConfig
from deepavfusion.models.no_numbers import check_weights
from deepavfusion.training import checkpoints, sharded_checkpoints
from deepavfusion.training.intake import Intake
from deepavfusion.training.optimizer import build_optimizer
from deepavfusion.training.processes import Processes
from deepavfusion.training.progress import TrainingProgress
from deepavfusion.training.running_means import RunningMeans
from deepavfusion.training.sharding import divided_like, whole
from deepavfusion.training.task import Task
from deepavfusion.training.weight_average import first_average
from deepavfusion.weight_files import check_keys, fill

CONTENT = frozenset({"kind", "step", "means"})
"""What a checkpoint holds at least, whole or sharded."""


class LossModule(nn.Module):
    """The model with the task's loss as its forward pass: what Fabric wraps, with DDP or FSDP2."""

    def __init__(self, task: Task[Any], model: nn.Module) -> None:
        super().__init__()
        self.model, self.forward = model, partial(task.loss_terms, model)


class TrainingState:
    """Model and optimiser on the device, as they begin or as the last checkpoint left them."""

    def __init__(
        self, task: Task[Any], config: RunConfig, processes: Processes, directory: Path, progress: TrainingProgress
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
        saved = checkpoints.load_latest(directory, progress.say, self._read)
        lacking = CONTENT - saved.keys() if saved is not None else set()
        if saved is None:
            task.load_published(self.model, progress.say)
            check_weights(self.model, getattr(config, "from_", "the starting point"))
            task.measure_tokens(self.model, processes)
        elif lacking:
            raise ValueError(f"the checkpoint in {directory} lacks {', '.join(sorted(lacking))}: no run has written it")
        elif saved["kind"] != task.kind:
            raise ValueError(f"{directory} holds checkpoints of {saved['kind']}, not of {task.kind}")
        elif "model" in saved:
            fill(self.model, saved["model"], f"checkpoint of step {saved['step']} in {directory}")
        if config.training.compile:
            self.model.compile()
        self.model.train()
        self.module = processes.fabric.setup_module(LossModule(task, self.model))
        # After that, because sharding replaces the parameters.
        self.optimizer = build_optimizer(self.model, config.optim, task.layer_ids(self.model), task.ramped(self.model))
        wrapped = processes.fabric.setup_optimizers(self.optimizer)
        assert not isinstance(wrapped, tuple)
        self.fabric_optimizer = wrapped
        self.average = first_average(self.model) if config.training.ema else {}
        """The averaged weights by name; empty without `training.ema`."""
        self.means, self.intake = RunningMeans(processes), Intake()
        if saved is not None:
            self.intake.counts = saved.get("intake")  # which earlier versions did not keep
            self.step = int(saved["step"])
            self.means.load_state_dict(saved["means"])
            if "folder" in saved:
                sharded_checkpoints.read_shares(saved["folder"], self.model, self.optimizer, self.average, processes)
            else:
                self._load_average(saved.get("average", {}))
                self.optimizer.load_state_dict(self._divided(saved["optimizer"]))

    def save(self) -> None:
        """Write the checkpoint of this step. Every process must call it; the first one writes, or all their shares."""
        keep, optimizer = self.config.training.keep_checkpoints, self.optimizer.state_dict()
        content = {
            "kind": self.task.kind,
            "model_config": cast(Any, self.model.config).record(),
            "means": self.means.state_dict(),
            "intake": self.intake.counts,
            "config": self.config.to_dict(),
        }
        if self.processes.sharded:
            content["optimizer_groups"] = optimizer["param_groups"]
            tensors = sharded_checkpoints.tensors_of(self.model, self.optimizer, self.average)
            checkpoints.save_sharded(self.directory, self.step, content, tensors, keep, self.processes)
        elif self.processes.first:
            content |= {"model": self.model.state_dict(), "optimizer": optimizer}
            content |= {"average": self.average} if self.average else {}
            checkpoints.save(self.directory, self.step, content, keep)
        self.processes.wait()

    def whole_model(self) -> nn.Module:
        """The model as one process can use it: itself, or for the first process a copy, with the averaged weights if
        there are some and gathered in a sharded run.

        Every process must call it; on the others the result is of no use where the first one has a copy.
        """
        if not self.processes.sharded and not self.average:
            return self.model
        first, tensors = self.processes.first, {}
        for name, tensor in self.model.state_dict().items():
            # One after the other: all at once would need the room of the whole model everywhere.
            full = whole(self.average.get(name, tensor))
            if first:
                tensors[name] = full.cpu()
        if not first:
            return self.model
        copy = self.task.build_model()
        copy.load_state_dict(tensors)
        return copy.to(self.processes.device).train()

    def _read(self, path: Path) -> dict[str, Any]:
        """One checkpoint, as this run can use it."""
        return checkpoints.load_for_sharing(path, self.processes) if self.processes.sharded else checkpoints.load(path)

    def _load_average(self, saved: dict[str, Tensor]) -> None:
        """Fill the average with that of a whole checkpoint."""
        check_keys(saved, self.average, f"the average in the checkpoint of step {self.step} in {self.directory}")
        for name, tensor in self.average.items():
            tensor.copy_(divided_like(saved[name], tensor))

    def _divided(self, state: dict[str, Any]) -> dict[str, Any]:
        """A whole optimiser state, in a sharded run with every moment divided as its parameter is."""
        if not self.processes.sharded:
            return state
        parameters = dict(self.model.named_parameters())
        divided: dict[int, dict[str, Any]] = {}
        for group in state["param_groups"]:
            for number, name in zip(group["params"], group["names"], strict=True):
                p = parameters[name]
                divided[number] = {
                    key: divided_like(t, p) if isinstance(t, Tensor) and t.shape == p.shape else t
                    for key, t in state["state"].get(number, {}).items()
                }
        return {**state, "state": divided}
