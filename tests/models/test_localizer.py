"""The localizer's head, its pooling, and maps without a head."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from deepavfusion.audio import LOG_FLOOR
from deepavfusion.models import EarlyFusionConfig, EarlyFusionEncoder, Localizer, LocalizerConfig
from deepavfusion.models.attention import split_heads
from deepavfusion.models.encoder import EncoderOutput, LayerTokens
from deepavfusion.models.fusion import FusionBlock
from deepavfusion.models.localizer import pool_scores
from deepavfusion.models.localizer_config import LocalizerHeadConfig, spread_layers
from deepavfusion.models.sound_maps import patch_attention, zero_shot_maps

ENCODER = EarlyFusionConfig(
    image_size=(32, 48), audio_size=(32, 32), patch_size=8, embed_dim=16, depth=3, num_heads=2, num_tokens=(2, 2, 2)
)


def inputs(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(count, 3, 32, 48), torch.randn(count, 1, 32, 32)


@pytest.mark.parametrize("form", ["factorized", "token", "dense", "bilinear", "none"])
def test_a_gradient_reaches_every_parameter(form: str) -> None:
    config = replace(ENCODER, fusion_layers="none") if form == "none" else replace(ENCODER, fusion=form)
    model = Localizer(LocalizerConfig(encoder=config, classes=("a", "b"), dim=12))
    out = model(*inputs())
    assert out.maps.shape == (3, 2, 4, 6)
    assert out.pooled.shape == (3, 2)
    (out.maps.square().sum() + out.pooled.sum()).backward()
    assert {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()} == set()


def test_finer_maps_start_from_those_of_patches_and_see_small_shapes() -> None:
    torch.manual_seed(0)
    model = Localizer(LocalizerConfig(encoder=ENCODER, classes=("a", "b"), dim=32, stride=2)).eval()
    assert model.config.map_grid == (16, 24)
    image, audio = inputs()
    out = model(image, audio)
    assert out.maps.shape == (3, 2, 16, 24)
    assert out.pooled.shape == (3, 2)
    (out.maps.square().sum() + out.pooled.sum()).backward()
    assert {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()} == set()
    finer, model.head.finer = model.head.finer, None
    coarse = model(image, audio).maps
    model.head.finer = finer
    torch.nn.init.zeros_(finer.last.weight)
    expected = torch.nn.functional.interpolate(coarse, (16, 24), mode="bilinear", align_corners=False)
    torch.testing.assert_close(model(image, audio).maps, expected)


@pytest.mark.parametrize("stride", [0, 4])
def test_saving_and_loading_keeps_maps(stride: int, tmp_path: Path) -> None:
    config = LocalizerConfig(encoder=ENCODER, dim=12, layers=(0, 2), pooling="logsumexp", stride=stride)
    model = Localizer(config).eval()
    model.save_pretrained(tmp_path)
    loaded = Localizer.from_pretrained(tmp_path)
    assert loaded.config == config
    assert LocalizerConfig.from_dict(asdict(config)) == config
    assert torch.equal(loaded(*inputs()).maps, model(*inputs()).maps)
    encoder = EarlyFusionEncoder.from_pretrained(tmp_path)  # a later task may start from it
    assert torch.equal(encoder.fusion_tokens, model.encoder.fusion_tokens)


def test_sound_that_is_absent_has_no_effect_and_present_sound_has() -> None:
    model = Localizer(LocalizerConfig(encoder=ENCODER, dim=12)).eval()
    torch.nn.init.normal_(model.head.fc2.weight)
    image, audio = inputs()
    present = torch.tensor([True, False, True])
    a, b = (model(image, sound, audio_present=present).maps for sound in (audio, audio.flip(0) + 1))
    assert torch.equal(a[1], b[1])
    assert not torch.allclose(a[0], b[0])
    without = model(image, None).maps
    torch.testing.assert_close(without[1], a[1])


@pytest.mark.parametrize("readings", [0, 2])
def test_readings_tell_sounds_of_one_mean_apart(readings: int) -> None:
    """Two sounds whose tokens have the same mean: only blocks that read them one by one can hear the difference."""
    head = Localizer(LocalizerConfig(encoder=ENCODER, dim=12, readings=readings)).head.eval()
    torch.nn.init.normal_(head.fc2.weight)
    image, mean, deviation, fusion = (torch.randn(1, n, 16) for n in (24, 1, 16, 6))
    deviation = deviation - deviation.mean(dim=1, keepdim=True)
    maps = []
    for scale in (0.1, 1.0):
        sound = mean + scale * deviation
        tokens = EncoderOutput(image, sound, fusion, (LayerTokens(image, sound, fusion),) * 3)
        maps.append(head(inputs(1)[0], tokens))
    assert torch.allclose(*maps, atol=1e-5) == (readings == 0)


@pytest.mark.parametrize("stride", [8, 16])
def test_a_stride_that_is_no_finer_than_patches_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match=f"stride {stride} must be below the patch size 8 and divide"):
        LocalizerConfig(encoder=ENCODER, stride=stride)


def test_layers_default_to_three_evenly_spaced() -> None:
    assert [spread_layers(n) for n in (12, 3, 2, 1)] == [(3, 7, 11), (0, 1, 2), (0, 1), (0,)]
    assert LocalizerConfig(encoder=ENCODER).layers == (0, 1, 2)
    with pytest.raises(ValueError, match=r"layers \[0, 3\] must be ascending layer numbers from 0 to 2"):
        LocalizerConfig(encoder=ENCODER, layers=(0, 3))
    with pytest.raises(ValueError, match="readings -1 must be at least 0"):
        LocalizerConfig(encoder=ENCODER, readings=-1)
    with pytest.raises(ValueError, match="classes holds a more than once"):
        LocalizerConfig(encoder=ENCODER, classes=("a", "b", "a"))
    with pytest.raises(ValueError, match="LocalizerConfig does not know width"):
        LocalizerConfig.from_dict({"width": 3})


def test_pooling_by_hand() -> None:
    logits = torch.tensor([[4.0, 1.0, 2.0, -3.0, 0.0]])
    assert pool_scores(logits, LocalizerHeadConfig(top_share=0.4)).tolist() == [3.0]
    assert pool_scores(logits, LocalizerHeadConfig(top_share=0.01)).tolist() == [4.0]
    soft = LocalizerHeadConfig(pooling="logsumexp", sharpness=2.0)
    expected = math.log(sum(math.exp(2 * x) for x in logits[0].tolist()) / 5) / 2
    assert pool_scores(logits, soft).item() == pytest.approx(expected, rel=1e-6)
    mean, top = (pool_scores(logits, replace(soft, sharpness=r)).item() for r in (1e-3, 1e3))
    assert mean == pytest.approx(0.8, abs=0.01)
    assert top == pytest.approx(4.0, abs=0.01)


@pytest.mark.parametrize("form", ["factorized", "token", "dense", "bilinear"])
def test_patch_attention_is_the_attention_of_the_block(form: str) -> None:
    """Against pair-by-pair sums; of the token form the share that the picture gets is left to it."""
    torch.manual_seed(2)
    block = FusionBlock(replace(ENCODER, fusion=form, fusion_attn_ratio=1.0)).double()
    image, audio, fusion = (torch.randn(1, n, 16, dtype=torch.float64) for n in (5, 4, 6))
    got = patch_attention(block, LayerTokens(image, audio, fusion))[0]
    f, v, a = block.norm_fusion(fusion), block.norm_image(image), block.norm_audio(audio)
    attn = block.attn
    if form == "factorized":
        q, k = attn.aggregate_image.q(f[:, 2:4]), attn.aggregate_image.kv(v)[..., :16]
        logits, scale = _per_head(q) @ _per_head(k).mT, 8**-0.5
    elif form == "token":
        k = attn.attn.kv(torch.cat([v, a], dim=1))[..., :16]
        logits, scale = _per_head(attn.attn.q(f)) @ _per_head(k).mT, 8**-0.5
    else:
        pairs = torch.cat([v[:, :, None].expand(-1, -1, 4, -1), a[:, None].expand(-1, 5, -1, -1)], dim=-1).flatten(1, 2)
        scale = 8**-0.5
        if form == "dense":
            q, k = _per_head(attn.pairs.q(f)), _per_head(pairs @ attn.pairs.k.weight.T)
        else:
            q = attn.norm_q(_per_head(attn.q(f)))
            k_image, k_audio = attn.factors_image(v, None)[0], attn.factors_audio(a, None)[0]
            k = (k_image[:, :, :, None] * k_audio[:, :, None]).flatten(2, 3)
        logits = q @ k.mT
    shares = (scale * logits).softmax(dim=-1)
    if form in ("dense", "bilinear"):
        shares = shares.unflatten(-1, (5, 4)).sum(dim=-1)
    expected = shares[..., :5].mean(dim=(1, 2))[0]
    torch.testing.assert_close(got.double(), expected / expected.sum(), rtol=1e-5, atol=1e-7)


def _per_head(x: torch.Tensor) -> torch.Tensor:
    return split_heads(x, 2)


@pytest.mark.parametrize("method", ["audio_cosine", "fusion_cosine", "attention", "rise"])
def test_maps_without_a_head(method: str) -> None:
    encoder = EarlyFusionEncoder(ENCODER).eval()
    image, audio = inputs()
    with torch.no_grad():
        maps = zero_shot_maps(encoder, method, (0, 2), image, audio)  # type: ignore[arg-type]
        each = [zero_shot_maps(encoder, method, (i,), image, audio) for i in (0, 2)]  # type: ignore[arg-type]
    assert maps.shape == (3, 1, 4, 6)
    assert float(maps.min()) >= 0
    assert float(maps.max()) <= 1
    assert maps.std() > 0
    torch.testing.assert_close(maps, (each[0] + each[1]) / 2)


def test_silence_makes_nothing_rise_and_sound_does() -> None:
    encoder = EarlyFusionEncoder(ENCODER).eval()
    image, audio = inputs()
    silence = torch.full_like(audio, math.log10(LOG_FLOOR))
    with torch.no_grad():
        assert not zero_shot_maps(encoder, "rise", (2,), image, silence).any()
        assert (zero_shot_maps(encoder, "rise", (2,), image, audio) > 0).all()


def test_methods_that_an_encoder_does_not_have() -> None:
    separate = EarlyFusionEncoder(replace(ENCODER, fusion_layers="none"))
    late = EarlyFusionEncoder(replace(ENCODER, fusion_layers=(2,)))
    for encoder, method, layers, message in (
        (separate, "rise", (2,), "method rise: an encoder without fusion gives no such map"),
        (late, "attention", (1, 2), r"layers \[1\] do not fuse; those that do are \[2\]"),
        (late, "rise", (3,), r"layers \[3\] must be layer numbers from 0 to 2"),
    ):
        with pytest.raises(ValueError, match=message):
            zero_shot_maps(encoder, method, layers, *inputs())  # type: ignore[arg-type]
