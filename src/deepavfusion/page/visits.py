"""Visits: open tabs, and the files that belong to them.

A visit is one tab of a browser. Its uploads are in the server's upload folder, its latest results in a folder of their
own with a name that cannot be guessed. When the tab is closed, both are deleted; when it is left open and idle, after a
while; when the server stops, everything is deleted.

The server names an upload by its content, so two visits with the same file share it: it is deleted with the last of
them. An upload that was broken off belongs to no visit; `sweep` finds it by its age. (The page's framework can delete
old files itself, but only those that it has finished writing, and not by visit.)
"""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

MAX_UPLOADS = 6
"""That a visit keeps."""
ORPHAN_SECONDS = 600.0
"""After which an upload that belongs to nobody is deleted."""


@dataclass
class Place:
    """Where the results of one request go."""

    token: str
    """What its address has in place of the visit's name: 128 random bits."""
    folder: Path
    """Everything is in it."""
    name: str
    """Of the folder of results in it, and of the zip file beside: letters, digits and `-_.`."""
    given_up: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits for the results any more."""

    @property
    def results(self) -> Path:
        return self.folder / self.name

    @property
    def archive(self) -> Path:
        return self.folder / f"{self.name}.zip"


@dataclass
class _Visit:
    uploads: list[Path] = field(default_factory=list)
    """The latest last."""
    place: Place | None = None
    is_running: bool = False
    seen: float = field(default_factory=time.monotonic)


class Visits:
    """All visits of a server. Every method may be called from any thread."""

    def __init__(self, root: Path) -> None:
        """`root`: a folder that is the server's own; everything in it is deleted by `close`."""
        self.root = root
        self.uploads = root / "uploads"
        self._results = root / "results"
        self._visits: dict[str, _Visit] = {}
        self._places: dict[str, Place] = {}
        self._lock = threading.RLock()
        for folder in (self.uploads, self._results):
            folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return len(self._visits)

    def claim(self, visit: str, paths: Iterable[str | Path | None]) -> None:
        """Say which uploads a visit has now. It keeps the latest, for one may take a step back; older ones are deleted.

        Args:
            visit: its name.
            paths: files; None and those that do not lie in the folder of uploads are nobody's.
        """
        with self._lock:
            own = self._visit(visit)
            given = list(dict.fromkeys(Path(path) for path in paths if path and self._is_upload(Path(path))))
            known = [path for path in own.uploads if path not in given] + given
            own.uploads = known[-MAX_UPLOADS:]
            self._delete(known[:-MAX_UPLOADS])

    def begin(self, visit: str, name: str) -> Place:
        """A new place for results; those of the visit's request before are deleted, and it is given up."""
        with self._lock:
            own = self._visit(visit)
            self._forget(own)
            token = secrets.token_urlsafe(16)
            own.place = self._places[token] = Place(token, self._results / token, name)
            own.is_running = True
            own.place.results.mkdir(parents=True)
            return own.place

    def finish(self, visit: str, place: Place) -> None:
        """No more is written to a place. If its visit is over, or has begun something new, its files are deleted."""
        with self._lock:
            own = self._visits.get(visit)
            if own is not None and own.place is place:
                own.is_running, own.seen = False, time.monotonic()
            else:
                shutil.rmtree(place.folder, ignore_errors=True)

    def stop(self, visit: str) -> None:
        """Give the running request up; what it has found so far stays."""
        with self._lock:
            own = self._visits.get(visit)
            if own is not None and own.place is not None:
                own.place.given_up.set()

    def end(self, visit: str) -> None:
        """The visit is over: its request is given up and all its files are deleted."""
        with self._lock:
            own = self._visits.pop(visit, None)
            if own is not None:
                self._forget(own)
                self._delete(own.uploads)

    def find(self, token: str, name: str) -> Path | None:
        """The file of a result that an address means, if there is one.

        Args:
            token: of the place.
            name: of a file of its results, or of its zip file.
        """
        with self._lock:
            place = self._places.get(token)
        if place is None or "/" in name or "\\" in name or "\0" in name or name.startswith("."):
            return None
        path = place.archive if name == place.archive.name else place.results / name
        return path if path.is_file() and not path.is_symlink() else None

    def sweep(self, idle_seconds: float) -> None:
        """End visits without a request for so long, and delete old uploads that nobody has."""
        with self._lock:
            now = time.monotonic()
            for name, own in list(self._visits.items()):
                if not own.is_running and now - own.seen > idle_seconds:
                    self.end(name)
            taken = {path for own in self._visits.values() for path in own.uploads}
            for path in self.uploads.rglob("*"):
                try:
                    old = time.time() - path.lstat().st_mtime > min(idle_seconds, ORPHAN_SECONDS)
                    if path.is_dir() and not path.is_symlink():
                        if old:
                            path.rmdir()  # fails unless it is empty
                    elif old and path not in taken:
                        path.unlink()
                except OSError:
                    continue

    def close(self) -> None:
        """Give everything up and delete all files."""
        with self._lock:
            for name in list(self._visits):
                self.end(name)
            shutil.rmtree(self.root, ignore_errors=True)

    def _visit(self, name: str) -> _Visit:
        own = self._visits.setdefault(name, _Visit())
        own.seen = time.monotonic()
        return own

    def _forget(self, own: _Visit) -> None:
        if own.place is not None:
            own.place.given_up.set()
            self._places.pop(own.place.token, None)
            shutil.rmtree(own.place.folder, ignore_errors=True)
            own.place, own.is_running = None, False

    def _delete(self, paths: Iterable[Path]) -> None:
        for path in paths:
            if not any(path in own.uploads for own in self._visits.values()):
                path.unlink(missing_ok=True)
                try:
                    path.parent.rmdir()
                except OSError:  # another upload lies there
                    continue

    def _is_upload(self, path: Path) -> bool:
        return self.uploads in path.parents and ".." not in path.parts
