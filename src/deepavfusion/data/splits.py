"""Names of splits, and which of them are not trained on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

from deepavfusion.data.clips import Clip, clips_where

T = TypeVar("T")

SPELLINGS = {
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation"),
    "train": ("train", "training"),
}
"""How the usual splits are spelt."""
HELD_OUT_SPLITS = frozenset((*SPELLINGS["val"], *SPELLINGS["test"]))
"""Splits that no training takes."""
WORLD_TEST_SPLITS = frozenset({"localization", "listening", "duets", "segmentation_test", "twins_test", "motion_test"})
"""Bandstand's splits that are made for testing localization, separation and segmentation."""


def spellings_of(split: str) -> tuple[str, ...]:
    """All spellings, in lower case, of the split that a name means."""
    return next((group for group in SPELLINGS.values() if split.lower() in group), (split.lower(),))


def spread(items: Sequence[T], most: int) -> Sequence[T]:
    """At most so many of the items, evenly spread over them."""
    return items if len(items) <= most else [items[i * len(items) // most] for i in range(most)]


def of_splits(clips: Sequence[Clip], names: Collection[str]) -> Sequence[Clip]:
    """The clips of some splits, named in lower case."""
    return clips_where(clips, "split", lambda split: (split or "").lower() in names)


def not_of_splits(clips: Sequence[Clip], names: Collection[str]) -> Sequence[Clip]:
    """The other clips."""
    return clips_where(clips, "split", lambda split: (split or "").lower() not in names)


def held_out(clips: Sequence[Clip]) -> Sequence[Clip]:
    """The clips of validation and test splits."""
    return of_splits(clips, HELD_OUT_SPLITS)


def trained_on(clips: Sequence[Clip]) -> Sequence[Clip]:
    """The other clips."""
    return not_of_splits(clips, HELD_OUT_SPLITS)
