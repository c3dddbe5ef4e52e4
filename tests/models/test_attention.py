"""The one attention function: its two ways agree, and which is taken."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deepavfusion.models.attention import attention

SHAPES = {"q": (2, 3, 5, 8), "k": (2, 3, 7, 8), "v": (2, 3, 7, 8)}
SCALE = 0.3
KEY_MASK = torch.tensor([[True] * 4 + [False] * 3, [False, True] + [True] * 5])


def inputs(dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape).to(dtype).requires_grad_() for shape in SHAPES.values()]


def reference(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None) -> Tensor:
    """Sample by sample, head by head, only over the keys that are seen."""
    rows = []
    for b in range(len(q)):
        seen = slice(None) if key_mask is None else key_mask[b]
        heads = []
        for h in range(q.shape[1]):
            weights = (SCALE * q[b, h] @ k[b, h][seen].T).exp()
            heads.append(weights @ v[b, h][seen] / weights.sum(dim=1, keepdim=True))
        rows.append(torch.stack(heads))
    return torch.stack(rows)


@pytest.mark.parametrize("key_mask", [None, KEY_MASK], ids=["all", "some"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 3e-2)], ids=str)
def test_values_and_gradients_are_those_of_the_definition(
    dtype: torch.dtype, tolerance: float, key_mask: Tensor | None
) -> None:
    given = inputs(dtype)
    exact = [t.detach().double().requires_grad_() for t in given]
    out, expected = attention(*given, SCALE, key_mask), reference(*exact, key_mask)
    assert out.dtype == dtype
    weight = torch.linspace(-1, 1, out.numel()).view(out.shape)
    (out * weight).sum().backward()
    grads = torch.autograd.grad((expected * weight).sum(), exact)
    torch.testing.assert_close(out.double(), expected, atol=tolerance, rtol=0)
    for t, grad in zip(given, grads, strict=True):
        assert t.grad is not None
        torch.testing.assert_close(t.grad.double(), grad, atol=tolerance, rtol=0)


def test_float32_is_bit_equal_to_the_fused_kernel() -> None:
    given = inputs(torch.float32)
    assert torch.equal(attention(*given, SCALE), F.scaled_dot_product_attention(*given, scale=SCALE))


def test_training_in_bfloat16_on_a_cpu_leaves_out_the_fused_kernel() -> None:
    # Its backward pass is several times as slow there. What stands in the graph says which way was taken.
    ways = {dtype: str(attention(*inputs(dtype), SCALE).grad_fn) for dtype in (torch.float32, torch.bfloat16)}
    assert "ScaledDotProduct" in ways[torch.float32]
    assert "ScaledDotProduct" not in ways[torch.bfloat16]
    given = inputs(torch.bfloat16)
    with torch.no_grad():
        assert torch.equal(attention(*given, SCALE), F.scaled_dot_product_attention(*given, scale=SCALE))
