"""The rows of a manifest stored as columns: a sequence whose clips are built on access.

AudioSet has two million rows. As objects they would take a gigabyte and half a minute. Here the texts of a column lie
end to end in one buffer, and columns of few different values are numbers into a list of these. Forked processes share
the buffers.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import eq
from typing import Any, ClassVar, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from deepavfusion.data.clip import COLUMNS, NUMBERS, VERDICTS, Clip
from deepavfusion.data.locations import from_text, join

_CHUNK = 256  # rows that are turned into columns at a time: more do not fit into the cache
_CHUNK_BACK = 1024  # rows that are read back at a time


class Irregular(ValueError):
    """Something in a file is not as it should be; reading it row by row says what and where."""


class _Column(Protocol):
    def add(self, cells: Sequence[str]) -> None:
        """Take the cells of the next rows."""

    def finish(self) -> None:
        """All rows have been taken."""

    def values(self, rows: NDArray[np.int64]) -> list[Any]:
        """What stands in some rows, None in an empty cell."""


class _Texts:
    """Cells that mostly differ."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._lengths: list[NDArray[np.uint32]] = []

    def add(self, cells: Sequence[str]) -> None:
        text = "".join(cells)
        coded: Sequence[str | bytes] = cells if text.isascii() else [cell.encode() for cell in cells]
        self._buffer += text.encode()
        self._lengths.append(np.fromiter(map(len, coded), np.uint32, len(cells)))

    def finish(self) -> None:
        ends = np.cumsum(np.concatenate(self._lengths), dtype=np.int64)
        self._ends = ends.astype(np.uint32) if len(self._buffer) < 2**32 else ends
        del self._lengths

    def values(self, rows: NDArray[np.int64]) -> list[Any]:
        buffer, ends = self._buffer, self._ends[rows].tolist()
        starts = np.where(rows > 0, self._ends[rows - 1], 0).tolist()
        return [buffer[start:end].decode() or None for start, end in zip(starts, ends, strict=True)]


class _Coded:
    """Cells of which many are alike."""

    def __init__(self, convert: Callable[[str], Any] = str) -> None:
        self._convert = convert
        self._numbers: dict[str, int] = {}
        self._codes: list[NDArray[Any]] = []

    def add(self, cells: Sequence[str]) -> None:
        for cell in set(cells) - self._numbers.keys():
            self._numbers[cell] = len(self._numbers)
        smallest = np.min_scalar_type(len(self._numbers))
        self._codes.append(np.fromiter(map(self._numbers.__getitem__, cells), smallest, len(cells)))

    def finish(self) -> None:
        self.different: list[Any] = [self._convert(cell) if cell else None for cell in self._numbers]
        """The different values."""
        self.codes = np.concatenate(self._codes)
        """Which of them stands in each row."""
        del self._codes, self._numbers

    def values(self, rows: NDArray[np.int64]) -> list[Any]:
        return list(map(self.different.__getitem__, self.codes[rows].tolist()))


class _Numbers:
    """Numbers that mostly differ; the lowest there is, or none, stands for an empty cell."""

    def __init__(self, convert: Callable[[str], Any]) -> None:
        self._convert = convert
        self._type = np.dtype(np.int64 if convert is int else np.float64)
        self._empty = np.iinfo(np.int64).min if convert is int else -np.inf
        self._parts: list[NDArray[Any]] = []

    def add(self, cells: Sequence[str]) -> None:
        convert, empty = self._convert, self._empty
        self._parts.append(np.array([convert(cell) if cell else empty for cell in cells], self._type))

    def finish(self) -> None:
        self._values = np.concatenate(self._parts)
        del self._parts

    def values(self, rows: NDArray[np.int64]) -> list[Any]:
        return [None if value == self._empty else value for value in self._values[rows].tolist()]


_MANY_ALIKE = ("label", "split", "width", "height", "frame_rate", "sample_rate", "channels", "verdict", "reason")


def _column(name: str) -> _Column:
    if name in _MANY_ALIKE:
        return _Coded(NUMBERS.get(name, str))
    return _Numbers(NUMBERS[name]) if name in NUMBERS else _Texts()


