"""`demo`: generated clips, a short pre-training, all four tasks on the shipped encoder, and a report.

Every stage is a command that could be typed; a second run skips the stages that are done. With a folder of the user's
own videos, which have no labels, only the pre-training runs.

A few minutes of pre-training are enough to see the loss fall, but too few to help a task. So the heads are trained on
the encoder that ships with the package (`shipped:bandstand`), and scored beside the shipped heads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deepavfusion.atomic import write_text
from deepavfusion.lock import sole_writer
from deepavfusion.training.signals import PREEMPTED_EXIT_CODE

BATCH_SIZE = 16
SPLITS = "[pretrain,train,test,localization,duets,segmentation_train,segmentation_test]"
ENCODER = "shipped:bandstand"
SMALL_STEPS: dict[str, object] = {"optim.blr": 3.2e-2, "data.crop_area": "[0.7,1]"}
"""Of heads on a frozen encoder, which learn most from many small steps."""


@dataclass(frozen=True)
class DemoConfig:
    """Generate clips, pre-train for a short while, train and score all four tasks on the shipped encoder, and write a
    report."""

    run_dir: str = "runs/demo"
    """Folder of all results."""
    videos: str | None = None
    """Folder of your own video files, for pre-training only; by default clips are generated."""
    steps: int = 200
    """Optimiser steps of pre-training."""
    clips: int = 720
    """Number of generated scenes, and of generated solos (clips of one instrument)."""
    task_steps: int = 400
    """Optimiser steps of each task."""

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


Main = Callable[[Sequence[str]], int]
"""The command line: words to an exit code."""


def demo(config: DemoConfig, main: Main) -> int:
    """Run every stage by the command line's own `main`; returns the exit code."""
    with sole_writer(config.run_dir, "--run_dir"):
        return _demo(config, main)


def _demo(config: DemoConfig, main: Main) -> int:
    from deepavfusion.report import write_report

    console, run = Console(markup=False), Path(config.run_dir)
    timings = Timings(run / "timings.json")
    if config.videos is None:
        source = str(run / "world" / "manifest.csv")
        worlds = (bandstand(run / "world", config.clips), solos(run / "solos", config.clips))
        code = next((code for stage in worlds if (code := play(stage, main, timings, console))), 0)
    else:
        code, source = 0, config.videos
    if not code:
        code = play(pretraining(run, source, config.steps), main, timings, console)
    if not code:
        print_losses(run / "pretrain", console)
        stages = [] if config.videos else tasks(run, run / "world", run / "solos", config.task_steps)
        code = next((code for stage in stages if (code := play(stage, main, timings, console))), 0)
    if code:
        console.print("stopped; the same command continues" if code == PREEMPTED_EXIT_CODE else "the demo ends here")
        return code
    report = write_report(run, run / "report.html")
    print_scores(run, console)
    console.print(f"model:  {run / 'pretrain' / 'model'}", soft_wrap=True)
    console.print(f"report: {report}", soft_wrap=True)
    return 0


def play(stage: Stage, main: Main, timings: Timings, console: Console) -> int:
    """Run a stage's command unless it is done; returns its exit code."""
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


def solos(world: Path, clips: int) -> Stage:
    """Generate solos with labels, of which classification needs many."""
    words = ["bandstand", str(world), "--clips", str(clips), "--splits", "[train,test]"]
    words += ["--stems", "false", "--masks", "false", "--sheets", "false"]
    return Stage("world: solos", tuple(words), world / "manifest.csv")


def pretraining(run: Path, source: str, steps: int) -> Stage:
    """Pre-train by masked reconstruction, which can be looked at, whatever the number of clips."""
    from deepavfusion.data.clips import find_clips
    from deepavfusion.data.splits import trained_on

    clips = trained_on(find_clips(source))
    epochs = steps * BATCH_SIZE / max(1, len(clips))
    words = ["pretrain", "--config", "reconstruction", "--data.source", source, "--run_dir", str(run / "pretrain")]
    words += ["--training.batch_size", str(BATCH_SIZE), *_epochs(epochs)]
    words += ["--training.picture_every", f"{epochs / 4:.6g}", "--training.probe_every", f"{epochs / 4:.6g}"]
    return Stage("pretrain", tuple(words), run / "pretrain" / "model")


def tasks(run: Path, world: Path, solos: Path, steps: int) -> list[Stage]:
    """Every task: train a head on the frozen encoder that ships, then score it beside baselines on other clips."""
    return [
        *classification(run, solos, steps),
        *localization(run, world, steps),
        *separation(run, world, steps),
        *segmentation(run, world, steps),
    ]


