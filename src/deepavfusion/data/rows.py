"""Clips inside Parquet and tar files, as data sets of the Hugging Face Hub hold them: media files as values of columns.

A clip's path is `FILE.parquet#ROW:video=COLUMN`: the file, the row's number in it, and the columns that hold its video,
image and audio. In `FILE.tar#ROW:video=OFFSET+BYTES` it says where in the file they lie instead. Any row can be read at
any time, so the order of training needs no state but the sample's number. In Parquet, rows that follow each other are
read in one pass, because a row is reached through those of its row group before it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from tempfile import NamedTemporaryFile
from typing import Any, Literal
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from deepavfusion.data.clip import ClipInfo
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.jpeg import crop_picture
from deepavfusion.data.local_copies import local_copy
from deepavfusion.data.locations import read_range
from deepavfusion.data.media import MediaError, MediaFile
from deepavfusion.data.photos import read_photo

READ_AHEAD = 1 << 20
"""Bytes read at a time from a column: without a limit it is a whole row group, which may be gigabytes."""
_PATH = re.compile(r"(?s)(.+\.(?:parquet|tar))#(\d+):(.+)")


@dataclass(frozen=True)
class RowPlace:
    """Where a clip lies."""

    file: str
    """A Parquet or tar file, local or a URL."""
    row: int
    """In the file, from 0."""
    columns: Mapping[str, str]
    """By what they hold, `video`, `image` or `audio`, the names of columns; in a tar file `OFFSET+BYTES`."""

    @property
    def path(self) -> str:
        """As the path of a clip."""
        columns = ",".join(f"{kind}={quote(name, safe='+')}" for kind, name in self.columns.items())
        return f"{self.file}#{self.row}:{columns}"

    @classmethod
    def of(cls, path: str) -> RowPlace:
        """Undoes `path`."""
        match = _PATH.fullmatch(path)
        assert match is not None, path
        pairs = (pair.partition("=") for pair in match[3].split(","))
        return cls(match[1], int(match[2]), {kind: unquote(name) for kind, _, name in pairs})


class RowClip:
    """The picture of one opened file or photo with the sound of another; stands in for a `MediaFile`."""

    def __init__(self, picture: MediaFile | NDArray[np.uint8] | None, sound: MediaFile | None) -> None:
        self._picture, self._sound = picture, sound
        heard = None if sound is None else sound.info
        size, rate, end = (0, 0), 0.0, 0.0
        if isinstance(picture, MediaFile):
            seen = picture.info
            size, rate, end = (seen.height, seen.width), seen.frame_rate, seen.picture_end_seconds
        elif picture is not None:
            size = picture.shape[0], picture.shape[1]
        self.info = ClipInfo(
            duration_seconds=max(end, heard.sound_end_seconds if heard else 0.0),
            has_picture=size != (0, 0),
            has_sound=heard is not None and heard.has_sound,
            height=size[0],
            width=size[1],
            frame_rate=rate,
            sample_rate=heard.sample_rate if heard else 0,
            channels=heard.channels if heard else 0,
        )

    @property
    def converted_from(self) -> Any:
        """As of a `MediaFile`."""
        return self._picture.converted_from if isinstance(self._picture, MediaFile) else None

    @property
    def seams(self) -> tuple[Any, ...]:
        """As of a `MediaFile`, of both files."""
        return tuple(seam for file in self._files for seam in file.seams)

    @property
    def num_refused_packets(self) -> int:
        """As of a `MediaFile`, of both files."""
        return sum(file.num_refused_packets for file in self._files)

    @property
    def _files(self) -> list[MediaFile]:
        return [file for file in (self._picture, self._sound) if isinstance(file, MediaFile)]

    def frame(self, time_seconds: float, crop: FrameCrop | None = None) -> NDArray[np.uint8]:
        """The frame shown at a time, `(H, W, 3)`; of a photo itself at any. Raises as `MediaFile.frame`."""
        if isinstance(self._picture, MediaFile):
            return self._picture.frame(time_seconds, crop)
        if self._picture is None:
            raise ValueError("the row has no picture")
        return self._picture if crop is None else crop_picture(self._picture, crop)

    def frames(self, times_seconds: Sequence[float], crop: FrameCrop | None = None) -> NDArray[np.uint8]:
        """The frames shown at several ascending times, `(T, H, W, 3)`. Raises as `MediaFile.frames`."""
        if isinstance(self._picture, MediaFile):
            return self._picture.frames(times_seconds, crop)
        return np.stack([self.frame(0.0, crop)] * len(times_seconds))

    @property
    def is_photo(self) -> bool:
        """Whether the picture is one photo."""
        return isinstance(self._picture, np.ndarray)

    def film(self, wanted: Sequence[tuple[float, Sequence[FrameCrop]]]) -> Iterator[list[NDArray[np.uint8]]]:
        """As `MediaFile.film`; a photo is shown at every time."""
        if isinstance(self._picture, MediaFile):
            yield from self._picture.film(wanted)
            return
        for time, crops in wanted:
            yield [self.frame(time, crop) for crop in crops]

    def sound(self, start_seconds: float, duration_seconds: float, sample_rate: int = 16_000) -> NDArray[np.float32]:
        """The sound of a window, `(n,)` mono in [-1, 1]. Raises as `MediaFile.sound`."""
        if self._sound is None:
            raise ValueError("the row has no sound")
        return self._sound.sound(start_seconds, duration_seconds, sample_rate)


@contextmanager
def open_row(path: str, seek: Literal["exact", "nearest_keyframe"] = "exact") -> Iterator[MediaFile | RowClip]:
    """Open a clip for reading.

    The sound is that of the column `audio` where one is named, else the video's own.

    Raises:
        MediaError: it could not be opened, or not be read inside the context; names file and row.
    """
    place = RowPlace.of(path)
    with naming(path), ExitStack() as stack:
        values = {kind: value for kind, value in row_values(place).items() if value is not None}
        if not values:
            raise MediaError(path, f"the row has no {' and no '.join(place.columns)}")
        files = {kind: stack.enter_context(_file_of(value)) for kind, value in values.items()}
        opened = {kind: stack.enter_context(MediaFile(file, seek)) for kind, file in files.items() if kind != "image"}
        if len(place.columns) == 1 and opened:
            yield next(iter(opened.values()))
            return
        photo = read_photo(files["image"], longest=None) if "image" in files else None
        yield RowClip(opened.get("video", photo), opened.get("audio"))


@contextmanager
def naming(path: str) -> Iterator[None]:
    """A MediaError of this block is one of this path, whatever file the bytes were read from."""
    try:
        yield
    except MediaError as error:
        raise MediaError(path, error.cause) from error


def row_values(place: RowPlace) -> dict[str, bytes | None]:
    """The media files of a row, by what they hold; None where it has none.

    Raises:
        MediaError: the Parquet file cannot be read, has no such row or column, or holds no bytes there.
    """
    try:
        file = local_copy(place.file)
        if file.endswith(".tar"):
            return {kind: _part(file, *map(int, where.split("+"))) for kind, where in place.columns.items()}
        status = os.stat(file)
        row = _row(file, (status.st_ino, status.st_size, status.st_mtime_ns), place.row, tuple(place.columns.values()))
    except ImportError as error:
        raise MediaError(place.path, "needs the extra: pip install 'deepavfusion[hub]'") from error
    except (OSError, ValueError, EOFError, MemoryError) as error:  # those of Arrow are OSError and ValueError
        raise MediaError(place.path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    found: dict[str, bytes | None] = {}
    for kind, name in place.columns.items():
        if name not in row:
            raise MediaError(place.path, f"the file has no column {name!r}")
        value = row[name]
        held = value.get("bytes") if isinstance(value, dict) else value
        if held is None and isinstance(value, dict) and value.get("path"):
            raise MediaError(place.path, f"holds the name {value['path']!r} alone, not the file's bytes")
        if not isinstance(held, bytes | None):
            raise MediaError(place.path, f"column {name!r} holds {type(held).__name__}, not bytes")
        found[kind] = held
    return found


def _part(file: str, offset: int, num_bytes: int) -> bytes | None:
    """Bytes of a tar file; None for none."""
    data = read_range(file, offset, num_bytes)
    if len(data) < num_bytes:
        raise ValueError("the file ends before this row: it has changed")
    return data or None


@contextmanager
def _file_of(data: bytes) -> Iterator[str]:
    """A file of these bytes: in memory where the system has such files, for they cannot be left behind."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("row")
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            yield f"/proc/self/fd/{descriptor}"
    else:
        with NamedTemporaryFile() as temporary:
            temporary.write(data)
            temporary.flush()
            yield temporary.name


