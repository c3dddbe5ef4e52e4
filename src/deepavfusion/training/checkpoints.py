"""Checkpoints that are whole or absent.

A checkpoint is one file, `checkpoints/step_00000500.pt`: a dictionary of tensors and plain values (format version,
kind of run, configurations, step, model, optimiser, running averages), read without unpickling code. It is written
under a temporary name, flushed to the disk and renamed, so that a run killed at any moment leaves the previous ones
untouched and nothing half-written under a checkpoint's name. Random generators are not kept: every sample and every
step draws from a seed of its own.

Rule: the latest `training.keep_checkpoints` stay, older ones are removed after the new one is safe.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

FORMAT = 1
"""Version of the dictionary's layout."""

_NAME = re.compile(r"step_(\d{8,})\.pt")
_TEMPORARY = ".writing_"


class DamagedCheckpoint(ValueError):
    """A checkpoint file that cannot be read whole; the message names it and the cause."""


def save(directory: Path, step: int, content: dict[str, Any], keep: int) -> Path:
    """Write `content` as the checkpoint of `step`, then remove all but the latest `keep`. Returns its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"step_{step:08d}.pt"
    temporary = directory / f"{_TEMPORARY}{path.name}"
    with open(temporary, "wb") as file:
        torch.save({"format": FORMAT, "step": step, **content}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync_folder(directory)
    for old in list_checkpoints(directory)[:-keep]:
        old.unlink()
    return path


def list_checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in a folder by ascending step; files still being written do not count."""
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if _NAME.fullmatch(p.name)), key=step_of)


def latest(directory: Path) -> Path | None:
    """The checkpoint with the largest step, None if there is none."""
    paths = list_checkpoints(directory)
    return paths[-1] if paths else None


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path} is not named like a checkpoint (step_00000500.pt)")
    return int(match[1])


def load(path: Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Read one checkpoint, its checksums compared first (torch does not compare them).

    Raises DamagedCheckpoint naming the file, ValueError if it is of another format version or holds code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise DamagedCheckpoint(f"checkpoint {path} is damaged: wrong checksum of {broken}")
        content = torch.load(path, map_location=map_location, weights_only=True)
    except UnpicklingError as error:
        raise ValueError(f"checkpoint {path} was refused: loading it could run code ({error})") from error
    except (zipfile.BadZipFile, EOFError, RuntimeError, OSError) as error:
        raise DamagedCheckpoint(f"checkpoint {path} is damaged: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"checkpoint {path} has format {found!r}, this version reads {FORMAT}")
    return content


def load_latest(directory: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest checkpoint that reads whole, None if the folder has none.

    `warn` is called with the name and cause of each damaged one that was passed over. Raises DamagedCheckpoint if
    there are checkpoints and all are damaged.
    """
    paths = list_checkpoints(directory)
    damage: DamagedCheckpoint | None = None
    for path in reversed(paths):
        try:
            content = load(path)
        except DamagedCheckpoint as error:
            damage = error
            warn(f"{error}; trying the one before it")
        else:
            if damage is not None:
                warn(f"continuing from {path.name} instead; the damaged file stays until it is overwritten")
            return content
    if damage is not None:
        raise DamagedCheckpoint(
            f"all {len(paths)} checkpoints in {directory} are damaged (see above): remove the folder to start afresh"
        ) from damage
    return None


def remove_unfinished(directory: Path) -> None:
    """Remove what a killed run left half-written; only for the one process that writes here."""
    if directory.is_dir():
        for path in directory.glob(f"{_TEMPORARY}*"):
            path.unlink()


def _sync_folder(directory: Path) -> None:
    """Make a rename survive a power cut, where folders can be opened."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
