"""Where the clips of a list lie: one walk over their folder, then lookups by name in any layout.

`class/name.mp4`, `na/name.mp4`, `split/class/name.mp4` and flat folders are the same here, because a file is found by
its name alone, with or without the end time that `name_000001_000011.mp4` carries.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePath

from deepavfusion.data.clips import CONTAINER_SUFFIXES
from deepavfusion.data.labels import clip_name
from deepavfusion.data.sets.vocabularies import class_folder

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
SOUND_SUFFIXES = (".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav")


class ClipIndex:
    """The files below a folder, by name.

    Args:
        folder: is searched recursively; hidden files and folders are not.
        suffixes: of the files to index, lower case.

    Raises ValueError if there is no such folder.
    """

    def __init__(self, folder: str, suffixes: Iterable[str] = CONTAINER_SUFFIXES) -> None:
        if not os.path.isdir(folder):
            raise ValueError(f"{folder}: no such folder")
        self.folder = os.path.abspath(folder)
        self.paths: list[str] = []
        """Every indexed file, absolute, in order."""
        self._named: dict[str, list[str]] = defaultdict(list)
        wanted = frozenset(suffixes)
        visited: set[tuple[int, int]] = set()
        for place, folders, names in os.walk(self.folder, followlinks=True):
            status = os.stat(place)
            if (status.st_dev, status.st_ino) in visited:  # a link that leads back up
                folders.clear()
                continue
            visited.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in wanted and not name.startswith("."):
                    path = os.path.join(place, name)
                    self.paths.append(path)
                    # Under the whole name too: a YouTube id may itself end in an underscore and six digits.
                    for key in {stem, clip_name(stem)}:
                        self._named[key].append(path)

    def find(self, names: Iterable[str], label: str | None = None) -> list[str]:
        """The files that have the first of the names that any file has, at best one.

        Of several, those in the folder of their class come first.

        Args:
            names: without suffix.
            label: class name of the clip.
        """
        for name in names:
            if name in self._named:
                found = self._named[name]
                if len(found) == 1 or label is None:
                    return list(found)
                homes = {label, class_folder(label)}
                return sorted(found, key=lambda path: (PurePath(path).parent.name not in homes, path))
        return []
