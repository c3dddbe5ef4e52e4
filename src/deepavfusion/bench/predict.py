"""`bench predict`: seconds of video per CPU second of every task, peak memory, and the time of each stage.

Each run has a process of its own on one thread (`predict_once`). CPU seconds are counted, which other work on the
machine changes little. Two versions of the package are measured alternately on the same clip and models. The last row
of a model is all tasks in one pass.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import deepavfusion
from deepavfusion.atomic import write_text
from deepavfusion.bench import predict_once
from deepavfusion.bench.config import PredictBenchConfig
from deepavfusion.bench.media import write_clip
from deepavfusion.models import (
    AudioVisualClassifier,
    ClassifierConfig,
    EarlyFusionConfig,
    Localizer,
    LocalizerConfig,
    Segmenter,
    SegmenterConfig,
    Separator,
    SeparatorConfig,
)
from deepavfusion.storage.bundle import Bundle, TaskModel

FRAME_RATE, KEY_FRAME_EVERY = 25, 250
"""Of the clip; a key frame every 10 s is what encoders write if nothing is said."""
ENCODERS = {
    "vit_s": EarlyFusionConfig(embed_dim=384, depth=12, num_heads=6),
    "tiny": EarlyFusionConfig(image_size=(32, 32), audio_size=(64, 64), embed_dim=32, depth=1, num_heads=2),
}
"""Encoders of the models with random weights."""
FILMED = {"localization", "segmentation"}


@dataclass(frozen=True)
class PredictCost:
    """What a prediction costs: medians over runs."""

    version: str
    """`this`, or `against`."""
    model: str
    task: str
    """One, or several in one pass (by a version that cannot, one after the other)."""
    film: bool
    """Whether a film was written too."""
    video_seconds: float
    cpu_seconds: float
    all_cpu_seconds: list[float]
    """Of every run."""
    wall_seconds: float
    peak_mib: float | None
    """The most memory of the process; None where the system does not tell."""
    stages: dict[str, float]
    """CPU seconds by stage; what is lacking is all else."""


def random_models(encoder: EarlyFusionConfig) -> dict[str, TaskModel]:
    """Models of every task with random weights, on one encoder."""
    torch.manual_seed(0)
    classes = ("first", "second", "third")
    models: dict[str, TaskModel] = {
        "classification": AudioVisualClassifier(ClassifierConfig(encoder=encoder, classes=classes)),
        "localization": Localizer(LocalizerConfig(encoder=encoder)),
        "segmentation": Segmenter(SegmenterConfig(encoder=encoder)),
        "separation": Separator(SeparatorConfig(encoder=encoder)),
    }
    for model in models.values():
        model.encoder.load_state_dict(models["classification"].encoder.state_dict())
        model.eval()
    return models


def measure(config: PredictBenchConfig, folder: Path) -> Iterator[PredictCost]:
    """Costs of every model, task and version; the clip and the models are written under `folder`."""
    clip = folder / "clip.mp4"
    write_clip(clip, 0, config.seconds, FRAME_RATE, KEY_FRAME_EVERY)
    versions = {"this": str(Path(deepavfusion.__file__).parents[1])}
    if config.against:
        versions["against"] = str(Path(config.against).resolve())
    for name in config.models:
        place = "shipped:bandstand" if name == "bandstand" else str(folder / name)
        if name != "bandstand":
            Bundle.save(place, random_models(ENCODERS[name]))
        rows = [(task,) for task in config.tasks] + ([config.tasks] if len(config.tasks) > 1 else [])
        for tasks in rows:
            for film in config.films if set(tasks) & FILMED else (False,):
                found: dict[str, list[dict]] = {version: [] for version in versions}
                for _ in range(config.repeats):
                    for version, tree in versions.items():
                        found[version].append(_run_once(tree, place, clip, folder / "out", list(tasks), film))
                for version, runs in found.items():
                    yield (
                        PredictCost(
                            *(version, name, ", ".join(tasks), film, config.seconds),
                            statistics.median(run["cpu_seconds"] for run in runs),
                            [run["cpu_seconds"] for run in runs],
                            statistics.median(run["wall_seconds"] for run in runs),
                            None if runs[0]["peak_mib"] is None else max(run["peak_mib"] for run in runs),
                            {
                                s: statistics.median(run["stages"].get(s, 0.0) for run in runs)
                                for s in predict_once.STAGES
                            },
                        )
                    )


def _run_once(tree: str, place: str, clip: Path, out: Path, tasks: list[str], film: bool) -> dict:
    order = {"place": place, "clip": str(clip), "out": str(out), "tasks": tasks, "film": film}
    done = subprocess.run(
        [sys.executable, predict_once.__file__, json.dumps(order)],
        env={**os.environ, "PYTHONPATH": tree, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def run(config: PredictBenchConfig) -> list[PredictCost]:
    """Measure, print the table, and write the JSON file if asked for."""
    console, costs = Console(), []
    with tempfile.TemporaryDirectory() as folder, console.status("measuring"):
        for cost in measure(config, Path(folder)):
            costs.append(cost)
            if config.json:  # so that what was measured stays
                _write(config.json, config, costs)
    table = Table(title=f"predictions on a clip of {config.seconds} s, one thread", title_justify="left")
    for column in ("model", "task", "film", "version", "video s per CPU s", "peak MiB", "where the time goes"):
        table.add_column(column, justify="right" if column in ("video s per CPU s", "peak MiB") else "left")
    for cost in costs:
        parts = {**cost.stages, "rest": cost.cpu_seconds - sum(cost.stages.values())}
        where = sorted(parts, key=lambda stage: -parts[stage])
        table.add_row(
            *(cost.model, cost.task, "yes" if cost.film else "no", cost.version),
            f"{cost.video_seconds / cost.cpu_seconds:.2f}",
            "-" if cost.peak_mib is None else f"{cost.peak_mib:.0f}",
            ", ".join(f"{stage} {parts[stage] / cost.cpu_seconds:.0%}" for stage in where),
        )
    console.print(table)
    return costs


def _write(path: str, config: PredictBenchConfig, costs: list[PredictCost]) -> None:
    record = {"torch": torch.__version__, "device": "CPU, 1 thread", "config": asdict(config)}
    write_text(path, json.dumps({**record, "costs": [asdict(cost) for cost in costs]}, indent=2) + "\n")
