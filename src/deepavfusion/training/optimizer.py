"""Optimisers and their parameter groups: weight decay, layer decay, ramp of pre-trained weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from deepavfusion.configuration import OptimConfig
from deepavfusion.training.lars import LARS
from deepavfusion.training.schedule import lr_factor, peak_lr, ramp_factor


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    layer_decay: float = 1.0,
    layer_ids: Mapping[str, int] | None = None,
    ramped: Collection[str] = (),
) -> list[dict]:
    """Split the trainable parameters into groups.

    weight_decay: for every parameter with more than one dimension; vectors (biases, norms) are not decayed.
    layer_decay: a parameter of layer i of `layer_ids` (0 is the lowest, the largest the heads) learns at
        layer_decay ** (largest - i) of the rate.
    ramped: names of parameters that start from published weights.

    Returns groups with the extra keys `lr_scale` (the layer's factor), `ramped` and `names`. Raises ValueError if a
    parameter has no layer, or `ramped` names one the model does not have.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    unknown = sorted(set(ramped) - {name for name, _ in model.named_parameters()})
    if unknown:
        raise ValueError(f"the model has no parameter {', '.join(unknown)}")
    if layer_decay != 1.0:
        missing = sorted(parameters.keys() - (layer_ids or {}).keys())
        if missing:
            raise ValueError(f"layer_decay {layer_decay} needs the layer of every parameter; none for {missing[:5]}")
    top = max(layer_ids.values()) if layer_ids else 0

    groups: dict[tuple, dict] = {}
    for name, parameter in parameters.items():
        decay = weight_decay if parameter.ndim > 1 else 0.0
        scale = layer_decay ** (top - layer_ids[name]) if layer_ids and layer_decay != 1.0 else 1.0
        group = groups.setdefault(
            (decay, scale, name in ramped),
            {"params": [], "names": [], "weight_decay": decay, "lr_scale": scale, "ramped": name in ramped},
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def build_optimizer(
    model: nn.Module,
    config: OptimConfig,
    layer_ids: Mapping[str, int] | None = None,
    ramped: Collection[str] = (),
) -> Optimizer:
    """The optimiser that the settings name over `parameter_groups`; `set_lr` sets the rates."""
    groups = parameter_groups(model, config.weight_decay, config.layer_decay, layer_ids, ramped)
    if not groups:
        raise ValueError("the model has no trainable parameter")
    return OPTIMIZERS[config.optimizer](groups, config)


def _adamw(groups: list[dict], config: OptimConfig) -> AdamW:
    """Fused into one kernel where the device has one."""
    fused = all(p.device.type in ("cpu", "cuda") and torch.is_floating_point(p) for g in groups for p in g["params"])
    return AdamW(groups, lr=config.blr, betas=config.betas, fused=fused)


def _lars(groups: list[dict], config: OptimConfig) -> LARS:
    return LARS(groups, lr=config.blr, momentum=config.betas[0])


OPTIMIZERS: dict[str, Callable[[list[dict], OptimConfig], Optimizer]] = {"adamw": _adamw, "lars": _lars}


def num_warmup_steps(config: OptimConfig, total_steps: int) -> int:
    """Steps of a run of `total_steps` that are warm-up."""
    assert config.warmup_epochs is not None  # by then
    return round(total_steps * config.warmup_epochs / config.epochs)


def set_lr(
    optimizer: torch.optim.Optimizer, config: OptimConfig, batch_size: int, step: int, total_steps: int
) -> float:
    """Set every group's rate for `step` (from 0) and return the rate of a group without factors of its own."""
    lr = peak_lr(config.blr, batch_size) * lr_factor(step, total_steps, num_warmup_steps(config, total_steps))
    ramp = ramp_factor(step, config.pretrained_ramp * total_steps)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"] * (ramp if group["ramped"] else 1.0)
    return lr


def clipped_norm(model: nn.Module, limit: float) -> Tensor:
    """The norm of all gradients together, which are scaled down so that it is `limit` at most.

    With a limit of 0 they are left alone, where `clip_grad_norm_` would multiply every one by 1. The device is not
    waited for.
    """
    if limit:
        return nn.utils.clip_grad_norm_(model.parameters(), limit)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))  # as `clip_grad_norm_` computes it
