"""Little runs of localization for tests: a few Bandstand clips, an encoder of width 16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.generation import generate
from deepavfusion.configuration import DataConfig
from deepavfusion.models import EarlyFusionConfig, EarlyFusionEncoder
from deepavfusion.tasks.localization_config import LocalizationConfig, Recipe

ENCODER = EarlyFusionConfig(
    image_size=(32, 32), audio_size=(32, 128), patch_size=8, embed_dim=16, depth=2, num_heads=2, num_tokens=(2, 2, 2)
)


def write_world(folder: Path, clips: int, *splits: str) -> Path:
    """Bandstand clips of 2 s; returns their manifest."""
    generate(
        BandstandConfig(
            str(folder), clips=clips, splits=splits, size=64, seconds=2.0, stems=False, sheets=False, num_workers=0
        )
    )
    return folder / "manifest.csv"


def write_encoder(folder: Path, config: EarlyFusionConfig = ENCODER) -> Path:
    """A saved encoder with random weights."""
    torch.manual_seed(5)
    EarlyFusionEncoder(config).save_pretrained(folder)
    return folder


def make(recipe: Recipe, source: Path, encoder: Path, run_dir: Path, **settings: Any) -> LocalizationConfig:
    """A recipe cut down to a few steps."""
    optim = {"epochs": 2, "warmup_epochs": 0, "blr": 1e-3, **settings.pop("optim", {})}
    training = {"batch_size": 4, "log_every": 1, "checkpoint_every": 100, **settings.pop("training", {})}
    data = {"source": str(source), "num_workers": 0, **settings.pop("data", {})}
    return LocalizationConfig.with_recipe(
        recipe,
        run_dir=str(run_dir),
        from_=str(encoder),
        data=DataConfig(**data),
        optim=optim,
        training=training,
        head={"dim": 16, **settings.pop("head", {})},
        **settings,
    )
