"""`index`: brings an index up to date with a source, one commit of the store every half minute.

A recording is known by its path. It stays as it is while its files have their size and time, or, where only the time
differs, their digest; otherwise it is read anew. What cannot be read is named and tried again the next time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from deepavfusion.archive.config import IndexConfig
from deepavfusion.archive.space import VectorSpace, WindowVectors
from deepavfusion.archive.window_table import FAILURES_FILE, FORMAT, RECORD, IndexRecord, StoredFile, WindowTable
from deepavfusion.atomic import NotWrittenError, write_text
from deepavfusion.data.clips import find_clips
from deepavfusion.data.digest import file_digest
from deepavfusion.data.locations import is_url
from deepavfusion.inference.inputs import open_recording
from deepavfusion.inference.listing import Item, list_items, shown
from deepavfusion.inference.predict import cause_of
from deepavfusion.inference.steps import FAILURES

COMMIT_SECONDS, COMMIT_WINDOWS = 30.0, 5_000
"""When what was computed is committed, whichever comes first: what a kill costs at most."""
TIDY_COMMITS = 100
"""Commits after which the store's small files are joined."""

Progress = Callable[[int, int], None]


@dataclass
class IndexSummary:
    """What became of the recordings of the source."""

    out: str
    space: str
    num_recordings: int = 0
    """In the index now, of whatever source."""
    num_windows: int = 0
    num_added: int = 0
    num_kept: int = 0
    num_replaced: int = 0
    num_dropped: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """By path, why a recording could not be read."""


def index(config: IndexConfig, progress: Progress | None = None) -> IndexSummary:
    """Bring an index up to date.

    Args:
        config: source, model and place.
        progress: is told how many recordings are done.

    Raises:
        ValueError: no such source or model, or the index is of another model or made with other settings.
        NotWrittenError: a full disk.
    """
    items, folder = list_recordings(config.source), Path(config.out)
    space = VectorSpace.open(config.model, config.device, config.precision, config.batch_size)
    table = _open(folder, config, space)
    summary = IndexSummary(config.out, "joint" if space.is_joint else "one for each stream, no joint space")
    known = {(file.path, file.sound): file for file in table.files()}
    if config.drop_missing:
        gone = [file for file in known.values() if not _is_there(file)]
        table.delete(file.number for file in gone)
        summary.num_dropped = len(gone)
        known = {key: file for key, file in known.items() if file not in gone}
    with _Pending(table) as pending, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is odd about a file that can be read
        for number, item in enumerate(items):
            if progress is not None:
                progress(number, len(items))
            old = known.get((item.path, item.sound))
            try:
                file = stamp(item, old)
                if file is old:
                    summary.num_kept += 1
                    continue
                with open_recording(item.given) as recording:
                    windows = space.windows(recording, table.record.hop_seconds)
                if not any(there.any() for there in windows.present.values()):
                    raise ValueError("has neither image nor sound")
            except (BrokenPipeError, NotWrittenError):
                raise
            except FAILURES as error:
                summary.failed[item.path] = cause_of(error, item)
                continue
            pending.add(file, windows, old)
            summary.num_replaced += old is not None
            summary.num_added += old is None
    if progress is not None:
        progress(len(items), len(items))
    table.tidy()
    write_text(folder / FAILURES_FILE, json.dumps(summary.failed, indent=1) + "\n")
    summary.num_recordings, summary.num_windows = len(table.files()), table.num_windows()
    if len(summary.failed) == len(items):
        name, cause = next(iter(summary.failed.items()))
        raise ValueError(f"{config.source}: none of {len(items)} recordings could be read, such as {name}: {cause}")
    return summary


