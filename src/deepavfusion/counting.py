"""Progress bar and table of results, for commands that process many clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

SHOWN_ITEMS = 10
"""Members of a list that a report names."""


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on the terminal; gives the function to call with (done, total)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=None)

        def count(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield count


def report(title: str, summary: Any) -> None:
    """Print the fields of a summary dataclass, one line each, and of a long list its beginning and length."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for f in fields(summary):
        table.add_row(f.name.removeprefix("num_").replace("_", " "), _text(getattr(summary, f.name)))
    Console(markup=False, emoji=False).print(table)  # names are not markup


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        items = [f"{key}: {_text(item)}" for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        items = [_text(item) for item in value]
    elif isinstance(value, bool):
        return "yes" if value else "no"
    else:
        return f"{value:.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    more = f", ... ({len(items)} in all)" if len(items) > SHOWN_ITEMS else ""
    return ", ".join(items[:SHOWN_ITEMS]) + more if items else "none"
