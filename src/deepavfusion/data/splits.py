"""Names of splits, and which of them are not trained on."""

from __future__ import annotations

from deepavfusion.data.clips import Clip

HELD_OUT_SPLITS = frozenset({"val", "valid", "validation", "test", "testing"})
"""Splits that no training takes."""
WORLD_TEST_SPLITS = frozenset({"localization", "listening", "duets", "segmentation_test", "twins_test", "motion_test"})
"""Bandstand's splits that are made for testing localization, separation and segmentation."""


def split_of(clip: Clip) -> str:
    """The clip's split in lower case, empty if it has none."""
    return (clip.split or "").lower()


def is_held_out(clip: Clip) -> bool:
    """Whether the clip is of a validation or test split."""
    return split_of(clip) in HELD_OUT_SPLITS
