"""`index`: brings an index up to date with a source, one commit of the store every half minute.

A recording is known by its path; a clip in shards by its folder of shards and its id, one of the Hub by its path
without the commit. It stays as it is while its files have their size and time, or, where these differ, their digest; a
clip in shards while it has the digest that the shards' manifest tells. Otherwise it is read anew. What cannot be read
is named and tried again the next time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from deepavfusion.archive.config import IndexConfig
from deepavfusion.archive.space import VectorSpace, WindowVectors
from deepavfusion.archive.window_table import FAILURES_FILE, FORMAT, RECORD, IndexRecord, StoredFile, WindowTable
from deepavfusion.atomic import NotWrittenError, write_text
from deepavfusion.data.clip import Clip, file_of, storage_of
from deepavfusion.data.clips import SHARDS_FILE, find_clips
from deepavfusion.data.hub import is_hub
from deepavfusion.data.locations import is_url
from deepavfusion.data.media import MediaError
from deepavfusion.data.shards import ShardedClip, ShardError
from deepavfusion.data.stored_media import media_digest, media_status, never_changes
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
    """By path, of a clip that is no file of its own by its id, why a recording could not be read."""


def index(config: IndexConfig, progress: Progress | None = None) -> IndexSummary:
    """Bring an index up to date.

    Args:
        config: source, model and place.
        progress: is told how many recordings are done.

    Raises:
        ValueError: no such source or model, or the index is of another model or made with other settings.
        NotWrittenError: a full disk.
    """
    found, folder = list_recordings(config.source), Path(config.out)
    space = VectorSpace.open(config.model, config.device, config.precision, config.batch_size)
    table = _open(folder, config, space)
    summary = IndexSummary(config.out, "joint" if space.is_joint else "one for each stream, no joint space")
    known = {file.key: file for file in table.files()}
    if config.drop_missing:
        listed = {place.key for place in map(place_of, found) if storage_of(place.path) != "file"}
        gone = [file for file in known.values() if file.key not in listed and not _is_there(file)]
        table.delete(file.number for file in gone)
        summary.num_dropped = len(gone)
        known = {key: file for key, file in known.items() if file not in gone}
    with _Pending(table) as pending, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is odd about a file that can be read
        for number, item in enumerate(found):
            if progress is not None:
                progress(number, len(found))
            place = place_of(item)
            old = known.get(place.key)
            try:
                file = stamp(place, old)
                if old is not None and file.digest == old.digest:
                    pending.keep(file, old)
                    summary.num_kept += 1
                    continue
                with open_recording(item if isinstance(item, Clip) else item.given) as recording:
                    windows = space.windows(recording, table.record.hop_seconds)
                if not any(there.any() for there in windows.present.values()):
                    raise ValueError("has neither image nor sound")
            except (BrokenPipeError, NotWrittenError):
                raise
            except FAILURES as error:
                name, cause = _failure(place, error)
                summary.failed[name] = cause
                continue
            pending.add(file, windows, old)
            summary.num_replaced += old is not None
            summary.num_added += old is None
    if progress is not None:
        progress(len(found), len(found))
    table.tidy()
    write_text(folder / FAILURES_FILE, json.dumps(summary.failed, indent=1) + "\n")
    summary.num_recordings, summary.num_windows = len(table.files()), table.num_windows()
    if len(summary.failed) == len(found):
        name, cause = next(iter(summary.failed.items()))
        raise ValueError(f"{config.source}: none of {len(found)} recordings could be read, such as {name}: {cause}")
    return summary


def list_recordings(source: str) -> Sequence[Item | Clip]:
    """The recordings of a source: of a folder or a file its videos, sounds and photos, of any other its clips.

    Raises:
        ValueError: there is none, or it is a table of pictures.
    """
    if source.endswith(".csv") or is_hub(source) or is_url(source) or os.path.isfile(os.path.join(source, SHARDS_FILE)):
        clips = find_clips(source)
        if any(clip.storage == "framed" for clip in clips):
            raise ValueError(f"{source}: is a table of frames; index the videos, or the folder of the pictures")
        return clips
    if not os.path.exists(source):
        raise ValueError(f"{source}: no such folder, file or manifest here; a data set of the Hub is hf:OWNER/NAME")
    if source.endswith(".parquet"):
        raise ValueError(f"{source}: a Parquet file is named as a data set, hf:{source}")
    return [
        replace(item, path=os.path.abspath(item.path), sound=item.sound and os.path.abspath(item.sound))
        for item in list_items([source])
    ]


def place_of(item: Item | Clip) -> StoredFile:
    """Where a recording lies, and of a clip in shards what identifies its content; the rest is for `stamp`."""
    if isinstance(item, Item):
        return StoredFile(item.path, item.sound, 0, 0, "")
    own = item.storage == "file" and not is_url(item.path)
    digest = item.digest if item.storage == "shard" else None
    path = os.path.abspath(item.path) if own else item.path
    return StoredFile(path, None, item.num_bytes or 0, 0, digest or "", clip=item.id)


def stamp(place: StoredFile, old: StoredFile | None) -> StoredFile:
    """A recording with what identifies its content now: with the digest of `old` if it is the same.

    Raises:
        OSError or MediaError: it cannot be read.
        ValueError: a clip in shards whose manifest does not identify it.
    """
    if storage_of(place.path) == "shard":
        if not place.digest:
            raise ValueError("has no digest in the manifest of its shards; write the shards anew")
        return place
    if old is not None and old.path == place.path and never_changes(place.path):
        return old
    paths = [place.path, *([place.sound] if place.sound else [])]
    found = [status for status in map(media_status, paths) if status is not None]  # None of what lies at a URL
    size, modified = sum(f.st_size for f in found), max((f.st_mtime_ns for f in found), default=0)
    if old is not None and found and (old.num_bytes, old.modified_ns) == (size, modified):
        return replace(place, num_bytes=size, modified_ns=modified, digest=old.digest)
    digests = [media_digest(path) for path in paths]
    digest = digests[0] if len(digests) == 1 else hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest()
    return replace(place, num_bytes=size, modified_ns=modified, digest=digest)


def _failure(place: StoredFile, error: BaseException) -> tuple[str, str]:
    """What a recording that cannot be read is called, and why it cannot, in one line."""
    cause = cause_of(error, Item(place.path, place.sound, ""))
    if place.clip is None or (storage_of(place.path) == "file" and not is_url(place.path)):
        return place.path, cause
    return place.clip, f"{shown(place.path)}: {cause}"


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

    def keep(self, file: StoredFile, old: StoredFile) -> None:
        """Its vectors stay; it may lie elsewhere now, or have another size and time."""
        file = replace(file, number=old.number, clip=file.clip or old.clip)
        if file != old:
            self._moved.append(file)

    def add(self, file: StoredFile, windows: WindowVectors, old: StoredFile | None) -> None:
        self._new.append((replace(file, number=self._number), windows))
        self._number += 1
        self._num_windows += len(windows.start_seconds)
        if old is not None:
            self._old.append(old.number)
        if self._num_windows >= COMMIT_WINDOWS or time.monotonic() - self._since > COMMIT_SECONDS:
            self._commit()

    def _commit(self) -> None:
        self._table.move(self._moved)
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
        self._moved: list[StoredFile] = []
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
    table.upgrade()
    return table


def check_model(record: IndexRecord, model: str, digest: str, folder: Path) -> None:
    """Raise ValueError unless an index is of a model."""
    if record.model_digest != digest:
        raise ValueError(
            f"{folder}: holds vectors of another model ({record.model}, weights {record.model_digest}), not of {model} "
            f"(weights {digest}); vectors of two models cannot be compared: give that model, or another index"
        )


def _is_there(file: StoredFile) -> bool:
    """Whether a recording still lies where it was when it was indexed. What lies at a URL is not asked for."""
    if is_url(file.path):
        return True
    if not all(os.path.exists(file_of(path)) for path in (file.path, file.sound) if path):
        return False
    try:
        if storage_of(file.path) == "shard":
            ShardedClip(file.path, file.digest)
        elif storage_of(file.path) == "row":
            return stamp(file, file).digest == file.digest
    except (ShardError, MediaError, OSError):
        return False
    return True


def failure_lines(failed: dict[str, str]) -> Iterator[str]:
    """One line for each recording that could not be read."""
    return (f"{shown(name)}: {cause}" for name, cause in failed.items())
