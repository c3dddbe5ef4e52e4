"""A fusion form that the zero-shot maps do not know is refused by name, where its attention is asked for alone."""

import pytest
import torch
from torch import nn

from deepavfusion.models.sound_maps import patch_attention, zero_shot_maps
from tests.models.tiny import inputs, tiny_encoder


class MeanFusion(nn.Module):
    """Fusion tokens that take the mean of all that they read."""

    def forward(self, x: torch.Tensor, streams: tuple) -> torch.Tensor:
        return torch.cat([tokens for tokens in streams[:2] if tokens is not None], dim=1).mean(dim=1, keepdim=True) + x


def test_a_new_form_has_all_maps_but_attention() -> None:
    encoder = tiny_encoder().eval()
    encoder.fusion_blocks["1"].attn = MeanFusion()
    with torch.no_grad():
        for method in ("audio_cosine", "fusion_cosine", "rise"):
            assert zero_shot_maps(encoder, method, (1,), *inputs()).isfinite().all()
        assert zero_shot_maps(encoder, "attention", (0,), *inputs()).isfinite().all()
        with pytest.raises(ValueError, match="method attention: how MeanFusion shares out its attention is not known"):
            zero_shot_maps(encoder, "attention", (0, 1), *inputs())
        layers = encoder(*inputs(), return_layers=True).layers
        with pytest.raises(ValueError, match=r"sound_maps\.patch_attention; add it there"):
            patch_attention(encoder.fusion_blocks["1"], layers[0])
