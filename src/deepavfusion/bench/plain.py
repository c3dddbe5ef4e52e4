"""The method written out: the formulas of the models computed directly, without any of our savings.

Every function takes one of our modules, uses its parameters, and computes the same result directly: all pairs as
concatenated vectors, fusion tokens through the whole unimodal block, all patches embedded and all positions decoded.
The benchmarks compare our forms with these, and the tests check that both agree.

Shape legend: as in `models/fusion.py` and `models/masked_autoencoder.py`.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from deepavfusion.models.attention import merge_heads, split_heads
from deepavfusion.models.encoder import EarlyFusionEncoder
from deepavfusion.models.fusion import (
    BilinearFusion,
    DenseFusion,
    FactorizedFusion,
    FusionBlock,
    PairAttention,
    PairFactors,
    TokenFusion,
)
from deepavfusion.models.masked_autoencoder import AudioVisualMAE, normalize_patches
from deepavfusion.models.patch_embed import PatchEmbed, patchify
from deepavfusion.models.reconstruction_decoders import CrossBlock, CrossReconstructionDecoder, ReconstructionDecoder
from deepavfusion.models.vit import VisionTransformer


def pair_attention(module: PairAttention, x: Tensor, image: Tensor, audio: Tensor) -> Tensor:
    """Attention over I x A pairs, each the concatenation of its two tokens."""
    pairs = torch.cat(
        [
            image[:, :, None].expand(-1, -1, audio.shape[1], -1),
            audio[:, None].expand(-1, image.shape[1], -1, -1),
        ],
        dim=-1,
    ).flatten(1, 2)  # (B, I * A, 2 D)
    q, k, v = (
        split_heads(t, module.num_heads)
        for t in (
            module.q(x),
            F.linear(pairs, module.k.weight, module.k.bias),
            F.linear(pairs, module.v.weight, module.v.bias),
        )
    )
    return merge_heads(F.scaled_dot_product_attention(q, k, v, scale=module.scale))


def bilinear_attention(module: BilinearFusion, x: Tensor, image: Tensor, audio: Tensor) -> Tensor:
    """Attention over I x A pairs, each the elementwise product of its two factors."""

    def factors(side: PairFactors, tokens: Tensor) -> tuple[Tensor, Tensor]:
        k, v = (split_heads(t, module.num_heads) for t in side.kv(tokens).chunk(2, dim=-1))
        return side.norm_key(k), side.norm_value(v)

    (k_image, v_image), (k_audio, v_audio) = factors(module.factors_image, image), factors(module.factors_audio, audio)
    k = (k_image[:, :, :, None] * k_audio[:, :, None]).flatten(2, 3)  # (B, H, I * A, d)
    v = (v_image[:, :, :, None] * v_audio[:, :, None]).flatten(2, 3)
    q = module.norm_q(split_heads(module.q(x), module.num_heads))
    return module.proj(merge_heads(F.scaled_dot_product_attention(q, k, v, scale=module.scale)))


def fusion_attention(module: torch.nn.Module, x: Tensor, image: Tensor, audio: Tensor) -> Tensor:
    """The attention of a fusion block, whichever its form."""
    if isinstance(module, TokenFusion):
        return module.attn(x, torch.cat([audio, image], dim=1))
    if isinstance(module, DenseFusion):
        return module.proj(pair_attention(module.pairs, x, image, audio))
    if isinstance(module, BilinearFusion):
        return bilinear_attention(module, x, image, audio)
    assert isinstance(module, FactorizedFusion)
    fusion, summary_image, summary_audio = x.split(module.num_tokens, dim=1)
    summary_image = module.aggregate_image(summary_image, image)
    summary_audio = module.aggregate_audio(summary_audio, audio)
    fusion = module.proj(pair_attention(module.pairs, fusion, summary_image, summary_audio))
    return torch.cat([fusion, summary_image, summary_audio], dim=1)


def fusion_block(block: FusionBlock, fusion: Tensor, image: Tensor, audio: Tensor) -> Tensor:
    n = block.norm_fusion(fusion)
    y = n + fusion_attention(block.attn, n, block.norm_image(image), block.norm_audio(audio))
    return y + block.mlp(block.norm2(y))


def embed(stream: VisionTransformer, x: Tensor, ids_keep: Tensor | None) -> Tensor:
    """All patches by a convolution, frame by frame, then the visible ones picked."""
    frames = x[:, None] if x.ndim == 4 else x
    module = stream.patch_embed
    if isinstance(module, PatchEmbed):
        embedded = [module.proj(frame).flatten(2).mT for frame in frames.unbind(1)]
    else:
        embedded = [module(frame) for frame in frames.unbind(1)]
    tokens = torch.cat(embedded, dim=1) + _positions(stream.pos_embed, stream.time_embed)
    if ids_keep is None:
        return tokens
    return tokens.gather(1, ids_keep[..., None].expand(-1, -1, tokens.shape[-1]))


def _positions(places: Tensor, times: Tensor | None) -> Tensor:
    """`(1, T N, D)` of patches `(1, N, D)` and frames `(T, D)`."""
    return places if times is None else torch.cat([places + time for time in times], dim=1)


def encode(
    encoder: EarlyFusionEncoder,
    image: Tensor,
    audio: Tensor,
    image_ids_keep: Tensor | None = None,
    audio_ids_keep: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Image, audio and fusion tokens after the final norms, without drop path."""
    x_image, x_audio = embed(encoder.image, image, image_ids_keep), embed(encoder.audio, audio, audio_ids_keep)
    x_fusion = encoder.fusion_tokens.expand(len(image), -1, -1)
    num_fusion = x_fusion.shape[1]
    for i in range(encoder.config.depth):
        block_image, block_audio = encoder.image.blocks[i], encoder.audio.blocks[i]
        if str(i) in encoder.fusion_blocks:
            x_fusion, x_image, x_audio = (
                fusion_block(cast(FusionBlock, encoder.fusion_blocks[str(i)]), x_fusion, x_image, x_audio),
                block_image(torch.cat([x_fusion, x_image], dim=1))[:, num_fusion:],
                block_audio(torch.cat([x_fusion, x_audio], dim=1))[:, num_fusion:],
            )
        else:
            x_image, x_audio = block_image(x_image), block_audio(x_audio)
    return encoder.image.norm(x_image), encoder.audio.norm(x_audio), encoder.fusion_norm(x_fusion)


