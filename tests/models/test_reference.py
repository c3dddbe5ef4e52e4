"""Our models against stored cases of an independent implementation, in the released weight layout."""

import json

import pytest
import torch
from torch.func import functional_call

from deepavfusion.models import AudioVisualMAE, EarlyFusionConfig, EarlyFusionEncoder, MaskedAutoencoderConfig
from deepavfusion.storage.weights import convert_release
from tests.models.reference_cases import (
    ARITHMETICS,
    AUTOENCODER_CASE,
    CASES,
    ENCODER_CASES,
    REFERENCE,
    autoencoder_config,
    deviation,
    load,
    relative,
)

TOLERANCE = 1e-5  # relative to the largest value, float32


def check_gradients(weights: dict, norms: dict) -> None:
    """Gradients arrive at the release's own tensors, because the conversion is made of differentiable operations."""
    floor = 1e-6 * max(norms.values())
    for key, norm in norms.items():
        found = 0.0 if weights[key].grad is None else weights[key].grad.norm().item()
        assert abs(found - norm) <= max(TOLERANCE * norm, floor), (key, found, norm)


@pytest.mark.parametrize("name", ENCODER_CASES)
def test_encoder(name: str) -> None:
    values, weights, arrays, norms = load(f"encoder_{name}")
    config = EarlyFusionConfig.from_dict(values)
    model = EarlyFusionEncoder(config)
    state = convert_release(weights, config)
    assert state.keys() == model.state_dict().keys()
    inputs = (arrays["image"], arrays["audio"])

    out = functional_call(model, state, inputs, {"return_layers": True})
    for stream in ("image", "audio", "fusion"):
        assert relative(getattr(out, stream), arrays[f"out_{stream}"]) < TOLERANCE
        assert relative(getattr(out.layers[1], stream), arrays[f"layer1_{stream}"]) < TOLERANCE
    loss = out.image.square().mean() + (out.audio**3).mean() + out.fusion.sin().mean()
    assert relative(loss, arrays["loss"]) < TOLERANCE
    loss.backward()
    check_gradients(weights, norms)

    kept = (arrays["image_ids_keep"], arrays["audio_ids_keep"])
    out = functional_call(model, state, (*inputs, *kept))
    for stream in ("image", "audio", "fusion"):
        assert relative(getattr(out, stream), arrays[f"masked_{stream}"]) < TOLERANCE


def test_autoencoder() -> None:
    values, weights, arrays, norms = load(AUTOENCODER_CASE)
    config = autoencoder_config(values)
    state = convert_release(weights, config)
    inputs = [arrays[key] for key in ("image", "audio", "image_noise", "audio_noise")]
    out = functional_call(AudioVisualMAE(config), state, tuple(inputs))
    for modality in ("image", "audio"):
        assert relative(getattr(out, f"loss_{modality}"), arrays[f"loss_{modality}"]) < TOLERANCE
        masked = getattr(out, f"{modality}_mask").bool()
        pred = getattr(out, f"pred_{modality}")
        assert relative(pred, arrays[f"pred_{modality}"][masked].view_as(pred)) < TOLERANCE
    torch.testing.assert_close(out.loss, out.loss_image + out.loss_audio)
    out.loss.backward()
    check_gradients(weights, norms)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "arithmetic", [pytest.param(name, marks=pytest.mark.slow if "compiled" in name else ()) for name in ARITHMETICS]
)
def test_cases_hold_in_other_arithmetic(case: str, arithmetic: str) -> None:
    """docs/performance.md states these tolerances and what was seen."""
    _, allowed = ARITHMETICS[arithmetic]
    seen = deviation(case, arithmetic)
    assert seen.outputs <= allowed.outputs
    assert seen.gradients <= allowed.gradients


def test_every_released_key_converts() -> None:
    shapes = json.loads((REFERENCE / "release_keys_vitb.json").read_text())
    assert len(shapes) == 893
    released = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    config = MaskedAutoencoderConfig()
    with torch.device("meta"):
        expected = AudioVisualMAE(config).state_dict()
    converted = convert_release(released, config)
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in expected.items()}
    assert sum(v.numel() for v in converted.values()) == sum(v.numel() for v in released.values())
