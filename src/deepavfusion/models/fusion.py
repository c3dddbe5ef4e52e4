"""Fusion blocks: how fusion tokens read the image and audio tokens of a layer.

All forms compute n = LN(X_F); y = n + Attn(n, LN(X_I), LN(X_A)); X_F' = y + MLP(LN(y)). They differ in Attn:

- `token` attends to the list of image and audio tokens.
- `dense` attends to all image-audio pairs, a pair being the concatenation of its two tokens. Because keys and values
  are linear in the pair, the softmax over pairs is the product of two softmaxes, and the sum over pairs is the sum of
  two ordinary attentions that share the query: I + A keys instead of I x A, exactly.
- `factorized` lets aggregation tokens read their own modality first, then attends to pairs of their outputs (by the
  same identity).
- `bilinear` makes the two tokens of a pair interact: keys and values are elementwise products of an image and an audio
  factor. Logits are a bilinear form per head, and values are summed one side at a time, so that a pair exists only as
  a number per fusion token and head, never as a vector.

A stream may be absent for the whole batch (None) or for some samples (a `present` flag). An absent stream contributes
no term to `dense` and `factorized`, no keys to `token`, and the factor 1 to `bilinear`.

Shape legend: `B` batch, `F` fusion tokens (`nf` fusion, `nv` image-aggregation, `na` audio-aggregation), `I` image
tokens, `A` audio tokens, `D` width, `H` heads, `d` head width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deepavfusion.models.attention import CrossAttention, attention, merge_heads, split_heads
from deepavfusion.models.config import EarlyFusionConfig
from deepavfusion.models.vit import DropPath, Mlp


class Streams(NamedTuple):
    """What fusion tokens read: the two streams of a layer, and which samples have them."""

    image: Tensor | None
    """`(B, I, D)`, None where no sample has a picture."""
    audio: Tensor | None
    """`(B, A, D)`, None where no sample has sound."""
    image_present: Tensor | None = None
    """`(B,)` bool, False where a sample's picture is missing; None if all have one."""
    audio_present: Tensor | None = None
    """`(B,)` bool, the same for sound."""


def where_present(x: Tensor, present: Tensor | None) -> Tensor:
    """Zero the samples whose flag is False: `(B, ...)`, flags `(B,)` or None (all present)."""
    return x if present is None else x * present.to(x.dtype).view(-1, *(1 for _ in x.shape[1:]))


class PairLinear(nn.Module):
    """A linear map of the concatenation (image token, audio token), applied to each side on its own.

    W [v ; a] + b = W_v v + W_a a + b. The bias is a buffer where it has no effect and therefore no gradient: the key
    bias of pair attention adds the same number to every logit.
    """

    bias: Tensor

    def __init__(self, dim: int, out_dim: int, trainable_bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_dim, 2 * dim))
        if trainable_bias:
            self.bias = nn.Parameter(torch.zeros(out_dim))
        else:
            self.register_buffer("bias", torch.zeros(out_dim))
        nn.init.xavier_uniform_(self.weight)

    def halves(self) -> tuple[Tensor, Tensor]:
        """`W_v` and `W_a`, each `(out, D)`."""
        image, audio = self.weight.chunk(2, dim=1)
        return image, audio


