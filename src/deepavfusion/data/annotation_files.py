"""Reading of csv and JSON annotation files; an error names the file and the row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from deepavfusion.data.csv_text import check_commas
from deepavfusion.data.locations import open_text


@dataclass(frozen=True)
class Row:
    """One row of a csv file: its cells, blanks around them removed, and where it stands."""

    cells: tuple[str, ...]
    place: str
    """`FILE, line NUMBER`, to begin an error with."""

    def number(self, column: int) -> float:
        """A cell as a number, 0 or more. Raises ValueError naming the row."""
        try:
            value = float(self.cells[column])
        except ValueError:
            raise ValueError(f"{self.place}: {self.cells[column]!r} must be a number") from None
        if not 0 <= value < float("inf"):
            raise ValueError(f"{self.place}: {self.cells[column]!r} must be a number of seconds from 0 on")
        return value


@dataclass(frozen=True)
class NamedRow:
    """One row of a csv file whose first line names the columns."""

    cells: dict[str, str]
    place: str

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def flag(self, column: str) -> bool:
        """A cell that is True or False. Raises ValueError naming the row."""
        if self.cells[column] not in ("True", "False"):
            raise ValueError(f"{self.place}: {column} {self.cells[column]!r} must be True or False")
        return self.cells[column] == "True"


@contextmanager
def opened(path: str, what: str, remedy: str) -> Iterator[IO[str]]:
    """Open a text file, local or at a URL, with one kind of error for all that is wrong with it.

    Args:
        path: the file.
        what: it should be, for the message.
        remedy: what to do where it cannot be read.

    Raises:
        ValueError: there is no such file, it cannot be read, or is not UTF-8 or csv.
    """
    try:
        with open_text(path) as file:
            yield file
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; {remedy}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not {what} in UTF-8 ({error})") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}; {remedy}") from None


def read_rows(path: str, delimiter: str = ",", comment: str | None = None, quotes: bool = True) -> list[Row]:
    """Read a csv file without a header; empty lines are left out.

    Args:
        path: a local file or URL, UTF-8.
        delimiter: between cells.
        comment: lines beginning with this are left out.
        quotes: whether double quotes hold a cell together.

    Raises:
        ValueError: no such file, not a csv file in UTF-8, or nothing in it.
    """
    rows = []
    with opened(path, "a csv file", "give an annotation file") as file:
        reader = csv.reader(
            check_commas(file, path, comment) if delimiter == "," else file,
            delimiter=delimiter,
            skipinitialspace=True,
            quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
            strict=True,
        )
        for cells in reader:
            if not any(cells) or (comment is not None and cells[0].startswith(comment)):
                continue
            rows.append(Row(tuple(cell.strip() for cell in cells), f"{path}, line {reader.line_num}"))
    if not rows:
        raise ValueError(f"{path}: holds no rows")
    return rows


def read_table(path: str, columns: Sequence[str]) -> list[NamedRow]:
    """Read a csv file whose first line names the columns; others than those needed are kept.

    Raises:
        ValueError: as `read_rows`, a needed column is not there, or a row has more or fewer cells than the header.
    """
    header, *rows = read_rows(path)
    lacking = [column for column in columns if column not in header.cells]
    if lacking:
        raise ValueError(f"{header.place}: no column {', '.join(lacking)}; found {','.join(header.cells)}")
    for row in rows:
        if len(row.cells) != len(header.cells):
            raise ValueError(
                f"{row.place}: has {len(row.cells)} cells, the header {len(header.cells)}; quote cells that hold commas"
            )
    return [NamedRow(dict(zip(header.cells, row.cells, strict=True)), row.place) for row in rows]


def read_lines(path: str) -> tuple[str, ...]:
    """The lines of a text file that are not blank, blanks around them removed.

    Raises:
        ValueError: no such file, not UTF-8, or nothing in it.
    """
    with opened(path, "text", "give a text file") as file:
        lines = tuple(line.strip() for line in file if line.strip())
    if not lines:
        raise ValueError(f"{path}: holds no lines")
    return lines


def read_json(path: str) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: no such file, or not JSON; names the line.
    """
    with opened(path, "JSON", "give an annotation file") as file:
        try:
            return json.load(file)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None


def read_items(path: str) -> list[tuple[dict[str, Any], str]]:
    """Read a JSON file that holds a list of objects, each with the place to name when it does not fit.

    Raises:
        ValueError: as `read_json`, or it holds something else.
    """
    items = read_json(path)
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise ValueError(f"{path}: must hold a list of objects")
    return [(item, f"{path}, item {number}") for number, item in enumerate(items, 1)]
