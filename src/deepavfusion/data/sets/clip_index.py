"""Finds the clips of a list: one walk over their folder, then lookups by name, for any layout.

`class/name.mp4`, `na/name.mp4`, `split/class/name.mp4` and flat folders are treated alike, because a file is found by
its name alone: with or without the end time, as in `name_000001_000011.mp4`, else in any other spelling of the name
(`clip_names`).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import PurePath

from deepavfusion.data.clip_names import clip_name, possible_names, stem_of
from deepavfusion.data.file_kinds import Kind, namesakes, walk
from deepavfusion.data.hub import is_hub, list_hub
from deepavfusion.data.sets.vocabularies import class_folder


class ClipIndex:
    """The files below a folder, or the rows of a data set of the Hub, by name.

    Args:
        folder: is searched recursively; hidden files and folders are not. Of the Hub, ids are the names.
        kind: of the files to index; videos without the sounds that belong to one (`file_kinds`).

    Raises ValueError if there is no such folder or data set.
    """

    def __init__(self, folder: str, kind: Kind = "video") -> None:
        self.paths: list[str] = []
        """Every indexed file, absolute, in order."""
        self._named: dict[str, list[str]] = defaultdict(list)
        self._alike: dict[str, list[str]] = defaultdict(list)
        for path, stem in _rows(folder) if is_hub(folder) else _files(folder, kind):
            self.paths.append(path)
            # Under the whole name too: a YouTube id may itself end in an underscore and six digits.
            known = {stem, clip_name(stem)}
            for key in known:
                self._named[key].append(path)
            for key in possible_names(stem):
                if key not in known:
                    self._alike[key].append(path)

    def find(self, names: Iterable[str], label: str | None = None) -> list[str]:
        """The files that have the first of the names that any file has, at best one.

        Of several, those in the folder of their class come first.

        Args:
            names: in the spelling of `clip_names`.
            label: class name of the clip.
        """
        found = next((table[name] for name in names for table in (self._named, self._alike) if name in table), [])
        if len(found) <= 1 or label is None:
            return list(found)
        homes = {label, class_folder(label)}
        return sorted(found, key=lambda path: (PurePath(path).parent.name not in homes, path))


def _files(folder: str, kind: Kind) -> Iterator[tuple[str, str]]:
    """Paths, absolute and in order, and names."""
    if not os.path.isdir(folder):
        raise ValueError(f"{folder}: no such folder")
    own = {"video": "clips", "sound": "sounds", "photo": "photos"}[kind]
    for place, names in walk(os.path.abspath(folder)):
        groups = namesakes(names).values()
        for name in sorted(name for group in groups for name in getattr(group, own)):
            yield os.path.join(place, name), stem_of(name)


def _rows(source: str) -> Iterator[tuple[str, str]]:
    for clip in list_hub(source):
        yield clip.path, stem_of(clip.id)
