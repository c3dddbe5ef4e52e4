"""The scenes of the instruments, split by split: who plays, who only mimes, what sounds from off screen.

A look usually has the same timbre (`sources.USUAL_TIMBRE`), except in the classification splits. There all 24 pairs are
equally frequent, so that neither modality alone can tell the class: 1/4 by the image, 1/6 by the audio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from deepavfusion.bandstand.backdrop import draw_backdrop
from deepavfusion.bandstand.score import Note, draw_notes
from deepavfusion.bandstand.sources import (
    CLASSES,
    LARGEST,
    LOOK_NAMES,
    SMALLEST,
    TIMBRE_NAMES,
    draw_instrument,
    draw_timbre,
)
from deepavfusion.bandstand.splits import Plan, Split
from deepavfusion.bandstand.stage import DRIFT, Camera, Performer, Room, Scene
from deepavfusion.bandstand.world import STAGE_UNITS, stream

SIZES = {1: (48.0, LARGEST), 2: (44.0, 78.0), 3: (42.0, 66.0), 4: (SMALLEST, 58.0)}
"""Smallest and largest instrument by how many stand on the stage: the more, the smaller."""
LOOKALIKE_RATIO = 1.2
"""Two instruments of one look differ in size by at least this factor, so that pitch can tell them apart."""
TWIN_RATIOS = (1.4, 1.6)
"""Factor between the sizes of twins: their pitches are 17 to 24 semitones apart."""
MOTION_SIZES = (48.0, 64.0)
"""Smallest and largest of the two instruments of one size in the motion splits."""
TOGETHER_SECONDS = 0.08
"""Strokes nearer to each other than this, a frame at 12.5 a second, count as one."""
MAX_TOGETHER = 1 / 3
"""So many strokes of either score may fall together with one of the other, at most."""
NOISE_RMS = 0.045
"""White noise that replaces the sound in the listening split: about the mean level of the world's clips."""

SPLITS = MappingProxyType(
    {
        split.name: split
        for split in (
            Split("pretrain", "Unlabelled scenes of 1 to 4 instruments for pre-training.", 50),
            Split("train", "Solos for classification, with all 24 classes equally often.", 16, 24),
            Split("val", "Solos for classification, validation.", 4, 24),
            Split("test", "Solos for classification, test.", 6, 24),
            Split("localization", "Scenes with silent look-alikes, off-screen sound and silence.", 5),
            Split("duets", "Two sounding instruments with stems: even clips of two classes, odd of one class.", 4, 2),
            Split("segmentation_train", "Scenes with one, several and no sounding instrument in turn.", 5, 3),
            Split("segmentation_test", "The same for testing.", 3, 3),
            Split(
                "listening", "The same frames with their own sound, silence, noise and a foreign sound. In fours.", 3, 4
            ),
            Split("twins_train", "Two instruments of one look and two sizes: which side plays? In fours.", 2, 4),
            Split("twins_test", "The same for testing.", 2, 4),
            Split("motion_train", "Two of one look and size: only strokes tell which plays. In fours.", 4, 4, "1.1"),
            Split("motion_test", "The same for testing.", 2, 4, "1.1"),
        )
    }
)


@dataclass(frozen=True)
class _Member:
    """Who takes part, before size, place and notes are drawn."""

    look: str
    timbre: str
    audible: bool
    visible: bool = True


class Band:
    """The cast of drawn instruments."""

    name = "band"
    splits = SPLITS
    classes = CLASSES
    settings: Mapping[str, Any] = MappingProxyType({})
    origin = ""

    def plan(self, seed: int, split: str, index: int, seconds: float) -> Plan:
        """Decide what happens in clip `index` of a split.

        Args:
            seed: of the data set.
            split: a name in `SPLITS`.
            index: of the clip in its split.
            seconds: length of the clip.
        """
        group, variant = divmod(index, SPLITS[split].block)
        if split in ("train", "val", "test"):
            # Each round of 24 clips holds every class once, in an order of its own.
            order = stream(seed, split, group, "classes").permutation(len(CLASSES))
            return _solo(stream(seed, split, index, "scene"), int(order[variant]), seconds)
        if split == "listening":
            return _listening(stream(seed, split, group, "scene"), variant, seconds)
        if split.startswith("twins"):
            return _twins(stream(seed, split, group, "scene"), variant, seconds)
        if split.startswith("motion"):
            return _motion(stream(seed, split, group, "scene"), variant, seconds)
        rng = stream(seed, split, index, "scene")
        if split == "duets":
            return _duet(rng, variant == 1, seconds)
        if split.startswith("segmentation"):
            return _segmentation(rng, variant, seconds)
        return {"pretrain": _ensemble, "localization": _localization}[split](rng, seconds)


