"""LARS against the formula written out in NumPy."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from deepavfusion.configuration import OptimConfig
from deepavfusion.training.lars import LARS
from deepavfusion.training.optimizer import build_optimizer, set_lr


def written_out(w, b, gradients, lrs, weight_decay, momentum, trust):
    """Every step as the paper has it, in float64."""
    v, u = np.zeros_like(w), np.zeros_like(b)
    for (gw, gb), lr in zip(gradients, lrs, strict=True):
        g = gw + weight_decay * w
        local = trust * np.sqrt((w**2).sum()) / np.sqrt((g**2).sum())
        v = momentum * v + local * g
        u = momentum * u + gb  # biases: no decay, no ratio
        w, b = w - lr * v, b - lr * u
    return w, b


def test_steps_follow_the_formula() -> None:
    rng = np.random.default_rng(0)
    w, b = rng.normal(size=(3, 4)), rng.normal(size=3)
    gradients = [(rng.normal(size=(3, 4)), rng.normal(size=3)) for _ in range(5)]
    lrs = [0.1, 0.5, 1.2, 1.0, 0.3]
    weight, bias = (nn.Parameter(torch.tensor(x)) for x in (w, b))
    optimizer = LARS([weight, bias], lr=0.0, weight_decay=0.01, momentum=0.9)
    for (gw, gb), lr in zip(gradients, lrs, strict=True):
        weight.grad, bias.grad = torch.tensor(gw), torch.tensor(gb)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
    expected = written_out(w, b, gradients, lrs, 0.01, 0.9, 0.001)
    np.testing.assert_allclose(weight.detach().numpy(), expected[0], rtol=1e-12)
    np.testing.assert_allclose(bias.detach().numpy(), expected[1], rtol=1e-12)


def test_zero_weights_and_zero_gradients_take_plain_steps() -> None:
    zero, still = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([zero, still], lr=0.5)
    zero.grad, still.grad = torch.full((2, 2), 4.0), torch.zeros(2, 2)
    optimizer.step()
    assert torch.equal(zero.detach(), torch.full((2, 2), -2.0))
    assert torch.equal(still.detach(), torch.ones(2, 2))


def test_the_setting_builds_it_and_its_state_is_restored() -> None:
    torch.manual_seed(0)
    config = OptimConfig(optimizer="lars", blr=0.3, epochs=10, warmup_epochs=0, weight_decay=0.0, betas=(0.8, 0.95))
    a, b = nn.Linear(3, 2), nn.Linear(3, 2)
    b.load_state_dict(a.state_dict())
    x = torch.randn(5, 3)
    first, second = build_optimizer(a, config), build_optimizer(b, config)
    assert isinstance(first, LARS)
    assert {group["momentum"] for group in first.param_groups} == {0.8}

    def step(model, optimizer, number):
        set_lr(optimizer, config, 1024, number, 10)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    step(a, first, 0)
    b.load_state_dict(a.state_dict())
    second.load_state_dict(deepcopy(first.state_dict()))
    step(a, first, 1)
    step(b, second, 1)
    assert torch.equal(a.weight, b.weight)


def test_settings_off_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="out of range"):
        LARS([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=1.0)