def classification(run: Path, solos: Path, steps: int) -> list[Stage]:
    """Probe the features of the shipped encoder, and of an untrained one: look and timbre must both be right."""
    settings = {"recipe": "attentive", "classes": "bandstand", "heads": "[image,audio,fusion]", "optim.blr": 1e-2}
    stages = []
    for start in ("untrained", "shipped"):
        untrained = {"untrained": "true"} if start == "untrained" else {}
        features = {part: run / "runs" / "features" / f"{part}_{start}.npz" for part in ("train", "test")}
        for part, file in features.items():
            words = ["embed", "--from", ENCODER, "--data.source", str(solos / f"{part}.csv"), "--data.split", "all"]
            words += ["--tokens", "all", *_options(untrained), "--out", str(file)]
            stages.append(Stage(f"classification: features of {part}, {start} encoder", tuple(words), file))
        trained = run / "runs" / f"classification_{start}"
        out = run / "classification" if start == "shipped" else trained / "test"
        own = {**settings, **untrained, "features": features["train"]}
        stages.append(train("classification", trained, solos / "train.csv", steps, 32, own, f", {start} encoder"))
        words = ["evaluate", "classification", str(trained), "--data.source", str(solos / "test.csv")]
        words += ["--features", str(features["test"]), "--out", str(out), "--title", "Audio-event classification"]
        if start == "shipped":
            words += ["--baselines", f"[untrained encoder={run / 'runs' / 'classification_untrained' / 'test'}]"]
        stages.append(Stage(f"classification: score, {start} encoder", tuple(words), out / "results.json"))
    return stages


def localization(run: Path, world: Path, steps: int) -> list[Stage]:
    """Learn from what moves when it sounds, without boxes, where the sound comes from."""
    trained = run / "runs" / "localization"
    settings = {
        "recipe": "synchrony",
        "freeze_encoder": "true",
        "head.dim": 128,
        "head.stride": 8,
        "contrast.mismatch_share": 0.25,
    }
    return [
        train("localization", trained, world / "pretrain.csv", steps, 4, {**SMALL_STEPS, **settings}),
        score("localization", run, trained, world / "localization.csv", steps),
    ]


def separation(run: Path, world: Path, steps: int) -> list[Stage]:
    """Train separation by images of the sources, with the usual timbres of looks; score on duets."""
    trained = run / "runs" / "separation"
    settings = {"freeze_encoder": "true", "decoding.decoder_dim": 64, "loss": "bce", "mixing.pictures": "source"}
    few = max(1, steps // 2)  # its steps are the dearest; of the clips those with one sounding source serve
    return [
        train("separation", trained, world / "pretrain.csv", few, 8, {**SMALL_STEPS, **settings}),
        score("separation", run, trained, world / "duets.csv", few, {"mixtures": "duets"}),
    ]


def segmentation(run: Path, world: Path, steps: int) -> list[Stage]:
    """Learn the pixels of what sounds from masks."""
    trained = run / "runs" / "segmentation"
    settings = {"recipe": "frozen", "decoder.dim": 64, "listening.silent_share": 0.15, "listening.foreign_share": 0.1}
    return [
        train("segmentation", trained, world / "segmentation_train.csv", steps, 4, {**SMALL_STEPS, **settings}),
        score("segmentation", run, trained, world / "segmentation_test.csv", steps),
    ]


def train(
    task: str, run_dir: Path, source: Path, steps: int, batch_size: int, settings: Mapping[str, object], which: str = ""
) -> Stage:
    """Train a task on the shipped encoder for a number of steps, whatever the number of clips."""
    from deepavfusion.data.clips import find_clips

    words = ["train", task, "--from", ENCODER, "--data.source", str(source), "--run_dir", str(run_dir)]
    words += ["--training.batch_size", str(batch_size), *_epochs(steps * batch_size / len(find_clips(str(source))))]
    words += ["--training.probe_every", "0", *_options(settings)]
    return Stage(f"{task}: train{which}", tuple(words), run_dir / "model")


def score(
    task: str, run: Path, trained: Path, source: Path, steps: int, settings: Mapping[str, object] | None = None
) -> Stage:
    """Score the head that ships, which has learned for longer, and the one trained here on the same clips."""
    out = run / task
    words = ["evaluate", task, ENCODER, "--data.source", str(source), "--data.split", "all", *_options(settings or {})]
    words += ["--baselines", f"[{steps} steps here={trained}]", "--out", str(out)]
    return Stage(f"{task}: score", tuple(words), out / "results.json")


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


def _options(settings: Mapping[str, object]) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


def _epochs(epochs: float) -> list[str]:
    return ["--optim.epochs", f"{epochs:.10g}", "--optim.warmup_epochs", f"{0.1 * epochs:.6g}"]
