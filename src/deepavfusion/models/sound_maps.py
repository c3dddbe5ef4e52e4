"""Maps of an encoder without any training for localization (section 5b of the method).

- `audio_cosine`, `fusion_cosine`: the cosine of a patch token and the mean audio or mean fusion token of its layer;
- `attention`: the attention that a patch gets from the image-aggregation tokens in the factorized form, from the fusion
  tokens in the others, averaged over tokens and heads;
- `rise`: how far a patch token moves when the sound replaces digital silence.

All are mapped to [0, 1] by a fixed increasing function, the same for all images, so that scores compare between images:
a cosine c becomes (1 + c) / 2, an attention that is a times its even share a / (1 + a), a rise of length r of a token
of length n r / (r + n).

Shape legend: `B` batch, `I` image patches, `A` audio patches, `F` fusion tokens, `H` heads, `D` width.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from deepavfusion.audio import LOG_FLOOR
from deepavfusion.models.attention import CrossAttention, split_heads
from deepavfusion.models.config import EarlyFusionConfig
from deepavfusion.models.encoder import EarlyFusionEncoder, LayerTokens
from deepavfusion.models.frames import reference_tokens
from deepavfusion.models.fusion import BilinearFusion, DenseFusion, FactorizedFusion, FusionBlock, TokenFusion

ZeroShot = Literal["audio_cosine", "fusion_cosine", "attention", "rise"]


def zero_shot_maps(
    encoder: EarlyFusionEncoder, method: ZeroShot, layers: tuple[int, ...], image: Tensor, audio: Tensor
) -> Tensor:
    """Score maps of pictures and sounds, averaged over layers.

    Args:
        encoder: in evaluation mode.
        method: see the head of this module.
        layers: zero-based numbers; `attention` needs layers that fuse.
        image: `(B, 3, H, W)`, of several frames `(B, T, 3, H, W)`, ImageNet-normalised.
        audio: `(B, 1, mels, frames)` log-mel.

    Returns:
        `(B, 1, rows, columns)` in [0, 1], of several frames those of the reference frame.

    Raises:
        ValueError: a method that this encoder does not have.
    """
    check_method(encoder.config, method, layers)
    if method == "attention":
        check_attention(encoder, layers)
    tokens = _layers(encoder, image, audio)
    silence = torch.full_like(audio, math.log10(LOG_FLOOR))
    silent = _layers(encoder, image, silence) if method == "rise" else tokens
    maps = []
    for i in layers:
        patches, still = tokens[i].image, silent[i].image
        assert patches is not None
        assert still is not None
        if method == "attention":
            before = tokens[i - 1] if i else _embedded(encoder, image, audio)
            block = encoder.fusion_blocks[str(i)]
            assert isinstance(block, FusionBlock)
            share = patch_attention(block, before) * patches.shape[1]
            maps.append(share / (1 + share))
        elif method == "rise":
            moved = (patches - still).norm(dim=-1)
            maps.append(moved / (moved + still.norm(dim=-1)).clamp_min(1e-12))
        else:
            other = tokens[i].audio if method == "audio_cosine" else tokens[i].fusion
            assert other is not None
            maps.append((1 + F.cosine_similarity(patches, other.mean(dim=1, keepdim=True), dim=-1)) / 2)
    mean = torch.stack([own.float() for own in maps]).mean(dim=0).clamp(0, 1)
    return reference_tokens(mean, encoder.config).unflatten(1, encoder.config.image_grid)[:, None]


def check_method(config: EarlyFusionConfig, method: ZeroShot, layers: tuple[int, ...]) -> None:
    """Raise ValueError unless the encoder has the layers, and tokens that listen where the method needs them."""
    strangers = [i for i in layers if not 0 <= i < config.depth]
    if not layers or strangers:
        raise ValueError(f"layers {list(layers)} must be layer numbers from 0 to {config.depth - 1}")
    if method in ("fusion_cosine", "rise") and not config.fused:
        raise ValueError(f"method {method}: an encoder without fusion gives no such map; take audio_cosine or head")
    if method == "attention":
        deaf = [i for i in layers if i not in config.fused]
        if deaf:
            raise ValueError(f"method attention: layers {deaf} do not fuse; those that do are {list(config.fused)}")


def check_attention(encoder: EarlyFusionEncoder, layers: tuple[int, ...]) -> None:
    """Raise ValueError if the attention of the layers' fusion form is not known here, before anything is computed."""
    for i in layers:
        form = encoder.fusion_blocks[str(i)].attn
        if not isinstance(form, (FactorizedFusion, TokenFusion, DenseFusion, BilinearFusion)):
            raise ValueError(_unknown(form))


