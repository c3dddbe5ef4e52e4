"""Little runs of separation for tests: clips of four shapes, an encoder of width 16."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from deepavfusion.configuration import DataConfig, OptimConfig, TrainingConfig
from deepavfusion.data.clips import find_clips, write_manifest
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.models import EarlyFusionConfig, EarlyFusionEncoder
from deepavfusion.models.separator_config import SeparationDecodingConfig
from deepavfusion.tasks.separation_config import MixingConfig, SeparationConfig

ENCODER = EarlyFusionConfig(
    image_size=(32, 32), audio_size=(32, 32), patch_size=8, embed_dim=16, depth=2, num_heads=2, num_tokens=(2, 2, 2)
)


def write_shapes(folder: Path, num_clips: int = 10) -> Path:
    """Clips of four shapes in turn and a manifest in which the last four are the test split."""
    write_sample_clips(folder / "clips", num_clips, duration_seconds=1.0, size=64)
    clips = sorted(find_clips(str(folder / "clips")), key=lambda clip: Path(clip.path).name)
    rows = [replace(clip, split="train" if i < num_clips - 4 else "test") for i, clip in enumerate(clips)]
    write_manifest(str(folder / "clips.csv"), rows)
    return folder / "clips.csv"


def write_encoder(folder: Path, **changes: Any) -> Path:
    """A saved encoder with random weights."""
    torch.manual_seed(5)
    EarlyFusionEncoder(replace(ENCODER, **changes)).save_pretrained(folder)
    return folder


def make(source: Path, encoder: Path, run_dir: Path, workers: int = 0, **settings: Any) -> SeparationConfig:
    """A run of a few steps."""
    optim = {"blr": 3e-2, "epochs": 4, "warmup_epochs": 1, **settings.pop("optim", {})}
    training = {"batch_size": 4, "log_every": 1, "checkpoint_every": 100, **settings.pop("training", {})}
    return SeparationConfig(
        run_dir=str(run_dir),
        from_=str(encoder),
        data=DataConfig(source=str(source), num_workers=workers),
        optim=OptimConfig(**optim),
        training=TrainingConfig(**training),
        mixing=MixingConfig(**settings.pop("mixing", {})),
        decoding=SeparationDecodingConfig(**{"decoder_dim": 32, **settings.pop("decoding", {})}),
        **settings,
    )
