"""The order in which training clips are drawn, optionally balanced over classes.

The order is a function of the epoch alone, so that a continued run sees the same clips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deepavfusion.data.clips import Clip
from deepavfusion.data.dataset import ClipStream, Sample, epoch_order, read_sample
from deepavfusion.data.randomness import Purpose, generator
from deepavfusion.data.views import TrainingView


class EpochOrder(Protocol):
    """Positions of the clips that an epoch draws, as many as there are clips."""

    def __call__(self, epoch: int) -> NDArray[np.int64]: ...


class ShuffledOrder:
    """Every clip once, in the order that `ClipStream` has."""

    def __init__(self, seed: int, num_clips: int) -> None:
        self.seed, self.num_clips = seed, num_clips

    def __call__(self, epoch: int) -> NDArray[np.int64]:
        return epoch_order(self.seed, epoch, self.num_clips)


class BalancedOrder:
    """Clips drawn in proportion to their weights, as evenly as whole numbers allow.

    An epoch of N draws takes a clip of share p, the clip's weight of the sum, N p times rounded down or up
    (systematic sampling along a shuffled list), in a shuffled order; over epochs each is drawn N p times on average.
    """

    def __init__(self, seed: int, weights: NDArray[np.float64]) -> None:
        """Raises ValueError unless weights `(N,)` are positive."""
        if len(weights) == 0 or not (weights > 0).all():
            raise ValueError("a balanced order needs positive weights")
        self.seed, self.shares = seed, weights / weights.sum()
        self.draw = lru_cache(maxsize=2)(self._draw)  # a batch may reach over the end of an epoch

    def __call__(self, epoch: int) -> NDArray[np.int64]:
        return self.draw(epoch)

    def _draw(self, epoch: int) -> NDArray[np.int64]:
        rng, count = generator(self.seed, epoch, Purpose.BALANCE), len(self.shares)
        shuffled = rng.permutation(count)
        ends = np.cumsum(self.shares[shuffled])
        points = (np.arange(count) + rng.random()) / count * ends[-1]
        drawn = shuffled[np.minimum(np.searchsorted(ends, points, side="right"), count - 1)]
        return rng.permutation(drawn)


class BalancedStream(ClipStream):
    """The endless training stream, clips drawn in a balanced order."""

    def __init__(self, clips: Sequence[Clip], view: TrainingView, seed: int, weights: NDArray[np.float64]) -> None:
        super().__init__(clips, view, seed)
        self.order = BalancedOrder(seed, weights)

    def __getitem__(self, number: int) -> Sample:
        epoch, position = divmod(number, len(self.clips))
        clip = self.clips[self.order(epoch)[position]]
        return read_sample(number, clip, self.view, self.seek, generator(self.seed, number, Purpose.VIEW))


def balancing_weights(labels: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Weights that draw every class alike: for each clip the sum of 1 / clips of the class over its labels.

    With one label per clip classes are drawn equally often; with several, as often as labels shared by clips allow.
    """
    counts = Counter(label for own in labels for label in own)
    return np.array([sum(1 / counts[label] for label in own) for own in labels])
