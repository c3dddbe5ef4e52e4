"""`demo`: a small world, a short pre-training, the tasks on the model that ships, and a report to look at.

Every stage is a command that could be typed; a second run skips what is done. On a folder of the user's own videos,
about which nothing is known, only the pre-training runs.

A few minutes of pre-training are enough to watch it learn and too few to be of use to a task, so the tasks start from
the encoder that ships with the package (`shipped:bandstand`), beside one that starts untrained.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deepavfusion.atomic import write_text
from deepavfusion.verbs.verb import PREEMPTED

BATCH_SIZE = 16
SPLITS = "[pretrain,train,test,localization,duets,segmentation_train,segmentation_test]"
ENCODER = "shipped:bandstand"


@dataclass(frozen=True)
class DemoConfig:
    """A small world, a short pre-training, the tasks on the model that ships, and a report to look at."""

    run_dir: str = "runs/demo"
    """Folder of everything the demo makes."""
    videos: str | None = None
    """Folder of your own video files, for the pre-training alone; by default the package generates its own."""
    steps: int = 200
    """Optimiser steps of pre-training."""
    clips: int = 900
    """How many clips to generate when no videos are given."""
    task_steps: int = 100
    """Optimiser steps of each task's training."""

    def __post_init__(self) -> None:
        for name in ("steps", "clips", "task_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")


@dataclass(frozen=True)
class Stage:
    """One command of the demo."""

    name: str
    """Section of the report it belongs to, and what it does there where there are several: `localization: train`."""
    words: tuple[str, ...]
    """The command line after `deepavfusion`."""
    product: Path
    """What is there when it is done."""

    @property
    def command(self) -> str:
        """As it can be typed."""
        return " ".join(["deepavfusion", *(f'"{word}"' if set(word) & set(" {}[]") else word for word in self.words)])


def demo(config: DemoConfig) -> int:
    """Run it; returns the exit code."""
    from deepavfusion.report import write_report

    console, run = Console(markup=False), Path(config.run_dir)
    timings = Timings(run / "timings.json")
    if config.videos is None:
        world = run / "world"
        code = play(bandstand(world, config.clips), timings, console)
        source = str(world / "manifest.csv")
    else:
        code, source = 0, config.videos
    if not code:
        code = play(pretraining(run, source, config.steps), timings, console)
    if not code:
        print_losses(run / "pretrain", console)
        stages = [] if config.videos else tasks(run, run / "world", config.task_steps)
        code = next((code for stage in stages if (code := play(stage, timings, console))), 0)
    if code:
        console.print("stopped; the same command continues" if code == PREEMPTED else "the demo ends here")
        return code
    report = write_report(run, run / "report.html")
    print_scores(run, console)
    console.print(f"model:  {run / 'pretrain' / 'model'}", soft_wrap=True)
    console.print(f"report: {report}", soft_wrap=True)
    return 0


def play(stage: Stage, timings: Timings, console: Console) -> int:
    """Run a stage's command unless it is done; returns its exit code."""
    from deepavfusion.cli import main

    console.print(stage.command, style="bold", soft_wrap=True)
    if stage.product.exists():
        console.print(f"{stage.product} is there", soft_wrap=True)
        return 0
    began = time.monotonic()
    try:
        return main(stage.words)
    finally:
        timings.add(stage, time.monotonic() - began)


