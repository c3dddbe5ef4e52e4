"""The splits of a world, and how many clips each gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from deepavfusion.bandstand.stage import Scene
from deepavfusion.bandstand.world import FIRST_VERSION


@dataclass(frozen=True)
class Split:
    """One part of a data set."""

    name: str
    purpose: str
    """One sentence for the README."""
    share: int
    """Percent of all clips where clips are shared out over all splits."""
    block: int = 1
    """Clips that belong together: a balanced round of classes, or one picture with several sounds."""
    world: str = FIRST_VERSION
    """The version of the world that brought it. A later one is written only where it is asked for by name, its share
    being against the others asked for: so that a world of all splits stays as it was."""
    labels: tuple[str, ...] = ()
    """Facts of its clips by which they can be labelled too; each gets a manifest `SPLIT_FACT.csv`."""

    @property
    def by_name(self) -> bool:
        """Whether it is left out unless it is named."""
        return self.world != FIRST_VERSION


@dataclass(frozen=True)
class Plan:
    """What happens in one clip: decided before anything is drawn or played, a function of seed, split and index."""

    scene: Scene
    scene_type: str
    label: str | None = None
    """The class of the clip, where the split has one."""
    facts: Mapping[str, Any] | None = None
    """More truth about the clip, for the annotation."""


class Cast(Protocol):
    """A list of sources and the scenes they play."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def splits(self) -> Mapping[str, Split]:
        """The splits it can play, by name."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of its sources."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What two runs into one folder must agree on, beside seed and stage; values as JSON has them."""

    @property
    def origin(self) -> str:
        """Where its pictures and sounds come from, for the README; empty if all of them are made here."""

    def plan(self, seed: int, split: str, index: int, seconds: float) -> Plan:
        """Decide what happens in clip `index` of a split."""


def shares(num_clips: int, splits: Mapping[str, Split], chosen: tuple[str, ...]) -> dict[str, int]:
    """Share clips out over splits.

    A split gets whole blocks where it gets at least one; what is left over goes to the first.

    Args:
        num_clips: altogether.
        splits: all there are.
        chosen: names of the splits to fill; empty means all that have a share and came with the first version.

    Returns:
        Number of clips per split, splits without clips left out.

    Raises:
        ValueError: an unknown name or one given twice.
    """
    for name in chosen:
        if name not in splits:
            raise ValueError(f"splits: no split {name!r}; there are {', '.join(splits)}")
        if chosen.count(name) > 1:
            raise ValueError(f"splits: {name!r} is given twice")
    if len(chosen) == 1:
        return {chosen[0]: num_clips}
    parts = [splits[name] for name in chosen]
    parts = parts or [part for part in splits.values() if part.share and not part.by_name]
    whole = sum(part.share for part in parts)
    counts = {}
    for part in parts:
        count = num_clips * part.share // whole
        counts[part.name] = count - count % part.block if count >= part.block else count
    counts[parts[0].name] += num_clips - sum(counts.values())
    return {name: count for name, count in counts.items() if count}
