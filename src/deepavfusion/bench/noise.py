"""Batches of random numbers in place of clips, for benchmarks that do not measure reading."""

from __future__ import annotations

import torch

from deepavfusion.audio import HOP_LENGTH
from deepavfusion.data.dataset import Batch
from deepavfusion.tasks.pretraining_config import PretrainConfig


def noise_batch(config: PretrainConfig, count: int, seed: int) -> Batch:
    """A batch of `count` clips of the configured sizes on the host, every one with picture and sound."""
    g = torch.Generator().manual_seed(seed)
    model = config.model
    return Batch(
        image=torch.randint(0, 256, (count, *model.image_shape), generator=g, dtype=torch.uint8),
        waveform=torch.randn(count, model.audio_size[1] * HOP_LENGTH, generator=g).clamp(-1, 1),
        image_present=torch.ones(count, dtype=torch.bool),
        audio_present=torch.ones(count, dtype=torch.bool),
        image_noise=torch.rand(count, model.num_image_patches, generator=g),
        audio_noise=torch.rand(count, model.num_audio_patches, generator=g),
        sample_numbers=list(range(count)),
        ids=[str(i) for i in range(count)],
        labels=[None] * count,
        failures=[],
    )
