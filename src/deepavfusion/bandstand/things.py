"""The things of a folder of stamps: cut-out pictures, sounds, and spoken names, laid out as tuxpaint-stamps has them.

`NAME.png` is a picture whose alpha channel is its outline, `NAME.ogg` or `.wav` beside it what the thing sounds like
(an *effect*), `NAME_desc_LL.ogg` its *name* spoken in language LL (English without `_LL`). `NAME.txt` holds the name in
English and, line by line, in other languages (`fr.utf8=...`). `NAME.dat` may say `nomirror`.

Files belong to one thing if a picture or a spoken name has the same bytes, or if the English name is the same. A sound
that several things share tells none of them: it is left out. All that is left out is counted.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import soundfile
from PIL import Image

PACKAGE = "tuxpaint-stamps-default"
INSTALL = f"install the Debian package with `apt-get install {PACKAGE}` and give --stamps /usr/share/tuxpaint/stamps"
SIGNS = ("symbols/", "town/roadsigns/", "town/flags/", "seasonal/hanukkah/dreydl")
"""Beginnings of paths of letters, digits, coins and signs: they mean something, but do not sound."""
SMALLEST_PICTURE = 40
"""Pixels of the longer side; a smaller one would be enlarged to a blur."""
LEAST_OPAQUE = 0.5
"""Share of the visible pixels that must be more than half opaque; glass, smoke and fireworks have no outline."""
FULLEST = 0.97
"""A picture that fills more of its box is a rectangle, not a cut-out."""

_NAME = re.compile(r"(.+)_desc(?:_([a-z]{2,3}(?:_[A-Z]{2})?))?\.(?:ogg|wav)")
_EFFECT = re.compile(r"(.+)\.(?:ogg|wav)")


@dataclass(frozen=True)
class StampPicture:
    """A cut-out picture."""

    path: str
    """Relative to the folder."""
    mirrors: bool = True
    """Whether left and right may be exchanged: not where it shows writing."""


@dataclass(frozen=True)
class Recording:
    """A sound of a thing."""

    path: str
    """Relative to the folder."""
    language: str | None = None
    """Language of a spoken name; None for an effect."""

    @property
    def kind(self) -> str:
        return "effect" if self.language is None else "name"


@dataclass(frozen=True)
class Thing:
    """What can be seen and heard of one thing."""

    name: str
    """The class."""
    theme: str
    """The folder it lies in: `mammals`, `music`, `household`, ..."""
    pictures: tuple[StampPicture, ...]
    effects: tuple[Recording, ...] = ()
    names: Mapping[str, tuple[Recording, ...]] = field(default_factory=dict)
    """By language."""
    words: frozenset[tuple[str, str]] = frozenset()
    """Languages and what the thing is called in them."""


@dataclass(frozen=True)
class Things:
    """What a folder holds."""

    things: tuple[Thing, ...]
    left_out: Mapping[str, int]
    """How many files are not used, by reason."""
    digest: str
    """Names the files that are used, by their contents."""


@dataclass
class _Files:
    """Pictures that are kept, and the sounds beside them, by path without ending."""

    pictures: dict[str, StampPicture] = field(default_factory=dict)
    effects: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    names: dict[str, list[Recording]] = field(default_factory=lambda: defaultdict(list))
    left_out: Counter[str] = field(default_factory=Counter)


def read_things(folder: str) -> Things:
    """Read which things a folder holds.

    Args:
        folder: as the package lays it out.

    Raises:
        ValueError: there is no such folder, or no thing with a sound in it.
    """
    if not os.path.isdir(folder):
        raise ValueError(f"stamps {folder}: there is no such folder; {INSTALL}")
    files = _find(folder)
    if not any(files.effects.values()) and not any(files.names.values()):
        raise ValueError(
            f"stamps {folder}: no cut-out picture NAME.png with NAME.ogg or NAME_desc_LL.ogg beside it; {INSTALL}"
        )
    contents = _contents(folder, files)
    words = {stem: _words(os.path.join(folder, stem + ".txt")) for stem in files.pictures}
    groups = _groups(files, contents, words)
    shared = _shared_effects(folder, files, groups)
    files.left_out["sounds that several things share"] += len(shared)
    titles = _titles([stems[0] for stems in groups])
    things = []
    for stems in groups:
        effects = _once([Recording(path) for s in stems for path in files.effects[s] if path not in shared], contents)
        names = _once([recording for s in stems for recording in files.names[s]], contents)
        if effects or names:
            by_language: dict[str, list[Recording]] = defaultdict(list)
            for recording in names:
                assert recording.language is not None
                by_language[recording.language].append(recording)
            things.append(
                Thing(
                    titles[stems[0]],
                    theme_of(stems[0]),
                    tuple(_once_each(files.pictures, stems, contents)),
                    tuple(effects),
                    {language: tuple(by_language[language]) for language in sorted(by_language)},
                    frozenset().union(*(words[stem] for stem in stems)),
                )
            )
        else:
            files.left_out["pictures without a sound"] += len(stems)
    things.sort(key=lambda thing: thing.name)
    return Things(tuple(things), dict(sorted(files.left_out.items())), _digest(things, contents))


def theme_of(stem: str) -> str:
    """Theme of a path: its first folder; of animals and hobbies the second, which tells mammals from birds."""
    parts = stem.split("/")[:-1] or ["things"]
    return parts[1] if parts[0] in ("animals", "hobbies") and len(parts) > 1 else parts[0]


def _find(folder: str) -> _Files:
    """All files of a folder, those that cannot be used counted."""
    files, sounds = _Files(), []
    for place, folders, names in os.walk(folder):
        folders.sort()
        inside = os.path.relpath(place, folder).replace(os.sep, "/")
        for name in sorted(names):
            path = name if inside == "." else f"{inside}/{name}"
            stem, ending = os.path.splitext(path)
            if ending not in (".png", ".svg", ".ogg", ".wav"):
                continue
            if path.startswith(SIGNS):
                files.left_out["pictures and sounds of letters, digits and signs"] += 1
            elif ending == ".svg":
                files.left_out["pictures in SVG"] += 1
            elif ending != ".png":
                sounds.append(path)
            elif name.endswith("_mirror.png") and name.replace("_mirror.png", ".png") in names:
                files.left_out["pictures mirrored by hand"] += 1
            elif why := _unfit(os.path.join(place, name)):
                files.left_out[why] += 1
            else:
                files.pictures[stem] = StampPicture(path, _mirrors(os.path.join(folder, stem + ".dat")))
    for path in sounds:
        if match := _NAME.fullmatch(path):
            if match[1] in files.pictures:
                files.names[match[1]].append(Recording(path, match[2] or "en"))
                continue
        elif (match := _EFFECT.fullmatch(path)) and match[1] in files.pictures:
            files.effects[match[1]].append(path)
            continue
        files.left_out["sounds without one of the pictures used"] += 1
    return files


def _unfit(path: str) -> str | None:
    """Why a picture is no cut-out of a thing; None if it is."""
    with Image.open(path) as picture:
        if "A" not in picture.mode and "transparency" not in picture.info:
            return "pictures without an outline"
        alpha = np.asarray(picture.convert("RGBA").getchannel("A"))
    solid = alpha > 127
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    if not len(rows) or solid.sum() < LEAST_OPAQUE * np.count_nonzero(alpha > 20):
        return "pictures that are mostly translucent"
    height, width = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
    if solid.sum() > FULLEST * height * width:
        return "pictures without an outline"
    return "pictures that are too small" if max(height, width) < SMALLEST_PICTURE else None


def _mirrors(path: str) -> bool:
    if not os.path.exists(path):
        return True
    with open(path, encoding="utf-8", errors="replace") as file:
        return "nomirror" not in file.read().split()


def _words(path: str) -> frozenset[tuple[str, str]]:
    """Languages and names of a thing: the English name without article stands in the first line."""
    if not os.path.exists(path):
        return frozenset()
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file]
    found = [("en", re.sub(r"^(?:a|an|the|some) ", "", lines[0].lower()))] if lines else []
    for line in lines[1:]:
        if match := re.match(r"(\w+)\.utf8=(.+)", line):
            found.append((match[1], match[2].lower()))
    return frozenset((language, word.strip(" .!")) for language, word in found if word.strip(" .!"))


def _contents(folder: str, files: _Files) -> dict[str, bytes]:
    """Digest of every file that is used."""
    found = {}
    paths = [picture.path for picture in files.pictures.values()]
    paths += [path for stem in files.effects for path in files.effects[stem]]
    paths += [recording.path for stem in files.names for recording in files.names[stem]]
    for path in paths:
        with open(os.path.join(folder, path), "rb") as file:
            found[path] = hashlib.sha1(file.read()).digest()
    return found


def _groups(
    files: _Files, contents: Mapping[str, bytes], words: Mapping[str, Iterable[tuple[str, str]]]
) -> list[list[str]]:
    """Pictures that show the same thing, by path without ending; groups and members in order of path."""
    marks: dict[object, str] = {}
    leader = {stem: stem for stem in files.pictures}

    def first(stem: str) -> str:
        while leader[stem] != stem:
            stem = leader[stem]
        return stem

    for stem, picture in sorted(files.pictures.items()):
        own: list[object] = [contents[picture.path]]
        own += [contents[recording.path] for recording in files.names[stem]]
        own += [word for word in words[stem] if word[0] == "en"]
        for mark in own:
            one, other = sorted((first(marks.setdefault(mark, stem)), first(stem)))
            leader[other] = one
    groups: dict[str, list[str]] = defaultdict(list)
    for stem in sorted(files.pictures):
        groups[first(stem)].append(stem)
    return list(groups.values())


def _shared_effects(folder: str, files: _Files, groups: list[list[str]]) -> set[str]:
    """Paths of effects that are sample by sample those of another thing; their files may differ."""
    owners: dict[object, set[int]] = defaultdict(set)
    alike: dict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
    for number, stems in enumerate(groups):
        for path in (path for stem in stems for path in files.effects[stem]):
            info = soundfile.info(os.path.join(folder, path))
            alike[info.frames, info.samplerate].append((path, number))
    samples: dict[str, bytes] = {}
    for same in alike.values():
        for path, number in same if len(same) > 1 else ():
            wave, _ = soundfile.read(os.path.join(folder, path), dtype="float32")
            samples[path] = hashlib.sha1(wave.tobytes()).digest()
            owners[samples[path]].add(number)
    return {path for path, digest in samples.items() if len(owners[digest]) > 1}


def _once(recordings: list[Recording], contents: Mapping[str, bytes]) -> list[Recording]:
    """Recordings without repetitions."""
    seen: dict[tuple[bytes, str | None], Recording] = {}
    for recording in recordings:
        seen.setdefault((contents[recording.path], recording.language), recording)
    return list(seen.values())


def _once_each(
    pictures: Mapping[str, StampPicture], stems: list[str], contents: Mapping[str, bytes]
) -> list[StampPicture]:
    """Pictures of a thing without repetitions."""
    seen: dict[bytes, StampPicture] = {}
    for stem in stems:
        seen.setdefault(contents[pictures[stem].path], pictures[stem])
    return list(seen.values())


def _titles(stems: list[str]) -> dict[str, str]:
    """A name for every thing: that of its first file, with the folder before it where that is needed."""
    times = Counter(stem.rsplit("/", 1)[-1] for stem in stems)
    return {s: "/".join(s.split("/")[-2:]) if times[s.rsplit("/", 1)[-1]] > 1 else s.rsplit("/", 1)[-1] for s in stems}


def _digest(things: list[Thing], contents: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for thing in things:
        digest.update(thing.name.encode())
        for path in [picture.path for picture in thing.pictures] + [
            recording.path for several in (thing.effects, *thing.names.values()) for recording in several
        ]:
            digest.update(contents[path])
    return digest.hexdigest()[:16]
