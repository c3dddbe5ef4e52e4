"""Progress of training: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn


class TrainingProgress:
    """Progress of one run; silent in all processes but the first."""

    def __init__(
        self, console: Console, total_steps: int, epochs: float, batch_size: int, visible: bool = True
    ) -> None:
        self.console, self.total_steps, self.epochs, self.visible = console, total_steps, epochs, visible
        self.batch_size = batch_size
        self._bar: Progress | None = None
        if visible and console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=console,
                expand=True,
            )
            self._task = self._bar.add_task("training", total=total_steps, numbers="")

    def __enter__(self) -> TrainingProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, step: int) -> None:
        """One more step is done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def show(self, row: dict[str, Any], names: list[str]) -> None:
        """Show the losses and the speed of a row of metrics.csv; `names` are its loss columns."""
        losses = "  ".join(f"{name} {row[name]:.4f}" for name in names)
        speed = f"{row['samples_per_second']:.1f} samples/s"
        epoch = f"epoch {row['epoch']:.2f}/{self.epochs:g}"
        if self._bar is not None:
            self._bar.update(self._task, description=epoch, numbers=f"{losses}  {speed}")
        elif self.visible:
            left = self._time_left(row)
            self.say(f"step {row['step']}/{self.total_steps}  {epoch}  {losses}  {speed}  {left} left")

    def say(self, message: str) -> None:
        """A line of text above the bar."""
        if self.visible:
            self.console.print(message, highlight=False, markup=False, soft_wrap=True)

    def _time_left(self, row: dict[str, Any]) -> str:
        samples = (self.total_steps - row["step"]) * self.batch_size
        seconds = round(samples / max(row["samples_per_second"], 1e-9))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
