"""Patch embeddings: every patch by itself, whichever the form."""

import pytest
import torch
from torch.nn.functional import conv2d, gelu, layer_norm

from deepavfusion.models import AudioVisualMAE, EarlyFusionConfig, EarlyFusionEncoder, MaskedAutoencoderConfig
from deepavfusion.models.patch_embed import PATCH_EMBEDDINGS, ConvolutionalPatchEmbed

SMALL = {"image_size": (32, 48), "audio_size": (32, 16), "embed_dim": 16, "depth": 1, "num_heads": 2}


def test_convolutional_tokens_by_hand() -> None:
    torch.manual_seed(0)
    embed = ConvolutionalPatchEmbed(3, 16, 16)
    torch.nn.init.normal_(embed.norm.weight)
    x = torch.randn(2, 3, 32, 48)
    tokens = embed(x)
    assert tokens.shape == (2, 6, 16)
    weights = embed.state_dict()
    for number, (row, column) in enumerate((r, c) for r in range(2) for c in range(3)):
        patch = x[:, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        found = gelu(conv2d(patch, weights["conv1.weight"], weights["conv1.bias"], 2, 1))
        found = gelu(conv2d(found, weights["conv2.weight"], weights["conv2.bias"], 2, 1))
        found = layer_norm(found.movedim(1, 3), (8,), weights["norm.weight"], weights["norm.bias"], 1e-6)
        expected = found.flatten(1) @ weights["proj.weight"].T + weights["proj.bias"]
        assert torch.allclose(tokens[:, number], expected, atol=1e-5)


@pytest.mark.parametrize("form", PATCH_EMBEDDINGS)
def test_a_hidden_patch_is_not_seen(form) -> None:
    torch.manual_seed(0)
    embed, x = PATCH_EMBEDDINGS[form](1, 16, 16), torch.randn(2, 1, 32, 32)
    ids = torch.tensor([[2, 0], [1, 3]])
    tokens = embed(x, ids)
    assert torch.allclose(tokens, embed(x).gather(1, ids[..., None].expand(-1, -1, 16)), atol=1e-6)
    x[0, :, :16, 16:] = 1e3  # patch 1 of the first sample
    x[1, :, 16:, :16] = 1e3  # patch 2 of the second
    assert torch.equal(embed(x, ids), tokens)


def test_several_frames_are_embedded_one_by_one() -> None:
    torch.manual_seed(0)
    embed, x = ConvolutionalPatchEmbed(3, 16, 16), torch.randn(2, 3, 3, 32, 32)
    assert torch.allclose(embed(x), torch.cat([embed(frame) for frame in x.unbind(1)], dim=1), atol=1e-6)


def test_an_encoder_with_it_learns_is_saved_and_read(tmp_path) -> None:
    config = EarlyFusionConfig(**SMALL, patch_embed="convolutional")
    torch.manual_seed(0)
    model = AudioVisualMAE(MaskedAutoencoderConfig(config, decoder_dim=16, decoder_num_heads=2, audio_mask_ratio=0.5))
    image, audio = torch.randn(2, 3, 32, 48), torch.randn(2, 1, 32, 16)
    model(image, audio, torch.rand(2, 6), torch.rand(2, 2)).loss.backward()
    for stream in (model.encoder.image, model.encoder.audio):
        for name, parameter in stream.patch_embed.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    model.save_pretrained(tmp_path)
    read = EarlyFusionEncoder.from_pretrained(tmp_path)
    assert read.config == config
    with torch.no_grad():
        assert torch.equal(read(image, audio).fusion, model.encoder(image, audio).fusion)


def test_linear_is_not_recorded_and_what_does_not_fit_is_refused() -> None:
    assert "patch_embed" not in EarlyFusionConfig(**SMALL).record()
    assert EarlyFusionConfig(**SMALL, patch_embed="convolutional").record()["patch_embed"] == "convolutional"
    with pytest.raises(ValueError, match="patch_embed 'conv' must be linear or convolutional"):
        EarlyFusionConfig(**SMALL, patch_embed="conv")
    with pytest.raises(ValueError, match="patch_size 6 must be divisible by 4 with patch_embed convolutional"):
        EarlyFusionConfig(image_size=(12, 12), audio_size=(12, 12), patch_size=6, patch_embed="convolutional")
