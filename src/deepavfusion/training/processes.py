"""One process or many: the device, Lightning Fabric, and communication between processes on the host.

Under torchrun every process uses one device. Either each holds the whole model and Fabric averages gradients (DDP), or
each holds a share of it (FSDP2, see `sharding`). Counts and stop requests are sent over gloo on the host, so that
nobody waits for a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from deepavfusion.configuration import TrainingConfig
from deepavfusion.training.resident_memory import peak_resident
from deepavfusion.training.sharding import shard


def resolve_device(device: str) -> str:
    """`auto` to `cuda` or `cpu`. Raises ValueError if CUDA is asked for and absent."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: torch finds no CUDA device; use --training.device cpu or auto")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def autocast_dtype(precision: str, device: str) -> torch.dtype | None:
    """The dtype matrix products run in under autocast, None for plain float32.

    This is the whole precision policy: weights, optimiser state, inputs and losses are float32; only the model's
    forward pass runs under autocast. (A sharded run gathers the blocks' matrices in this type too: see `sharding`.)
    """
    if precision == "auto":
        precision = "bfloat16" if device == "cuda" else "float32"
    return torch.bfloat16 if precision == "bfloat16" else None


class Processes:
    """The processes of a run, and Fabric in this one."""

    def __init__(self, config: TrainingConfig) -> None:
        self.device_type = resolve_device(config.device)
        world, local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        self.sharded = config.strategy == "fsdp" and world > 1
        """Whether each process has a share of the model."""
        # Fabric's precision plugins would round the inputs, which are also the targets; `train_step` sets autocast.
        self.fabric = Fabric(
            accelerator=self.device_type,
            devices=local,
            num_nodes=max(1, world // local),
            strategy=self._strategy(config, world),
            precision="32-true",
        )
        if world > 1:
            self.fabric.launch()
        self.rank, self.count, self.device = self.fabric.global_rank, self.fabric.world_size, self.fabric.device
        self._host = dist.new_group(backend="gloo") if self.count > 1 else None

    def _strategy(self, config: TrainingConfig, world: int) -> Strategy | str:
        """How Fabric spreads a model over `world` processes."""
        if not self.sharded:
            return DDPStrategy() if world > 1 else "auto"
        dtype = autocast_dtype(config.precision, self.device_type)

        def divide(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
            return shard(module, mesh["data_parallel"], dtype)

        return ModelParallelStrategy(divide, data_parallel_size=world, tensor_parallel_size=1)

    @property
    def host_group(self) -> dist.ProcessGroup | None:
        """The processes' group on the host, None for one process."""
        return self._host

    @property
    def first(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes, on the host."""
        if self._host is None:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self._host)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in order of rank, on the host."""
        if self._host is None:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value, group=self._host)
        return values

    def sum_tensor(self, values: torch.Tensor) -> torch.Tensor:
        """A device tensor summed over all processes."""
        if self._host is None:
            return values
        result = self.fabric.all_reduce(values, reduce_op="sum")
        assert isinstance(result, torch.Tensor)
        return result

    def wait(self) -> None:
        """Return when every process is here."""
        if self._host is not None:
            dist.barrier(group=self._host)

    def memory_mib(self) -> float:
        """Largest memory use of this process so far in MiB: allocated on the GPU, or resident on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20
        return peak_resident() / 2**20

    def close(self) -> None:
        """Leave the process group; nothing can be exchanged afterwards."""
        if self._host is not None:
            dist.barrier(group=self._host)
            dist.destroy_process_group()
