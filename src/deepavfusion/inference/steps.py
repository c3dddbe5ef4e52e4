"""Work on a recording that pauses after every batch, so that several tasks can advance together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Generic, TypeVar

from deepavfusion.atomic import NotWrittenError
from deepavfusion.data.media import MediaError

Answer = TypeVar("Answer")
Name = TypeVar("Name")
Item = TypeVar("Item")

Steps = Generator[float, None, Answer]
"""Work that tells the seconds of the recording that are done after every batch, and returns what came of it. Work that
goes side by side with other takes a first step without a batch, in which it says what it will read."""
Progress = Callable[[float, float], None]
"""Is called with the seconds of a recording that are done and that there are."""
FAILURES = (MediaError, ValueError, OSError, ArithmeticError, RuntimeError, MemoryError, EOFError)
"""What a recording may fail with; anything else is a mistake of this program."""


def finish(steps: Steps[Answer], length_seconds: float = 0.0, progress: Progress | None = None) -> Answer:
    """Do all of it; if `progress` raises, it is closed first."""
    try:
        while True:
            try:
                done = next(steps)
            except StopIteration as end:
                answer: Answer = end.value
                return answer
            if progress is not None:
                progress(min(done, length_seconds), length_seconds)
    finally:
        steps.close()


def side_by_side(
    works: Mapping[Name, Steps[Answer]], length_seconds: float, progress: Progress | None = None
) -> dict[Name, Answer | Exception]:
    """Do several works in step: whichever is least far is next.

    Returns:
        What came of each; of one that failed its exception, without which the others went on.

    Raises:
        NotWrittenError, BrokenPipeError: nothing can be written any more.
    """
    running, done, found = dict(works), dict.fromkeys(works, -1.0), {}
    try:
        while running:
            name = min(running, key=done.__getitem__)
            try:
                done[name] = next(running[name])
            except StopIteration as end:
                found[name] = end.value
            except (BrokenPipeError, NotWrittenError):
                raise
            except FAILURES as error:
                found[name] = error.with_traceback(None)  # which would keep alive what the work has read
            if name in found:
                del running[name]
            elif progress is not None:
                progress(min(min(done[name] for name in running), length_seconds), length_seconds)
    finally:  # whoever stops them all by an exception finds nothing half-written
        for work in running.values():
            work.close()
    return {name: found[name] for name in works}


class Shared(Generic[Item]):
    """Items for several readers, each of which gets all; an item is made when the first asks for it."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._waiting: list[deque[Item]] = []

    def reader(self) -> Iterator[Item]:
        """One reader more, to be asked for before the first item is; it is to be read or closed."""
        waiting: deque[Item] = deque()
        self._waiting.append(waiting)
        return self._read(waiting)

    def _read(self, waiting: deque[Item]) -> Iterator[Item]:
        try:
            while True:
                if not waiting:
                    try:
                        item = next(self._items)
                    except StopIteration:
                        return
                    for each in self._waiting:
                        each.append(item)
                    del item
                yield waiting.popleft()
        finally:
            self._waiting = [each for each in self._waiting if each is not waiting]
