"""The description of a command: its summary, configuration, function and lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepavfusion.arguments import parse_arguments

WRITTEN_FILES = (".csv", ".npz", ".parquet")
"""Endings of `out` where it names a file; without one of them it is a folder."""


@dataclass(frozen=True)
class Verb:
    """One command."""

    summary: str
    config: Callable[[], type]
    """Gives the configuration dataclass; a function, so that only the verb asked for is imported."""
    run: Callable[[Any], int]
    """Does the work and returns the exit code."""
    positional: tuple[str, ...] = ()
    """Fields that may be given without a flag, in this order."""
    several: bool = False
    """Whether the last of them takes any number of words."""
    sole_writer: bool = False
    """Whether it writes what `out` names in many steps, so that a second one beside it would spoil it."""
    as_options: Callable[[], Callable[[Sequence[str]], list[str]]] | None = None
    """Gives the function that makes options of the words, where positions are not enough."""


def lock_of(config: Any) -> tuple[str, str] | None:
    """Folder and name of the lock of what `out` of a configuration names, a folder or a file; of parts each has its
    own. None without `out`."""
    if config.out is None:
        return None
    part = getattr(config, "part", "1/1")
    own = "" if part == "1/1" else f".part-{part.replace('/', '-of-')}"
    out = Path(config.out)
    return (str(out.parent), f".{out.name}{own}.lock") if out.suffix in WRITTEN_FILES else (str(out), f"{own}.lock")


def parsed(verb: Verb, words: Sequence[str], prog: str = "deepavfusion") -> Any:
    """The configuration that words of the command line describe; errors as `parse_arguments`."""
    words = words if verb.as_options is None else verb.as_options()(words)
    return parse_arguments(verb.config(), words, prog, verb.positional, verb.several)
