"""`MediaError`, the one error of an unreadable media file, and the translation of libav's errors into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import av

from deepavfusion.data.locations import one_line


class MediaError(Exception):
    """A media file, or the part of it that was asked for, cannot be read.

    `path` is the file and `cause` one line saying why; `str` gives both.
    """

    def __init__(self, path: str | os.PathLike[str], cause: str) -> None:
        self.path = os.fspath(path)
        self.cause = " ".join(cause.split()) or "unknown cause"
        super().__init__(self.path, self.cause)

    def __str__(self) -> str:
        return f"{one_line(self.path)}: {self.cause}"


@contextmanager
def reading(path: str, action: str) -> Iterator[None]:
    """Raise MediaError for whatever libav, the system or damaged numbers raise while `action` is done to a file.

    ValueError stays as it is: it is how the reader refuses a wrong argument of its caller.
    """
    try:
        yield
    except MediaError:
        raise
    except (av.FFmpegError, OSError, EOFError, MemoryError, ArithmeticError, AssertionError, RuntimeError) as error:
        raise MediaError(path, f"{action}: {cause_of(error)}") from error


def cause_of(error: BaseException) -> str:
    """What an exception of libav or the system says, without error numbers and file names."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
