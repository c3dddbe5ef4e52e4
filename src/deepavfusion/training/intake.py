"""Checks that the samples of a run have had the image or sound that the task needs; a run without any fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from deepavfusion.data.dataset import Batch

Need = Literal["picture", "sound"]
FIRST_LOOK = 1000
"""Samples after which a run tells, if its clips are more than that: by then something must have been there."""


class NothingLearnedError(ValueError):
    """Nothing could be learned from the samples drawn; the message says what they lack."""


class Intake:
    """Counts, since the start of the run, of samples with a picture, with sound, and with what a loss term needs.

    Part of a checkpoint, so that a stop changes nothing.
    """

    def __init__(self) -> None:
        self.counts: dict[str, float] | None = {}
        """By name: the loss terms, `picture` and `sound`; None after an older checkpoint, which does not tell."""

    @staticmethod
    def of(share: Sequence[Batch]) -> dict[str, float]:
        """How many samples of some batches have a picture, and how many sound."""
        return {
            "picture": sum(int(batch.image_present.sum()) for batch in share),
            "sound": sum(int(batch.audio_present.sum()) for batch in share),
        }

    def add(self, counts: Mapping[str, float]) -> None:
        """Add a step's counts, over all processes."""
        if self.counts is not None:
            self.counts = {name: self.counts.get(name, 0.0) + count for name, count in counts.items()}

    def check(self, needs: Mapping[Need, str], main_term: str, num_drawn: int, source: str) -> None:
        """Raise NothingLearnedError if there has been nothing to learn from.

        Args:
            needs: what some of the samples must have, with what to do otherwise.
            main_term: the loss term without which training makes no sense.
            num_drawn: samples drawn since the start of the run.
            source: of the clips, for the message.
        """
        if self.counts is None:
            return
        for need, remedy in needs.items():
            if not self.counts[need]:
                what = "an image" if need == "picture" else "sound"
                raise NothingLearnedError(f"{source}: none of {num_drawn} clips drawn has {what}; {remedy}")
        if not self.counts[main_term]:
            raise NothingLearnedError(
                f"{source}: none of {num_drawn} clips drawn can be trained on: loss_{main_term} is a mean over none of "
                f"them"
            )

    def idle_terms(self) -> list[str]:
        """Loss terms that no sample had."""
        return [name for name, count in (self.counts or {}).items() if not count and name not in ("picture", "sound")]
