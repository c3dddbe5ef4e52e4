"""Models of every task with random weights for tests: width 16, windows of one second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from deepavfusion.data.sample_clips import write_clip
from deepavfusion.inference.predictor import Predictor
from deepavfusion.models import (
    AudioVisualClassifier,
    ClassifierConfig,
    EarlyFusionConfig,
    EarlyFusionEncoder,
    Localizer,
    LocalizerConfig,
    Segmenter,
    SegmenterConfig,
    Separator,
    SeparatorConfig,
)
from deepavfusion.storage.trained_models import LoadedModels

ENCODER = EarlyFusionConfig(
    image_size=(32, 48), audio_size=(32, 64), patch_size=8, embed_dim=16, depth=2, num_heads=2, num_tokens=(2, 2, 2)
)
WINDOW = 1.0
CLASSES = ("disc", "square", "ring <b>")


def randomized(model: Any) -> Any:
    """Biases and heads at random values, so that results differ from input to input."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif parameter.ndim == 2 and parameter.std() < 0.05:
                parameter.mul_(30)
    return model.eval()


def tiny_models(encoder: EarlyFusionConfig = ENCODER, seed: int = 0, **classifier: Any) -> dict[str, Any]:
    """By task."""
    torch.manual_seed(seed)
    return {
        "classification": randomized(
            AudioVisualClassifier(ClassifierConfig(encoder=encoder, classes=CLASSES, **classifier))
        ),
        "localization": randomized(Localizer(LocalizerConfig(encoder=encoder, dim=16, classes=CLASSES[:2]))),
        "separation": randomized(Separator(SeparatorConfig(encoder=encoder, decoder_dim=16))),
        "segmentation": randomized(
            Segmenter(SegmenterConfig(encoder=encoder, classes=("background", *CLASSES), decoder_dim=32))
        ),
    }


def shared_encoder(models: dict[str, Any], seed: int = 3) -> EarlyFusionEncoder:
    """Give all models the weights of one encoder, as heads on a frozen one have; returns it."""
    torch.manual_seed(seed)
    encoder = randomized(EarlyFusionEncoder(replace(ENCODER)))
    for model in models.values():
        model.encoder.load_state_dict(encoder.state_dict())
    return encoder


def predictor(batch_size: int = 16, **settings: Any) -> Predictor:
    return Predictor(LoadedModels(tiny_models(**settings)), "cpu", batch_size=batch_size)


def film(seconds: float, size: tuple[int, int] = (40, 56), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures `(T, H, W, 3)` at 12.5 a second that change all the time, and sound `(n,)` at 16 kHz."""
    rng = np.random.default_rng(seed)
    count = max(1, round(seconds * 12.5))
    walk = np.cumsum(rng.integers(-9, 10, (count, *size, 3)), axis=0) + rng.integers(60, 190, (*size, 3))
    times = np.arange(round(seconds * 16000)) / 16000
    tone = np.sin(2 * np.pi * (200 + 150 * times) * times) * (0.3 + 0.2 * np.sin(5 * times))
    return np.clip(walk, 0, 255).astype(np.uint8), (tone + rng.normal(0, 0.01, len(times))).astype(np.float32)


def write_film(path: Path, seconds: float, **settings: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_clip(path, *film(seconds, **settings))
    return path


def write_wav(path: Path, seconds: float, rate: int = 22050) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 330 * times) * np.sin(2 * times), rate)
    return path
