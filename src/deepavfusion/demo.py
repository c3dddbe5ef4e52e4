"""`demo`: a small world, a short pre-training on it, and a report to look at.

On a folder of the user's videos if one is given, else on Bandstand, the world that the package generates itself. Every
stage is a command that could be typed; a second run skips what is done.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deepavfusion.atomic import write_text

PREEMPTED = 75
BATCH_SIZE = 16
SPLITS = "[pretrain,test]"


@dataclass(frozen=True)
class DemoConfig:
    """A small world, a short pre-training on it, and a report to look at."""

    run_dir: str = "runs/demo"
    """Folder of everything the demo makes."""
    videos: str | None = None
    """Folder of your own video files; by default the package generates its own."""
    steps: int = 600
    """Optimiser steps of pre-training."""
    clips: int = 800
    """How many clips to generate when no videos are given."""

    def __post_init__(self) -> None:
        for name in ("steps", "clips"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")


class Timings:
    """Wall-clock seconds and command of every stage, in RUN/timings.json; a stage that is skipped keeps its entry."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    @contextmanager
    def stage(self, name: str, command: str) -> Iterator[None]:
        """Time a stage that really runs; stages that were stopped and continued add up."""
        began = time.monotonic()
        try:
            yield
        finally:
            before = next((e["seconds"] for e in self.entries if e["stage"] == name), 0.0)
            seconds = round(before + time.monotonic() - began, 1)
            self.entries = [e for e in self.entries if e["stage"] != name]
            self.entries.append({"stage": name, "seconds": seconds, "command": command})
            write_text(self.path, json.dumps(self.entries, indent=2) + "\n")


def demo(config: DemoConfig) -> int:
    """Run it; returns the exit code."""
    from deepavfusion.data.clips import find_clips
    from deepavfusion.report import write_report

    console, run = Console(markup=False), Path(config.run_dir)
    timings = Timings(run / "timings.json")
    source = config.videos or make_world(run / "world", config.clips, timings, console)
    epochs = config.steps * BATCH_SIZE / len(find_clips(source))
    if not pretrain(run / "pretrain", source, epochs, timings, console):
        console.print("stopped; the same command continues")
        return PREEMPTED
    print_losses(run / "pretrain", console)
    report = write_report(run, run / "report.html")
    console.print(f"model:  {run / 'pretrain' / 'model'}", soft_wrap=True)
    console.print(f"report: {report}", soft_wrap=True)
    return 0


def make_world(world: Path, clips: int, timings: Timings, console: Console) -> str:
    """Generate Bandstand clips unless they are there; returns their manifest."""
    from deepavfusion.bandstand.config import BandstandConfig
    from deepavfusion.bandstand.generation import generate
    from deepavfusion.counting import counting

    command = f"deepavfusion bandstand {world} --clips {clips} --splits {SPLITS}"
    console.print(command, style="bold", soft_wrap=True)
    manifest = world / "manifest.csv"
    if not manifest.exists():
        with timings.stage("world", command), counting("clips") as progress:
            generate(BandstandConfig(str(world), clips=clips, splits=tuple(SPLITS.strip("[]").split(","))), progress)
    return str(manifest)


def pretrain(run_dir: Path, source: str, epochs: float, timings: Timings, console: Console) -> bool:
    """Pre-train, or continue, or find it done; returns whether it is finished."""
    from deepavfusion.arguments import parse_arguments
    from deepavfusion.configuration import PretrainConfig
    from deepavfusion.tasks.pretraining import MaskedPretraining
    from deepavfusion.training.loop import fit

    words = ["--config", "tiny", "--data.source", source, "--run_dir", str(run_dir)]
    words += ["--training.batch_size", str(BATCH_SIZE), "--optim.epochs", f"{epochs:.6g}"]
    words += ["--optim.warmup_epochs", f"{0.1 * epochs:.6g}", "--training.picture_every", f"{epochs / 4:.6g}"]
    words += ["--training.probe_every", f"{epochs / 4:.6g}"]
    # Plain pixels and log power: so short a run learns little of patches that are normalised one by one.
    words += ["--autoencoder.norm_pix_loss", "false"]
    command = f"deepavfusion pretrain {' '.join(words)}"
    console.print(command, style="bold", soft_wrap=True)
    if (run_dir / "model").is_dir():
        console.print(f"{run_dir} is finished", soft_wrap=True)
        return True
    settings = parse_arguments(PretrainConfig, words)
    with timings.stage("pretrain", command):
        return fit(MaskedPretraining(settings), settings, console).status == "finished"


def print_losses(run_dir: Path, console: Console) -> None:
    """A short table of metrics.csv, the last probe, and where the pictures are."""
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
    probes = CsvTable(folder.probes).rows()
    if probes:
        values = {name: float(value) for name, value in probes[-1].items() if name != "step"}
        console.print("probe:  " + ", ".join(f"{name} {value:.3g}" for name, value in values.items()), soft_wrap=True)
    for picture in sorted(folder.pictures.glob("*.png")):
        console.print(f"picture: {picture}", soft_wrap=True)
