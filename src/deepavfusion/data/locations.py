"""Places of data: local paths, and URLs that fsspec supports (https, s3, gs, hf, memory, ...).

fsspec is imported only for a URL: local data need only the standard library. Errors of either kind are raised as
OSError.

File names on disk are bytes, which need not be UTF-8. Python keeps such a name as a string that no UTF-8 file can hold:
`to_text` writes it so that `from_text` finds the file again, `one_line` so that people can read it.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from io import FileIO
from typing import IO, Any, Literal
from urllib.parse import quote, unquote_to_bytes

from deepavfusion.atomic import writing

_URL = re.compile(r"^[a-z][a-z0-9+.-]*://")
OPEN_FILES = 64
"""Local files that each process keeps open for `read_range`."""


def is_url(place: str) -> bool:
    """Whether a place is a URL rather than a local path."""
    return bool(_URL.match(place))


def join(base: str, place: str) -> str:
    """Resolve a place against a base folder or URL; absolute paths and URLs stay as they are."""
    if os.path.isabs(place) or is_url(place):
        return place
    return base.rstrip("/") + "/" + place if is_url(base) else os.path.join(base, place)


_OTHER_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_file(path: str) -> None:
    """Raise OSError unless a local path leads to a file: opening a pipe would wait for a writer for ever."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _OTHER_KINDS if is_kind(mode)), "something else")
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, f"{kind}, not a file", path)


def one_line(name: str) -> str:
    """A file's name as text for one line: bytes that are not UTF-8 and control characters become `\\xe9`, `\\n`."""
    if name.isprintable():
        return name
    return "".join(_escaped(c) if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in name)


def _escaped(c: str) -> str:
    if "\udc80" <= c <= "\udcff":  # how Python keeps a byte of a name that is not UTF-8
        return f"\\x{ord(c) - 0xDC00:02x}"
    return c.encode("unicode_escape").decode("ascii")


def to_text(path: str) -> str:
    """A path as text that a UTF-8 file can hold: as it is, or with `file:` in front and its bytes in percent notation.

    `caf\\xe9.mp4` (Latin-1) becomes `file:caf%E9.mp4`, absolute or relative as the path is.
    """
    if path.isascii() and not path.startswith("file:"):
        return path
    try:
        path.encode()
    except UnicodeEncodeError:
        return f"file:{quote(os.fsencode(path))}"
    return f"file:{quote(path)}" if path.startswith("file:") and not is_url(path) else path


def from_text(text: str) -> str:
    """The path that `to_text` wrote; also of a file URL (`file:///data/a.mp4`)."""
    return os.fsdecode(unquote_to_bytes(re.sub("^file:(//(?=/))?", "", text))) if text.startswith("file:") else text


def open_bytes(place: str) -> IO[bytes]:
    """Open a local file or a URL for reading bytes. Raises OSError."""
    if not is_url(place):
        _check_openable(place)
        return open(place, "rb")
    import fsspec

    with _as_os_error(place):
        return fsspec.open(place, "rb").open()


def open_text(place: str) -> IO[str]:
    """Open a local file or a URL for reading UTF-8 text, line ends as they are. Raises OSError."""
    if not is_url(place):
        _check_openable(place)
        return open(place, newline="", encoding="utf-8-sig")
    import fsspec

    with _as_os_error(place):
        return fsspec.open(place, "rt", newline="", encoding="utf-8-sig").open()


def _check_openable(path: str) -> None:
    if not path.startswith("/dev/"):  # where a shell puts the output of a command: `--annotations <(zcat list.csv.gz)`
        check_file(path)


@contextmanager
def write_whole(path: str, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open a local file for writing (UTF-8 text, line ends as given) that appears complete, or not at all.

    Its folder is made if need be. Raises NotWrittenError.
    """
    path = os.path.abspath(path)
    unfinished = f"{path}.{platform.node()}-{os.getpid()}.partial"  # parts of a job may write on several machines
    text: dict[str, str] = {} if mode == "wb" else {"encoding": "utf-8", "newline": "", "errors": "backslashreplace"}
    with writing(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            with open(unfinished, mode, **text) as file:  # type: ignore[call-overload]
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        finally:
            with suppress(OSError):
                os.remove(unfinished)


def write_json(path: str, content: object) -> None:
    """Write a local JSON file that appears complete, or not at all."""
    with write_whole(path) as file:
        json.dump(content, file, indent=1)
        file.write("\n")


def read_range(place: str, start: int, num_bytes: int) -> bytes:
    """Bytes from `start` on, fewer than asked for where the file ends. Raises OSError.

    Safe after a fork: the position in an open file is not used.
    """
    if not is_url(place):
        return os.pread(_local(place).fileno(), num_bytes, start)
    import fsspec

    with _as_os_error(place):
        system, path = fsspec.core.url_to_fs(place)
        return system.cat_file(path, start=start, end=start + num_bytes)


@lru_cache(maxsize=OPEN_FILES)  # those it drops are closed with their last use
def _local(path: str) -> FileIO:
    check_file(path)
    return FileIO(path)


@contextmanager
def _as_os_error(place: str) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # every file system has exceptions of its own
        raise OSError(f"{place}: {type(error).__name__}: {error}") from error
