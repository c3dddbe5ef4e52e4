"""The work of a request: task after task on the input, with progress, into a folder and a zip file of it.

It runs in a thread of its own, so that its progress can be shown meanwhile, and so that it can be stopped by the
visitor or because the visitor has left. One request is computed at a time.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deepavfusion.archive.config import Senses
from deepavfusion.atomic import NotWrittenError, replacing
from deepavfusion.inference.predictions import Classification, Embedding
from deepavfusion.inference.predictor import Predictor, Task
from deepavfusion.inference.sources import Box
from deepavfusion.inference.steps import FAILURES
from deepavfusion.page.intake import Given
from deepavfusion.page.offers import PageTask
from deepavfusion.page.visits import Place
from deepavfusion.version import __version__

if TYPE_CHECKING:  # it brings the libraries of training with it, which a page without an archive does not need
    from deepavfusion.page.moments import Archive

TELL_SECONDS = 0.4
"""From one word of progress to the next."""
HALVES: tuple[Box, ...] = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))
"""Left and right half of the picture, as sources of a separation."""


@dataclass(frozen=True)
class Request:
    """What is wanted."""

    given: Given
    tasks: tuple[PageTask, ...]
    boxes: tuple[Box, ...] = ()
    """Separation: parts of the picture, one per source; none is the whole picture as one source."""
    hop_seconds: float | None = None
    step_seconds: float = 0.1
    by: Senses = "auto"
    """Search: what of the recording is used."""
    within: Senses = "auto"
    """Search: what of the archive it is compared with."""


@dataclass(frozen=True)
class Working:
    """How far it is."""

    task: PageTask
    number: int
    """Of the task among those wanted, from 0."""
    done_seconds: float = 0.0
    """Of the recording."""
    all_seconds: float = 0.0


@dataclass(frozen=True)
class Found:
    """A task is done."""

    task: PageTask
    record: Mapping[str, Any]
    """What stands in TASK.json."""
    result: Classification | Embedding | None = None
    """The whole result, of tasks whose record leaves something out."""


@dataclass(frozen=True)
class Failed:
    """A task could not be done."""

    task: PageTask
    line: str


@dataclass(frozen=True)
class Finished:
    """Nothing more comes."""

    given_up: bool
    seconds: float
    """Wall clock."""


Event = Working | Found | Failed | Finished


class _GivenUp(Exception):
    """Nobody waits any more."""


class Analyst:
    """Predictions and searches for everybody, one after the other."""

    def __init__(self, predictor: Predictor, archive: Archive | None = None) -> None:
        """
        Args:
            predictor: of the page's model.
            archive: to search in, if there is one.
        """
        self.predictor, self.archive = predictor, archive
        self._turn = threading.Lock()
        # Loaded now: what is wrong with the weights is told when the server starts, and to no visitor.
        self._weights: dict[str, str] = {task: predictor.digest(_task(task)) for task in predictor.tasks}
        if archive is not None:
            self._weights["search"] = archive.model_digest

    @property
    def tasks(self) -> tuple[str, ...]:
        """What can be asked for."""
        return tuple(self._weights)

    def analyse(self, request: Request, place: Place, at_end: Callable[[], None] = lambda: None) -> Iterator[Event]:
        """Run a request and yield its events.

        Args:
            request: what.
            place: where results go; when it is given up, the work ends at the next batch.
            at_end: is called when nothing more is written, whether somebody still listens or not.

        Yields:
            progress now and then, each task when it is found or has failed, and at last that it is finished.
        """
        told: queue.Queue[Event] = queue.Queue()
        latest: list[Working] = []

        def work() -> None:
            began = time.monotonic()
            try:
                with self._turn:
                    self._do_all(request, place, told.put, latest)
                with suppress(FileNotFoundError):  # deleted, for nobody is there any more
                    pack(place)
            finally:
                at_end()
                told.put(Finished(place.given_up.is_set(), time.monotonic() - began))

        threading.Thread(target=work, name="analysis", daemon=True).start()
        event: Event | None = None
        try:
            while not isinstance(event, Finished):
                try:
                    event = told.get(timeout=TELL_SECONDS)
                except queue.Empty:
                    event = latest[-1] if latest else Working(request.tasks[0], 0)
                yield event
        finally:
            if not isinstance(event, Finished):  # nobody listens any more
                place.given_up.set()

    def _do_all(self, request: Request, place: Place, tell: Callable[[Event], None], latest: list[Working]) -> None:
        for number, task in enumerate(request.tasks):
            if place.given_up.is_set():
                return
            latest[:] = [Working(task, number)]
            tell(latest[0])

            def progress(done: float, whole: float, task: PageTask = task, number: int = number) -> None:
                if place.given_up.is_set():
                    raise _GivenUp
                latest[:] = [Working(task, number, done, whole)]

            try:
                tell(self._do(task, request, place, progress))
            except _GivenUp:
                return
            except NotWrittenError as error:
                sys.stderr.write(f"{error}\n")
                tell(Failed(task, f"results cannot be written: {error.strerror}"))
            except FAILURES as error:
                tell(Failed(task, request.given.line_of(error)))
            except Exception:  # noqa: BLE001  a mistake of this program must not end the page
                traceback.print_exc(file=sys.stderr)
                tell(Failed(task, "an unexpected error occurred; see the server's log"))

    def _do(self, task: PageTask, request: Request, place: Place, progress: Callable[[float, float], None]) -> Found:
        given, folder = request.given.input, place.results
        about = {
            "name": request.given.name,
            "made_from": {"weights": self._weights[task]},
            "deepavfusion_version": __version__,
        }
        if task == "classification":
            classes = self.predictor.classify(given, request.hop_seconds, progress)
            return Found(task, classes.save(folder, about), classes)
        if task == "embedding":
            features = self.predictor.embed(given, request.hop_seconds, progress)
            return Found(task, features.save(folder, about), features)
        if task == "search":
            assert self.archive is not None
            return Found(task, self.archive.search(given, folder, about, request.by, request.within, progress))
        record = self.predictor.write(
            task,
            given,
            folder,
            about=about,
            step_seconds=request.step_seconds,
            boxes=request.boxes if task == "separation" else (),
            progress=progress,
        )
        return Found(task, record)


def pack(place: Place) -> None:
    """Put what was found into one zip file beside it; nothing if nothing was found.

    Films, sounds and arrays are stored as they are: they are packed already, or too large to pack while one waits.
    """
    files = sorted(path for path in place.results.iterdir() if path.is_file() and not path.name.startswith("."))
    if not files:
        return
    with replacing(place.archive) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for path in files:
            kind = zipfile.ZIP_DEFLATED if path.suffix == ".json" else zipfile.ZIP_STORED
            archive.write(path, f"{place.name}/{path.name}", kind)


def _task(name: str) -> Task:
    from deepavfusion.inference.predictor import TASKS

    return next(task for task in TASKS if task == name)
