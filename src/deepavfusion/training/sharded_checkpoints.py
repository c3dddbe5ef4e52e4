"""Checkpoints of sharded runs: a folder into which every process writes its shares, read by any number of processes.

    step_00000500/
        __0_0.distcp ...   tensors (torch.distributed.checkpoint), one file per process
        .metadata          which part of which tensor is where in them
        run.pt             what is not a tensor of model or optimiser: kind, configurations, running averages
        files.json         size and CRC-32 of each of these files

Tensors are named `model.NAME`, `optimizer.NAME.MOMENT` and, if an average of the weights is kept, `average.NAME`, NAME
being the parameter's; nothing in the folder depends on how many processes wrote it. It is written under a temporary
name and renamed when every file is on the disk. No code in it is ever run: tensors are read weights-only and
`.metadata`, a pickle, by an unpickler that knows torch.distributed.checkpoint's own records alone.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pickle
import shutil
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.optim import Optimizer

from deepavfusion.atomic import write_text
from deepavfusion.training.processes import Processes
from deepavfusion.training.saving import save_tensors

_RUN, _FILES, _METADATA = "run.pt", "files.json", ".metadata"
_KNOWN = {
    "torch.distributed.checkpoint.metadata": None,  # None: all names of the module
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"},
    "pathlib": {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"},
    "pathlib._local": {"PosixPath", "WindowsPath"},
    "collections": {"OrderedDict"},
}
"""What `.metadata` may name, by module."""


class DamagedCheckpoint(ValueError):
    """A checkpoint that cannot be read whole; the message names it and the cause."""


def write(folder: Path, content: dict[str, Any], tensors: dict[str, Tensor], processes: Processes) -> None:
    """Write a checkpoint into `folder`, which is made. All processes must call it.

    Args:
        folder: a temporary name; the caller renames it.
        content: what `run.pt` gets; the first process's is written.
        tensors: by name; divided ones in their shares, of whole ones the first process's.

    Raises:
        ValueError: the processes do not see the same folder.
    """
    if processes.first:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    processes.wait()
    blind = [rank for rank, sees in enumerate(processes.gather(folder.is_dir())) if not sees]
    if blind:
        raise ValueError(
            f"processes {blind} do not see {folder.parent}, which the first process made: --training.strategy fsdp "
            f"needs a --run_dir on a file system that all machines share"
        )
    dcp.save(
        tensors,
        storage_writer=dcp.FileSystemWriter(folder),  # it flushes its files to the disk
        planner=dcp.DefaultSavePlanner(dedup_save_to_lowest_rank=True),
        process_group=processes.host_group,
    )
    own = {path.name: _checksum(path) for path in folder.glob(f"__{processes.rank}_*")}
    listed = {name: checksum for part in processes.gather(own) for name, checksum in part.items()}
    if processes.first:
        save_tensors(content, folder / _RUN)
        listed |= {name: _checksum(folder / name) for name in (_RUN, _METADATA)}
        write_text(folder / _FILES, json.dumps(listed, indent=1) + "\n")
    processes.wait()


def damage(folder: Path, part: int = 0, num_parts: int = 1) -> str | None:
    """What is wrong with the files of a checkpoint, None if nothing.

    Args:
        part, num_parts: compare only this share of the files; processes that share the work compare all together.
    """
    try:
        listed = json.loads((folder / _FILES).read_text(encoding="utf-8"))
        for name in sorted(listed)[part::num_parts]:
            if _checksum(folder / name) != listed[name]:
                return f"wrong size or checksum of {name}"
    except (OSError, ValueError) as error:
        return str(error)
    return None


def read_content(folder: Path) -> dict[str, Any]:
    """`run.pt`: all but the tensors."""
    content = torch.load(folder / _RUN, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise DamagedCheckpoint(f"checkpoint {folder} is damaged: {_RUN} holds no dictionary")
    return content


def read_whole(folder: Path) -> dict[str, Any]:
    """The checkpoint as a file of `checkpoints` would hold it, every tensor in full; for one process alone.

    Raises DamagedCheckpoint.
    """
    problem = damage(folder)
    if problem is not None:
        raise DamagedCheckpoint(f"checkpoint {folder} is damaged: {problem}")
    content, sizes = read_content(folder), _sizes(folder)
    tensors = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in sizes.items()}
    _load(folder, tensors, None)
    content["model"] = _part(tensors, "model.")
    content |= {"average": average} if (average := _part(tensors, "average.")) else {}
    groups = content.pop("optimizer_groups")
    content["optimizer"] = {"state": _by_number(tensors, groups), "param_groups": groups}
    return content


def read_shares(
    folder: Path, model: torch.nn.Module, optimizer: Optimizer, average: Mapping[str, Tensor], processes: Processes
) -> None:
    """Fill a divided model, its optimiser and the average of its weights, empty if none is kept.

    All processes must call it, after `damage` found nothing.

    Raises ValueError if the checkpoint is of another model or of other optimiser groups.
    """
    groups = read_content(folder)["optimizer_groups"]
    if [group["names"] for group in groups] != [group["names"] for group in optimizer.param_groups]:
        raise ValueError(f"checkpoint {folder} has other groups of parameters than this run: was the package updated?")
    parameters, sizes = dict(model.named_parameters()), _sizes(folder)
    tensors = _weights_of(model, average)
    unknown = sorted({name for name in sizes if name.startswith(("model.", "average."))} ^ tensors.keys())
    if unknown:
        raise ValueError(f"checkpoint {folder} and the model differ in {', '.join(unknown[:5])}")
    for name, entry in sizes.items():
        if name.startswith("optimizer."):
            parameter = parameters[name.removeprefix("optimizer.").rpartition(".")[0]]
            alike = entry.size == parameter.shape
            tensors[name] = (
                torch.zeros_like(parameter, requires_grad=False)
                if alike
                else torch.zeros(entry.size, dtype=entry.properties.dtype)
            )
    _load(folder, tensors, processes)
    optimizer.load_state_dict({"state": _by_number(tensors, groups), "param_groups": groups})


def tensors_of(model: torch.nn.Module, optimizer: Optimizer, average: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Everything of model, average and optimiser under the names of a checkpoint."""
    tensors = _weights_of(model, average)
    for name, parameter in model.named_parameters():
        for moment, tensor in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{name}.{moment}"] = tensor
    return tensors