class Timings:
    """Wall-clock seconds and command of every stage, in RUN/timings.json; a stage that is skipped keeps its entry."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    def add(self, stage: Stage, seconds: float) -> None:
        """Add to the time of a stage, which may have been stopped before."""
        before = next((e["seconds"] for e in self.entries if e["stage"] == stage.name), 0.0)
        entry = {"stage": stage.name, "seconds": round(before + seconds, 1), "command": stage.command}
        self.entries = [e for e in self.entries if e["stage"] != stage.name] + [entry]
        write_text(self.path, json.dumps(self.entries, indent=2) + "\n")


def bandstand(world: Path, clips: int) -> Stage:
    """Generate the world."""
    words = ("bandstand", str(world), "--clips", str(clips), "--splits", SPLITS)
    return Stage("world", words, world / "manifest.csv")


def pretraining(run: Path, source: str, steps: int) -> Stage:
    """Pre-train for a number of steps, whatever the number of clips."""
    from deepavfusion.data.clips import find_clips
    from deepavfusion.data.splits import is_held_out

    clips = [clip for clip in find_clips(source) if not is_held_out(clip)]
    epochs = steps * BATCH_SIZE / max(1, len(clips))
    words = ["pretrain", "--config", "bandstand", "--data.source", source, "--run_dir", str(run / "pretrain")]
    words += ["--training.batch_size", str(BATCH_SIZE), *_epochs(epochs)]
    words += ["--training.picture_every", f"{epochs / 4:.6g}"]
    return Stage("pretrain", tuple(words), run / "pretrain" / "model")


def tasks(run: Path, world: Path, steps: int) -> list[Stage]:
    """Every task: train it on the shipped encoder, then score it beside its baselines."""
    builders = (classification, localization, separation, segmentation)
    return [stage for build in builders for stage in build(run, world, steps)]


def classification(run: Path, world: Path, steps: int) -> list[Stage]:
    """Fine-tune on solos, from the shipped encoder and untrained: look and timbre must both be right."""
    settings = {
        "recipe": "finetune",
        "classes": "bandstand",
        "optim.blr": 8e-3,
        "augmentation.mixup": 0,
        "augmentation.drop_path": 0,
        "data.crop_area": "[0.7,1]",
    }
    clips, scored = world / "train.csv", world / "test.csv"
    plain = run / "runs" / "classification_untrained"
    stages = []
    for start, out in (("untrained", plain / "test"), ("shipped", run / "classification")):
        trained = run / "runs" / f"classification_{start}"
        own = {**settings, **({"untrained": "true"} if start == "untrained" else {})}
        stages.append(train("classification", trained, clips, steps, own, f", {start} start"))
        words = ["evaluate", "classification", str(trained), "--data.source", str(scored), "--out", str(out)]
        words += ["--title", "Audio-event classification"]
        words += ["--baselines", f"[untrained start={plain / 'test'}]"] if start == "shipped" else []
        stages.append(Stage(f"classification: score, {start} start", tuple(words), out / "results.json"))
    return stages


def localization(run: Path, world: Path, steps: int) -> list[Stage]:
    """Learn from what moves when it sounds, without boxes, where the sound comes from."""
    trained, out = run / "runs" / "localization", run / "localization"
    words = ["evaluate", "localization", str(trained), "--data.source", str(world / "localization.csv")]
    words += ["--data.split", "all", "--out", str(out)]
    settings = {"recipe": "synchrony", "optim.blr": 1.6e-2, "optim.layer_decay": 1, "contrast.mismatch_share": 0.25}
    return [
        train("localization", trained, world / "pretrain.csv", steps, settings),
        Stage("localization: score", tuple(words), out / "results.json"),
    ]


def separation(run: Path, world: Path, steps: int) -> list[Stage]:
    """Take mixtures apart by their pictures, where looks have their usual timbres; score on duets."""
    trained, out = run / "runs" / "separation", run / "separation"
    words = ["evaluate", "separation", str(trained), "--data.source", str(world / "duets.csv")]
    words += ["--data.split", "all", "--mixtures", "duets", "--out", str(out)]
    settings = {"optim.blr": 2.4e-2, "mixing.pictures": "source"}
    few = max(1, 3 * steps // 4)  # its steps are the dearest; of the clips those with one sounding source serve
    return [
        train("separation", trained, world / "pretrain.csv", few, settings),
        Stage("separation: score", tuple(words), out / "results.json"),
    ]


def segmentation(run: Path, world: Path, steps: int) -> list[Stage]:
    """Learn the pixels of what sounds from masks."""
    trained, out = run / "runs" / "segmentation", run / "segmentation"
    words = ["evaluate", "segmentation", str(trained), "--data.source", str(world / "segmentation_test.csv")]
    words += ["--data.split", "all", "--out", str(out)]
    settings = {"optim.blr": 1.6e-2, "listening.silent_share": 0.2}
    return [
        train("segmentation", trained, world / "segmentation_train.csv", steps, settings),
        Stage("segmentation: score", tuple(words), out / "results.json"),
    ]


def train(task: str, run_dir: Path, source: Path, steps: int, settings: Mapping[str, object], which: str = "") -> Stage:
    """Train a task on the shipped encoder for a number of steps, whatever the number of clips."""
    from deepavfusion.data.clips import find_clips

    words = ["train", task, "--from", ENCODER, "--data.source", str(source), "--run_dir", str(run_dir)]
    words += ["--training.batch_size", str(BATCH_SIZE), *_epochs(steps * BATCH_SIZE / len(find_clips(str(source))))]
    words += ["--training.probe_every", "0"]
    words += [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return Stage(f"{task}: train{which}", tuple(words), run_dir / "model")


def print_losses(run_dir: Path, console: Console) -> None:
    """A short table of metrics.csv, and where the pictures are."""
    from deepavfusion.training.run_folder import CsvTable, RunFolder

    folder = RunFolder(run_dir)
    rows = CsvTable(folder.metrics).rows()
    table = Table(title=f"pre-training, {rows[-1]['step']} steps of {BATCH_SIZE} clips", title_justify="left")
    for column in ("step", "image loss", "audio loss", "clips/s"):
        table.add_column(column, justify="right")
    shown = sorted({round(i * (len(rows) - 1) / 5) for i in range(6)})
    for row in (rows[i] for i in shown):
        losses = (f"{float(row[name]):.3f}" for name in ("loss_image", "loss_audio"))
        table.add_row(row["step"], *losses, f"{float(row['samples_per_second']):.1f}")
    console.print(table)
    for picture in sorted(folder.pictures.glob("*.png")):
        console.print(f"picture: {picture}", soft_wrap=True)


def print_scores(run: Path, console: Console) -> None:
    """The first score of every task beside its baselines."""
    from deepavfusion.report.results import read_evaluation

    found = {path.parent.name: read_evaluation(path) for path in sorted(run.glob("*/results.json"))}
    if not found:
        return
    table = Table(title="tasks", title_justify="left")
    for column in ("task", "score", "value", "beside"):
        table.add_column(column)
    for name, own in found.items():
        score, estimate = next(iter(own.scores.items()))
        beside = [f"{n} {b[score].score.value:.3f}" for n, b in own.baselines.items() if score in b]
        table.add_row(name, score, f"{estimate.value:.3f}", ", ".join(beside))
    console.print(table)


def _epochs(epochs: float) -> list[str]:
    return ["--optim.epochs", f"{epochs:.10g}", "--optim.warmup_epochs", f"{0.1 * epochs:.6g}"]
