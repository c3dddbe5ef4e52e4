"""A model with a joint space and random weights, for tests."""

from __future__ import annotations

from pathlib import Path

import torch

from deepavfusion.audio import log_mel
from deepavfusion.images import normalize
from deepavfusion.models import AudioVisualMAE, MaskedAutoencoderConfig
from deepavfusion.models.config import AlignmentConfig
from tests.inference.tiny_models import ENCODER, film, randomized


def save_joint_model(folder: Path) -> str:
    """Save it and return its place."""
    torch.manual_seed(1)
    config = MaskedAutoencoderConfig(
        encoder=ENCODER,
        decoder_dim=16,
        decoder_num_heads=2,
        alignment=AlignmentConfig(weight=1.0, dim=8, hidden_dim=16),
    )
    model = randomized(AudioVisualMAE(config))
    frames, sound = film(2.0, ENCODER.image_size, seed=1)
    image = normalize(torch.from_numpy(frames).permute(0, 3, 1, 2))
    audio = log_mel(torch.from_numpy(sound).unfold(0, 16000, 1000), 32)
    with torch.no_grad():  # what training would have seen: else all vectors are nearly one
        for name, out in (("image", model.encoder(image, None)), ("audio", model.encoder(None, audio))):
            x, first = model.alignment.pooled(out), model.alignment.alone[name].before
            first.mean.copy_(x.mean(dim=0))
            first.variance.copy_(x.var(dim=0))
    model.save_pretrained(folder)
    return str(folder)
