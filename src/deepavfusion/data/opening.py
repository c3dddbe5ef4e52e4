"""Opens a clip from any storage, with one kind of error.

The reader of each storage is imported when the first such clip is opened: shards can be read without PyAV.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

from deepavfusion.data.clips import Clip, ClipError
from deepavfusion.data.views import OpenClip

Seek = Literal["exact", "nearest_keyframe"]


@contextmanager
def open_clip(clip: Clip, seek: Seek = "exact") -> Iterator[OpenClip]:
    """Open a clip for `View.read` and the like.

    Args:
        clip: any row of a manifest.
        seek: whether the frame must be the one shown at the time asked for, or may be the key frame before it, which
            is cheaper to decode; shards have the frames they have, and take the nearest either way.

    Raises:
        ClipError: the clip could not be opened, or not be read inside the context; names clip and cause.
    """
    with _OPENERS[clip.storage](clip, seek) as media:
        yield media


@contextmanager
def _open_media(clip: Clip, seek: Seek) -> Iterator[OpenClip]:
    from deepavfusion.data.media import MediaError
    from deepavfusion.data.stored_media import open_media

    try:
        with open_media(clip.path, seek) as media:
            yield media
    except MediaError as error:
        raise ClipError(clip.id, str(error)) from error


@contextmanager
def _open_shard(clip: Clip, seek: Seek) -> Iterator[OpenClip]:
    from deepavfusion.data.shards import ShardedClip, ShardError

    try:
        with ShardedClip(clip.path, clip.digest) as media:
            yield media
    except ShardError as error:
        raise ClipError(clip.id, str(error)) from error


@contextmanager
def _open_framed(clip: Clip, seek: Seek) -> Iterator[OpenClip]:
    from deepavfusion.data.framed import OpenFrame

    with OpenFrame(clip) as media:
        yield media


_OPENERS: dict[str, Callable[[Clip, Seek], AbstractContextManager[OpenClip]]] = {
    "file": _open_media,
    "row": _open_media,
    "shard": _open_shard,
    "framed": _open_framed,
}
