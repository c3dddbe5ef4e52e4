"""Augmentation of batches in classification: mixup, modality dropout, label smoothing.

Randomness comes from torch's global generator on the CPU, which the training step seeds.

Shape legend: `B` batch, `C` classes, `H W` pixels, `M T` mel bands and frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelledInputs:
    """What a classifier is trained on."""

    image: Tensor
    """`(B, 3, H, W)`."""
    audio: Tensor
    """`(B, 1, M, T)`."""
    image_present: Tensor
    """bool `(B,)`."""
    audio_present: Tensor
    """bool `(B,)`."""
    targets: Tensor
    """`(B, C)` in [0, 1]."""


def smooth(targets: Tensor, smoothing: float) -> Tensor:
    """Move a share of every target `(B, C)` to all classes alike: (1 - s) y + s / C."""
    return targets * (1 - smoothing) + smoothing / targets.shape[1]


def draw_mixing(alpha: float, size: int) -> Tensor:
    """Mixing weights `(size,)` in [0, 1], one per sample, from Beta(alpha, alpha)."""
    return torch.distributions.Beta(alpha, alpha).sample(torch.Size([size]))


def mix(inputs: LabelledInputs, weights: Tensor) -> LabelledInputs:
    """Mixup: every sample with its partner from the other end of the batch, picture, sound and targets by one weight.

        x_i <- w_i x_i + (1 - w_i) x_(B - 1 - i)

    Partners that do not have the same modalities are left unmixed: there would be nothing to mix a picture with.

    Args:
        inputs: the batch.
        weights: `(B,)` in [0, 1], of the sample itself.
    """
    present = torch.stack([inputs.image_present, inputs.audio_present])
    alike = (present == present.flip(1)).all(dim=0)
    weights = torch.where(alike, weights.to(inputs.image.dtype), 1.0)

    def mixed(x: Tensor) -> Tensor:
        w = weights.view(-1, *(1 for _ in x.shape[1:]))
        return w * x + (1 - w) * x.flip(0)

    return replace(inputs, image=mixed(inputs.image), audio=mixed(inputs.audio), targets=mixed(inputs.targets))


def drop_modalities(image_present: Tensor, audio_present: Tensor, draws: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """Hide picture or sound, equally likely, from samples that have both.

    Args:
        image_present, audio_present: bool `(B,)`.
        draws: `(B,)` uniform in [0, 1).
        rate: probability that one of the two is hidden.

    Returns:
        The two flags `(B,)`.
    """
    both = image_present & audio_present
    hide_image = both & (draws < rate / 2)
    hide_audio = both & (draws >= rate / 2) & (draws < rate)
    return image_present & ~hide_image, audio_present & ~hide_audio
