"""Stopping on request: on SIGTERM and Ctrl-C the loop finishes its step, saves and exits.

Workers of data loaders are protected separately (`data.workers`).
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

PREEMPTED_EXIT_CODE = 75
"""Exit code of a command whose run was asked to stop and can be continued (EX_TEMPFAIL of sysexits.h)."""


class StopRequest:
    """A context in which SIGTERM and SIGINT set `requested`; a second Ctrl-C raises KeyboardInterrupt.

    Handlers are installed in the main thread only (elsewhere Python has none to install) and put back afterwards.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        """Name of the signal that asked, None while nothing did."""
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            # None means a handler installed outside Python, which cannot be put back from here.
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)  # type: ignore[arg-type]
        self._previous.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.requested is not None:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name
