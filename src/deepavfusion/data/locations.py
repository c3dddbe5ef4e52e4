"""Places that data lie in: local paths, and URLs of whatever fsspec speaks (https, s3, gs, hf, memory, ...).

fsspec is only imported for a URL: local data need nothing but the standard library. Whatever goes wrong there is an
OSError here, as for local files.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from io import FileIO
from typing import IO, Any, Literal

_URL = re.compile(r"^[a-z][a-z0-9+.-]*://")
OPEN_FILES = 64
"""Local files that each process keeps open for `read_range`."""


def is_url(place: str) -> bool:
    """Whether a place is a URL rather than a local path."""
    return bool(_URL.match(place))


def join(base: str, place: str) -> str:
    """Resolve a place against a base folder or URL; absolute paths and URLs stay as they are."""
    if is_url(place) or os.path.isabs(place):
        return place
    return base.rstrip("/") + "/" + place if is_url(base) else os.path.join(base, place)


def open_bytes(place: str) -> IO[bytes]:
    """Open a local file or a URL for reading bytes. Raises OSError."""
    if not is_url(place):
        return open(place, "rb")
    import fsspec

    with _as_os_error(place):
        return fsspec.open(place, "rb").open()


def open_text(place: str) -> IO[str]:
    """Open a local file or a URL for reading UTF-8 text, line ends as they are. Raises OSError."""
    if not is_url(place):
        return open(place, newline="", encoding="utf-8-sig")
    import fsspec

    with _as_os_error(place):
        return fsspec.open(place, "rt", newline="", encoding="utf-8-sig").open()


@contextmanager
def write_whole(path: str, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open a local file for writing (UTF-8 text, line ends as given) that appears complete, or not at all.

    Its folder is made if need be.
    """
    path = os.path.abspath(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    unfinished = f"{path}.{platform.node()}-{os.getpid()}.partial"  # parts of a job may write on several machines
    text: dict[str, str] = {} if mode == "wb" else {"encoding": "utf-8", "newline": ""}
    try:
        with open(unfinished, mode, **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        with suppress(FileNotFoundError):
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
    return FileIO(path)


@contextmanager
def _as_os_error(place: str) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # every file system has exceptions of its own
        raise OSError(f"{place}: {type(error).__name__}: {error}") from error
