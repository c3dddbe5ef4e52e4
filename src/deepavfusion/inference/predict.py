"""`predict`: runs one task or several on files and writes one folder of results per file.

The results of a file are complete or absent: the record `TASK.json` is written last, and a file whose record was made
with the same weights and settings from the same bytes is not predicted again. A file that fails is named on one line,
and the others are done.

Exit codes: 0 all done, 1 some files failed, 2 nothing could be started (a wrong setting, no such model).
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from deepavfusion.atomic import NotWrittenError
from deepavfusion.data.media import MediaError
from deepavfusion.inference.listing import Item, belonging, list_items, shown
from deepavfusion.inference.predict_config import PredictConfig, Task
from deepavfusion.inference.predictions import json_line
from deepavfusion.inference.predictor import Predictor
from deepavfusion.inference.steps import FAILURES
from deepavfusion.lock import sole_writer
from deepavfusion.models.no_numbers import NO_NUMBERS
from deepavfusion.version import __version__

DONE, SOME_FAILED, NOTHING_STARTED = 0, 1, 2
MAX_RESULT_BYTES = 256 * 2**20
"""A record larger than this is not read back to see whether it can stay."""

FileProgress = Callable[[float, float], None]


@dataclass
class PredictionSummary:
    """What became of the files, of each with every task."""

    done: list[str] = field(default_factory=list)
    """Paths predicted now."""
    kept: list[str] = field(default_factory=list)
    """Paths whose results were there already."""
    failed: dict[str, str] = field(default_factory=dict)
    """By path, of one task of several by path and task, why not, in one line."""


def predict(config: PredictConfig) -> int:
    """Run the command; returns the exit code."""
    try:
        items = list_items(config.files, config.sound)
        predictor = Predictor.from_pretrained(
            config.model, config.device, batch_size=config.batch_size, precision=config.precision
        )
        for task in config.tasks:
            if task not in predictor.tasks:
                raise ValueError(f"{config.model} has no head for {task}; it has {', '.join(predictor.tasks)}")
            predictor.digest(task)  # loads the weights: what is wrong with them is no file's fault
    except (MediaError, ValueError, OSError) as error:
        _say(f"deepavfusion predict: error: {error}")
        return NOTHING_STARTED
    left_out = belonging(config.files)
    if left_out:
        _say(f"{len(left_out)} files belong to a video of the same name and are left out, such as {shown(left_out[0])}")
    with warnings.catch_warnings(), _bars(len(items)) as (next_file, progress):
        warnings.simplefilter("ignore")  # of what is odd about a file that can be read: every line here is a file's
        summary = predict_items(config, predictor, items, next_file, progress)
    silent = sum(NO_NUMBERS in cause for cause in summary.failed.values())
    _say(
        f"{len(summary.done)} predicted, {len(summary.kept)} kept from an earlier run, {len(summary.failed)} failed"
        + (f", {silent} of them because {NO_NUMBERS}" if silent else "")
        + (f"; results in {config.out}" if config.out else "")
    )
    return SOME_FAILED if summary.failed else DONE


def predict_items(
    config: PredictConfig,
    predictor: Predictor,
    items: list[Item],
    next_file: Callable[[int, str], None] = lambda number, name: None,
    progress: FileProgress | None = None,
) -> PredictionSummary:
    """Predict files one after the other.

    Args:
        config: settings.
        predictor: its models.
        items: what to predict.
        next_file: is called with each file's number and name before it is begun.
        progress: is told the seconds of the file that are done and that there are.
    """
    summary = PredictionSummary()
    settings = {task: _settings(config, task, predictor) for task in config.tasks}
    for number, item in enumerate(items):
        next_file(number, shown(item.path))
        stamps = _stamps([item.path, *([item.sound] if item.sound else [])])
        made_from = {task: {**settings[task], "input": stamps} for task in config.tasks}
        found: dict[Task, dict[str, Any] | Exception] = {}
        for task in config.tasks:
            record = None if config.overwrite else _kept(config, item, task, made_from[task])
            if record is not None:
                found[task] = record
        summary.kept += [item.path] * len(found)
        left = {task: made for task, made in made_from.items() if task not in found}
        try:
            if left:
                found |= _predict_one(config, predictor, item, left, progress)
        except (BrokenPipeError, NotWrittenError):  # nobody listens any more, or a full disk: no file's fault
            raise
        except FAILURES as error:
            summary.failed[item.path] = cause_of(error, item)
            _say(f"{shown(item.path)}: {summary.failed[item.path]}")
        for task, answer in ((task, found[task]) for task in config.tasks if task in found):
            if isinstance(answer, Exception):
                name = item.path if len(config.tasks) == 1 else f"{item.path}: {task}"
                summary.failed[name] = cause_of(answer, item)
                _say(f"{shown(name)}: {summary.failed[name]}")
                continue
            if task in left:
                summary.done.append(item.path)
            if config.json:
                sys.stdout.write(json_line(answer) + "\n")
                sys.stdout.flush()
    return summary


def cause_of(error: BaseException, item: Item) -> str:
    """Why a file failed, in one line, without its name."""
    cause = error.cause if isinstance(error, MediaError) and error.path == item.path else str(error)
    if isinstance(error, MemoryError):
        cause = "needs more memory than there is"
    line = shown(" ".join(cause.split())).removeprefix(f"{shown(item.path)}: ")
    return (line if len(line) <= 500 else f"{line[:500]} ...") or type(error).__name__


def _predict_one(
    config: PredictConfig,
    predictor: Predictor,
    item: Item,
    made_from: dict[Task, dict[str, Any]],
    progress: FileProgress | None,
) -> dict[Task, dict[str, Any] | Exception]:
    """By task of `made_from`, the record or why there is none."""
    with _folder_of(config, item, made_from) as folder:
        return predictor.write_all(
            tuple(made_from),
            item.given,
            folder,
            about={
                task: {"input": made["input"], "made_from": made, "deepavfusion_version": __version__}
                for task, made in made_from.items()
            },
            hop_seconds=config.hop_seconds,
            step_seconds=config.step_seconds,
            pictures=config.pictures,
            boxes=config.boxes,
            consistent=config.consistent,
            film=config.film and config.out is not None,
            arrays=config.arrays and config.out is not None,
            progress=progress,
        )


@contextmanager
def _folder_of(config: PredictConfig, item: Item, tasks: Iterable[Task]) -> Iterator[Path]:
    """Where results go; without `--out` a folder that is not kept. What fails leaves no empty folder behind."""
    if config.out is None:
        with TemporaryDirectory() as nowhere:
            yield Path(nowhere)
        return
    folder = Path(config.out, item.folder)
    try:
        with ExitStack() as locks:
            for task in tasks:
                locks.enter_context(sole_writer(folder, "--out", f".{task}.lock"))
            yield folder
    finally:
        with suppress(OSError):  # it is not there, or a result is in it
            folder.rmdir()


def _settings(config: PredictConfig, task: Task, predictor: Predictor) -> dict[str, Any]:
    """What a prediction depends on, but for the file."""
    own = {
        "classification": ("hop_seconds",),
        "embedding": ("hop_seconds",),
        "localization": ("step_seconds", "film", "arrays"),
        "segmentation": ("step_seconds", "film", "arrays"),
        "separation": ("boxes", "consistent"),
    }[task]
    chosen = {name: getattr(config, name) for name in own}
    if "boxes" in chosen:
        chosen["boxes"] = [list(box) for box in chosen["boxes"]]
    asked = {"pictures": _stamps(config.pictures)} if config.pictures and task == "separation" else {}
    return {"weights": predictor.digest(task), "precision": config.precision, **chosen, **asked}


def _stamps(paths: Any) -> list[dict[str, Any]]:
    """Name, size and time of files; those that are not there fail when they are read."""
    found = []
    for path in paths:
        try:
            status = os.stat(path)
            found.append({"path": path, "bytes": status.st_size, "modified_ns": status.st_mtime_ns})
        except (OSError, ValueError):
            found.append({"path": path})
    return found


def _kept(config: PredictConfig, item: Item, task: Task, made_from: dict[str, Any]) -> dict[str, Any] | None:
    """The record of an earlier run, if it was made from the same and all its files are there."""
    if config.out is None:
        return None
    folder = Path(config.out, item.folder)
    path = folder / f"{task}.json"
    try:
        if path.stat().st_size > MAX_RESULT_BYTES:
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
        same = record["made_from"] == made_from
        return record if same and all((folder / name).is_file() for name in record["files"].values()) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@contextmanager
def _bars(count: int) -> Iterator[tuple[Callable[[int, str], None], FileProgress]]:
    """Two bars on standard error, for the files and for the seconds of the one at hand, where that is a terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),  # names are not markup
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        files = progress.add_task("files", total=count)
        current = progress.add_task("", total=None)

        def next_file(number: int, name: str) -> None:
            progress.update(files, completed=number)
            progress.reset(current, description=name[-40:], total=None)

        def tell(done: float, total: float) -> None:
            progress.update(current, completed=done, total=total)

        yield next_file, tell
        progress.update(files, completed=count)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
