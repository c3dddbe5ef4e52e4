"""Which files of a folder are videos, sounds and photos, and which of them are clips: one rule for all commands.

A sound or photo beside a video of the same name (`a.m4a`, `a.wav`, `a.jpg` beside `a.mp4`) belongs to that video and is
no recording of its own. Other files (subtitles, descriptions) are never clips.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from deepavfusion.data.locations import one_line

Kind = Literal["video", "sound", "photo"]

# fmt: off
VIDEO_SUFFIXES = (
    ".3g2", ".3gp", ".asf", ".avi", ".f4v", ".flv", ".m2t", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg",
    ".mpg", ".mts", ".mxf", ".nut", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv",
)
SOUND_CONTAINER_SUFFIXES = (".m4a", ".m4b", ".mka", ".weba")
"""Sound in a container of videos. Alone, it is a clip without picture; the other sounds are no clips of a data set."""
SOUND_SUFFIXES = (
    *SOUND_CONTAINER_SUFFIXES, ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".au", ".caf", ".flac", ".mp2", ".mp3",
    ".oga", ".ogg", ".opus", ".w64", ".wav", ".wma",
)
PHOTO_SUFFIXES = (".avif", ".bmp", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
CONTAINER_SUFFIXES = tuple(sorted((*VIDEO_SUFFIXES, *SOUND_CONTAINER_SUFFIXES)))
"""Files that can be clips of a data set."""
# fmt: on

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(VIDEO_SUFFIXES, "video"),
    **dict.fromkeys(SOUND_SUFFIXES, "sound"),
    **dict.fromkeys(PHOTO_SUFFIXES, "photo"),
}


def kind_of(name: str) -> Kind | None:
    """What a file is by its suffix, in upper or lower case; None if it is nothing to be seen or heard."""
    return _KINDS.get(os.path.splitext(name)[1].lower())


@dataclass
class Namesakes:
    """The files of one folder that differ by their suffix alone, each kind in order."""

    videos: list[str] = field(default_factory=list)
    sounds: list[str] = field(default_factory=list)
    photos: list[str] = field(default_factory=list)

    @property
    def belonging(self) -> list[str]:
        """Sounds and photos that belong to a video."""
        return [*self.sounds, *self.photos] if self.videos else []

    @property
    def clips(self) -> list[str]:
        """Those that are clips of a data set."""
        return self.videos or [name for name in self.sounds if name.lower().endswith(SOUND_CONTAINER_SUFFIXES)]


def namesakes(names: Iterable[str]) -> dict[str, Namesakes]:
    """The videos, sounds and photos among the files of one folder, by name without suffix."""
    found: dict[str, Namesakes] = {}
    for name in sorted(names):
        kind = kind_of(name)
        if kind is not None:
            own = found.setdefault(os.path.splitext(name)[0], Namesakes())
            {"video": own.videos, "sound": own.sounds, "photo": own.photos}[kind].append(name)
    return found


def walk(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Every folder below one, itself included, with the names of its files; both in order.

    Links to folders are followed, each folder being entered once. Hidden files and folders are left out (`._a.mp4` is
    what macOS leaves on foreign disks), a folder that may not be read is left out with a warning. Whether a file is
    one or a pipe, a device or a link to nowhere is not looked at: reading it says so.
    """

    def unreadable(error: OSError) -> None:
        warnings.warn(f"{one_line(str(error.filename))}: left out, {error.strerror}", stacklevel=2)

    visited: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=unreadable):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in visited:  # a link that leads back up
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield place, sorted(name for name in names if not name.startswith("."))
