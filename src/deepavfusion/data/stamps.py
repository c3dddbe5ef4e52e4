"""Size and time of the clips' files, by which a continued run checks that its clips are those it began with.

Clips in shards and audited clips also have a digest in their row; clips behind a URL are compared by their row alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from deepavfusion.data.clips import Clip, ClipError
from deepavfusion.data.digest import file_digest
from deepavfusion.data.framed_clips import frame_of
from deepavfusion.data.locations import is_url
from deepavfusion.data.stored_media import media_status

_AT_ONCE = 16
"""Files asked about at a time: a network file system answers each in a millisecond or so."""
_LOOKED_AT = 16
"""Copies whose digest is compared."""


@dataclass(frozen=True)
class FileChanges:
    """What became of clips' files between two looks."""

    replaced: dict[str, str]
    """Clips that are surely or probably others now, by id, with what tells."""
    copied: bool
    """Whether every file has its size and another time: copies, as far as can be seen."""


def stamped(clips: Sequence[Clip]) -> list[Clip]:
    """The rows with size and time of their files as they are now; unknown for files that are not there."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(_stamped, clips, chunksize=256))


def file_changes(before: Sequence[Clip], now: Sequence[Clip]) -> FileChanges:
    """Compare the rows of the same clips; what is unknown on one side counts as the same.

    Another size or digest is another file. Another time alone is one too, unless the digest of an audit says that it is
    not, or all files have another time: then they were copied, and of those with a digest a few are looked at.
    """
    replaced, touched, compared = {}, {}, 0
    for old, new in zip(before, now, strict=True):
        if old.digest is not None and new.digest is not None and old.digest != new.digest:
            replaced[new.id] = "another digest"
        elif old.num_bytes is not None and new.num_bytes is not None:
            compared += 1
            if old.num_bytes != new.num_bytes:
                replaced[new.id] = f"{new.num_bytes} bytes, were {old.num_bytes}"
            elif not _same_time(old.modified_ns, new.modified_ns):
                touched[new.id] = old, new
    copied = len(touched) == compared > 1
    known = [pair for pair in touched.values() if pair[0].digest is not None and pair[0].storage == "file"]
    for old, new in known[:: -(-len(known) // _LOOKED_AT) or 1] if copied else known:
        if file_digest(new.path) == old.digest:
            del touched[new.id]
        else:
            replaced[new.id] = "another digest"
    if not copied:
        replaced |= dict.fromkeys(touched.keys() - replaced.keys(), "written since")
    return FileChanges(replaced, copied)


def _stamped(clip: Clip) -> Clip:
    if clip.storage == "shard" or is_url(clip.path):
        return clip
    try:
        if clip.storage == "framed":
            frame = frame_of(clip)
            found = [os.stat(path) for path in (frame.path, frame.video.sound, frame.mask) if path]
        else:
            found = [status for status in (media_status(clip.path),) if status is not None]
    except (OSError, ValueError, ClipError):  # reading it will say why
        return replace(clip, num_bytes=None, modified_ns=None)
    return replace(clip, num_bytes=sum(f.st_size for f in found), modified_ns=max(f.st_mtime_ns for f in found))


def _same_time(a: int | None, b: int | None) -> bool:
    """Whether two times are one; a file system may keep it only to the microsecond or second."""
    if a is None or b is None or a == b:
        return True
    return any(a // unit == b // unit and 0 in (a % unit, b % unit) for unit in (1_000, 1_000_000_000))
