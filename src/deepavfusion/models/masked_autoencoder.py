"""Audio-visual masked autoencoder: reconstruct the hidden patches of both modalities (the paper's pre-training).

Only visible patches enter the encoder. A decoder predicts its modality's hidden patches from the visible and fusion
tokens (`reconstruction_decoders`). A training step may predict a share of them; which ones follows from the masking
noise, as the mask does, so that it does not depend on the number of processes.

Of several frames the patches are masked and numbered together, as one list.

Beside the reconstruction, or in its place, two moments of a clip may be aligned (`alignment`); the first is what is
reconstructed.

Shape legend: `B` batch, `N` patches, `K` visible patches, `M` masked patches (K + M = N), `R` predicted ones among
them, `D` encoder width, `P` values of a patch (row, column, channel).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from deepavfusion.models.alignment import STREAMS, Alignment
from deepavfusion.models.config import MaskedAutoencoderConfig
from deepavfusion.models.encoder import EncoderOutput
from deepavfusion.models.encoder_model import EncoderModel
from deepavfusion.models.frames import frame_positions
from deepavfusion.models.patch_embed import patchify
from deepavfusion.models.patch_mask import PatchMask, random_mask, take
from deepavfusion.models.reconstruction_decoders import DECODERS, ReconstructionDecoder


def normalize_patches(patches: Tensor, variance_floor: float = 0.0) -> Tensor:
    """Zero mean and unit (unbiased) variance per patch: `(..., P)` -> `(..., P)`.

    With a floor the variance becomes v / (v + floor): a patch of far less variance, such as a silent one with its
    noise, then has a target near zero instead of noise at full size.
    """
    mean, var = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)
    return (patches - mean) / (var + 1e-6 + variance_floor).sqrt()


@dataclass
class AutoencoderOutput:
    """Losses and predictions; rows follow the predicted patches in ascending order: in evaluation all hidden ones."""

    loss: Tensor
    """Scalar, the reconstruction's: loss_image + loss_audio."""
    loss_image: Tensor
    """Scalar, mean squared error over predicted image patches; 0 where no sample has a picture."""
    loss_audio: Tensor
    """Scalar, the same for log-mel patches."""
    pred_image: Tensor | None
    """`(B, R, P)`, in units of the target (normalised per patch if norm_pix_loss)."""
    pred_audio: Tensor | None
    """`(B, R, P)`."""
    image_mask: Tensor | None
    """`(B, N)`, 1 where a patch is hidden."""
    audio_mask: Tensor | None
    """`(B, N)`, 1 where a patch is hidden."""
    alignment: dict[str, Tensor] = field(default_factory=dict)
    """Terms of the alignment, where a second moment was given."""


