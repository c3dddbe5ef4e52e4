"""Audio-visual masked autoencoder: reconstruct the hidden patches of both modalities (the paper's pre-training).

Only visible patches enter the encoder. A decoder sees its modality's visible tokens, the fusion tokens and mask tokens
for the hidden positions. Only hidden positions enter the loss, so the decoder's last block and prediction are computed
for them alone; and because attention does not depend on the order of tokens, they are never put back in place.

Of several frames the patches are masked and numbered together, as one list.

Shape legend: `B` batch, `N` patches, `K` visible patches, `M` masked patches (K + M = N), `F` fusion tokens, `D`
encoder width, `E` decoder width, `P` values of a patch (row, column, channel).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepavfusion.models.config import MaskedAutoencoderConfig
from deepavfusion.models.encoder import EarlyFusionEncoder, initialize
from deepavfusion.models.frames import frame_positions, token_positions
from deepavfusion.models.pretrained import PretrainedModel
from deepavfusion.models.vit import Block, patchify, sincos_positions


@dataclass
class PatchMask:
    """Which patches of each sample are hidden; numbers ascend in every row."""

    ids_keep: Tensor
    """`(B, K)` visible patches."""
    ids_masked: Tensor
    """`(B, M)` hidden patches."""
    mask: Tensor
    """`(B, N)` float32, 1 where a patch is hidden."""


def random_mask(noise: Tensor, num_kept: int) -> PatchMask:
    """Keep the patches with the smallest noise: noise `(B, N)` -> `num_kept` visible patches per row."""
    order = noise.argsort(dim=1, stable=True)
    ids_keep, ids_masked = order[:, :num_kept].sort(dim=1).values, order[:, num_kept:].sort(dim=1).values
    mask = torch.ones_like(noise, dtype=torch.float32).scatter(1, ids_keep, 0.0)
    return PatchMask(ids_keep, ids_masked, mask)


def normalize_patches(patches: Tensor, variance_floor: float = 0.0) -> Tensor:
    """Zero mean and unit (unbiased) variance per patch: `(..., P)` -> `(..., P)`.

    With a floor the variance becomes v / (v + floor): a patch of far less variance, such as a silent one with its
    noise, then has a target near zero instead of noise at full size.
    """
    mean, var = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)
    return (patches - mean) / (var + 1e-6 + variance_floor).sqrt()


class ReconstructionDecoder(nn.Module):
    """A small ViT that predicts hidden patches from visible tokens and fusion tokens."""

    time_embed: Tensor | None

    def __init__(
        self,
        grid: tuple[int, int],
        patch_dim: int,
        encoder_dim: int,
        dim: int,
        depth: int,
        num_heads: int,
        times: Tensor | None = None,
    ) -> None:
        """`times` `(T, dim)` is the time embedding of several frames; None of one, or of sound."""
        super().__init__()
        self.embed = nn.Linear(encoder_dim, dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(sincos_positions(grid, dim))
        self.register_buffer("time_embed", times, persistent=False)
        self.blocks = nn.ModuleList(Block(dim, num_heads, eps=1e-5) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.pred = nn.Linear(dim, patch_dim)
        self.apply(initialize)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, fusion: Tensor, visible: Tensor, ids_keep: Tensor, ids_masked: Tensor) -> Tensor:
        """Fusion `(B, F, D)`, visible `(B, K, D)` and the patch numbers of both kinds -> predictions `(B, M, P)`."""
        keep, masked = (token_positions(self.pos_embed[0], self.time_embed, ids) for ids in (ids_keep, ids_masked))
        seen = torch.cat([self.embed(fusion), self.embed(visible) + keep], dim=1)  # (B, F + K, E)
        x = torch.cat([seen, (self.mask_token + masked).to(seen.dtype)], dim=1)
        for block in self.blocks[:-1]:
            x = block(x)
        seen, hidden = x.split([seen.shape[1], masked.shape[1]], dim=1)
        return self.pred(self.norm(self.blocks[-1](hidden, context=seen)))


@dataclass
class AutoencoderOutput:
    """Losses and predictions; rows follow the hidden patches in ascending order."""

    loss: Tensor
    """Scalar, loss_image + loss_audio, to be minimised."""
    loss_image: Tensor
    """Scalar, mean squared error over hidden image patches; 0 where no sample has a picture."""
    loss_audio: Tensor
    """Scalar, the same for log-mel patches."""
    pred_image: Tensor | None
    """`(B, M, P)`, in units of the target (normalised per patch if norm_pix_loss)."""
    pred_audio: Tensor | None
    """`(B, M, P)`."""
    image_mask: Tensor | None
    """`(B, N)`, 1 where a patch is hidden."""
    audio_mask: Tensor | None
    """`(B, N)`, 1 where a patch is hidden."""


class AudioVisualMAE(nn.Module, PretrainedModel):
    """The early-fusion encoder with two reconstruction decoders."""

    def __init__(self, config: MaskedAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        encoder, p = config.encoder, config.encoder.patch_size
        self.encoder = EarlyFusionEncoder(encoder)
        dims = (encoder.embed_dim, config.decoder_dim)
        self.image_decoder = ReconstructionDecoder(
            encoder.image_grid,
            3 * p * p,
            *dims,
            config.image_decoder_depth,
            config.decoder_num_heads,
            frame_positions(encoder, config.decoder_dim),
        )
        self.audio_decoder = ReconstructionDecoder(
            encoder.audio_grid, p * p, *dims, config.audio_decoder_depth, config.decoder_num_heads
        )

    def forward(
        self,
        image: Tensor | None,
        audio: Tensor | None,
        image_noise: Tensor | None = None,
        audio_noise: Tensor | None = None,
        image_present: Tensor | None = None,
        audio_present: Tensor | None = None,
    ) -> AutoencoderOutput:
        """Mask, encode the visible patches, predict the hidden ones.

        Args:
            image: `(B, 3, H, W)`, of several frames `(B, T, 3, H, W)`, ImageNet-normalised, or None.
            audio: `(B, 1, mels, frames)` log-mel, or None.
            image_noise: `(B, N)`; the patches with the smallest noise stay visible. Drawn uniformly if None.
            audio_noise: the same for audio.
            image_present: `(B,)` bool, False where a sample has no picture; such rows do not enter the loss.
            audio_present: the same for audio.
        """
        mask_image = mask_audio = pred_image = pred_audio = None
        if image is not None:
            mask_image = self.draw_mask(image, image_noise, self.config.num_image_kept)
        if audio is not None:
            mask_audio = self.draw_mask(audio, audio_noise, self.config.num_audio_kept)
        x = self.encoder(
            image,
            audio,
            None if mask_image is None else mask_image.ids_keep,
            None if mask_audio is None else mask_audio.ids_keep,
            image_present=image_present,
            audio_present=audio_present,
        )
        loss_image = loss_audio = x.fusion.new_zeros((), dtype=torch.float32)
        if image is not None and mask_image is not None:
            pred_image = self.image_decoder(x.fusion, x.image, mask_image.ids_keep, mask_image.ids_masked)
            floor = self.config.image_variance_floor
            loss_image = self.loss(image, pred_image, mask_image.ids_masked, image_present, floor)
        if audio is not None and mask_audio is not None:
            pred_audio = self.audio_decoder(x.fusion, x.audio, mask_audio.ids_keep, mask_audio.ids_masked)
            floor = self.config.audio_variance_floor
            loss_audio = self.loss(audio, pred_audio, mask_audio.ids_masked, audio_present, floor)
        return AutoencoderOutput(
            loss_image + loss_audio,
            loss_image,
            loss_audio,
            pred_image,
            pred_audio,
            None if mask_image is None else mask_image.mask,
            None if mask_audio is None else mask_audio.mask,
        )

    def draw_mask(self, x: Tensor, noise: Tensor | None, num_kept: int) -> PatchMask:
        """Mask of `num_kept` visible patches for inputs `(B, C, H, W)` or `(B, T, C, H, W)`."""
        if noise is None:
            num_patches = x[0, ..., 0, :, :].numel() // self.config.encoder.patch_size**2
            noise = torch.rand(len(x), num_patches, device=x.device)
        return random_mask(noise, num_kept)

    def loss(
        self,
        x: Tensor,
        pred: Tensor,
        ids_masked: Tensor,
        present: Tensor | None = None,
        variance_floor: float = 0.0,
    ) -> Tensor:
        """Mean squared error on hidden patches, over the samples that have this modality; computed in float32.

        Args:
            x: `(B, C, H, W)` or `(B, T, C, H, W)` input the targets are cut from.
            pred: `(B, M, P)`.
            ids_masked: `(B, M)`.
            present: `(B,)` bool or None.
            variance_floor: of patches that are normalised.

        Returns:
            Scalar; 0 if no sample has the modality.
        """
        target = patchify(x, self.config.encoder.patch_size)
        target = target.gather(1, ids_masked[..., None].expand(-1, -1, target.shape[-1]))
        target = target if target.dtype == torch.float64 else target.float()
        if self.config.norm_pix_loss:
            target = normalize_patches(target, variance_floor)
        error = (pred.to(target.dtype) - target).square().mean(dim=(1, 2))  # (B,)
        if present is None:
            return error.mean()
        weight = present.to(error.dtype)
        return (error * weight).sum() / weight.sum().clamp_min(1)

    def layer_ids(self) -> dict[str, int]:
        """Layer numbers as in the encoder; decoders belong to the last."""
        ids = {f"encoder.{name}": i for name, i in self.encoder.layer_ids().items()}
        last = self.config.encoder.depth + 1
        return {name: ids.get(name, last) for name, _ in self.named_parameters()}
