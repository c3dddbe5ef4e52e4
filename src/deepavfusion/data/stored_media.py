"""Opens the media of a clip wherever they are stored unaltered: a file, a file at a URL, or a row of a Parquet file."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from deepavfusion.atomic import NotWrittenError
from deepavfusion.data.clip import Clip, file_of, storage_of
from deepavfusion.data.digest import file_digest
from deepavfusion.data.locations import check_file, is_url

if TYPE_CHECKING:
    from deepavfusion.data.media import MediaFile
    from deepavfusion.data.rows import RowClip

_PINNED = re.compile(r"(hf://[^@#]+)@[0-9a-f]{40}/")


@contextmanager
def open_media(path: str, seek: Literal["exact", "nearest_keyframe"] = "exact") -> Iterator[MediaFile | RowClip]:
    """Open a clip of the storages `file` and `row`.

    Args:
        path: of the clip.
        seek: as of `MediaFile`.

    Raises:
        MediaError: it could not be opened, or not be read inside the context; names the path.
    """
    from deepavfusion.data.media import MediaError, MediaFile
    from deepavfusion.data.rows import naming, open_row

    if storage_of(path) == "row":
        with open_row(path, seek) as row:
            yield row
        return
    if is_url(path):
        from deepavfusion.data.local_copies import local_copy

        try:
            copy = local_copy(path)
        except OSError as error:
            raise MediaError(path, f"cannot be fetched: {error.strerror or error}") from error
        with naming(path), MediaFile(copy, seek) as media:
            yield media
        return
    with MediaFile(path, seek) as media:
        yield media


def fetched(clip: Clip) -> Clip:
    """The clip, whose file is now on this machine, if it can be.

    Before a clip is given to a process that may take only so long over it: a large file takes longer to fetch, and
    reading it says why it could not be.
    """
    file = file_of(clip.path)
    if is_url(file) and clip.storage in ("file", "row"):
        from deepavfusion.data.local_copies import local_copy

        try:
            local_copy(file)
        except NotWrittenError:  # a full disk is no fault of the clip
            raise
        except OSError:
            pass
    return clip


def media_digest(path: str) -> str:
    """BLAKE2 digest of a clip's media. Raises OSError or MediaError."""
    if storage_of(path) == "row":
        from deepavfusion.data.rows import RowPlace, row_values

        digest = hashlib.blake2b(digest_size=16)
        for value in row_values(RowPlace.of(path)).values():
            digest.update(value or b"")
        return digest.hexdigest()
    if is_url(path):
        from deepavfusion.data.local_copies import local_copy

        return file_digest(local_copy(path))
    check_file(path)
    return file_digest(path)


def media_status(path: str) -> os.stat_result | None:
    """Size and time of the file that holds a clip's media; None of one at a URL. Raises OSError."""
    file = file_of(path)
    return None if is_url(file) else os.stat(file)


def never_changes(path: str) -> bool:
    """Whether what lies at a path is the same for ever: files of the Hub named with their commit are."""
    return _PINNED.match(path) is not None


def without_commit(path: str) -> str:
    """The path without the commit that a file of the Hub is named with: what is there at any time."""
    return _PINNED.sub(r"\1/", path, count=1)
