"""Small models for tests: real architecture, width 32, depth 2 or 3, non-square inputs."""

from dataclasses import replace

import torch

from deepavfusion.models import AudioVisualMAE, EarlyFusionConfig, EarlyFusionEncoder, MaskedAutoencoderConfig
from deepavfusion.models.config import FUSION_NAMES

FORMS = FUSION_NAMES
TINY = EarlyFusionConfig(
    image_size=(64, 48), audio_size=(48, 64), embed_dim=32, depth=3, num_heads=4, num_tokens=(4, 3, 2)
)


def tiny_encoder(seed: int = 0, **changes) -> EarlyFusionEncoder:
    torch.manual_seed(seed)
    return randomized(EarlyFusionEncoder(replace(TINY, **changes)))


def tiny_autoencoder(seed: int = 0, **changes) -> AudioVisualMAE:
    torch.manual_seed(seed)
    config = MaskedAutoencoderConfig(
        replace(TINY, **changes), decoder_dim=32, decoder_num_heads=4, image_decoder_depth=2, audio_decoder_depth=1
    )
    return randomized(AudioVisualMAE(config))


def randomized(model):
    """Give zero-initialised biases and unit norms random values, so that a mistake with one of them shows."""
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.ndim == 1:
                tensor.add_(0.2 * torch.randn_like(tensor))
            assert tensor.ndim, name
    return model


def inputs(batch: int = 2, dtype: torch.dtype = torch.float32, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, 3, *TINY.image_size, generator=generator, dtype=torch.float64)
    audio = torch.randn(batch, 1, *TINY.audio_size, generator=generator, dtype=torch.float64)
    return image.to(dtype), audio.to(dtype)