def one_sense(
    share: float, noise: Tensor, image_present: Tensor | None, audio_present: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Take one sense from some samples that have both, half of the share each.

    Which ones follows from low digits of a patch's masking noise `(B,)`, so that it does not depend on the number of
    processes, nor do the masks tell it.

    Returns:
        What is present of image and audio then, `(B,)` bool each.
    """
    draw = noise.double().mul(1024).frac()
    of_all = torch.ones_like(draw, dtype=torch.bool)
    image, audio = (of_all if own is None else own for own in (image_present, audio_present))
    both = image & audio
    return image & ~(both & (draw < share / 2)), audio & ~(both & (draw >= share / 2) & (draw < share))


class AudioVisualMAE(EncoderModel):
    """The early-fusion encoder with two reconstruction decoders and the alignment's joint space; either may be absent,
    if its weight is 0."""

    config_class = MaskedAutoencoderConfig

    def __init__(self, config: MaskedAutoencoderConfig) -> None:
        super().__init__(config)
        self.config = config
        encoder, p = config.encoder, config.encoder.patch_size
        self.image_decoder: ReconstructionDecoder | None = None
        self.audio_decoder: ReconstructionDecoder | None = None
        if config.weight:
            dims, decoder = (encoder.embed_dim, config.decoder_dim), DECODERS[config.decoder_form]
            self.image_decoder = decoder(
                encoder.image_grid,
                3 * p * p,
                *dims,
                config.image_decoder_depth,
                config.decoder_num_heads,
                frame_positions(encoder, config.decoder_dim),
            )
            self.audio_decoder = decoder(
                encoder.audio_grid, p * p, *dims, config.audio_decoder_depth, config.decoder_num_heads
            )
        elif not encoder.fused:  # decoders alone would read them
            self.encoder.fusion_tokens.requires_grad_(False)
            self.encoder.fusion_norm.requires_grad_(False)
        self.alignment = Alignment(encoder, config.alignment) if config.alignment.weight else None

    def forward(
        self,
        image: Tensor | None,
        audio: Tensor | None,
        image_noise: Tensor | None = None,
        audio_noise: Tensor | None = None,
        image_present: Tensor | None = None,
        audio_present: Tensor | None = None,
        second: Mapping[str, Tensor] | None = None,
    ) -> AutoencoderOutput:
        """Mask, encode the visible patches, predict the hidden ones; align with a second moment if there is one.

        Without a weight there is no reconstruction: no predictions, losses 0.

        Args:
            image: `(B, 3, H, W)`, of several frames `(B, T, 3, H, W)`, ImageNet-normalised, or None.
            audio: `(B, 1, mels, frames)` log-mel, or None.
            image_noise: `(B, N)`; the patches with the smallest noise stay visible. Drawn uniformly if None.
            audio_noise: the same for audio.
            image_present: `(B,)` bool, False where a sample has no picture; such rows do not enter the loss.
            audio_present: the same for audio.
            second: another moment of the same clips, by the names of the arguments above; of all but None.

        Raises:
            ValueError: a second moment for a model without alignment.
        """
        config, there = self.config, (image_present, audio_present)
        if self.training and second is not None and config.alignment.alone_share:
            draw = torch.rand(len(second["image"])) if image_noise is None else image_noise[:, 0]
            image_present, audio_present = one_sense(
                config.alignment.alone_share, draw.to(second["image"].device), *there
            )
        mask_image = self.draw_mask(image, image_noise, config.num_image_kept, config.num_image_predicted)
        mask_audio = self.draw_mask(audio, audio_noise, config.num_audio_kept, config.num_audio_predicted)
        x = self.encoder(
            image,
            audio,
            None if mask_image is None else mask_image.ids_keep,
            None if mask_audio is None else mask_audio.ids_keep,
            image_present=image_present,
            audio_present=audio_present,
        )
        floors = config.image_variance_floor, config.audio_variance_floor
        pred_image, loss_image = self.reconstruct(
            self.image_decoder, image, x.image, x.fusion, mask_image, image_present, floors[0]
        )
        pred_audio, loss_audio = self.reconstruct(
            self.audio_decoder, audio, x.audio, x.fusion, mask_audio, audio_present, floors[1]
        )
        return AutoencoderOutput(
            loss_image + loss_audio,
            loss_image,
            loss_audio,
            pred_image,
            pred_audio,
            None if mask_image is None else mask_image.mask,
            None if mask_audio is None else mask_audio.mask,
            {} if second is None else self.align(x, there, (image_present, audio_present), second),
        )

    def align(
        self,
        first: EncoderOutput,
        there: tuple[Tensor | None, Tensor | None],
        encoded: tuple[Tensor | None, Tensor | None],
        second: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Terms of the alignment with a second moment (see `forward`).

        Of the first moment: which clips have image and audio, and of which they were encoded; None stands for all.
        """
        if self.alignment is None:
            raise ValueError("a second moment was given to a model without alignment")
        config, ids = self.config.alignment, {}
        for name, ratio in (("image", config.image_mask_ratio), ("audio", config.audio_mask_ratio)):
            noise = second[f"{name}_noise"]
            ids[name] = random_mask(noise, int(noise.shape[1] * (1 - ratio))).ids_keep
        complete = second["image_present"] & second["audio_present"]
        for present in there:
            complete = complete if present is None else complete & present
        of_all = torch.ones_like(complete)
        streams = dict(zip(STREAMS, (*(of_all if own is None else own for own in encoded), of_all), strict=True))
        image = self.encoder(second["image"], None, ids["image"], image_present=second["image_present"])
        audio = self.encoder(None, second["audio"], None, ids["audio"], audio_present=second["audio_present"])
        terms: dict[str, Tensor] = self.alignment(first, image, audio, complete, streams)
        return terms

    def draw_mask(self, x: Tensor | None, noise: Tensor | None, num_kept: int, num_predicted: int) -> PatchMask | None:
        """Mask of `num_kept` visible patches for inputs `(B, C, H, W)` or `(B, T, C, H, W)`; None without any.

        All hidden patches are predicted in evaluation.
        """
        if x is None:
            return None
        if noise is None:
            num_patches = x[0, ..., 0, :, :].numel() // self.config.encoder.patch_size**2
            noise = torch.rand(len(x), num_patches, device=x.device)
        return random_mask(noise, num_kept, num_predicted if self.training else None)

    def reconstruct(
        self,
        decoder: ReconstructionDecoder | None,
        x: Tensor | None,
        visible: Tensor | None,
        fusion: Tensor,
        mask: PatchMask | None,
        present: Tensor | None,
        variance_floor: float,
    ) -> tuple[Tensor | None, Tensor]:
        """Predictions `(B, R, P)` of one modality's hidden patches and their loss; none and 0 where the modality is not
        given or nothing is reconstructed."""
        if decoder is None or x is None or visible is None or mask is None:
            return None, fusion.new_zeros((), dtype=torch.float32)
        pred = decoder(fusion, visible, mask)
        return pred, self.loss(x, pred, mask.ids_predicted, present, variance_floor)

    def loss(
        self,
        x: Tensor,
        pred: Tensor,
        ids_predicted: Tensor,
        present: Tensor | None = None,
        variance_floor: float = 0.0,
    ) -> Tensor:
        """Mean squared error on predicted patches, over the samples that have this modality; computed in float32.

        Args:
            x: `(B, C, H, W)` or `(B, T, C, H, W)` input the targets are cut from.
            pred: `(B, R, P)`.
            ids_predicted: `(B, R)`.
            present: `(B,)` bool or None.
            variance_floor: of patches that are normalised.

        Returns:
            Scalar; 0 if no sample has the modality.
        """
        target = patchify(x, self.config.encoder.patch_size)
        target = take(target, ids_predicted)
        target = target if target.dtype == torch.float64 else target.float()
        if self.config.norm_pix_loss:
            target = normalize_patches(target, variance_floor)
        error = (pred.to(target.dtype) - target).square().mean(dim=(1, 2))  # (B,)
        if present is None:
            return error.mean()
        weight = present.to(error.dtype)
        return (error * weight).sum() / weight.sum().clamp_min(1)
