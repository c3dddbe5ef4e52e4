"""The separator: sizes, what reaches the mask and what does not, and that everything learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from deepavfusion.models import EarlyFusionConfig, EarlyFusionEncoder, Separator, SeparatorConfig
from deepavfusion.models.separation_decoder import Gist, SeparationDecoder
from deepavfusion.models.token_norm import measuring
from deepavfusion.storage.model_configs import read_model_config

ENCODER = EarlyFusionConfig(
    image_size=(16, 24), audio_size=(32, 24), patch_size=8, embed_dim=16, depth=4, num_heads=2, num_tokens=(2, 2, 2)
)
RELEASE: dict[str, Any] = {"decoder": "release"}
FORMS: list[dict[str, Any]] = [{}, {"target": "dominance"}, RELEASE]


def separator(seed: int = 0, encoder: EarlyFusionConfig = ENCODER, **settings: Any) -> Separator:
    torch.manual_seed(seed)
    return Separator(SeparatorConfig(encoder=encoder, decoder_dim=32, **settings))


def randomized(model: Separator) -> Separator:
    """Biases and norms at random values, so that a mistake with one of them shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def inputs(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, 3, 16, 24, generator=generator), 0.1 * torch.randn(batch, 6000, generator=generator)


@pytest.mark.parametrize("settings", FORMS)
def test_a_mask_for_every_form_and_a_gradient_for_every_weight(settings: dict[str, Any]) -> None:
    model = separator(**settings)
    model.freeze_unused()
    idle = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert all("norm" in name or name.startswith("encoder.fusion_blocks.3.") for name in idle), idle
    out = model(*inputs())
    assert out.mask.shape == out.mixture.shape == (2, 513, 25)
    assert ((out.mask >= 0) & (out.mask <= 1)).all()
    waveform = out.waveform()
    assert waveform.shape == (2, 6000)
    (waveform - 0.01 * inputs()[1].flip(1)).square().sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("settings", [{}, RELEASE])
@pytest.mark.parametrize("fusion_layers", ["all", "none"])
def test_the_picture_is_seen_with_and_without_fusion_and_hidden_on_request(
    settings: dict[str, Any], fusion_layers: str
) -> None:
    encoder = replace(ENCODER, fusion_layers=fusion_layers)  # type: ignore[arg-type]
    image, mixture = inputs()
    for condition in ("picture", "none"):
        model = randomized(separator(5, encoder, condition=condition, **settings)).eval()
        with torch.no_grad():
            masks = [model(picture, mixture).mask for picture in (image, image.flip(3))]
        assert torch.equal(*masks) == (condition == "none")
    count = [sum(p.numel() for p in separator(condition=c, **settings).parameters()) for c in ("picture", "none")]
    assert count[0] == count[1]


def test_single_patches_of_the_picture_matter() -> None:
    # Of the tokens u, -u, u, -u, ... every feature has mean 0 and deviation 1, whatever signs u has.
    halves, stripes = torch.ones(16), torch.ones(16)
    halves[8:], stripes[::2] = -1, -1
    turns = torch.tensor([1.0, -1.0]).repeat(3)
    pictures = [(turns[:, None] * signs)[None] for signs in (halves, stripes)]  # (1, 6, 16) each
    maps = [torch.randn(1, 12, 16, generator=torch.Generator().manual_seed(n)) for n in range(4)]
    spectra = torch.randn(1, 1, 32, 24), torch.randn(1, 1, 513, 24)
    decoder = SeparationDecoder(SeparatorConfig(encoder=ENCODER, decoder_dim=32)).eval()
    with torch.no_grad():
        a, b = (decoder(maps, [tokens] * 4, *spectra) for tokens in pictures)
    assert not torch.allclose(a, b, atol=1e-6)


def test_small_differences_of_whole_pictures_and_sounds_are_plain_in_the_gist() -> None:
    torch.manual_seed(0)
    gist = Gist(8, 2, 16).eval()
    common = torch.randn(1, 6, 8)
    streams = [common + 0.02 * torch.randn(64, 6, 8) for _ in range(4)]  # picture, picture, sound, sound
    before = gist(streams).std(dim=0).mean()
    with torch.no_grad(), measuring(gist):
        gist(streams)
    assert gist(streams).std(dim=0).mean() > 10 * before
    order = torch.randperm(6)
    torch.testing.assert_close(gist([tokens[:, order] for tokens in streams]), gist(streams), atol=1e-4, rtol=0)


