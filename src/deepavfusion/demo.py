"""`demo`: pre-train a small model for a few minutes and show what it learned.

On a folder of the user's videos if one is given, else on clips that the package draws and synthesises itself. A second
run continues or reports what is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

PREEMPTED = 75


@dataclass(frozen=True)
class DemoConfig:
    """A short pre-training that ends with a small table and a picture."""

    run_dir: str = "runs/demo"
    """Folder of everything the demo makes."""
    videos: str | None = None
    """Folder of your own video files; by default the package writes a few clips itself."""
    steps: int = 300
    """Optimiser steps."""
    num_clips: int = 48
    """How many clips to write when none are given."""

    def __post_init__(self) -> None:
        for name in ("steps", "num_clips"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")


def demo(config: DemoConfig) -> int:
    """Run it; returns the exit code."""
    from deepavfusion.arguments import parse_arguments
    from deepavfusion.configuration import PretrainConfig
    from deepavfusion.data.clips import find_clips
    from deepavfusion.data.sample_clips import write_sample_clips
    from deepavfusion.tasks.pretraining import MaskedPretraining
    from deepavfusion.training.loop import fit
    from deepavfusion.training.run_folder import CsvTable, RunFolder

    console = Console()
    source = config.videos
    if source is None:
        source = str(Path(config.run_dir) / "clips")
        with console.status(f"writing {config.num_clips} clips to {source}"):
            write_sample_clips(Path(source), config.num_clips)
    batch_size = 16
    epochs = config.steps * batch_size / len(find_clips(source))
    run_dir = str(Path(config.run_dir) / "pretrain")
    words = ["--config", "tiny", "--data.source", source, "--run_dir", run_dir]
    words += ["--training.batch_size", str(batch_size), "--optim.epochs", f"{epochs:.6g}"]
    words += ["--optim.warmup_epochs", f"{0.1 * epochs:.6g}", "--training.picture_every", f"{epochs / 4:.6g}"]
    console.print(f"[bold]deepavfusion pretrain {' '.join(words)}[/bold]", soft_wrap=True)
    settings = parse_arguments(PretrainConfig, words)
    result = fit(MaskedPretraining(settings), settings, console)

    folder = RunFolder(run_dir)
    rows = CsvTable(folder.metrics).rows()
    if rows:
        table = Table(title=f"pre-training, {result.step} steps of {batch_size} clips", title_justify="left")
        for column in ("step", "image loss", "audio loss", "clips/s"):
            table.add_column(column, justify="right")
        for row in rows[:: max(1, len(rows) // 6)][:6] + rows[-1:]:
            losses = (f"{float(row[name]):.3f}" for name in ("loss_image", "loss_audio"))
            table.add_row(row["step"], *losses, f"{float(row['samples_per_second']):.1f}")
        console.print(table)
    for picture in sorted(folder.pictures.glob("*.png")):
        console.print(f"picture: {picture}", soft_wrap=True)
    if result.status == "preempted":
        console.print("stopped; the same command continues")
        return PREEMPTED
    console.print(f"model:   {folder.model} (deepavfusion inspect {folder.model})", soft_wrap=True)
    return 0