class _Pass:
    """A pass over one row group of a file, which stands at a row."""

    def __init__(self, rows: Iterator[Any]) -> None:
        self._rows = rows
        self._row: dict[str, Any] = {}
        self.place = -1

    def go_to(self, place: int) -> dict[str, Any]:
        """The values of a row of the group that has not been passed."""
        while self.place < place:
            batch = next(self._rows, None)
            if batch is None:
                raise ValueError("its row group ends before this row: the file is damaged")
            self.place += batch.num_rows
            if self.place == place:
                self._row = batch.to_pylist()[0]
        return self._row


def _row(file: str, stamp: tuple[int, ...], number: int, columns: tuple[str, ...]) -> dict[str, Any]:
    """The values of some columns of a row; a column that is not there is left out."""
    starts = _opened(os.getpid(), file, stamp)[1]
    if not 0 <= number < starts[-1]:
        raise ValueError(f"it has {starts[-1]} rows: the file has changed")
    group = int(np.searchsorted(starts, number, side="right")) - 1
    place = number - int(starts[group])
    if _pass(os.getpid(), file, stamp, columns, group).place > place:
        _pass.cache_clear()
    return _pass(os.getpid(), file, stamp, columns, group).go_to(place)


@lru_cache(maxsize=64)
def _opened(process: int, file: str, stamp: tuple[int, ...]) -> tuple[Any, NDArray[np.int64]]:
    """A file, and where its row groups start and the last one ends. A forked process opens its own."""
    from pyarrow.parquet import ParquetFile

    parquet = ParquetFile(file, buffer_size=READ_AHEAD, pre_buffer=False)
    sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
    return parquet, np.cumsum([0, *sizes])


@lru_cache(maxsize=1)  # what is read ahead takes memory
def _pass(process: int, file: str, stamp: tuple[int, ...], columns: tuple[str, ...], group: int) -> _Pass:
    parquet, _ = _opened(process, file, stamp)
    return _Pass(parquet.iter_batches(batch_size=1, row_groups=[group], columns=list(columns), use_threads=False))