class Reader(dcp.FileSystemReader):
    """torch's reader, which would run what a `.metadata` says; this one knows what may stand there."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with open(Path(self.path) / _METADATA, "rb") as file:
            try:
                metadata = _MetadataUnpickler(file).load()
            except pickle.UnpicklingError as error:
                raise ValueError(f"checkpoint {self.path} was refused: loading it could run code ({error})") from error
        if not isinstance(metadata, Metadata):
            raise ValueError(f"checkpoint {self.path} was refused: {_METADATA} holds {type(metadata).__name__}")
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):  # by which early Python 3.11 stores members of enumerations
            return _member
        if module not in _KNOWN or ((names := _KNOWN[module]) is not None and name not in names) or "." in name:
            raise pickle.UnpicklingError(f"{_METADATA} names {module}.{name}, which could run code")
        return getattr(importlib.import_module(module), name)


def _member(kind: Any, name: Any) -> Any:
    """A member of an enumeration."""
    if not (isinstance(kind, type) and issubclass(kind, Enum) and name in kind.__members__):
        raise pickle.UnpicklingError(f"{_METADATA} names {kind}.{name}, which could run code")
    return kind[name]


def _load(folder: Path, tensors: dict[str, Any], processes: Processes | None) -> None:
    """Fill tensors in place; together with the other processes, or alone."""
    group: dict[str, Any] = {"process_group": None if processes is None else processes.host_group}
    if processes is None and "no_dist" in inspect.signature(dcp.load).parameters:
        group = {"no_dist": True}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*single process")  # which is meant
        dcp.load(tensors, storage_reader=Reader(folder), **group)


def _weights_of(model: torch.nn.Module, average: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Model and average under the names of a checkpoint."""
    parts = {"model": model.state_dict(), "average": average}
    return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _sizes(folder: Path) -> dict[str, TensorStorageMetadata]:
    """Size and type of each tensor."""
    entries = Reader(folder).read_metadata().state_dict_metadata
    return {name: entry for name, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}


def _by_number(tensors: dict[str, Tensor], groups: Sequence[dict[str, Any]]) -> dict[int, dict[str, Tensor]]:
    """The optimiser's tensors as its state dict keeps them, by the numbers of parameters."""
    numbers = {name: i for group in groups for i, name in zip(group["params"], group["names"], strict=True)}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            parameter, _, moment = name.removeprefix("optimizer.").rpartition(".")
            state.setdefault(numbers[parameter], {})[moment] = tensor
    return {number: state[number] for number in sorted(state)}


def _checksum(path: Path) -> list[int]:
    """Bytes and CRC-32."""
    size = crc = 0
    with open(path, "rb") as file:
        for chunk in _chunks(file):
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    return [size, crc]


def _chunks(file: Any) -> Iterable[bytes]:
    while chunk := file.read(1 << 22):
        yield chunk