class PairAttention(nn.Module):
    """Attention over all image-audio pairs, computed as two attentions with one query (no output projection)."""

    def __init__(self, dim: int, key_dim: int, value_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5  # of the full head width, whatever the key width
        self.q = nn.Linear(dim, key_dim)
        self.k = PairLinear(dim, key_dim, trainable_bias=False)
        self.v = PairLinear(dim, value_dim, trainable_bias=True)

    def forward(self, x: Tensor, streams: Streams) -> Tensor:
        """`(B, F, D)` reading pairs of image and audio tokens -> `(B, F, value_dim)`."""
        q = split_heads(self.q(x), self.num_heads)
        out = self.v.bias
        sides = zip(streams[:2], self.k.halves(), self.v.halves(), streams[2:], strict=True)
        for tokens, weight_k, weight_v, present in sides:
            if tokens is not None:
                k, v = (split_heads(F.linear(tokens, w), self.num_heads) for w in (weight_k, weight_v))
                out = out + where_present(merge_heads(attention(q, k, v, self.scale)), present)
        return out.expand(len(x), x.shape[1], -1)


class TokenFusion(nn.Module):
    """Cross-attention to the list of image and audio tokens."""

    def __init__(self, config: EarlyFusionConfig) -> None:
        super().__init__()
        self.attn = CrossAttention(config.embed_dim, config.attn_dim, config.num_heads)

    def forward(self, x: Tensor, streams: Streams) -> Tensor:
        sides = [(t, p) for t, p in zip(streams[:2], streams[2:], strict=True) if t is not None]
        key_mask = None
        if any(present is not None for _, present in sides):
            every = torch.ones(len(x), dtype=torch.bool, device=x.device)
            flags = [(every if p is None else p.bool())[:, None].expand(-1, t.shape[1]) for t, p in sides]
            key_mask = torch.cat(flags, dim=1)
            # A sample with neither stream would see no key at all: let it see all, its result means nothing anyway.
            key_mask = key_mask | ~key_mask.any(dim=1, keepdim=True)
        return self.attn(x, torch.cat([t for t, _ in sides], dim=1), key_mask)


class DenseFusion(nn.Module):
    """Cross-attention to all pairs of image and audio tokens."""

    def __init__(self, config: EarlyFusionConfig) -> None:
        super().__init__()
        self.pairs = PairAttention(config.embed_dim, config.attn_dim, config.attn_dim, config.num_heads)
        self.proj = nn.Linear(config.attn_dim, config.embed_dim)

    def forward(self, x: Tensor, streams: Streams) -> Tensor:
        return self.proj(self.pairs(x, streams))


class FactorizedFusion(nn.Module):
    """Aggregation tokens summarise each modality, fusion tokens attend to all pairs of the summaries."""

    def __init__(self, config: EarlyFusionConfig) -> None:
        super().__init__()
        dim, heads = config.embed_dim, config.num_heads
        self.num_tokens = list(config.num_tokens)
        self.aggregate_image = CrossAttention(dim, dim, heads)
        self.aggregate_audio = CrossAttention(dim, dim, heads)
        self.pairs = PairAttention(dim, config.attn_dim, dim, heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, streams: Streams) -> Tensor:
        fusion, summary_image, summary_audio = x.split(self.num_tokens, dim=1)
        image, audio, image_present, audio_present = streams
        if image is not None:
            image = summary_image = where_present(self.aggregate_image(summary_image, image), image_present)
        else:
            summary_image = torch.zeros_like(summary_image)
        if audio is not None:
            audio = summary_audio = where_present(self.aggregate_audio(summary_audio, audio), audio_present)
        else:
            summary_audio = torch.zeros_like(summary_audio)
        fusion = self.proj(self.pairs(fusion, Streams(image, audio, image_present, audio_present)))
        return torch.cat([fusion, summary_image, summary_audio], dim=1)


class PairFactors(nn.Module):
    """Key and value factors of one modality's tokens, RMS-normalised per head."""

    def __init__(self, dim: int, attn_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.kv = nn.Linear(dim, 2 * attn_dim)
        self.norm_key = nn.RMSNorm(attn_dim // num_heads, eps=1e-6)
        self.norm_value = nn.RMSNorm(attn_dim // num_heads, eps=1e-6)

    def forward(self, tokens: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor]:
        """`(B, N, D)` -> keys and values `(B, H, N, d)`; both 1 where the modality is absent."""
        k, v = (split_heads(t, self.num_heads) for t in self.kv(tokens).chunk(2, dim=-1))
        k, v = self.norm_key(k), self.norm_value(v)
        if present is not None:
            there = present.bool()[:, None, None, None]
            k, v = (torch.where(there, t, torch.ones_like(t)) for t in (k, v))
        return k, v


class BilinearFusion(nn.Module):
    """Cross-attention to all pairs, a pair's key and value being products of an image and an audio factor.

    With normalised factors a product of two starts with the variance of one, so logits and values start where those of
    ordinary attention do. Biases inside the factors let first-order terms through.
    """

    def __init__(self, config: EarlyFusionConfig) -> None:
        super().__init__()
        dim, attn_dim, heads = config.embed_dim, config.attn_dim, config.num_heads
        self.num_heads = heads
        self.scale = (attn_dim // heads) ** -0.5
        self.q = nn.Linear(dim, attn_dim)
        self.norm_q = nn.RMSNorm(attn_dim // heads, eps=1e-6)
        self.factors_image = PairFactors(dim, attn_dim, heads)
        self.factors_audio = PairFactors(dim, attn_dim, heads)
        self.proj = nn.Linear(attn_dim, dim)

    def forward(self, x: Tensor, streams: Streams) -> Tensor:
        q = self.norm_q(split_heads(self.q(x), self.num_heads))
        sides = []
        if streams.image is not None:
            sides.append(self.factors_image(streams.image, streams.image_present))
        if streams.audio is not None:
            sides.append(self.factors_audio(streams.audio, streams.audio_present))
        if len(sides) == 1:
            (k, v), *_ = sides
            return self.proj(merge_heads(attention(q, k, v, self.scale)))
        # Fold the shorter side into the queries: F x min(I, A) vectors are the most that ever exist.
        (k_short, v_short), (k_long, v_long) = sorted(sides, key=lambda side: side[0].shape[2])
        # One number per pair is still the largest thing here: recomputed in the backward pass rather than kept.
        out = checkpoint(
            bilinear_attention,
            *(q, k_short, k_long, v_short, v_long, self.scale),
            use_reentrant=False,
            preserve_rng_state=False,
        )
        return self.proj(merge_heads(out))


def bilinear_attention(q: Tensor, k: Tensor, l: Tensor, v: Tensor, u: Tensor, scale: float) -> Tensor:  # noqa: E741
    """Attention over all pairs (i, j) with keys k_i * l_j and values v_i * u_j, elementwise.

    The logit scale * sum_d q_d k_id l_jd is one number per query, head and pair; with p the softmax over pairs,
    sum_ij p_ij v_i * u_j = sum_i v_i * (sum_j p_ij u_j).

    Args:
        q: `(B, H, F, d)`.
        k: `(B, H, I, d)`, with its values `v` of the same shape.
        l: `(B, H, J, d)`, with its values `u` of the same shape.

    Returns:
        `(B, H, F, d)`.
    """
    folded = (q[:, :, :, None] * k[:, :, None]).flatten(2, 3)  # (B, H, F * I, d)
    logits = scale * folded @ l.mT  # (B, H, F * I, J)
    shape = (q.shape[2], k.shape[2])
    p = logits.unflatten(2, shape).flatten(3).softmax(dim=-1).view(logits.shape)
    inner = (p.to(u.dtype) @ u).unflatten(2, shape)  # (B, H, F, I, d)
    return torch.einsum("bhfid,bhid->bhfd", inner, v)


FUSION_FORMS = {
    "token": TokenFusion,
    "dense": DenseFusion,
    "factorized": FactorizedFusion,
    "bilinear": BilinearFusion,
}


class FusionBlock(nn.Module):
    """One layer's update of the fusion tokens.

    The residual starts from the normalised tokens, as in the published weights.
    """

    def __init__(self, config: EarlyFusionConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.norm_fusion = nn.LayerNorm(dim)
        self.norm_image = nn.LayerNorm(dim)
        self.norm_audio = nn.LayerNorm(dim)
        self.attn = FUSION_FORMS[config.fusion](config)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * config.fusion_mlp_ratio))
        self.drop_path = DropPath(config.drop_path)

    def forward(self, fusion: Tensor, streams: Streams) -> Tensor:
        """Fusion tokens `(B, F, D)` after reading the layer's streams -> `(B, F, D)`."""
        n = self.norm_fusion(fusion)
        image = None if streams.image is None else self.norm_image(streams.image)
        audio = None if streams.audio is None else self.norm_audio(streams.audio)
        y = n + self.drop_path(self.attn(n, streams._replace(image=image, audio=audio)))
        return y + self.drop_path(self.mlp(self.norm2(y)))
