"""Which files are predicted, and the names of their result folders.

A folder is searched recursively. In it a photo and a sound of the same name are one recording, and a sound or photo
beside a video of the same name belongs to that video and is left out (`data.file_kinds` has the rule). Files that are
named individually are taken as they are.

The names of results are made from the files' names, with all but a list of harmless characters replaced: whatever a
file is called, its results are in a folder directly below the output folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from deepavfusion.data.file_kinds import namesakes, walk
from deepavfusion.data.locations import one_line

MAX_NAME = 80
"""Characters of a result folder's name."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """One recording of a prediction."""

    path: str
    """What is looked at, and heard unless `sound` is."""
    sound: str | None
    """What is heard, where that is a file of its own."""
    folder: str
    """Name of the folder of its results."""

    @property
    def given(self) -> str | tuple[str, str]:
        """As the predictor takes it."""
        return self.path if self.sound is None else (self.path, self.sound)


def list_items(files: Sequence[str], sound: str | None = None) -> list[Item]:
    """The recordings of files and folders, each once, in their order.

    Args:
        files: files and folders.
        sound: is heard with every one of them.

    Raises:
        ValueError: a folder without anything to look at.
    """
    found: dict[str, tuple[str | None, str]] = {}
    for given in files:
        if os.path.isdir(given):
            inside = _scan(given)
            if not inside:
                raise ValueError(f"{given}: no videos, sounds or photos in this folder")
            for path, beside in inside:
                found.setdefault(path, (beside, os.path.relpath(path, given)))
        else:
            found.setdefault(given, (None, os.path.basename(given.rstrip("/")) or given))
    names = {path: safe_name(os.path.splitext(relative)[0]) for path, (_, relative) in found.items()}
    count = Counter(name.lower() for name in names.values())  # some file systems do not tell cases apart
    return [
        Item(path, sound or beside, names[path] if count[names[path].lower()] == 1 else _apart(names[path], path))
        for path, (beside, _) in found.items()
    ]


def belonging(files: Sequence[str]) -> list[str]:
    """The sounds and photos of the folders among `files` that belong to a video, and so are left out; sorted."""
    return sorted(
        os.path.join(place, name)
        for folder in filter(os.path.isdir, files)
        for place, names in walk(folder)
        for group in namesakes(names).values()
        for name in group.belonging
    )


def safe_name(name: str) -> str:
    """A name for a folder: letters, digits and `-_.` of any script, others replaced by `_`, no dot in front.

    Parts of a relative path are joined by `__`. A name that had to be cut, or of which nothing is left, gets a hash.
    """
    parts = [part for part in unicodedata.normalize("NFC", name).split("/") if part not in ("", ".", "..")]
    text = "__".join("".join(c if c.isalnum() or c in "-_." else "_" for c in part) for part in parts)
    text = text.strip(". ")
    if not text.strip("_") or len(text.encode()) > MAX_NAME or _RESERVED.match(text):
        text = _apart(text.encode()[: MAX_NAME - 10].decode(errors="ignore") or "file", name)
    return text


def shown(name: str) -> str:
    """A name for one line of a terminal: no line breaks, no control characters, nothing that is not UTF-8."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in one_line(name))


def _apart(name: str, path: str) -> str:
    digest = hashlib.blake2b(os.fsencode(path), digest_size=4).hexdigest()
    return f"{name}-{digest}"


def _scan(folder: str) -> list[tuple[str, str | None]]:
    """What is to be looked at below a folder, and a sound that belongs to it; sorted."""
    found: list[tuple[str, str | None]] = []
    for place, names in walk(folder):
        for group in namesakes(names).values():
            alone: list[tuple[str, str | None]] = [(name, None) for name in group.videos]
            if not group.videos:
                pair, photos, sounds = group.photos and group.sounds, group.photos, group.sounds
                alone += [(name, None) for name in (photos[1:] if pair else photos)]
                alone += [(name, None) for name in (sounds[1:] if pair else sounds)]
                if pair:
                    alone.append((photos[0], os.path.join(place, sounds[0])))
            found += [(os.path.join(place, name), sound) for name, sound in alone]
    return sorted(found)
