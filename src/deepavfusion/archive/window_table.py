"""The store of an index: a table of LanceDB with a row per window, and a record of what it is.

A row has the recording, where the window is in it, and a vector per stream, null where the window lacks it. Recordings
are added whole, many in one commit of the store, so that the table has all windows of a recording or none, whenever its
writer is stopped. The first row of a recording also says which file it was made from: size and time.

Format 1 had no clips of data sets: no column `clip`, and a digest in the first row of a recording alone.

Shapes: `T` windows, `E` numbers of a vector.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepavfusion.archive.space import WindowVectors
from deepavfusion.atomic import write_text, writing
from deepavfusion.data.clip import file_of, storage_of
from deepavfusion.data.locations import from_text, to_text
from deepavfusion.data.stored_media import without_commit
from deepavfusion.weight_files import read_json_object

FORMAT = 2
RECORD, TABLE, FAILURES_FILE = "index.json", "windows", "failures.json"
APPROXIMATE_FROM = 200_000
"""Vectors of a stream from which on it gets an approximate index; fewer are compared one by one in tens of
milliseconds."""
PROBES = 32
"""Parts of an approximate index that are looked through, of as many as the root of the number of vectors."""
_OLD = timedelta(hours=1)
"""Versions of the table that a reader may still have open."""
_AT_ONCE = 500
"""Recordings named in one condition."""


class DamagedIndexError(ValueError):
    """The table of an index cannot be read."""


@dataclass(frozen=True)
class IndexRecord:
    """What an index is."""

    format: int
    joint: bool
    """Whether images and sounds are in one space."""
    streams: tuple[str, ...]
    dim: int
    model: str
    """Where the model was."""
    model_digest: str
    hop_seconds: float | None

    def write(self, folder: Path) -> None:
        write_text(folder / RECORD, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> IndexRecord:
        """Raises ValueError if there is no index, or one of a newer format."""
        path = folder / RECORD
        if not path.is_file():
            raise ValueError(f"{folder}: no index; make one with `deepavfusion index SOURCE --model M --out {folder}`")
        values = read_json_object(path)
        if isinstance(values.get("format"), int) and values["format"] > FORMAT:
            raise ValueError(f"{path}: format {values['format']} is newer than this package's {FORMAT}")
        if set(values) != {f.name for f in fields(cls)} or not isinstance(values["streams"], list):
            raise ValueError(f"{path}: damaged, or not of an index")
        return cls(**{**values, "streams": tuple(values["streams"])})


@dataclass(frozen=True)
class StoredFile:
    """A recording: its files, and what identifies their content."""

    path: str
    """As of a clip: a file, or where in a shard, Parquet or tar file it lies."""
    sound: str | None
    """File of its sound, where that is another."""
    num_bytes: int
    """Of its files; of a row that holds media, of the file it is in."""
    modified_ns: int
    digest: str
    number: int = -1
    """In the table."""
    clip: str | None = None
    """Its id in the data set; None of a file that was found in a folder."""

    @property
    def key(self) -> tuple[str, str | None]:
        """What it is known by: its path, of whatever commit of the Hub, or its folder of shards and its id there."""
        if storage_of(self.path) == "shard":
            return os.path.dirname(file_of(self.path)), self.clip
        return without_commit(self.path), self.sound


@dataclass(frozen=True)
class Found:
    """A window that is similar to what was asked for."""

    path: str
    sound: str | None
    start_seconds: float
    end_seconds: float
    similarity: float
    """Cosine."""
    clip: str | None = None
    """Id of the clip, as of `StoredFile`."""
    digest: str | None = None
    """Of the recording when it was indexed; None where an index of format 1 has none in this row."""


class WindowTable:
    """An index on disk."""

    def __init__(self, folder: Path, record: IndexRecord, table: Any) -> None:
        self.folder, self.record, self._table = folder, record, table
        self._pa = import_module("pyarrow")

    @classmethod
    def create(cls, folder: Path, record: IndexRecord) -> WindowTable:
        """A new index, empty.

        Raises:
            ValueError: there is something else in the folder, or the extra is not installed.
        """
        lancedb, pa = _modules()
        own = (".", f"{TABLE}.", FAILURES_FILE)
        others = [e.name for e in folder.iterdir() if not e.name.startswith(own)] if folder.is_dir() else []
        if others:
            raise ValueError(f"{folder}: holds other files ({others[0]}); give another --out")
        vector = pa.list_(pa.float32(), record.dim)
        columns = {
            "number": pa.int64(),
            "path": pa.string(),
            "sound": pa.string(),
            "start_seconds": pa.float64(),
            "end_seconds": pa.float64(),
            "num_bytes": pa.int64(),
            "modified_ns": pa.int64(),
            "digest": pa.string(),
            "clip": pa.string(),
            **dict.fromkeys(record.streams, vector),
        }
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            table = lancedb.connect(folder).create_table(TABLE, schema=pa.schema(columns), mode="overwrite")
            record.write(folder)  # last: it says that there is an index
        return cls(folder, record, table)

    @classmethod
    def open(cls, folder: Path) -> WindowTable:
        """Raises ValueError if there is no index, it is damaged, or the extra is not installed."""
        record = IndexRecord.read(folder)
        lancedb, _ = _modules()
        with _reading(folder):
            return cls(folder, record, lancedb.connect(folder).open_table(TABLE))

    def refresh(self) -> None:
        """See what was written since it was opened.

        Raises:
            DamagedIndexError: there is no index any more, or another one.
        """
        with _reading(self.folder):
            record = IndexRecord.read(self.folder)
            if replace(record, format=self.record.format) != self.record:
                raise ValueError("it was made anew since it was opened")
            self.record = record
            self._table.checkout_latest()

    def upgrade(self) -> None:
        """Make an index of an earlier format one of this. Only for the sole writer."""
        if self.record.format == FORMAT:
            return
        with _writing(self.folder):
            if not self._has_clips:
                self._table.add_columns(self._pa.field("clip", self._pa.string()))
            self.record = replace(self.record, format=FORMAT)
            self.record.write(self.folder)

    @property
    def _has_clips(self) -> bool:
        return "clip" in self._table.schema.names

    @property
    def version(self) -> int:
        """A number that changes with what is in it."""
        return int(self._table.version)

    def files(self) -> list[StoredFile]:
        """The recordings in it. Raises DamagedIndexError."""
        names = ["path", "sound", "num_bytes", "modified_ns", "digest", "number", *["clip"] * self._has_clips]
        with _reading(self.folder):
            rows = self._table.search().where("num_bytes IS NOT NULL").select(names).to_arrow().to_pylist()
        return [
            StoredFile(**{**row, "path": from_text(row["path"]), "sound": row["sound"] and from_text(row["sound"])})
            for row in rows
        ]

    def num_windows(self) -> int:
        return int(self._table.count_rows())

    def next_number(self) -> int:
        """A number that no recording has."""
        return max((file.number for file in self.files()), default=-1) + 1

    def add(self, recordings: Sequence[tuple[StoredFile, WindowVectors]]) -> None:
        """Add recordings in one commit, all or none. Raises NotWrittenError."""
        pa = self._pa
        rows = pa.concat_tables([self._rows(file, windows) for file, windows in recordings])
        with _writing(self.folder):
            self._table.add(rows)

    def delete(self, numbers: Iterable[int]) -> None:
        """Delete recordings."""
        named = sorted(numbers)
        for first in range(0, len(named), _AT_ONCE):
            with _writing(self.folder):
                self._table.delete(f"number IN ({', '.join(map(str, named[first : first + _AT_ONCE]))})")

    def move(self, files: Iterable[StoredFile]) -> None:
        """Write down new places and stamps of recordings whose content, and so whose vectors, stay."""
        pa, moved = self._pa, {file.number: file for file in files}
        numbers = sorted(moved)
        for first in range(0, len(numbers), _AT_ONCE):
            part = numbers[first : first + _AT_ONCE]
            rows = self._table.search().where(f"number IN ({', '.join(map(str, part))})").to_arrow()
            own = [moved[number] for number in rows["number"].to_pylist()]
            begins = [size is not None for size in rows["num_bytes"].to_pylist()]
            changed = {
                "path": [to_text(file.path) for file in own],
                "num_bytes": [file.num_bytes if begin else None for file, begin in zip(own, begins, strict=True)],
                "modified_ns": [file.modified_ns if begin else None for file, begin in zip(own, begins, strict=True)],
                "clip": [file.clip for file in own],
            }
            for name, values in changed.items():
                field = rows.schema.field(name)
                rows = rows.set_column(rows.schema.get_field_index(name), field, pa.array(values, field.type))
            self.delete(part)  # killed after this, they are absent and read again the next time
            with _writing(self.folder):
                self._table.add(rows)

    def tidy(self, drop_old: timedelta = _OLD) -> None:
        """Join small files, remove old versions and what a killed writer left, and bring approximate indices up to
        date. Only for the sole writer."""
        with _writing(self.folder):
            there = {name for index in self._table.list_indices() for name in index.columns}
            for stream in self.record.streams:
                count = self._table.count_rows(f"{stream} IS NOT NULL")
                if stream not in there and count >= APPROXIMATE_FROM:
                    parts = round(np.sqrt(count))
                    config = import_module("lancedb.index").IvfFlat(distance_type="dot", num_partitions=parts)
                    self._table.create_index(stream, config=config)
            self._table.optimize(cleanup_older_than=drop_old, delete_unverified=True)

    def search(self, stream: str, vector: NDArray[np.float32], count: int, exact: bool = False) -> list[Found]:
        """The windows most similar to a unit vector `(E,)`, best first. Raises DamagedIndexError."""
        asked = self._table.search(vector, vector_column_name=stream).distance_type("dot").limit(count)
        names = ["path", "sound", "start_seconds", "end_seconds", "digest", *["clip"] * self._has_clips]
        asked = asked.select([*names, "_distance"])
        asked = asked.bypass_vector_index() if exact else asked.nprobes(PROBES)
        with _reading(self.folder):
            rows = asked.to_arrow().to_pylist()
        return [
            Found(
                from_text(row["path"]),
                row["sound"] and from_text(row["sound"]),
                row["start_seconds"],
                row["end_seconds"],
                1 - row["_distance"],
                row.get("clip"),
                row["digest"],
            )
            for row in rows
        ]

    def approximate(self) -> tuple[str, ...]:
        """Streams with an approximate index."""
        return tuple(name for index in self._table.list_indices() for name in index.columns)

    def _rows(self, file: StoredFile, windows: WindowVectors) -> Any:
        pa, count = self._pa, len(windows.start_seconds)
        first = {name: pa.array([getattr(file, name), *[None] * (count - 1)]) for name in ("num_bytes", "modified_ns")}
        columns = {
            "number": np.full(count, file.number),
            "path": pa.array([to_text(file.path)] * count),
            "sound": pa.array([file.sound and to_text(file.sound)] * count, pa.string()),
            "start_seconds": windows.start_seconds,
            "end_seconds": windows.end_seconds,
            **first,
            "digest": pa.array([file.digest] * count),
            "clip": pa.array([file.clip] * count, pa.string()),
        }
        for name in self.record.streams:
            values = pa.array(windows.streams[name].reshape(-1))
            lacking = pa.array(~windows.present[name])
            columns[name] = pa.FixedSizeListArray.from_arrays(values, self.record.dim, mask=lacking)
        return pa.table(columns, schema=self._table.schema)


def _modules() -> tuple[Any, Any]:
    try:
        os.environ.setdefault("LANCEDB_LOG", "error")  # what it warns of is for its authors
        return import_module("lancedb"), import_module("pyarrow")
    except ImportError as error:
        raise ValueError(f'an index needs LanceDB: pip install "deepavfusion[index]" ({error})') from error


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Of a damaged table come errors of every kind, which are told as one."""
    try:
        yield
    except Exception as error:
        told = " ".join(str(error).split())[:300]
        raise DamagedIndexError(f"{folder}: the table of this index cannot be read ({told})") from error


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """A full or read-only disk is told in one line."""
    with writing(folder / f"{TABLE}.lance"):
        yield
