"""Saving of tensors to a file, with one clear error if the disk is full."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


class _Sink:
    """A file whose first failure is kept: torch's writer would end the whole process when a write fails."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        count = len(rest)
        try:
            while rest and self.error is None:
                rest = rest[self.file.write(rest) :]  # without a buffer it may take less than it is given
        except OSError as error:
            self.error = error
        return count

    def flush(self) -> None:
        pass


def save_tensors(content: Any, path: Path) -> None:
    """torch.save to a file that is on the disk afterwards. Raises OSError, and leaves no part of it."""
    try:
        with open(path, "wb", buffering=0) as file:
            sink = _Sink(file)
            torch.save(content, sink)  # type: ignore[arg-type]
            if sink.error is not None:
                raise sink.error
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