def _solo(rng: np.random.Generator, number: int, seconds: float) -> Plan:
    look, timbre = LOOK_NAMES[number // len(TIMBRE_NAMES)], TIMBRE_NAMES[number % len(TIMBRE_NAMES)]
    return Plan(_assemble(rng, [_Member(look, timbre, True)], seconds), "solo", label=CLASSES[number])


def _ensemble(rng: np.random.Generator, seconds: float) -> Plan:
    count = int(rng.choice([1, 2, 3, 4], p=[0.35, 0.30, 0.20, 0.15]))
    sounding = min(count, int(rng.choice([0, 1, 2], p=[0.05, 0.65, 0.30])))
    members = _band(rng, count, sounding)
    if rng.random() < 0.15:
        members.append(_off_screen(rng))
    return Plan(_assemble(rng, members, seconds), "ensemble")


def _localization(rng: np.random.Generator, seconds: float) -> Plan:
    kind = str(rng.choice(["lookalikes", "lookalikes_off_screen", "off_screen", "silent"], p=[0.6, 0.15, 0.15, 0.10]))
    count = int(rng.integers(2, 5))
    members = _band(rng, count, sounding=1 if kind.startswith("lookalikes") else 0)
    if kind.endswith("off_screen"):
        members.append(_off_screen(rng))
    return Plan(_assemble(rng, members, seconds), kind)


def _duet(rng: np.random.Generator, same: bool, seconds: float) -> Plan:
    if same:
        look = _look(rng)
        timbre = draw_timbre(rng, look)
        members = [_Member(look, timbre, True)] * 2
    else:
        first = _loose(rng, True)
        second = _redraw(rng, lambda m: m.look != first.look and m.timbre != first.timbre)
        members = [first, second]
    return Plan(_assemble(rng, members, seconds), "duet_same" if same else "duet_different")


def _segmentation(rng: np.random.Generator, variant: int, seconds: float) -> Plan:
    count = int(rng.integers(2, 5))
    if variant == 0:
        return Plan(_assemble(rng, _band(rng, count, 1), seconds), "one_sounding")
    if variant == 1:
        sounding = int(rng.integers(2, min(count, 3) + 1))
        return Plan(_assemble(rng, _band(rng, count, sounding), seconds), "several_sounding")
    members = _band(rng, count, 0)
    if rng.random() < 0.5:
        members.append(_off_screen(rng))
    return Plan(_assemble(rng, members, seconds), "none_sounding")


def _listening(rng: np.random.Generator, variant: int, seconds: float) -> Plan:
    sound = ("own", "silence", "noise", "foreign")[variant]
    band = _band(rng, int(rng.integers(1, 4)), 1)
    present = {(m.look, m.timbre) for m in band}
    foreign = replace(_redraw(rng, lambda m: m.timbre not in {t for _, t in present}), visible=False)
    scene = heard_as(_assemble(rng, [*band, foreign], seconds), sound)
    return Plan(scene, f"listening_{sound}", facts={"sound": sound})


def heard_as(scene: Scene, sound: str) -> Scene:
    """The same pictures with another sound.

    Args:
        scene: its last performer is off screen and makes the foreign sound.
        sound: own, silence, noise or foreign.
    """
    heard = {"own": slice(0, -1), "foreign": slice(-1, None)}.get(sound)
    chosen = scene.performers[heard] if heard else ()
    performers = tuple(
        replace(p, audible=any(p is c for c in chosen) and p.audible)
        for p in scene.performers
        if p.centre is not None or any(p is c for c in chosen)
    )
    room = scene.room
    if sound == "silence":
        room = replace(room, noise_rms=0.0)
    elif sound == "noise":
        room = replace(room, noise_rms=NOISE_RMS, noise_slope=0.0)
    return replace(scene, performers=performers, room=room)


def _twins(rng: np.random.Generator, variant: int, seconds: float) -> Plan:
    """Four clips: picture and mirrored picture, each with the sound of the left and of the right instrument."""
    look, notes = _look(rng), draw_notes(rng, seconds)
    small = rng.uniform(44.0, 52.0)
    sizes = [small, small * rng.uniform(*TWIN_RATIOS)]
    if rng.random() < 0.5:
        sizes.reverse()
    member = _Member(look, draw_timbre(rng, look), True)
    scene = _assemble(rng, [member, member], seconds, sizes=sizes, scores=[notes, notes], side_by_side=True)
    facts = {"playing": "bigger" if sizes[variant % 2] == max(sizes) else "smaller"}
    return replace(_one_of_two(scene, variant, "twins"), facts=facts)


def _motion(rng: np.random.Generator, variant: int, seconds: float) -> Plan:
    """Four clips as of twins, but nothing that stands still tells: one look, one timbre, one size, two scores."""
    look = _look(rng)
    member = _Member(look, draw_timbre(rng, look), True)
    size = rng.uniform(*MOTION_SIZES)
    while True:
        scores = [draw_notes(rng, seconds) for _ in range(2)]
        if max(share_together(*scores), share_together(*scores[::-1])) <= MAX_TOGETHER:
            break
    scene = _assemble(rng, [member, member], seconds, sizes=[size, size], scores=scores, side_by_side=True)
    return _one_of_two(scene, variant, "motion")


def _one_of_two(scene: Scene, variant: int, scene_type: str) -> Plan:
    """One of four clips of a scene of two: the first or the second is heard, the picture as it is or mirrored."""
    playing, mirrored = variant % 2, variant >= 2
    performers = tuple(replace(p, audible=n == playing) for n, p in enumerate(scene.performers))
    side = "left" if (playing == 0) != mirrored else "right"
    return Plan(replace(scene, performers=performers, mirrored=mirrored), scene_type, label=side)


def share_together(notes: tuple[Note, ...], others: tuple[Note, ...]) -> float:
    """Share of strokes that fall together with one of another score, by ear and eye."""
    onsets = np.array([note.onset_seconds for note in others])
    apart = [np.abs(onsets - note.onset_seconds).min() for note in notes]
    return float(np.mean(np.array(apart) < TOGETHER_SECONDS))


def _look(rng: np.random.Generator) -> str:
    return str(rng.choice(LOOK_NAMES))


def _loose(rng: np.random.Generator, audible: bool) -> _Member:
    look = _look(rng)
    return _Member(look, draw_timbre(rng, look), audible)


def _redraw(rng: np.random.Generator, fits: Callable[[_Member], bool]) -> _Member:
    while True:
        member = _loose(rng, True)
        if fits(member):
            return member


def _off_screen(rng: np.random.Generator) -> _Member:
    return replace(_loose(rng, True), visible=False)


def _band(rng: np.random.Generator, count: int, sounding: int) -> list[_Member]:
    """Instruments on the stage; of the silent ones about half look like another one, no look more than twice."""
    members: list[_Member] = []
    for number in range(count):
        looks = [m.look for m in members]
        member = _redraw(rng, lambda m, looks=looks: m.look not in looks)  # type: ignore[misc]
        single = [look for look in looks if looks.count(look) == 1]
        if number >= max(sounding, 1) and single and rng.random() < 0.5:
            look = str(rng.choice(single))
            member = _Member(look, draw_timbre(rng, look), True)
        members.append(replace(member, audible=number < sounding))
    return members


def _assemble(
    rng: np.random.Generator,
    members: list[_Member],
    seconds: float,
    sizes: list[float] | None = None,
    scores: list[tuple[Note, ...]] | None = None,
    side_by_side: bool = False,
) -> Scene:
    """Draw all that is left of a scene: sizes, places, notes, colours, gains, backdrop, camera, room."""
    zoom = 1.0 if sizes else float(rng.uniform(0.93, 1.07))
    sizes = sizes or _sizes(rng, members)
    visible = [size for member, size in zip(members, sizes, strict=True) if member.visible]
    places = iter(draw_places(rng, [zoom * size for size in visible], side_by_side))
    performers = []
    for number, (member, size) in enumerate(zip(members, sizes, strict=True)):
        notes = None if scores is None else scores[number]
        performers.append(
            Performer(
                source=draw_instrument(rng, member.look, member.timbre, size, seconds, notes),
                centre=next(places) if member.visible else None,
                audible=member.audible,
                # Off-screen sound is a nuisance, not the subject: never louder than the stage.
                gain_db=round(float(rng.uniform(-9, 3) if member.visible else rng.uniform(-12, 0)), 2),
            )
        )
    return Scene(tuple(performers), draw_backdrop(rng), draw_camera(rng, zoom), draw_room(rng))


def _sizes(rng: np.random.Generator, members: list[_Member]) -> list[float]:
    low, high = SIZES[sum(member.visible for member in members)]
    while True:
        sizes = [float(np.exp(rng.uniform(np.log(low), np.log(high)))) for _ in members]
        pairs = [
            (sizes[i], sizes[j])
            for i in range(len(members))
            for j in range(i)
            if members[i].look == members[j].look and members[i].visible and members[j].visible
        ]
        if all(max(pair) / min(pair) >= LOOKALIKE_RATIO for pair in pairs):
            return sizes


def draw_places(
    rng: np.random.Generator, diameters: list[float], side_by_side: bool = False
) -> list[tuple[float, float]]:
    """Centres of discs of given diameters: of 64 random layouts the one with the least overlap."""
    radii = np.array(diameters) / 2
    low = np.stack([radii + DRIFT, 1.2 * radii + DRIFT], -1)  # room above for the hop
    high = np.stack([STAGE_UNITS - radii - DRIFT] * 2, -1)
    if side_by_side:  # the first on the left, free room split at random
        gaps = rng.dirichlet(np.ones(len(radii) + 1)) * max(STAGE_UNITS - 2 * DRIFT - 2 * radii.sum(), 0)
        x = DRIFT + np.cumsum(gaps[:-1]) + np.cumsum(2 * radii) - radii
        return [
            (round(float(a), 2), round(float(b), 2)) for a, b in zip(x, rng.uniform(low[:, 1], high[:, 1]), strict=True)
        ]
    layouts = rng.uniform(low, high, (64, len(radii), 2))
    apart = np.linalg.norm(layouts[:, :, None] - layouts[:, None], axis=-1)
    overlap = np.maximum(0.95 * (radii[:, None] + radii) - apart, 0)
    overlap[:, np.arange(len(radii)), np.arange(len(radii))] = 0
    best = layouts[np.argmin(overlap.sum((1, 2)))]
    return [(round(float(a), 2), round(float(b), 2)) for a, b in best]


def draw_camera(rng: np.random.Generator, zoom: float) -> Camera:
    """A camera at random, of a given zoom."""
    return Camera(
        zoom=round(zoom, 3),
        drift=(round(float(rng.uniform(0, DRIFT)), 2), round(float(rng.uniform(0, DRIFT)), 2)),
        period_seconds=round(float(rng.uniform(4, 10)), 2),
        phase=round(float(rng.uniform(0, 2 * np.pi)), 3),
        flicker=round(float(rng.uniform(0, 0.05)), 3),
        noise=round(float(rng.uniform(0, 0.015)), 4),
        seed=int(rng.integers(2**31)),
    )


def draw_room(rng: np.random.Generator) -> Room:
    """A room at random: from dry to lively, from quiet to humming."""
    return Room(
        decay_seconds=round(float(rng.uniform(0.1, 0.45)), 3),
        wet=round(float(10 ** rng.uniform(-2.0, -0.7)), 4),
        noise_rms=round(float(10 ** rng.uniform(-3.7, -2.3)), 5),
        noise_slope=round(float(rng.uniform(0, 1)), 3),
        seed=int(rng.integers(2**31)),
    )
