"""The third cast: things that sound like themselves (effects) or are named in a language, among silent things.

What a thing is tells whether the sound is its own: nothing moves, and place, size, light and background say nothing.
Silent things could be heard as well: they are drawn from those that have an effect where an effect is heard, and from
those that have a name where a name is. No two things of a clip are called alike in any language.

Held out of training: the names in some languages, and for every thing the backgrounds of one group of five, so that
there are pairs of a thing and a background that training never shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deepavfusion.bandstand.backdrop import TEXTURES, Backdrop, draw_backdrop
from deepavfusion.bandstand.photos import draw_photo, find_photos
from deepavfusion.bandstand.scenes import draw_camera, draw_places, draw_room, heard_as
from deepavfusion.bandstand.splits import Plan, Split
from deepavfusion.bandstand.stage import Performer, Scene
from deepavfusion.bandstand.stamps import draw_stamp
from deepavfusion.bandstand.things import PACKAGE, Recording, Thing, read_things
from deepavfusion.bandstand.world import stream

EFFECT, NAME, UNHEARD = "effect", "name", "unheard_name"
"""Kinds of sounds; the last are names in the held-out languages."""
NUM_GROUPS = len(TEXTURES)
"""Groups of backgrounds: each is a drawn texture, and every fifth photograph."""
LEAST_THINGS = 10
"""So many things must have a kind of sound: of ten, at least eight may stand in front of any background."""
SIZES = {1: (54.0, 100.0), 2: (48.0, 80.0), 3: (44.0, 66.0), 4: (40.0, 58.0)}
"""Smallest and largest thing in stage units by how many are seen."""
PHOTO_SHARE = 0.5
"""Share of clips with a photograph as background, where there are any."""
LISTENING = ("own", "silence", "noise", "foreign")


@dataclass(frozen=True)
class _Part:
    """A part in a scene, before it is drawn which thing plays it."""

    kind: str
    """Of its sound, or of the sound that a silent thing could make."""
    audible: bool = True
    visible: bool = True


class Stamps:
    """The cast of cut-out pictures with their effects and names, read from a local folder."""

    name = "stamps"

    def __init__(self, folder: str, backgrounds: str | None, held_out_languages: tuple[str, ...]) -> None:
        """Read which things there are.

        Args:
            folder: of the package, or laid out like it.
            backgrounds: folder of photographs; None: all backgrounds are drawn.
            held_out_languages: codes of the languages that only splits of their own have.

        Raises:
            ValueError: a folder is missing or not what it should be, too few things, or an unknown language.
        """
        self._folder, self._found = folder, read_things(folder)
        self._photos: list[str] = []
        self._photos_digest: str | None = None
        if backgrounds is not None:
            self._photos, self._photos_digest = find_photos(backgrounds)
        self._held_out = held_out_languages
        self.things = self._found.things
        self.classes = tuple(thing.name for thing in self.things)
        spoken = sorted({language for thing in self.things for language in thing.names})
        for language in held_out_languages:
            if language not in spoken:
                raise ValueError(f"held_out_languages: no names in {language!r}; there are {', '.join(spoken)}")
        self._recordings = {
            EFFECT: [thing.effects for thing in self.things],
            NAME: [self._names(thing, [x for x in spoken if x not in held_out_languages]) for thing in self.things],
            UNHEARD: [self._names(thing, held_out_languages) for thing in self.things],
        }
        self._able = {kind: np.flatnonzero([len(r) > 0 for r in every]) for kind, every in self._recordings.items()}
        """Numbers of the things that have a kind of sound."""
        for kind, what in ((EFFECT, "an effect"), (NAME, "a name"), (UNHEARD, "a name in a held-out language")):
            if len(self._able[kind]) < LEAST_THINGS:
                raise ValueError(
                    f"stamps {folder}: {len(self._able[kind])} things with {what}; at least {LEAST_THINGS} are needed"
                )
        self.splits = _splits({kind: len(able) for kind, able in self._able.items()})

    @property
    def settings(self) -> Mapping[str, Any]:
        """What two runs into one folder must agree on."""
        return {
            "stamps": self._found.digest,
            "backgrounds": self._photos_digest,
            "held_out_languages": list(self._held_out),
        }

    @property
    def origin(self) -> str:
        """Where pictures and sounds come from, what is used of them and what is left out, for the README."""
        kept = self.things
        names = Counter(name for thing in kept for name, several in thing.names.items() for _ in several)
        lines = [
            f"Pictures and sounds are those of the Debian package `{PACKAGE}`, or of a folder laid out like it. The",
            "package is under the GNU General Public License, version 2 (`/usr/share/doc/" + PACKAGE + "/copyright`);",
            "so are clips made of it, if they are passed on. Photographs behind the scenes keep their own licence.",
            "",
            "| used | |",
            "|---|--:|",
            f"| things | {len(kept)} |",
            f"| their pictures | {sum(len(thing.pictures) for thing in kept)} |",
            f"| things with an effect | {len(self._able[EFFECT])} |",
            f"| effects | {sum(len(thing.effects) for thing in kept)} |",
            *(
                f"| names in `{language}`{' (held out)' if language in self._held_out else ''} | {count} |"
                for language, count in names.most_common()
            ),
            f"| photographs as backgrounds | {len(self._photos)} |",
            "",
            "| left out | files |",
            "|---|--:|",
            *(f"| {reason} | {count} |" for reason, count in self._found.left_out.items()),
        ]
        return "\n".join(lines)

    def plan(self, seed: int, split: str, index: int, seconds: float) -> Plan:
        """Decide what happens in clip `index` of a split; arguments as in `splits.Cast`."""
        group, variant = divmod(index, self.splits[split].block)
        if split in SOLOS:
            kind, held_out = SOLOS[split]
            order = stream(seed, f"stamps/{split}", group, "classes").permutation(len(self._able[kind]))
            number = int(self._able[kind][order[variant]])
            return self._solo(stream(seed, f"stamps/{split}", index, "scene"), kind, number, held_out, seconds)
        if split == "listening":
            rng = stream(seed, f"stamps/{split}", index // len(LISTENING), "scene")
            return self._listening(rng, (EFFECT, NAME)[variant // len(LISTENING)], LISTENING[variant % 4], seconds)
        rng = stream(seed, f"stamps/{split}", index, "scene")
        if split == "pretrain":
            return self._ensemble(rng, seconds)
        if split == "duets":
            kinds, name = DUETS[variant]
            return Plan(self._scene(rng, [_Part(kind) for kind in kinds], seconds), name)
        if split.startswith("segmentation"):
            return self._segmentation(rng, variant, seconds)
        kind = UNHEARD if split == "localization_languages" else (EFFECT, NAME)[variant]
        return self._localization(rng, kind, seconds)

    def _ensemble(self, rng: np.random.Generator, seconds: float) -> Plan:
        count = int(rng.choice([1, 2, 3, 4], p=[0.30, 0.35, 0.20, 0.15]))
        sounding = min(count, int(rng.choice([0, 1, 2], p=[0.05, 0.65, 0.30])))
        kinds = [_either(rng) for _ in range(max(sounding, 1))]
        parts = [_Part(kind) for kind in kinds[:sounding]]
        parts += _silent(rng, kinds, count - sounding)
        if rng.random() < 0.15:
            parts.append(_Part(_either(rng), visible=False))
        return Plan(self._scene(rng, parts, seconds), "ensemble")

    def _solo(self, rng: np.random.Generator, kind: str, number: int, held_out: bool, seconds: float) -> Plan:
        """One thing; `held_out`: with a background of the group that training does not pair it with."""
        background = number % NUM_GROUPS if held_out else (number + 1 + int(rng.integers(NUM_GROUPS - 1))) % NUM_GROUPS
        recording = self._recording(rng, kind, number)
        scene = self._compose(rng, [(number, recording, _Part(kind))], background, seconds)
        thing = self.things[number]
        language = {} if recording.language is None else {"language": recording.language}
        return Plan(scene, f"solo_{recording.kind}", thing.name, facts={"theme": thing.theme, **language})

    def _localization(self, rng: np.random.Generator, kind: str, seconds: float) -> Plan:
        what = str(rng.choice(["one", "one_and_off_screen", "off_screen", "silent"], p=[0.7, 0.1, 0.1, 0.1]))
        count = int(rng.integers(2, 5))
        parts = [_Part(kind)] if what.startswith("one") else []
        parts += _silent(rng, [kind], count - len(parts))
        if what.endswith("off_screen"):
            parts.append(_Part(kind, visible=False))
        return Plan(self._scene(rng, parts, seconds), f"{what}_{'effect' if kind == EFFECT else 'name'}")

    def _segmentation(self, rng: np.random.Generator, variant: int, seconds: float) -> Plan:
        kinds, name = SEGMENTATION[variant]
        count = int(rng.integers(2, 5))
        parts = [_Part(kind) for kind in kinds]
        parts += _silent(rng, kinds or (EFFECT, NAME), count - len(parts))
        if name == "off_screen":
            parts.append(_Part(_either(rng), visible=False))
        return Plan(self._scene(rng, parts, seconds), name)

    def _listening(self, rng: np.random.Generator, kind: str, sound: str, seconds: float) -> Plan:
        parts = [_Part(kind), *_silent(rng, [kind], int(rng.integers(0, 3))), _Part(kind, visible=False)]
        scene = heard_as(self._scene(rng, parts, seconds), sound)
        return Plan(scene, f"listening_{sound}", facts={"sound": sound, "kind": kind})

    def _scene(self, rng: np.random.Generator, parts: list[_Part], seconds: float) -> Scene:
        """Parts, those off screen last, played by different things that may stand in front of one background."""
        background = int(rng.integers(NUM_GROUPS))
        played: list[tuple[int, Recording | None, _Part]] = []
        for part in parts:
            able = self._able[part.kind]
            if part.visible:
                able = able[able % NUM_GROUPS != background]
            number = self._other(rng, able, [number for number, _, _ in played])
            played.append((number, self._recording(rng, part.kind, number) if part.audible else None, part))
        return self._compose(rng, played, background, seconds)

    def _compose(
        self,
        rng: np.random.Generator,
        played: list[tuple[int, Recording | None, _Part]],
        background: int,
        seconds: float,
    ) -> Scene:
        """Draw all that is left of a scene: sizes, places, moments, gains, background, camera, room."""
        zoom = float(rng.uniform(0.93, 1.07))
        visible = sum(part.visible for _, _, part in played)
        low, high = SIZES[visible]
        sizes = [float(np.exp(rng.uniform(np.log(low), np.log(high)))) for _ in played]
        places = iter(draw_places(rng, [zoom * size for size in sizes[:visible]]))
        performers = tuple(
            Performer(
                draw_stamp(rng, self._folder, self.things[number], recording, size, seconds),
                next(places) if part.visible else None,
                part.audible,
                round(float(rng.uniform(-6, 3) if part.visible else rng.uniform(-12, 0)), 2),
            )
            for (number, recording, part), size in zip(played, sizes, strict=True)
        )
        return Scene(performers, self._backdrop(rng, background), draw_camera(rng, zoom), draw_room(rng))

    def _backdrop(self, rng: np.random.Generator, group: int) -> Backdrop:
        """A background of a group."""
        photos = self._photos[group::NUM_GROUPS]
        if photos and rng.random() < PHOTO_SHARE:
            return draw_photo(rng, photos[rng.integers(len(photos))])
        return replace(draw_backdrop(rng), texture=TEXTURES[group])

    def _other(self, rng: np.random.Generator, able: np.ndarray[Any, Any], taken: list[int]) -> int:
        """A thing that is none of those taken and is not called like one of them."""
        for number in rng.permutation(able):
            thing = self.things[number]
            if all(number != other and not thing.words & self.things[other].words for other in taken):
                return int(number)
        raise ValueError(f"stamps {self._folder}: too few things with names of their own for a scene")

    def _recording(self, rng: np.random.Generator, kind: str, number: int) -> Recording:
        """An effect of a thing, or its name in one of the languages, all languages alike."""
        recordings = self._recordings[kind][number]
        languages = sorted({recording.language or "" for recording in recordings})
        language = languages[rng.integers(len(languages))]
        spoken = [recording for recording in recordings if (recording.language or "") == language]
        return spoken[rng.integers(len(spoken))]

    @staticmethod
    def _names(thing: Thing, languages: tuple[str, ...] | list[str]) -> tuple[Recording, ...]:
        return tuple(name for language in languages for name in thing.names.get(language, ()))


SOLOS = {
    "effects_train": (EFFECT, False),
    "effects_val": (EFFECT, False),
    "effects_test": (EFFECT, False),
    "effects_backgrounds": (EFFECT, True),
    "names_train": (NAME, False),
    "names_val": (NAME, False),
    "names_test": (NAME, False),
    "names_backgrounds": (NAME, True),
    "names_languages": (UNHEARD, False),
}
"""Kind of sound, and whether the pair of thing and background is a held-out one."""
DUETS: tuple[tuple[tuple[str, ...], str], ...] = (
    ((EFFECT, EFFECT), "two_effects"),
    ((NAME, NAME), "two_names"),
    ((EFFECT, NAME), "effect_and_name"),
)
SEGMENTATION: tuple[tuple[tuple[str, ...], str], ...] = (
    ((EFFECT,), "one_effect"),
    ((NAME,), "one_name"),
    ((EFFECT, EFFECT), "two_effects"),
    ((EFFECT, NAME), "effect_and_name"),
    ((), "none_sounding"),
    ((), "off_screen"),
)
"""What is heard of the things that are seen, in turn."""


def _splits(numbers: Mapping[str, int]) -> dict[str, Split]:
    """The splits, where so many things have a kind of sound."""
    effects, names = numbers[EFFECT], numbers[NAME]
    themes = ("theme",)
    every = (
        Split("pretrain", "Unlabelled scenes of 1 to 4 things for pre-training.", 44),
        Split("effects_train", "Solos of things that sound, all equally often.", 8, effects, labels=themes),
        Split("effects_val", "The same for validation.", 2, effects, labels=themes),
        Split("effects_test", "The same for testing.", 4, effects, labels=themes),
        Split("effects_backgrounds", "The same with backgrounds held out for each thing.", 2, effects, labels=themes),
        Split("names_train", "Solos of things that are named, all equally often.", 12, names, labels=themes),
        Split("names_val", "The same for validation.", 2, names, labels=themes),
        Split("names_test", "The same for testing.", 4, names, labels=themes),
        Split("names_backgrounds", "The same with backgrounds held out for each thing.", 2, names, labels=themes),
        Split("names_languages", "The same in held-out languages.", 3, numbers[UNHEARD], labels=themes),
        Split("localization", "One of 2 to 4 things sounds or is named, in turn; off-screen sound; silence.", 4, 2),
        Split("localization_languages", "The same, named in held-out languages.", 2),
        Split(
            "segmentation_train", "2 to 4 things of which one, two or none are heard, in turn.", 4, len(SEGMENTATION)
        ),
        Split("segmentation_test", "The same for testing.", 2, len(SEGMENTATION)),
        Split("duets", "Two things are heard, with stems: two effects, two names, one of each.", 3, len(DUETS)),
        Split("listening", "The same frames with own sound, silence, noise and foreign sound. In fours.", 2, 8),
    )
    return {split.name: split for split in every}


def _either(rng: np.random.Generator) -> str:
    return (EFFECT, NAME)[rng.integers(2)]


def _silent(rng: np.random.Generator, kinds: list[str] | tuple[str, ...], count: int) -> list[_Part]:
    return [_Part(kinds[rng.integers(len(kinds))], audible=False) for _ in range(count)]
