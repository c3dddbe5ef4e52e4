"""Sharded training (FSDP2): every process keeps a share of each weight, gradient and optimiser moment.

The units are transformer blocks, their attention and MLP. A unit's weights are gathered from all processes when it
runs and let go afterwards; its gradients are averaged into each process's share as soon as the backward pass has left
it. All else (embeddings, norms, heads) is the outermost unit. Rows are divided, so a parameter of fewer rows than
processes is whole on some and empty on the others.

Under bfloat16 the units' weights are gathered as bfloat16, half the traffic and half the memory; shares, gradients'
averages and the optimiser stay float32. Autocast rounds every weight of a matrix product so anyway, and norms stay out
of it, so that the arithmetic is nearly that of whole copies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, distribute_tensor

from deepavfusion.models.fusion import FusionBlock
from deepavfusion.models.reconstruction_decoders import CrossBlock
from deepavfusion.models.vit import Block

try:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
except ImportError:  # torch 2.5
    from torch.distributed._composable.fsdp import MixedPrecisionPolicy, fully_shard

BLOCKS = (Block, FusionBlock, CrossBlock)


def units_of(module: nn.Module) -> list[list[nn.Module]]:
    """What is gathered together: of each transformer block the modules with matrices."""
    return [[block.attn, block.mlp] for block in module.modules() if isinstance(block, BLOCKS)]


def shard(module: nn.Module, mesh: DeviceMesh, dtype: torch.dtype | None) -> nn.Module:
    """Divide a module, which is the same on every process, in place; its parameters become `DTensor`.

    Args:
        module: what is called in the forward pass.
        mesh: the processes, one dimension.
        dtype: in which the units' weights are gathered, None for their own.
    """
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=dtype and torch.float32, cast_forward_inputs=False)
    for unit in units_of(module):
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh)
    return module


def whole(tensor: Tensor) -> Tensor:
    """A tensor in full, on every process: gathered if it is divided. All processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def divided_like(tensor: Tensor, model: Tensor) -> Tensor:
    """A tensor that all processes have in full, on `model`'s device and divided as it is. All must call it."""
    tensor = tensor.to(model.device)
    return distribute_tensor(tensor, model.device_mesh, model.placements) if isinstance(model, DTensor) else tensor
