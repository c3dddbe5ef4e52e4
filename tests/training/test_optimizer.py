"""Parameter groups and rates against values worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepavfusion.configuration import OptimConfig
from deepavfusion.models import AudioVisualMAE, EarlyFusionConfig, MaskedAutoencoderConfig
from deepavfusion.training.optimizer import build_optimizer, clipped_norm, parameter_groups, set_lr


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(2, 3), nn.Linear(3, 1)
        self.token = nn.Parameter(torch.zeros(1, 1, 2))
        self.frozen = nn.Parameter(torch.zeros(2), requires_grad=False)


LAYERS = {"stem.weight": 0, "stem.bias": 0, "token": 1, "head.weight": 2, "head.bias": 2}


def by_name(groups: list[dict], key: str) -> dict[str, float]:
    return {name: group[key] for group in groups for name in group["names"]}


def test_vectors_are_not_decayed_tokens_are() -> None:
    groups = parameter_groups(Two(), 0.05)
    assert by_name(groups, "weight_decay") == {
        "stem.weight": 0.05,
        "stem.bias": 0.0,
        "token": 0.05,
        "head.weight": 0.05,
        "head.bias": 0.0,
    }


def test_layer_decay_counts_from_the_top() -> None:
    groups = parameter_groups(Two(), 0.0, layer_decay=0.5, layer_ids=LAYERS)
    assert by_name(groups, "lr_scale") == {
        "stem.weight": 0.25,
        "stem.bias": 0.25,
        "token": 0.5,
        "head.weight": 1.0,
        "head.bias": 1.0,
    }


def test_every_trainable_parameter_is_in_exactly_one_group() -> None:
    model = Two()
    groups = parameter_groups(model, 0.05, 0.5, LAYERS, ramped={"stem.weight"})
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="no parameter nothing"):
        parameter_groups(Two(), 0.0, ramped={"nothing"})
    with pytest.raises(ValueError, match=r"none for \['token'\]"):
        parameter_groups(Two(), 0.0, 0.5, {k: v for k, v in LAYERS.items() if k != "token"})


def test_rates_join_schedule_layer_decay_and_ramp() -> None:
    config = OptimConfig(blr=1e-3, epochs=10, warmup_epochs=2, layer_decay=0.5)
    optimizer = build_optimizer(Two(), config, LAYERS, ramped={"stem.weight", "stem.bias"})
    # 100 steps, 20 of warm-up; batch 512 doubles the rate; the ramp ends at step 50.
    assert set_lr(optimizer, config, 512, 9, 100) == pytest.approx(1e-3)
    # Step 40 is a quarter of the cosine, 45 degrees, and 0.8 of the ramp.
    lr = 2e-3 * 0.5 * (1 + 0.70710678)
    assert set_lr(optimizer, config, 512, 40, 100) == pytest.approx(lr, rel=1e-6)
    at_40 = by_name(optimizer.param_groups, "lr")
    assert at_40["head.weight"] == pytest.approx(lr, rel=1e-6)
    assert at_40["token"] == pytest.approx(lr * 0.5, rel=1e-6)
    assert at_40["stem.bias"] == pytest.approx(lr * 0.25 * 0.5 * (1 + 0.80901699), rel=1e-6)
    set_lr(optimizer, config, 512, 0, 100)
    assert by_name(optimizer.param_groups, "lr")["stem.weight"] == 0.0


def test_rules_of_the_method_on_the_autoencoder() -> None:
    encoder = EarlyFusionConfig(
        image_size=(16, 16),
        audio_size=(16, 16),
        patch_size=8,
        embed_dim=16,
        depth=2,
        num_heads=2,
        num_tokens=(2, 1, 1),
    )
    model = AudioVisualMAE(
        MaskedAutoencoderConfig(
            encoder=encoder,
            decoder_dim=16,
            image_decoder_depth=1,
            audio_decoder_depth=1,
            decoder_num_heads=2,
            audio_mask_ratio=0.5,
        )
    )
    groups = parameter_groups(model, 0.05, 0.75, model.layer_ids())
    decay, scale = by_name(groups, "weight_decay"), by_name(groups, "lr_scale")
    for decayed in ("encoder.fusion_tokens", "image_decoder.mask_token", "audio_decoder.pos_embed"):
        assert decay[decayed] == 0.05
    assert all(value == 0.0 for name, value in decay.items() if name.endswith("bias") or "norm" in name)
    top = 3  # two layers: indices 1 and 2; norms and heads the last
    assert scale["encoder.fusion_tokens"] == scale["encoder.image.patch_embed.proj.weight"] == 0.75**top
    assert scale["encoder.audio.blocks.0.attn.proj.weight"] == 0.75 ** (top - 1)
    assert scale["encoder.fusion_blocks.1.mlp.fc1.weight"] == 0.75 ** (top - 2)
    assert scale["encoder.fusion_norm.weight"] == scale["image_decoder.pred.weight"] == 1.0


@pytest.mark.parametrize("limit", [0.0, 0.5, 100.0])
def test_gradients_are_clipped_to_their_limit_and_left_alone_without(limit: float) -> None:
    torch.manual_seed(0)
    model, reference = Two(), Two()
    for own, other in zip(model.parameters(), reference.parameters(), strict=True):
        if own.requires_grad and own.ndim < 3:  # the token has no gradient
            own.grad = torch.randn_like(own)
            other.grad = own.grad.clone()
    norm = clipped_norm(model, limit)
    assert torch.equal(norm, nn.utils.clip_grad_norm_(reference.parameters(), limit or float("inf")))
    squares = sum(float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None)
    assert squares**0.5 == pytest.approx(min(float(norm), limit or float("inf")), rel=1e-5)
    for own, other in zip(model.parameters(), reference.parameters(), strict=True):
        assert (own.grad is None) == (other.grad is None)
        assert own.grad is None or torch.equal(own.grad, other.grad)
