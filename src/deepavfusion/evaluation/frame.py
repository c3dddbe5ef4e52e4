"""What all evaluations share: predict, score, write the record, draw, print the table.

A task defines the inputs of the models, the scores and the drawings. This module adds the processes, the folder and the
order: scores are written before anything is drawn, so that a drawing that fails is named and loses no score.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from deepavfusion.atomic import replacing
from deepavfusion.data.hub import HubSource, is_hub
from deepavfusion.evaluation.config import EvaluationConfig
from deepavfusion.evaluation.loop import Evaluator, Exchange, Predictions, Progress, predict_all
from deepavfusion.evaluation.record import RESULTS, PictureEntry, Record, Score
from deepavfusion.training.processes import autocast_dtype

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Config = TypeVar("Config", bound=EvaluationConfig)


@dataclass(frozen=True)
class Drawn:
    """The files that a drawing wrote; names are relative to the folder."""

    pictures: tuple[PictureEntry, ...] = ()
    sounds: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By example, its sound files by what they are."""
    videos: tuple[str, ...] = ()


Draw = Callable[[Path], Drawn]
"""Draws something into the folder that it is given."""


def picture_drawing(entry: PictureEntry, figure: Callable[[], Figure]) -> Draw:
    """Draws one PNG figure."""

    def draw(out: Path) -> Drawn:
        with replacing(out / entry.file) as temporary:
            figure().savefig(temporary, format="png")
        return Drawn(pictures=(entry,))

    return draw


def film_drawing(file: str, write: Callable[[Path], None]) -> Draw:
    """Draws one video, with a function that writes it to a path."""

    def draw(out: Path) -> Drawn:
        write(out / file)
        return Drawn(videos=(file,))

    return draw


@dataclass(frozen=True)
class Printed:
    """Which of a record's scores are printed, and how."""

    scores: tuple[str, ...]
    headlines: tuple[str, ...]
    """Scores whose differences from the baselines are printed."""
    percent: bool = True
    """Whether scores are shares, printed in percent."""
    lines: tuple[str, ...] = ()
    """What else is told."""


@dataclass(frozen=True)
class Evaluated:
    """A finished evaluation."""

    out: Path
    """Folder of the files."""
    record: Record
    printed: Printed
    num_without_numbers: int = 0
    """Items for which the model's answer is not finite."""


@dataclass(frozen=True)
class Findings:
    """The result of an evaluation, before anything is written."""

    record: Record
    """Without drawings; without scores where there is no truth, and then it is not written."""
    ids: Sequence[str]
    """Names of the samples."""
    samples: Mapping[str, NDArray[np.float64]]
    """By score, one value per sample."""
    printed: Printed
    tables: Callable[[Path], None] | None = None
    """Writes this task's further files into the folder."""
    drawings: Mapping[str, Draw] = field(default_factory=dict)
    """By what is drawn, by which a failure is named."""
    num_without_numbers: int = 0

    def write(self, out: Path) -> Evaluated:
        """Write the record, then draw, and name in the record what was drawn and what could not be."""
        if self.record.scores:
            self.record.write(out, self.ids, self.samples)
            if self.tables is not None:
                self.tables(out)
        drawn: list[Drawn] = []
        undrawn: dict[str, str] = {}
        for what, draw in self.drawings.items():
            try:
                drawn.append(draw(out))
            except Exception as error:  # noqa: BLE001  # whatever it fails with, it takes no score with it
                undrawn[what] = " ".join(str(error).split()) or type(error).__name__
        record = replace(
            self.record,
            pictures=[entry for own in drawn for entry in own.pictures],
            sounds={example: files for own in drawn for example, files in own.sounds.items()},
            videos=[file for own in drawn for file in own.videos],
            undrawn=undrawn,
        )
        if record.scores and self.drawings:
            record.write_results(out)
        return Evaluated(out, record, self.printed, self.num_without_numbers)


class TaskEvaluation(ABC, Generic[Config]):
    """The part of an evaluation that differs between tasks. Its constructor loads the models and selects the items."""

    def __init__(self, config: Config, exchange: Exchange, progress: Progress | None = None) -> None:
        """
        Args:
            config: which model on which clips.
            exchange: the processes that share the work.
            progress: is told how many items this process has done, for every evaluator anew.

        Raises:
            ValueError: no such model or clips, or models and clips that do not fit.
        """
        self.config, self.exchange, self.progress = config, exchange, progress
        self.device = exchange.device
        self.dtype = autocast_dtype(config.precision, self.device.type)

    def ask(self, evaluator: Evaluator, batch_size: int | None = None) -> Predictions:
        """Predictions of every item, over all processes."""
        size, num_workers = batch_size or self.config.batch_size, self.config.data.num_workers
        return predict_all(evaluator, self.exchange, size, num_workers, self.progress)

    @property
    def source_name(self) -> str:
        """The source of the clips, for the folder's name."""
        source = self.config.data.source
        return Path(HubSource.parse(source).place if is_hub(source) else source.rstrip("/")).stem

    @abstractmethod
    def predict(self) -> None:
        """Run the models; every process takes part.

        Raises:
            ValueError: no item could be read.
            NoNumbersError: the model's output is finite for no item.
        """

    @abstractmethod
    def findings(self) -> Findings:
        """The scores of the predictions, and what is to be drawn; called in the first process only.

        Raises:
            ValueError: no item can be scored, or baselines do not fit.
        """

    @abstractmethod
    def folder_name(self) -> list[str]:
        """The parts of the result folder's name, which distinguish it from others of the run."""


def show(result: Evaluated, console: Console | None = None) -> None:
    """Print coverage, the scores beside the baselines', the headlines' differences from them, and what was drawn."""
    console = console or Console(markup=False, emoji=False)
    record, printed = result.record, result.printed
    line = record.coverage.line()
    console.print(line if record.scores else line.replace("scored", "looked at", 1), soft_wrap=True)
    if record.scores:
        table = Table(title=f"{record.protocol} ({result.out})", title_justify="left")
        table.add_column("score", no_wrap=True)
        for column in ("model", *record.baselines):
            table.add_column(column, justify="right")
        factor = 100 if printed.percent else 1
        for name in printed.scores:
            cells = (
                f"{factor * own[name].score.value:.2f}" if name in own else "" for own in record.baselines.values()
            )
            table.add_row(name, _with_interval(record.scores[name], factor), *cells)
        console.print(table)
        for name, baseline in record.baselines.items():
            for score in printed.headlines:
                if score in baseline and (gap := baseline[score].difference) is not None:
                    value, low, high = (factor * x for x in (gap.difference, gap.low, gap.high))
                    console.print(f"{score} minus {name}: {value:+.2f} [{low:+.2f}, {high:+.2f}]", soft_wrap=True)
    else:
        console.print(f"nothing is scored without ground truth; figures are in {result.out}", soft_wrap=True)
    lines = [*printed.lines, *(f"video: {result.out / file}" for file in record.videos)]
    lines += [f"no drawing of {what}: {cause}" for what, cause in record.undrawn.items()]
    if left := len(record.scores) - len(printed.scores):
        lines.append(f"{left} more scores are in {result.out / RESULTS}")
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _with_interval(score: Score, factor: float) -> str:
    if score.low is None or score.high is None:
        return f"{factor * score.value:.2f}"
    return f"{factor * score.value:.2f} [{factor * score.low:.1f}, {factor * score.high:.1f}]"
