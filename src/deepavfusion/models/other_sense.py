"""Whether the reconstruction uses the other modality: the rise of the loss when that modality is from another clip.

A decoder sees the visible tokens of its modality and the fusion tokens, which have read both modalities. If it uses the
other modality, hidden patches are predicted worse with another clip's in its place. If it does not, pre-training has no
reason to fuse.

Shape legend: `B` batch, `N` patches, `H W` pixels, `M T` mel bands and frames.
"""

from __future__ import annotations

from torch import Tensor

from deepavfusion.models.masked_autoencoder import AudioVisualMAE


def other_sense_worth(
    model: AudioVisualMAE, image: Tensor, audio: Tensor, image_noise: Tensor, audio_noise: Tensor
) -> dict[str, Tensor]:
    """Loss on hidden patches with the other modality of the previous sample, minus the loss with their own, under the
    same masks.

    Args:
        model: in evaluation mode, so that all hidden patches are predicted.
        image: `(B, 3, H, W)`, or `(B, frames, 3, H, W)`; all samples have an image, and `B` is at least 2.
        audio: `(B, 1, M, T)`; all samples have sound.
        image_noise: `(B, N)` masking noise.
        audio_noise: the same of audio.

    Returns:
        Scalars by the predicted modality, in units of its loss: above 0 where the other one helps, 0 without fusion.
    """
    if len(image) < 2:
        raise ValueError("the other modality is taken from another sample: at least 2 are needed")
    own = model(image, audio, image_noise, audio_noise)
    foreign_sound = model(image, audio.roll(1, dims=0), image_noise, audio_noise)
    foreign_picture = model(image.roll(1, dims=0), audio, image_noise, audio_noise)
    return {
        "image": foreign_sound.loss_image - own.loss_image,
        "audio": foreign_picture.loss_audio - own.loss_audio,
    }