def decode(decoder: ReconstructionDecoder, fusion: Tensor, visible: Tensor, ids_restore: Tensor) -> Tensor:
    """Predictions at all positions `(B, N, P)`; `ids_restore` `(B, N)` sorts [visible ; masked] into patch order."""
    visible = decoder.embed(visible)
    batch, num_patches = ids_restore.shape
    masked = decoder.mask_token.expand(batch, num_patches - visible.shape[1], -1)
    tokens = torch.cat([visible, masked], dim=1)
    tokens = tokens.gather(1, ids_restore[..., None].expand(-1, -1, tokens.shape[-1]))
    tokens = tokens + _positions(decoder.pos_embed, decoder.time_embed)
    x = torch.cat([decoder.embed(fusion), tokens], dim=1)
    for block in decoder.blocks:
        x = block(x)
    return decoder.pred(decoder.norm(x))[:, fusion.shape[1] :]


def decode_cross(decoder: ReconstructionDecoder, fusion: Tensor, visible: Tensor, ids_restore: Tensor) -> Tensor:
    """The same for the `cross` form: a mask token at every position, visible or not."""
    num_visible = visible.shape[1]
    positions = decoder.pos_embed.expand(len(visible), -1, -1)
    ids_keep = ids_restore.argsort(dim=1)[:, :num_visible]
    own = positions.gather(1, ids_keep[..., None].expand(-1, -1, positions.shape[-1]))
    seen = torch.cat([decoder.embed(fusion), decoder.embed(visible) + own], dim=1)
    x = decoder.mask_token + positions
    for block in cast("list[CrossBlock]", decoder.blocks):
        context, attn = block.norm_context(seen), block.attn
        q, k, v = (split_heads(t, attn.num_heads) for t in (attn.q(block.norm1(x)), *attn.kv(context).chunk(2, dim=-1)))
        x = x + attn.proj(merge_heads((attn.scale * q @ k.mT).softmax(dim=-1) @ v))
        x = x + block.mlp(block.norm2(x))
    return decoder.pred(decoder.norm(x))


def masked_loss(
    model: AudioVisualMAE, image: Tensor, audio: Tensor, image_noise: Tensor, audio_noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Image and audio loss of the masked autoencoder, everything computed and the unused thrown away."""
    config = model.config
    orders = [noise.argsort(dim=1, stable=True) for noise in (image_noise, audio_noise)]
    kept = (config.num_image_kept, config.num_audio_kept)
    predicted = (config.num_image_predicted, config.num_audio_predicted)
    *visible, fusion = encode(model.encoder, image, audio, *(o[:, :n] for o, n in zip(orders, kept, strict=True)))
    losses = []
    decoders = (model.image_decoder, model.audio_decoder)
    parts = zip((image, audio), visible, decoders, orders, kept, predicted, strict=True)
    for x, tokens, decoder, order, num, num_predicted in parts:
        written_out = decode_cross if isinstance(decoder, CrossReconstructionDecoder) else decode
        pred = written_out(decoder, fusion, tokens, order.argsort(dim=1))
        target = patchify(x, config.encoder.patch_size)
        target = normalize_patches(target) if config.norm_pix_loss else target
        counted = order[:, num : num + num_predicted] if model.training else order[:, num:]
        mask = torch.zeros_like(order, dtype=pred.dtype).scatter(1, counted, 1.0)
        losses.append(((pred - target).square().mean(dim=-1) * mask).sum() / mask.sum())
    return losses[0], losses[1]
