"""What a verb of the command line is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


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
    as_options: Callable[[], Callable[[Sequence[str]], list[str]]] | None = None
    """Gives the function that makes options of the words, where positions are not enough."""
