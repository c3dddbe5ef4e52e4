"""Multi-head attention: one fused function and the modules that call it.

Shape legend: `B` batch, `H` heads, `N` query tokens, `K` key tokens, `D` width, `d` head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_DIM = 32
"""Width of an attention head of our heads and decoders, at least."""


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float, key_mask: Tensor | None = None) -> Tensor:
    """softmax(scale q k^T) v with torch's fused kernels, where they are the fastest way.

    Args:
        q: `(B, H, N, d)`.
        k: `(B, H, K, d)`.
        v: `(B, H, K, e)`; `e` may differ from `d`.
        scale: factor on the logits.
        key_mask: `(B, K)` bool, False where a key must not be seen; None sees all.

    Returns:
        `(B, H, N, e)`.
    """
    mask = None if key_mask is None else key_mask[:, None, None, :]
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled():
        return written_out(q, k, v, scale, mask)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def written_out(q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    """Attention as two matrix products; what is not to be seen, where mask is False, has no weight.

    The backward pass of torch's fused kernel for CPUs is two to eight times as slow in bfloat16 at the 10 to 230 keys
    of masked pre-training (in float32 it is the faster one, and there it stays).
    """
    logits = (q * scale) @ k.mT
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    return logits.softmax(dim=-1).to(v.dtype) @ v


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """`(B, N, H * d)` -> `(B, H, N, d)`."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """`(B, H, N, d)` -> `(B, N, H * d)`."""
    return x.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Attention of a ViT block, with optional context tokens that are only looked at.

    Context tokens give keys and values but no queries, so they cost neither an output projection nor an MLP. A block
    whose output rows for some tokens would be thrown away gets those tokens as context: the kept rows are the same.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """`(B, N, D)` and context `(B, K, D)` -> `(B, N, D)`."""
        dim = x.shape[-1]
        if context is None or not isinstance(self.qkv, nn.Linear):  # an adapted map is more than its weights
            q, kv = self.qkv(x).split([dim, 2 * dim], dim=-1)
            kv = kv if context is None else torch.cat([self.qkv(context)[..., dim:], kv], dim=1)
        else:
            # Queries and key-values apart: nothing is kept for backward beyond what attention itself needs.
            (weight_q, weight_kv), (bias_q, bias_kv) = (
                t.split([dim, 2 * dim]) for t in (self.qkv.weight, self.qkv.bias)
            )
            q = F.linear(x, weight_q, bias_q)
            kv = torch.cat([F.linear(t, weight_kv, bias_kv) for t in (context, x)], dim=1)
        k, v = kv.chunk(2, dim=-1)
        q, k, v = (split_heads(t, self.num_heads) for t in (q, k, v))
        return self.proj(merge_heads(attention(q, k, v, self.scale)))


class CrossAttention(nn.Module):
    """Queries from one set of tokens, keys and values from another, at width `attn_dim`."""

    def __init__(self, dim: int, attn_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (attn_dim // num_heads) ** -0.5
        self.q = nn.Linear(dim, attn_dim)
        self.kv = nn.Linear(dim, 2 * attn_dim)
        self.proj = nn.Linear(attn_dim, dim)

    def forward(self, x: Tensor, tokens: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """`(B, N, D)` reading tokens `(B, K, D)`, where key_mask `(B, K)` is True -> `(B, N, D)`."""
        k, v = self.kv(tokens).chunk(2, dim=-1)
        q, k, v = (split_heads(t, self.num_heads) for t in (self.q(x), k, v))
        return self.proj(merge_heads(attention(q, k, v, self.scale, key_mask)))


def num_heads(width: int) -> int:
    """As many attention heads of at least `HEAD_DIM` as divide a width."""
    return next(count for count in range(max(1, width // HEAD_DIM), 0, -1) if width % count == 0)
