"""Mixtures for source separation: which clips are summed, in training and in evaluation.

In training every `N` consecutive sample numbers form a group of clips that may be mixed with each other. For each
sample, itself and some others of its group are mixed, and its own sound is the target. All of it follows from the seed
and the sample's number, so that a continued run, or one with another number of workers or processes, gets the same
mixtures.

In evaluation a list of mixtures is made beforehand, from clips, from a published list of pairs, or from recordings of
several sources whose stems (separate sounds) are known.

Shape legend: `B` batch, `N` clips per group or mixture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deepavfusion.data.clips import Clip
from deepavfusion.data.crops import WHOLE, Region
from deepavfusion.data.dataset import ClipStream, Sample, epoch_order, read_sample
from deepavfusion.data.randomness import Purpose, generator
from deepavfusion.data.sets.pairs import MixturePair
from deepavfusion.data.truth import Truth
from deepavfusion.data.views import TrainingView

Partners = Literal["any", "different"]
Pairing = Literal["auto", "any", "different", "same"]


class MixtureStream(ClipStream):
    """The endless training stream in groups of clips to be mixed: the first follows the epoch, the others are drawn.

    Item `s` is member `s % N` of group `s // N`.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        view: TrainingView,
        seed: int,
        group: int,
        partners: Partners = "any",
        truth: Truth | None = None,
        regions: Sequence[Region] = (),
    ) -> None:
        """
        Args:
            clips: what to read.
            view: how to draw a view.
            seed: decides groups, order and views.
            group: clips per group, `N`.
            partners: `different` puts no two clips of one class into a group.
            truth: as in `ClipStream`.
            regions: the part of each clip's picture that is shown; none shows all of every one.

        Raises:
            ValueError: too few clips or classes for a group.
        """
        super().__init__(clips, view, seed, truth=truth)
        if group > len(clips):
            raise ValueError(f"mixtures of {group} need at least as many clips, there are {len(clips)}")
        if partners == "different":
            unlabelled = sum(clip.label is None for clip in clips)
            if unlabelled:
                raise ValueError(f"partners different: {unlabelled} of {len(clips)} clips have no label")
            if len({clip.label for clip in clips}) < group:
                raise ValueError(f"partners different: the clips have fewer than {group} classes")
        self.group, self.partners = group, partners
        self.regions = tuple(regions) or (WHOLE,) * len(clips)

    def __getitem__(self, number: int) -> Sample:
        place = self.members(number // self.group)[number % self.group]
        view = replace(self.view, region=self.regions[place])
        return read_sample(
            number, self.clips[place], view, self.seek, generator(self.seed, number, Purpose.VIEW), self.truth
        )

    def members(self, group: int) -> list[int]:
        """Positions in the list of clips of a group's members."""
        count = len(self.clips)
        epoch, position = divmod(group, count)
        members = [int(epoch_order(self.seed, epoch, count)[position])]
        rng = generator(self.seed, group, Purpose.MIXING_PARTNERS)
        while len(members) < self.group:
            candidate = int(rng.integers(count))
            labels = {self.clips[i].label for i in members} if self.partners == "different" else set()
            if candidate not in members and self.clips[candidate].label not in labels:
                members.append(candidate)
        return members


def mixing_weights(
    seed: int, numbers: Sequence[int], group: int, sources: tuple[int, int], silent: float, single: float
) -> NDArray[np.float32]:
    """Which members of its group sound in each sample's mixture.

    Args:
        seed: of the run.
        numbers: sample numbers, `B`.
        group: clips per group, `N`.
        sources: fewest and most sources of a mixture.
        silent: probability that the sample's own source is silent, though its picture is shown.
        single: probability that it sounds alone.

    Returns:
        `(B, N)` of 0 and 1.
    """
    weights = np.zeros((len(numbers), group), np.float32)
    for row, number in enumerate(numbers):
        rng = generator(seed, number, Purpose.MIXING_WEIGHTS)
        own, count = number % group, int(rng.integers(sources[0], sources[1] + 1))
        others = [i for i in rng.permutation(group) if i != own][: count - 1]
        kind = rng.random()
        weights[row, own] = kind >= silent
        if not silent <= kind < silent + single:
            weights[row, others] = 1
    return weights


@dataclass(frozen=True)
class Part:
    """One source of a mixture."""

    clip: Clip
    source: int | None = None
    """Number of a source of a clip with annotation, which the picture then shows alone; None shows all there is."""
    label: str | None = None
    """Its class, where known."""
    region: Region | None = None
    """The part of the clip's picture that is enlarged; None shows it as `source` says."""


@dataclass(frozen=True)
class Mixture:
    """Sources to be separated again, each by its picture."""

    id: str
    parts: tuple[Part, ...]
    wrong: tuple[Part, ...]
    """For each source, one of another clip and class, whose picture leads astray."""
    recording: Clip | None = None
    """The clip in which all parts sound together, their stems known; None where clips are summed."""

    @property
    def same_class(self) -> bool | None:
        """Whether two of the sources are of one class; None where classes are unknown."""
        labels = [part.label for part in self.parts]
        return None if None in labels else len(set(labels)) < len(labels)


def mix_clips(
    parts: Sequence[Part], num_sources: int, num_mixtures: int, pairing: Pairing, seed: int
) -> tuple[Mixture, ...]:
    """Seeded mixtures; each part is the first of one before any is so again.

    Args:
        parts: single sources.
        num_sources: of each mixture.
        num_mixtures: how many; 0 makes one per part.
        pairing: `different` classes only, all of the `same` class, `any`, or `auto`: in turn different and same where
            all parts have a class and some class has enough parts, else any.
        seed: of the drawing.

    Raises:
        ValueError: too few parts or classes.
    """
    counts: dict[str | None, int] = {}
    for part in parts:
        counts[part.label] = counts.get(part.label, 0) + 1
    enough = {label for label, count in counts.items() if count >= num_sources and label is not None}
    if pairing == "auto" and (None in counts or len(counts) < num_sources or not enough):
        pairing = "any"
    if len(parts) <= num_sources:
        raise ValueError(
            f"mixtures of {num_sources} and a wrong image need {num_sources + 1} clips, there are {len(parts)}"
        )
    if pairing in ("different", "same") and None in counts:
        raise ValueError(f"pairing {pairing}: {counts[None]} of {len(parts)} clips have no label")
    if pairing == "different" and len(counts) < num_sources:
        raise ValueError(f"pairing different: {len(counts)} classes are too few for mixtures of {num_sources}")
    if pairing == "same" and not enough:
        raise ValueError(f"pairing same: no class has {num_sources} clips")
    order = generator(seed, 0, Purpose.MIXTURES).permutation(len(parts))
    able = [i for i in order if parts[i].label in enough]
    mixtures = []
    for number in range(num_mixtures or len(parts)):
        same = pairing == "same" or (pairing == "auto" and number % 2 == 1)
        anchors = able if same else list(order)
        place = number // 2 if pairing == "auto" else number
        rng = generator(seed, number + 1, Purpose.MIXTURES)
        members = [int(anchors[place % len(anchors)])]
        for candidate in rng.permutation(len(parts)):
            labels = {parts[i].label for i in members}
            fits = pairing == "any" or (parts[candidate].label in labels) == same
            if len(members) < num_sources and candidate not in members and fits:
                members.append(int(candidate))
        chosen = tuple(parts[i] for i in members)
        name = f"{number:04d} " + " + ".join(_name(part) for part in chosen)
        mixtures.append(Mixture(name, chosen, _wrong(parts, chosen, rng)))
    return tuple(mixtures)


def mix_pairs(
    pairs: Sequence[MixturePair], clips: Sequence[Clip], seed: int
) -> tuple[tuple[Mixture, ...], tuple[str, ...]]:
    """The mixtures of a published list, and the names of those whose clips are not all there.

    Raises:
        ValueError: not one is there, or there is no clip for a wrong picture.
    """
    there = {clip.id: clip for clip in clips}
    every = {
        name: Part(there[name], label=label)
        for pair in pairs
        for name, label in zip(pair.ids, pair.labels, strict=True)
        if name in there
    }
    mixtures, missing = [], []
    for number, pair in enumerate(pairs):
        name = " + ".join(pair.ids)
        if any(clip not in there for clip in pair.ids):
            missing.append(name)
            continue
        parts = tuple(every[clip] for clip in pair.ids)
        wrong = _wrong(list(every.values()), parts, generator(seed, number + 1, Purpose.MIXTURES))
        mixtures.append(Mixture(name, parts, wrong))
    if not mixtures:
        raise ValueError(f"none of the {len(pairs)} pairs has both clips, such as {missing[0]}")
    return tuple(mixtures), tuple(missing)


def mix_recordings(recordings: Sequence[tuple[Clip, Sequence[Part]]], seed: int) -> tuple[Mixture, ...]:
    """Clips in which several sources sound at once, as mixtures.

    Args:
        recordings: each clip and its sounding sources.
        seed: of the wrong pictures.

    Raises:
        ValueError: there is no other clip for a wrong picture.
    """
    every = [part for _, parts in recordings for part in parts]
    return tuple(
        Mixture(clip.id, tuple(parts), _wrong(every, tuple(parts), generator(seed, number + 1, Purpose.MIXTURES)), clip)
        for number, (clip, parts) in enumerate(recordings)
    )


def _wrong(parts: Sequence[Part], chosen: tuple[Part, ...], rng: np.random.Generator) -> tuple[Part, ...]:
    """For each chosen part another one, of none of their clips and, if there is any, of none of their classes."""
    ids, labels = {part.clip.id for part in chosen}, {part.label for part in chosen}
    strangers = [part for part in parts if part.clip.id not in ids]
    if not strangers:
        raise ValueError("a wrong image needs a clip that is not in the mixture")
    others = [part for part in strangers if part.label is None or part.label not in labels]
    pool = others or strangers
    return tuple(pool[int(rng.integers(len(pool)))] for _ in chosen)


def _name(part: Part) -> str:
    return part.clip.id if part.source is None else f"{part.clip.id}#{part.source}"
