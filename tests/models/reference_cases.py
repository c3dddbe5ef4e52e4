"""The stored reference cases, and how far our models are from them in other arithmetic."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from deepavfusion.audio import log_mel
from deepavfusion.models import AudioVisualMAE, EarlyFusionConfig, EarlyFusionEncoder, MaskedAutoencoderConfig
from deepavfusion.storage.weights import convert_release

REFERENCE = Path(__file__).parents[1] / "reference"
ENCODER_CASES = ("factorized", "dense", "token", "layers_0_2")
AUTOENCODER_CASE = "mae_factorized"
CASES = (*ENCODER_CASES, AUTOENCODER_CASE)
Change = Callable[[nn.Module], Callable]


def load(name: str) -> tuple[dict, dict, dict, dict]:
    """Configuration, weights as leaves, other arrays, gradient norms."""
    with np.load(REFERENCE / f"{name}.npz") as case:
        arrays = {key: torch.tensor(case[key]) for key in case.files if key != "config"}
        config = json.loads(str(case["config"]))
    del config["loss"]
    weights = {key[3:]: value for key, value in arrays.items() if key.startswith("sd/")}
    norms = {key[9:]: float(value) for key, value in arrays.items() if key.startswith("gradnorm/")}
    for key in norms:
        weights[key].requires_grad_()
    return config, weights, arrays, norms


def autoencoder_config(values: dict) -> MaskedAutoencoderConfig:
    """The configuration of the autoencoder's case."""
    values = dict(values)
    decoding = {
        key: values.pop(key) for key in [*values] if "decoder" in key or "mask" in key or key == "norm_pix_loss"
    }
    return MaskedAutoencoderConfig(EarlyFusionConfig.from_dict(values), **decoding)


def relative(value: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, relative to the largest expected value."""
    return ((value.cpu() - expected).abs().max() / expected.abs().max()).item()


@dataclass(frozen=True)
class Deviation:
    """How far a model is from a case."""

    outputs: float
    """Largest difference of a token, prediction or loss, relative to the largest of its tensor."""
    gradients: float
    """Largest difference of a gradient's norm, relative to the norm, but at least to a thousandth of the largest norm:
    key biases of pair attention have none but round-off."""


def encoder_deviation(name: str, change: Change, device: str = "cpu") -> Deviation:
    """Of the encoder's tokens, all patches and under masks.

    Args:
        name: one of `ENCODER_CASES`.
        change: makes of a model what is called in its place.
        device: where to compute; the conversion of weights stays on the CPU.
    """
    values, weights, arrays, norms = load(f"encoder_{name}")
    config = EarlyFusionConfig.from_dict(values)
    model, state = EarlyFusionEncoder(config), convert_release(weights, config)
    model.load_state_dict(state)
    called, inputs = change(model.to(device)), [arrays[key].to(device) for key in ("image", "audio")]
    out = called(*inputs)
    streams = ("image", "audio", "fusion")
    outputs = [relative(getattr(out, stream).detach().float(), arrays[f"out_{stream}"]) for stream in streams]
    loss = out.image.float().square().mean() + (out.audio.float() ** 3).mean() + out.fusion.float().sin().mean()
    outputs.append(relative(loss.detach(), arrays["loss"]))
    loss.backward()
    with torch.no_grad():
        out = called(*inputs, *(arrays[key].to(device) for key in ("image_ids_keep", "audio_ids_keep")))
    outputs += [relative(getattr(out, stream).float(), arrays[f"masked_{stream}"]) for stream in streams]
    return Deviation(max(outputs), gradient_deviation(model, state, weights, norms))


def autoencoder_deviation(change: Change, device: str = "cpu") -> Deviation:
    """Of the autoencoder's losses and predictions."""
    values, weights, arrays, norms = load(AUTOENCODER_CASE)
    config = autoencoder_config(values)
    model, state = AudioVisualMAE(config), convert_release(weights, config)
    model.load_state_dict(state)
    inputs = (arrays[key].to(device) for key in ("image", "audio", "image_noise", "audio_noise"))
    out = change(model.to(device))(*inputs)
    outputs = []
    for modality in ("image", "audio"):
        outputs.append(relative(getattr(out, f"loss_{modality}").detach(), arrays[f"loss_{modality}"]))
        pred = getattr(out, f"pred_{modality}").detach().float()
        masked = getattr(out, f"{modality}_mask").bool().cpu()
        outputs.append(relative(pred, arrays[f"pred_{modality}"][masked].view_as(pred)))
    out.loss.backward()
    return Deviation(max(outputs), gradient_deviation(model, state, weights, norms))


def gradient_deviation(model: nn.Module, state: dict, weights: dict, norms: dict) -> float:
    """The model's gradients, taken back through the conversion to the release's own tensors, against their norms."""
    pairs = [(state[name], p.grad.cpu()) for name, p in model.named_parameters() if p.grad is not None]
    torch.autograd.backward([tensor for tensor, _ in pairs], [gradient for _, gradient in pairs])
    found = {key: 0.0 if weights[key].grad is None else weights[key].grad.norm().item() for key in norms}
    least = 1e-3 * max(norms.values())
    return max(abs(found[key] - norm) / max(norm, least) for key, norm in norms.items())


def bfloat16(model: nn.Module) -> Callable:
    """Under autocast, as training runs it."""

    def call(*inputs: torch.Tensor) -> Any:
        with torch.autocast(inputs[0].device.type, dtype=torch.bfloat16):
            return model(*inputs)

    return call


def compiled(model: nn.Module) -> Callable:
    """Through torch.compile."""
    torch.compiler.reset()
    return torch.compile(model)


def compiled_bfloat16(model: nn.Module) -> Callable:
    """Both."""
    return bfloat16(compiled(model))  # type: ignore[arg-type]


ARITHMETICS: dict[str, tuple[Change, Deviation]] = {
    "float32": (lambda model: model, Deviation(1e-5, 1e-5)),
    "compiled": (compiled, Deviation(1e-5, 1e-5)),
    "bfloat16": (bfloat16, Deviation(0.05, 0.05)),
    "compiled bfloat16": (compiled_bfloat16, Deviation(0.05, 0.05)),
}
"""Ways to compute, and how far each may be from the cases."""


def deviation(case: str, arithmetic: str, device: str = "cpu") -> Deviation:
    """Of a case, computed in a way of `ARITHMETICS`."""
    change, _ = ARITHMETICS[arithmetic]
    if case == AUTOENCODER_CASE:
        return autoencoder_deviation(change, device)
    return encoder_deviation(case, change, device)


def log_mel_deviation(device: str = "cpu") -> float:
    """Of the log-mel spectrogram, the largest difference where it is louder than 1e-5, in powers of ten."""
    with np.load(REFERENCE / "logmel.npz") as case:
        wave, expected = torch.tensor(case["wave"]), torch.tensor(case["logmel_used"])
        short, expected_short = case["short"], torch.tensor(case["logmel_short"])
    mirrored = torch.tensor(np.pad(short, ((0, 0), (0, 48_000 - short.shape[1])), mode="symmetric"))
    apart = 0.0
    for waveform, stored in ((wave, expected), (mirrored, expected_short)):
        found = log_mel(waveform.to(device))[:, 0].cpu()
        assert found.shape == stored.shape == (1, 128, 192)
        loud = stored > -5
        assert loud.float().mean() > 0.5
        apart = max(apart, (found - stored)[loud].abs().max().item())
    return apart
