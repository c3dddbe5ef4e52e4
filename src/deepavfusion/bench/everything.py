"""`bench all`: every table and figure of docs/performance.md, on a CPU or a GPU.

Each part is one run of its own command, which measures its variants alternately. The result of a part is written when
the part is complete; parts whose file exists are skipped unless `again` is set.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from deepavfusion.bench import curves, decoder, media, model, predict, step
from deepavfusion.bench.config import (
    AllBenchConfig,
    BenchPart,
    CurvesBenchConfig,
    DecoderBenchConfig,
    MediaBenchConfig,
    ModelBenchConfig,
    PredictBenchConfig,
    StepBenchConfig,
)
from deepavfusion.models.config import FUSION_NAMES
from deepavfusion.training.processes import resolve_device

RUNS: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "model": (ModelBenchConfig, model.run),
    "decoder": (DecoderBenchConfig, decoder.run),
    "curves": (CurvesBenchConfig, curves.run),
    "step": (StepBenchConfig, step.run),
    "media": (MediaBenchConfig, media.run),
    "predict": (PredictBenchConfig, predict.run),
}
"""Configuration and function of every part."""
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "cpu": {
        "model": {},
        "decoder": {},
        "curves": {},
        "step": {"sizes": ("small", "vit_s", "vit_b"), "modes": ("eager",), "batch_size": 4},
        "media": {},
        "predict": {"seconds": 60},
    },
    "cuda": {
        "model": {"batch_size": 16, "repeats": 10},
        "decoder": {"batch_size": 16, "repeats": 10},
        "curves": {"measured": FUSION_NAMES, "max_tflop": 40.0, "repeats": 3},
        "step": {
            "sizes": ("vit_b", "vit_l"),
            "fusions": FUSION_NAMES,
            "batch_size": "best",
            "steps": 10,
            "num_workers": max(1, (os.cpu_count() or 1) - 2),
        },
        "media": {},
        "predict": {"seconds": 60},
    },
}
"""Settings of the docs, by device and part, where they are not the command's defaults."""
BESIDE_THE_DEVICE: tuple[BenchPart, ...] = ("media", "predict")
"""Parts that no device takes part in."""


def file_of(part: BenchPart, device: str, folder: str) -> Path:
    """Where a part's figures are kept."""
    suffix = "_cuda" if device == "cuda" and part not in BESIDE_THE_DEVICE else ""
    return Path(folder) / f"bench_{part}{suffix}.json"


def run(config: AllBenchConfig) -> list[BenchPart]:
    """Measure what is missing; returns the parts that were measured.

    Raises:
        ValueError: the default folder is not there, because this is no checkout.
    """
    if config.out == AllBenchConfig.out and not Path(config.out).is_dir():
        raise ValueError(f"out {config.out} does not exist: run this in a checkout, or name a folder with --out")
    console, device = Console(), resolve_device(config.device)
    measured = []
    for part in config.parts:
        path = file_of(part, device, config.out)
        if path.exists() and not config.again:
            console.print(f"{path} exists; --again true measures it again")
            continue
        cls, function = RUNS[part]
        where = {} if part in BESIDE_THE_DEVICE else {"device": device}
        function(cls(**SETTINGS[device][part], **where, json=str(path)))
        measured.append(part)
    console.print("python scripts/make_docs.py in a checkout makes the tables and figures from docs/results")
    return measured
