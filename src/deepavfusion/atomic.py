"""Files that are whole or absent: written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path to write to; renamed to `path` when the block ends, removed when it fails.

    The folder is made if it is missing. The temporary name keeps the suffix, for writers that look at it.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Parts of a job may write the same file on several machines, where process ids repeat.
    temporary = target.with_name(f".{target.stem}.{platform.node()}-{os.getpid()}.tmp{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