class ClipTable(Sequence[Clip]):
    """Clips of a manifest, all of them or some, in the order of the rows. It does not change."""

    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __init__(self, columns: dict[str, _Column], base: str, rows: NDArray[np.integer[Any]] | range) -> None:
        """
        Args:
            columns: those that the manifest has.
            base: its folder or URL, which paths are resolved against.
            rows: which rows, of all that there are.
        """
        self._columns, self._base, self._rows = columns, base, rows

    @classmethod
    def read(cls, lines: Iterable[str], base: str) -> ClipTable:
        """Read a manifest whose header names known columns.

        Raises:
            Irregular: anything is not as it should be, but without saying what and where.
        """
        reader = csv.reader(lines)
        header = next(reader, [])
        if not {"id", "path"} <= set(header) <= set(COLUMNS) or len(set(header)) < len(header):
            raise Irregular("header")
        columns, hashes, count = {name: _column(name) for name in header}, [], 0
        try:
            while rows := list(islice(reader, _CHUNK)):
                if [] in rows:
                    rows = [row for row in rows if row]
                if set(map(len, rows)) - {len(header)}:
                    raise Irregular("number of cells")
                for name, cells in zip(header, zip(*rows, strict=True), strict=False):
                    if name in ("id", "path") and "" in cells:
                        raise Irregular(name)
                    if name == "id":
                        hashes.append(np.fromiter(map(hash, cells), np.int64, len(cells)))
                    columns[name].add(cells)
                count += len(rows)
            if not count:
                raise Irregular("no rows")
            for column in columns.values():
                column.finish()
        except (ValueError, OverflowError) as error:  # a cell that is no number, or a line that is no csv
            raise Irregular(str(error)) from error
        verdicts, sorted_hashes = columns.get("verdict"), np.sort(np.concatenate(hashes))
        if isinstance(verdicts, _Coded) and not set(verdicts.different) <= {None, *VERDICTS}:
            raise Irregular("verdict")
        if (sorted_hashes[1:] == sorted_hashes[:-1]).any():
            raise Irregular("id")
        return cls(columns, base, range(count))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> ClipTable: ...
    def __getitem__(self, index: int | slice) -> Clip | ClipTable:
        if isinstance(index, slice):
            return ClipTable(self._columns, self._base, self._rows[index])
        return next(self._clips(np.array([self._rows[index]], np.int64)))

    def __iter__(self) -> Iterator[Clip]:
        return chain.from_iterable(map(self._clips, self._chunks()))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    def __repr__(self) -> str:
        return f"<{len(self)} clips of {self._base}>"

    def where(self, name: str, is_wanted: Callable[[Any], bool]) -> ClipTable:
        """The clips whose value in a column is wanted; `is_wanted` is asked once for each different value."""
        column = self._columns.get(name)
        if column is None:
            return self if is_wanted(None) else self[:0]
        rows = np.asarray(self._rows, np.int32 if len(self._rows) < 2**31 else np.int64)
        if isinstance(column, _Coded):
            wanted = np.array([is_wanted(value) for value in column.different])[column.codes[rows]]
        else:
            wanted = np.fromiter(map(is_wanted, self.column(name)), bool, len(self))
        return self if wanted.all() else ClipTable(self._columns, self._base, rows[wanted])

    def column(self, name: str) -> Iterator[Any]:
        """The values of one column, clip by clip."""
        return chain.from_iterable(self._values(name, rows) for rows in self._chunks())

    def batches(self) -> Iterator[Iterator[tuple[Any, ...]]]:
        """The values of all columns, in the order of `COLUMNS`: some clips at a time, each as a tuple."""
        for rows in self._chunks():
            yield zip(*(self._values(name, rows) for name in COLUMNS), strict=True)

    def _chunks(self) -> Iterator[NDArray[np.int64]]:
        for start in range(0, len(self._rows), _CHUNK_BACK):
            yield np.asarray(self._rows[start : start + _CHUNK_BACK], np.int64)

    def _values(self, name: str, rows: NDArray[np.int64]) -> list[Any]:
        if name not in self._columns:
            return [None] * len(rows)
        values = self._columns[name].values(rows)
        return [join(self._base, from_text(path)) for path in values] if name == "path" else values

    def _clips(self, rows: NDArray[np.int64]) -> Iterator[Clip]:
        return map(Clip, *(self._values(name, rows) for name in COLUMNS))
