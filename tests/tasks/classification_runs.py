"""Little runs of classification for tests: clips of two shapes, an encoder of width 16."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from deepavfusion.configuration import DataConfig
from deepavfusion.data.clips import find_clips, write_manifest
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.models import EarlyFusionConfig, EarlyFusionEncoder
from deepavfusion.tasks.classification_config import ClassificationConfig, Recipe

ENCODER = EarlyFusionConfig(
    image_size=(32, 48), audio_size=(32, 32), patch_size=8, embed_dim=16, depth=2, num_heads=2, num_tokens=(2, 2, 2)
)


def write_data(folder: Path, num_clips: int = 8) -> Path:
    """Clips of four shapes in turn and a manifest in which the last quarter is the test split."""
    write_sample_clips(folder / "clips", num_clips, duration_seconds=1.0, size=64)
    clips = sorted(find_clips(str(folder / "clips")), key=lambda clip: Path(clip.path).name)
    split = len(clips) * 3 // 4
    rows = [replace(clip, split="train" if i < split else "test") for i, clip in enumerate(clips)]
    write_manifest(str(folder / "clips.csv"), rows)
    return folder / "clips.csv"


def write_encoder(folder: Path, **changes: Any) -> Path:
    """A saved encoder with random weights."""
    torch.manual_seed(5)
    EarlyFusionEncoder(replace(ENCODER, **changes)).save_pretrained(folder)
    return folder


def make(
    recipe: Recipe, source: Path, encoder: Path, run_dir: Path, workers: int = 0, **settings: Any
) -> ClassificationConfig:
    """A recipe cut down to a few steps."""
    optim = {"epochs": 4, "warmup_epochs": 1, "unusual_blr": True, **settings.pop("optim", {})}
    training = {"batch_size": 4, "log_every": 1, "checkpoint_every": 100, **settings.pop("training", {})}
    return ClassificationConfig.with_recipe(
        recipe,
        run_dir=str(run_dir),
        from_=str(encoder),
        data=DataConfig(source=str(source), num_workers=workers),
        optim=optim,
        training=training,
        **settings,
    )


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)
