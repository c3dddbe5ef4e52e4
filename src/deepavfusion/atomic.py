"""Atomic writing of files: under a temporary name in the same folder, then renamed, so a file is complete or absent.

A full disk or a read-only place raises `NotWrittenError`, one line with the file's name, whatever library was writing.
"""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

REFUSALS = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than files may be here",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.EIO: "the system refused, as it does when a disk is full or broken",
}
"""What a file system may say to a writer."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_ROOM = 1 << 16
"""Free bytes below which an unexplained failure to write is for want of space."""


class NotWrittenError(OSError):
    """A file could not be written, for a reason that lies with the place. Made of `errno`, the reason and the path."""

    def __str__(self) -> str:
        return f"{self.filename}: cannot be written: {self.strerror}"


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """What fails in this block for want of space, or of permission to write `path`, raises NotWrittenError."""
    try:
        yield
    except NotWrittenError:
        raise
    except Exception as error:
        number = _refusal(error, Path(path))
        if number is None:
            raise
        raise NotWrittenError(number, REFUSALS[number], os.fspath(path)) from error


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path to write to; renamed to `path` when the block ends, removed when it fails.

    The folder is made if it is missing. The temporary name keeps the suffix, for writers that look at it. Raises
    NotWrittenError.
    """
    target = Path(path)
    # Parts of a job may write the same file on several machines, where process ids repeat.
    temporary = target.with_name(f".{target.stem}.{platform.node()}-{os.getpid()}.tmp{target.suffix}")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, target)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file whole or not at all. Raises NotWrittenError."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _refusal(error: BaseException, path: Path) -> int | None:
    """The error number if a failure is the place's, where `path` is written; None if it is another one."""
    seen: BaseException | None = error
    unexplained: int | None = None
    while seen is not None:
        number = seen.errno if isinstance(seen, OSError) else None
        if number in _FULL or (number in REFUSALS and _concerns(seen, path)):
            return number
        text = str(seen)
        for number in _FULL:  # of libraries that raise errors of their own
            if os.strerror(number) in text:
                return number
        if type(seen).__name__ == "LibsndfileError" and "System error" in text:  # which keeps the number to itself
            unexplained = errno.EIO
        seen = seen.__cause__ or seen.__context__
    if not isinstance(error, (OSError, RuntimeError)):
        return unexplained
    with suppress(OSError):
        place = next(folder for folder in path.absolute().parents if folder.is_dir())
        found = os.statvfs(place)
        if found.f_bavail * found.f_frsize < _NO_ROOM:
            return errno.ENOSPC
    return unexplained


def _concerns(error: BaseException, path: Path) -> bool:
    """Whether an error is about a file beside `path` or a folder above it, not one that is read elsewhere."""
    name = getattr(error, "filename", None)
    if not isinstance(name, (str, os.PathLike)):
        return True
    named, target = os.path.abspath(name), os.path.abspath(path)
    return named.startswith(os.path.dirname(target) + os.sep) or target.startswith(named)
