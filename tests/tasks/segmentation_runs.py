"""Little runs of segmentation for tests: a Bandstand world of a few clips, an encoder of width 16."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.generation import generate
from deepavfusion.configuration import DataConfig
from deepavfusion.models import EarlyFusionConfig, EarlyFusionEncoder
from deepavfusion.tasks.segmentation_config import MaskDecodingConfig, Recipe, SegmentationConfig

ENCODER = EarlyFusionConfig(
    image_size=(32, 32), audio_size=(32, 128), patch_size=8, embed_dim=16, depth=2, num_heads=2, num_tokens=(2, 2, 2)
)


def write_world(folder: Path, clips: int, *splits: str) -> Path:
    """Pictures of 64 pixels, masks, 2 s of sound."""
    generate(
        BandstandConfig(
            str(folder), clips=clips, splits=splits, size=64, seconds=2.0, stems=False, sheets=False, num_workers=0
        )
    )
    return folder


def write_encoder(folder: Path, **changes: Any) -> Path:
    """A saved encoder with random weights."""
    torch.manual_seed(5)
    EarlyFusionEncoder(replace(ENCODER, **changes)).save_pretrained(folder)
    return folder


def make(
    source: Path | str, encoder: Path, run_dir: Path, recipe: Recipe = "finetune", **settings: Any
) -> SegmentationConfig:
    """A recipe cut down to a few steps."""
    optim = {"epochs": 2, "warmup_epochs": 1, "unusual_blr": True, **settings.pop("optim", {})}
    training = {"batch_size": 4, "log_every": 1, "checkpoint_every": 100, **settings.pop("training", {})}
    decoder = MaskDecodingConfig(dim=32, **settings.pop("decoder", {}))
    return SegmentationConfig.with_recipe(
        recipe,
        run_dir=str(run_dir),
        from_=str(encoder),
        data=DataConfig(source=str(source), num_workers=settings.pop("workers", 0)),
        optim=optim,
        training=training,
        decoder=decoder,
        **settings,
    )


def quiet() -> Console:
    return Console(file=io.StringIO(), width=240)
