"""Reading of weight and configuration files: complete and fitting, or one line that says what is wrong.

Such a file may turn out to be a download that was cut off, a web page, a git-lfs pointer, a pickle, or another model's
weights. Nothing here runs code that a file holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

_NAMED_GROUPS = 8
"""Groups of keys that a message names."""
_FIRST_BYTES = 512


class UnreadableFile(ValueError):
    """A file that is not there, something else, or damaged; the message names it and the cause."""

    def __init__(self, path: str | Path, cause: str) -> None:
        super().__init__(f"{path} cannot be read: {cause}")
        self.cause = cause


def read_safetensors(path: str | Path, device: str = "cpu") -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises UnreadableFile."""
    try:
        return load_file(path, device=device)
    except (OSError, SafetensorError, ValueError, OverflowError, MemoryError) as error:
        raise UnreadableFile(path, cause_of(path, error)) from error


def read_torch_file(path: str | Path) -> Any:
    """What torch has saved, read weights-only. Raises UnreadableFile, also if it holds more than plain values."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are not torch's end in errors of every kind
        text = str(error).rpartition("WeightsUnpickler error: ")[2].partition(" Check the documentation")[0]
        if isinstance(error, UnpicklingError) and text.startswith(("Unsupported global", "Unsupported class")):
            cause = f"refused, the pickle holds more than tensors and loading it could run code ({one_line(text)})"
        else:
            cause = cause_of(path, error, text)
        raise UnreadableFile(path, cause) from error


def read_json_object(path: str | Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises UnreadableFile."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableFile(path, cause_of(path, error)) from error
    if not isinstance(record, dict):
        raise UnreadableFile(path, f"it holds a {type(record).__name__}, not an object with names")
    return record


def cause_of(path: str | Path, error: BaseException, text: str | None = None) -> str:
    """Why a file could not be read: by what stands in it, else by what reading it said."""
    place, said = Path(path), one_line(str(error) if text is None else text) or type(error).__name__
    if place.is_dir():
        return "it is a folder"
    if not place.exists():
        return "there is no such file"
    start = _first_bytes(place)
    if start is None or isinstance(error, (MemoryError, PermissionError)):
        return said
    if not start:
        return "it is empty"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of git-lfs, not the file itself; fetch that with `git lfs pull`"
    if start.lstrip()[:1] == b"<":
        return "it is a web page, as a download that was refused leaves behind; download it again"
    if not start.strip(b"\0"):
        return "it begins with zeros, as a download that was cut off leaves behind; download it again"
    if place.suffix == ".safetensors" and _is_pickle(start):
        return "it is a file of torch or a pickle, not safetensors"
    return f"it is damaged, cut off or another kind of file ({said})"


def fill(model: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load a state dict that must fit exactly.

    Raises:
        ValueError: as `check_keys`.
    """
    check_keys(state, model.state_dict(), source)
    model.load_state_dict(state)


def check_keys(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str | Path) -> None:
    """Raise ValueError that names the missing, unexpected and misshapen keys, and those of another kind of number."""
    complaints = []
    if missing := [key for key in expected if key not in state]:
        complaints.append(f"missing {summarize(missing, _NAMED_GROUPS)}")
    if unexpected := [key for key in state if key not in expected]:
        complaints.append(f"unexpected {summarize(unexpected, _NAMED_GROUPS)}")
    shared = [(key, value, expected[key]) for key, value in state.items() if key in expected]
    misshapen = [f"{key} {list(a.shape)} instead of {list(b.shape)}" for key, a, b in shared if a.shape != b.shape]
    if misshapen:
        complaints.append(f"wrong shape {', '.join(misshapen[:8])}" + (" and more" if len(misshapen) > 8 else ""))
    foreign = [
        f"{key} of {str(a.dtype).removeprefix('torch.')}"
        for key, a, b in shared
        if (a.is_floating_point(), a.is_complex()) != (b.is_floating_point(), b.is_complex())
    ]
    if foreign:
        complaints.append(f"wrong type {', '.join(foreign[:8])}" + (" and more" if len(foreign) > 8 else ""))
    if complaints:
        raise ValueError(f"{source} does not fit this model: " + "; ".join(complaints))


def summarize(names: Iterable[str], limit: int | None = None) -> str:
    """Key names, those that differ in a layer number only folded into `blocks.*.norm1.weight (x12)`.

    Args:
        names: of tensors.
        limit: how many groups are named at most; the others are counted.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"(?<=\.)\d+(?=\.)", "*", name), []).append(name)
    texts = [group[0] if len(group) == 1 else f"{folded} (x{len(group)})" for folded, group in groups.items()]
    rest = sum(map(len, list(groups.values())[limit:])) if limit is not None else 0
    return ", ".join(texts[:limit]) + (f" and {rest} more" if rest else "")


def one_line(error: BaseException | str) -> str:
    """What an error says, without line breaks and not endless."""
    text = " ".join(str(error).split())
    return text if len(text) < 300 else f"{text[:300]} ..."


def _first_bytes(path: str | Path) -> bytes | None:
    """None if they cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(_FIRST_BYTES)
    except OSError:
        return None


def _is_pickle(start: bytes) -> bool:
    """Whether bytes begin as a pickle of protocol 2 to 5, or as a zip archive, which torch's newer files are."""
    return start.startswith((b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5", b"PK\3\4"))
