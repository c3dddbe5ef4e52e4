"""Random generators of the data: functions of the seed, a number and the purpose, never of workers or history."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a generator is for. Two that share a number never meet in one run; the numbers are those of all versions."""

    ORDER = 1
    """Of the clips in an epoch."""
    VIEW = 2
    """Of a sample: its window, crop, mirroring and gain."""
    MASKS = 3
    """Of a sample: which patches are hidden."""
    PICTURE_MASKS = 4
    """Masks of the reconstruction figure."""
    BALANCE = 5
    """Orders in which classes come equally often."""
    WORTH_MASKS = 6
    """Masks under which the worth of the other sense is measured."""
    SECOND_VIEW = 7
    """Of a sample of two moments: the view of the second."""
    SECOND_MASKS = 8
    """Of a sample of two moments: which patches of the second are hidden."""
    MIXING_PARTNERS = 11
    """Which clips of a group are mixed in training."""
    MIXING_WEIGHTS = 12
    """Which sample of a mixture is silent, alone, how loud."""
    MIXTURES = 13
    """Mixtures that are scored, and wrong pictures."""
    REPLACED_SOUND = 13
    """Which training pictures of segmentation hear something else, and what."""
    FOREIGN_SOUNDS = 11
    """Whose sound a scored picture of localization hears."""
    WHITE_NOISE = 12
    """The noise that a scored picture of localization hears."""
    MASK_NOISE = 11
    """The noise that a scored picture of segmentation hears."""
    MASK_PARTNERS = 12
    """Whose sound a scored picture of segmentation hears."""


def generator(seed: int, number: int, purpose: Purpose) -> np.random.Generator:
    """A generator that depends on its arguments alone."""
    return np.random.default_rng((seed, number, int(purpose)))
