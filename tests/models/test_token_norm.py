"""Statistics of tokens: what is measured, what is left out, and what they are good for."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deepavfusion.models.token_norm import LEAST_DEVIATION, TokenNorm, measuring


def test_before_it_is_measured_it_is_a_layer_norm() -> None:
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(TokenNorm(8)(x), F.layer_norm(x, (8,)))


def test_measured_features_have_no_mean_and_deviation_one_whatever_the_batches() -> None:
    torch.manual_seed(0)
    x = torch.randn(40, 7, 8) * torch.linspace(0.1, 3, 8) + torch.linspace(-5, 5, 8)
    norms = [TokenNorm(8), TokenNorm(8)]
    for norm, size in zip(norms, (40, 4), strict=True):
        with measuring(nn.Sequential(norm)):
            for part in x.split(size):
                norm(part)
        y = norm(x).flatten(0, 1)
        torch.testing.assert_close(y.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
        torch.testing.assert_close(y.std(0, unbiased=False), torch.ones(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(norms[0].mean, norms[1].mean, atol=1e-6, rtol=0)


def test_absent_tokens_do_not_count_and_nothing_seen_changes_nothing() -> None:
    torch.manual_seed(0)
    x, norm, partly = torch.randn(10, 4, 6), TokenNorm(6), TokenNorm(6)
    with measuring(norm):
        norm(x)
    with measuring(partly):
        partly(torch.cat([x, torch.zeros(30, 4, 6)]))
    assert torch.equal(norm.mean, partly.mean)
    before = partly.mean.clone()
    with measuring(partly):
        partly(torch.zeros(2, 4, 6))
    assert torch.equal(partly.mean, before)


def test_features_that_do_not_vary_are_not_blown_up() -> None:
    norm = TokenNorm(4)
    with measuring(norm):
        norm(torch.tensor([[1.0, 2.0, 3.0, 4.0]]).expand(9, 4))
    assert norm.deviation.tolist() == pytest.approx([LEAST_DEVIATION] * 4)
    assert norm(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).abs().max() < 1e-2


def test_two_small_differences_are_compared_only_when_features_have_one_scale() -> None:
    """Do picture and sound agree? Each tells by a feature of a hundredth of what all tokens have in common."""

    def tokens(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (2, count), generator=generator) * 2 - 1
        common = torch.linspace(-3, 3, 16)
        sides = common + 0.02 * torch.randn(2, count, 16, generator=generator)
        sides[:, :, 5] += 0.05 * signs
        return sides[0], sides[1], (signs[0] == signs[1]).float()

    def accuracy(measured: bool) -> float:
        torch.manual_seed(0)
        norms, linears = nn.ModuleList([TokenNorm(16), TokenNorm(16)]), nn.ModuleList(nn.Linear(16, 8) for _ in "ab")
        image, audio, agree = tokens(256, 1)
        if measured:
            with measuring(norms):
                norms[0](image), norms[1](audio)

        def score(image: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
            return (linears[0](norms[0](image)) * linears[1](norms[1](audio))).sum(dim=1)

        optimizer = torch.optim.AdamW(linears.parameters(), 1e-2)
        for _ in range(40):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(score(image, audio), agree).backward()
            optimizer.step()
        image, audio, agree = tokens(512, 2)
        return float(((score(image, audio) > 0) == (agree > 0)).float().mean())

    assert accuracy(measured=True) > 0.9
    assert accuracy(measured=False) < 0.7
