"""Checkpoints that are whole or absent.

A checkpoint is one file, `checkpoints/step_00000500.pt`: a dictionary of tensors and plain values (format version,
kind of run, configurations, step, model, optimiser, running averages, the average of the weights if one is kept), read
without unpickling code. It is written under a temporary name, flushed to the disk and renamed, so that a run killed at
any moment leaves the previous ones untouched and nothing half-written under a checkpoint's name. Random generators are
not kept: every sample and every step draws from a seed of its own.

A sharded run's is a folder, `checkpoints/step_00000500`, written by all processes (see `sharded_checkpoints`); both
kinds are read by any number of processes, sharded or not.

Rule: the latest `training.keep_checkpoints` stay, older ones are removed after the new one is safe.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from deepavfusion.atomic import writing
from deepavfusion.training import sharded_checkpoints
from deepavfusion.training.processes import Processes
from deepavfusion.training.saving import save_tensors
from deepavfusion.training.sharded_checkpoints import DamagedCheckpoint
from deepavfusion.weight_files import cause_of

FORMAT = 1
"""Version of the dictionary's layout."""

_NAME = re.compile(r"step_(\d{8,})(\.pt)?")
_TEMPORARY, _OLD = ".writing_", ".removing_"


def save(directory: Path, step: int, content: dict[str, Any], keep: int) -> Path:
    """Write `content` as the checkpoint of `step`, then remove all but the latest `keep`. Returns its path."""
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"step_{step:08d}.pt"
    temporary = directory / f"{_TEMPORARY}{path.name}"
    with writing(path):
        save_tensors({"format": FORMAT, "step": step, **content}, temporary)
        _publish(temporary, path, keep)
    return path


def save_sharded(
    directory: Path, step: int, content: dict[str, Any], tensors: dict[str, Tensor], keep: int, processes: Processes
) -> Path:
    """The same for a sharded run: every process writes its shares of `tensors` (see `sharded_checkpoints.write`).

    All processes must call it. Raises ValueError if they do not share the folder.
    """
    path = directory / f"step_{step:08d}"
    temporary = directory / f"{_TEMPORARY}{path.name}"
    with writing(path):
        sharded_checkpoints.write(temporary, {"format": FORMAT, "step": step, **content}, tensors, processes)
    if processes.first:
        _sync_folder(temporary)
        _publish(temporary, path, keep)
    processes.wait()
    return path


def is_checkpoint(path: Path) -> bool:
    """Whether a path is named like a checkpoint, file or folder."""
    return _NAME.fullmatch(path.name) is not None and path.is_dir() == (path.suffix != ".pt")


def list_checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in a folder by ascending step; files still being written do not count."""
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if is_checkpoint(p)), key=lambda p: (step_of(p), p.name))


def latest(directory: Path) -> Path | None:
    """The checkpoint with the largest step, None if there is none."""
    paths = list_checkpoints(directory)
    return paths[-1] if paths else None


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path} does not have the name of a checkpoint (step_00000500.pt)")
    return int(match[1])


def load(path: Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Read one checkpoint whole, its checksums compared first (torch does not compare them); for one process alone.

    Raises DamagedCheckpoint naming the file, ValueError if it is of another format version or holds code.
    """
    try:
        if path.is_dir():
            return _checked(path, sharded_checkpoints.read_whole(path))
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise DamagedCheckpoint(f"checkpoint {path} is damaged: wrong checksum of {broken}")
        content = torch.load(path, map_location=map_location, weights_only=True)
    except UnpicklingError as error:
        raise ValueError(f"checkpoint {path} was refused: loading it could run code ({error})") from error
    except Exception as error:  # bytes that are not torch's end in errors of every kind
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise DamagedCheckpoint(f"checkpoint {path} is damaged: {cause_of(path, error)}") from error
    return _checked(path, content)


def load_for_sharing(path: Path, processes: Processes) -> dict[str, Any]:
    """Read one checkpoint for a sharded run: of a folder all but the tensors, whose place is `folder` of the result.

    All processes must call it; they compare the checksums together and come to one answer. Raises as `load`.
    """
    if not path.is_dir():
        return load(path)
    found = processes.gather(sharded_checkpoints.damage(path, processes.rank, processes.count))
    problems = [problem for problem in found if problem is not None]
    if problems:
        raise DamagedCheckpoint(f"checkpoint {path} is damaged: {problems[0]}")
    return {**_checked(path, sharded_checkpoints.read_content(path)), "folder": path}


def load_latest(
    directory: Path, warn: Callable[[str], None], read: Callable[[Path], dict[str, Any]] = load
) -> dict[str, Any] | None:
    """The newest checkpoint that reads whole, None if the folder has none.

    `warn` is called with the name and cause of each damaged one that was passed over; `read` reads one. Raises
    DamagedCheckpoint if there are checkpoints and all are damaged.
    """
    paths = list_checkpoints(directory)
    damage: DamagedCheckpoint | None = None
    for path in reversed(paths):
        try:
            content = read(path)
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
        for path in (*directory.glob(f"{_TEMPORARY}*"), *directory.glob(f"{_OLD}*")):
            _remove(path)


def _checked(path: Path, content: Any) -> dict[str, Any]:
    """The content, if it is of this format. Raises ValueError."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"checkpoint {path} has format {found!r}, this version reads {FORMAT}")
    return content


def _publish(temporary: Path, path: Path, keep: int) -> None:
    """Give a written checkpoint its name and remove old ones. The same step saved before, in either form, goes."""
    before = [p for p in (path.with_suffix(""), path.with_suffix(".pt")) if p.exists() and (p.is_dir() or p != path)]
    aside = [_aside(p) for p in before]  # a folder cannot be replaced by a rename
    os.replace(temporary, path)
    _sync_folder(path.parent)
    for old in (*aside, *map(_aside, list_checkpoints(path.parent)[:-keep])):
        _remove(old)


def _aside(path: Path) -> Path:
    """Take a checkpoint's name away, so that none is ever found in part; returns the new one."""
    nameless = path.with_name(f"{_OLD}{path.name}")
    os.replace(path, nameless)
    return nameless


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _sync_folder(directory: Path) -> None:
    """Make a rename survive a power cut, where folders can be opened."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
