"""Names of splits, and which of them are held out, that is, not trained on."""

from __future__ import annotations

from collections.abc import Sequence

from deepavfusion.data.clips import Clip, clips_where

HELD_OUT_SPLITS = frozenset({"val", "valid", "validation", "test", "testing"})
"""Splits that no training takes."""
WORLD_TEST_SPLITS = frozenset({"localization", "listening", "duets", "segmentation_test", "twins_test", "motion_test"})
"""Bandstand's splits that are made for testing localization, separation and segmentation."""


def split_of(clip: Clip) -> str:
    """The clip's split in lower case, empty if it has none."""
    return (clip.split or "").lower()


def held_out(clips: Sequence[Clip]) -> Sequence[Clip]:
    """The clips of validation and test splits."""
    return clips_where(clips, "split", lambda split: (split or "").lower() in HELD_OUT_SPLITS)


def trained_on(clips: Sequence[Clip]) -> Sequence[Clip]:
    """The other clips."""
    return clips_where(clips, "split", lambda split: (split or "").lower() not in HELD_OUT_SPLITS)


def is_held_out(clip: Clip) -> bool:
    """Whether the clip is of a validation or test split."""
    return split_of(clip) in HELD_OUT_SPLITS