def list_recordings(source: str) -> list[Item]:
    """The recordings of a source, by absolute path.

    Raises:
        ValueError: there is none, or clips are in shards or tables of pictures.
    """
    if source.endswith(".csv"):
        clips = find_clips(source)
        odd = next((clip for clip in clips if clip.storage != "file" or is_url(clip.path)), None)
        if odd is not None:
            raise ValueError(f"{source}: clip {odd.id} is no local file of its own ({odd.path}); index original files")
        return [Item(os.path.abspath(clip.path), None, "") for clip in clips]
    if os.path.isfile(os.path.join(source, "shards.json")):
        raise ValueError(f"{source}: clips in shards have few of their frames; index the original files")
    if not os.path.exists(source):
        raise ValueError(f"{source}: no such folder, file or manifest here")
    return [
        replace(item, path=os.path.abspath(item.path), sound=item.sound and os.path.abspath(item.sound))
        for item in list_items([source])
    ]


def stamp(item: Item, old: StoredFile | None) -> StoredFile:
    """What identifies a recording's files now; `old` itself if they are the same.

    Raises:
        OSError: they cannot be read.
    """
    paths = [item.path, *([item.sound] if item.sound else [])]
    found = [os.stat(path) for path in paths]
    size, modified = sum(f.st_size for f in found), max(f.st_mtime_ns for f in found)
    if old is not None and (old.num_bytes, old.modified_ns) == (size, modified):
        return old
    digests = [file_digest(path) for path in paths]
    digest = digests[0] if len(digests) == 1 else hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest()
    if old is not None and old.digest == digest:
        return old
    return StoredFile(item.path, item.sound, size, modified, digest)


class _Pending:
    """Recordings that are computed and not yet committed; leaving the context commits them."""

    def __init__(self, table: WindowTable) -> None:
        self._table, self._number, self._commits = table, table.next_number(), 0
        self._clear()

    def __enter__(self) -> _Pending:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self._commit()

    def add(self, file: StoredFile, windows: WindowVectors, old: StoredFile | None) -> None:
        self._new.append((replace(file, number=self._number), windows))
        self._number += 1
        self._num_windows += len(windows.start_seconds)
        if old is not None:
            self._old.append(old.number)
        if self._num_windows >= COMMIT_WINDOWS or time.monotonic() - self._since > COMMIT_SECONDS:
            self._commit()

    def _commit(self) -> None:
        if self._new:
            self._table.delete(self._old)  # killed after this, they are absent and read again the next time
            self._table.add(self._new)
            self._commits += 1
            if self._commits % TIDY_COMMITS == 0:
                self._table.tidy()
        self._clear()

    def _clear(self) -> None:
        self._new: list[tuple[StoredFile, WindowVectors]] = []
        self._old: list[int] = []
        self._num_windows, self._since = 0, time.monotonic()


def _open(folder: Path, config: IndexConfig, space: VectorSpace) -> WindowTable:
    """The index that is there, if it is of this model, or a new one."""
    digest = space.digest()
    if not (folder / RECORD).is_file():
        record = IndexRecord(FORMAT, space.is_joint, space.streams, space.dim, config.model, digest, config.hop_seconds)
        return WindowTable.create(folder, record)
    table = WindowTable.open(folder)
    check_model(table.record, config.model, digest, folder)
    if config.hop_seconds not in (None, table.record.hop_seconds):
        made = "half a window" if table.record.hop_seconds is None else f"{table.record.hop_seconds:g} s"
        raise ValueError(f"hop_seconds {config.hop_seconds:g}: {folder} was made with {made}; give another --out")
    return table


def check_model(record: IndexRecord, model: str, digest: str, folder: Path) -> None:
    """Raise ValueError unless an index is of a model."""
    if record.model_digest != digest:
        raise ValueError(
            f"{folder}: holds vectors of another model ({record.model}, weights {record.model_digest}), not of {model} "
            f"(weights {digest}); vectors of two models cannot be compared: give that model, or another index"
        )


def _is_there(file: StoredFile) -> bool:
    return all(os.path.exists(path) for path in (file.path, file.sound) if path)


def failure_lines(failed: dict[str, str]) -> Iterator[str]:
    """One line for each recording that could not be read."""
    return (f"{shown(path)}: {cause}" for path, cause in failed.items())