def _unknown(form: object) -> str:
    return (
        f"method attention: how {type(form).__name__} shares out its attention is not known to "
        f"sound_maps.patch_attention; add it there, or take audio_cosine, fusion_cosine, rise or head"
    )


def patch_attention(block: FusionBlock, before: LayerTokens) -> Tensor:
    """How the attention of fusion tokens to the picture is shared out over its patches.

    Args:
        block: of the layer.
        before: the layer's inputs.

    Returns:
        `(B, I)`, at least 0, adding up to 1, averaged over heads and over the tokens that look.

    Raises:
        ValueError: a fusion form whose attention is not known here.
    """
    assert before.image is not None
    assert before.audio is not None
    fusion, image, audio = (
        block.norm_fusion(before.fusion),
        block.norm_image(before.image),
        block.norm_audio(before.audio),
    )
    form = block.attn
    if isinstance(form, FactorizedFusion):
        summary = fusion.split(form.num_tokens, dim=1)[1]
        shares = _cross_attention(form.aggregate_image, summary, image).softmax(dim=-1)
    elif isinstance(form, TokenFusion):
        every = _cross_attention(form.attn, fusion, torch.cat([image, audio], dim=1)).softmax(dim=-1)
        shares = every[..., : image.shape[1]]
    elif isinstance(form, DenseFusion):
        q = split_heads(form.pairs.q(fusion), form.pairs.num_heads)
        k = split_heads(F.linear(image, form.pairs.k.halves()[0]), form.pairs.num_heads)
        shares = (form.pairs.scale * q @ k.mT).softmax(dim=-1)
    elif isinstance(form, BilinearFusion):
        q = form.norm_q(split_heads(form.q(fusion), form.num_heads))
        k, l = form.factors_image(image, None)[0], form.factors_audio(audio, None)[0]  # noqa: E741
        logits = form.scale * torch.einsum("bhfd,bhid,bhjd->bhfij", q, k, l)
        shares = logits.flatten(3).softmax(dim=-1).view(logits.shape).sum(dim=-1)
    else:
        raise ValueError(_unknown(form))
    mean = shares.float().mean(dim=(1, 2))  # (B, H, F, I) -> (B, I)
    return mean / mean.sum(dim=-1, keepdim=True)


def _cross_attention(attn: CrossAttention, x: Tensor, tokens: Tensor) -> Tensor:
    """Logits `(B, H, N, K)`."""
    k, _ = attn.kv(tokens).chunk(2, dim=-1)
    q, k = (split_heads(t, attn.num_heads) for t in (attn.q(x), k))
    return attn.scale * q @ k.mT


def _layers(encoder: EarlyFusionEncoder, image: Tensor, audio: Tensor) -> tuple[LayerTokens, ...]:
    layers = encoder(image, audio, return_layers=True).layers
    assert layers is not None
    return layers


def _embedded(encoder: EarlyFusionEncoder, image: Tensor, audio: Tensor) -> LayerTokens:
    fusion = encoder.fusion_tokens.expand(len(image), -1, -1)
    return LayerTokens(encoder.image.embed(image), encoder.audio.embed(audio), fusion)