def test_tokens_stay_in_their_patch() -> None:
    decoder = separator().decoder
    assert isinstance(decoder, SeparationDecoder)
    for doublings in range(4):
        tokens = torch.zeros(1, 12, 5 * 4**doublings)  # a grid of 4 x 3
        tokens[:, 7] = 1  # row 2, column 1
        grid, side = decoder._grid(tokens, doublings), 1 << doublings
        assert grid.shape == (1, 5, 4 * side, 3 * side)
        assert grid[:, :, 2 * side : 3 * side, side : 2 * side].eq(1).all()
        assert grid.sum() == 5 * side**2


def test_fine_bins_are_resolved_by_our_decoder_only() -> None:
    """Two tones 16 Hz apart at 4 kHz lie in one mel band: its mask treats them alike."""
    _, mixture = inputs(1)
    difference = {}
    for decoder in ("unet", "release"):
        model = separator(decoder=decoder).eval()
        with torch.no_grad():
            mask = model(inputs(1)[0], mixture).mask[0]
        difference[decoder] = float((mask[400:500:2] - mask[401:501:2]).abs().mean() / mask[400:500].std())
    assert difference["unet"] > 3 * difference["release"]


def test_saved_and_loaded(tmp_path: Path) -> None:
    for number, settings in enumerate(FORMS):
        model = randomized(separator(**settings)).eval()
        model.save_pretrained(tmp_path / str(number))
        again = Separator.from_pretrained(tmp_path / str(number))
        assert again.config == model.config
        with torch.no_grad():
            assert torch.equal(again(*inputs()).mask, model(*inputs()).mask)
    name, config = read_model_config(tmp_path / "0" / "config.json")
    assert (name, config) == ("Separator", separator().config)
    encoder = EarlyFusionEncoder.from_pretrained(tmp_path / "0")
    assert encoder.config == ENCODER


def test_layers_and_widths() -> None:
    base = SeparatorConfig(encoder=EarlyFusionConfig())
    assert base.layers == (0, 2, 5, 8, 11)
    assert base.widths == (16, 32, 64, 128, 256)
    assert base.num_samples == 48000
    release = SeparatorConfig(encoder=EarlyFusionConfig(), **RELEASE)
    assert release.layers == (0, 2, 5, 8, 11)
    assert SeparatorConfig(encoder=ENCODER, **RELEASE).layers == (0, 1, 2, 3)
    ids = separator().layer_ids()
    assert ids["decoder.head.weight"] == 5
    assert ids["encoder.audio.blocks.0.norm1.weight"] == 1


def test_the_releases_widths() -> None:
    decoder = separator(**RELEASE).decoder
    # Width D / 2^k: 16, 8, 4, 2; joined with the running map and the picture.
    assert [m.out_channels for m in decoder.modules() if isinstance(m, torch.nn.ConvTranspose2d)] == [8, 4, 2]
    assert [tuple(join[0].weight.shape[:2]) for join in decoder.join] == [(16, 32), (8, 32), (4, 16), (2, 8)]  # type: ignore[union-attr, index]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decoder_dim": 30}, "decoder_dim 30 must be a positive multiple of 16"),
        ({"target": "binary"}, "target 'binary' must be ratio or dominance"),
        ({"encoder": replace(ENCODER, patch_size=1)}, "patch_size 1 must be a power of 2"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SeparatorConfig(**{"encoder": ENCODER, **settings})


def test_configurations_of_earlier_versions_are_read_unless_their_form_is_no_more() -> None:
    old = {**SeparatorConfig(encoder=ENCODER).record(), "grid": "linear", "picture": "attention", "complex_limit": 2.0}
    assert SeparatorConfig.from_dict(old) == SeparatorConfig(encoder=ENCODER)
    release = {**old, "decoder": "release", "grid": "mel", "picture": "pooled"}
    assert SeparatorConfig.from_dict(release).decoder == "release"
    for change in ({"grid": "mel"}, {"picture": "pooled"}, {"target": "complex"}):
        with pytest.raises(ValueError, match="this form of the decoder was removed after version"):
            SeparatorConfig.from_dict({**old, **change})


def test_wrong_sizes_are_refused() -> None:
    image, mixture = inputs()
    with pytest.raises(ValueError, match=r"expected a mixture \(B, 6000\), got \(2, 5999\)"):
        separator()(image, mixture[:, 1:])
    with pytest.raises(ValueError, match="SeparatorConfig does not know depth"):
        SeparatorConfig.from_dict({"depth": 3})


@pytest.mark.parametrize("settings", FORMS)
def test_bfloat16_gives_nearly_the_same_mask_and_a_full_precision_spectrum(settings: dict[str, Any]) -> None:
    model = separator(**settings).eval()
    with torch.no_grad():
        exact = model(*inputs())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = model(*inputs())
    assert rounded.mask.dtype == exact.mask.dtype
    assert torch.equal(rounded.mixture, exact.mixture)
    assert (rounded.mask - exact.mask).abs().max() < 0.05
