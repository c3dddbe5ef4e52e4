"""Copies of remote files on this machine, in a folder of limited size that all its processes share.

A decoder goes back and forth in a file, so a file at a URL is copied whole before it is read. Of several processes that
want it one fetches it. When the folder grows beyond its limit, the files used longest ago are removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import warnings
from contextlib import suppress
from pathlib import PurePosixPath

from deepavfusion.data.locations import is_url, open_bytes, write_whole

FOLDER, LIMIT = "DEEPAVFUSION_CACHE", "DEEPAVFUSION_CACHE_GB"
"""Environment variables: the folder (`~/.cache/deepavfusion`), and how large it may become (50 GB)."""
DEFAULT_GB = 50.0
_FETCHED: set[str] = set()
"""Files that this process has fetched."""


def local_copy(place: str) -> str:
    """A local path to a file: itself if it is local, else its copy, which is made if there is none.

    Raises OSError if it cannot be fetched, ValueError for a limit that is no number.
    """
    if not is_url(place):
        return place
    folder = os.environ.get(FOLDER) or os.path.expanduser("~/.cache/deepavfusion")
    digest = hashlib.blake2b(place.encode(), digest_size=16).hexdigest()
    path = os.path.join(folder, digest + PurePosixPath(place).suffix)
    if not _use(path):
        limit = limit_bytes()
        os.makedirs(folder, exist_ok=True)
        with open(f"{path}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _use(path):  # else another process has fetched it meanwhile
                _count(place, limit)
                with open_bytes(place) as source, write_whole(path, "wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
                _make_room(folder, path, limit)
            with suppress(OSError):
                os.remove(f"{path}.lock")
    return path


def limit_bytes() -> float:
    """How large the folder may become. Raises ValueError if the variable is no positive number."""
    text = os.environ.get(LIMIT) or str(DEFAULT_GB)
    try:
        limit = float(text) * 1e9
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise ValueError(f"{LIMIT} {text!r} must be a positive number of gigabytes")
    return limit


def _count(place: str, limit: float) -> None:
    """Warn once of a folder that is too small for the order in which files are wanted."""
    if place in _FETCHED:
        warnings.warn(  # without the file's name, so that it is said once
            f"remote files are fetched again that were removed to keep their copies within {limit / 1e9:g} GB; raise "
            f"{LIMIT}, or train on shards",
            stacklevel=2,
        )
    _FETCHED.add(place)


def _use(path: str) -> bool:
    """Whether the copy is there; it now is the one used last."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _make_room(folder: str, newest: str, limit: float) -> None:
    entries = []
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):  # another process makes room too
            entries.append((entry.stat().st_mtime_ns, entry.path, entry.stat().st_size))
    total = sum(size for _, _, size in entries)
    for _, path, size in sorted(entries):
        if total <= limit:
            return
        if path != newest:
            with suppress(FileNotFoundError):
                os.remove(path)
            total -= size
