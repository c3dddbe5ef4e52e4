"""The line printed with every score: its protocol, and which samples it covers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Tally:
    """Head of every result. Samples that never reached the metric (missing, unreadable) are the caller's to add."""

    protocol: str
    """Name of the protocol with the variants taken; two numbers compare only under the same name."""
    num_scored: int
    """Samples that enter the score, those counted as wrong included."""
    left_out: Mapping[str, int]
    """Samples that do not enter the score, by cause."""
    counted_as_wrong: Mapping[str, int]
    """Samples that enter the score as failures because the prediction itself is unusable, by cause."""


def by_cause(**counts: int) -> dict[str, int]:
    """The causes that occurred, `non_finite=2` becoming `{"non finite": 2}`."""
    return {cause.replace("_", " "): int(count) for cause, count in counts.items() if count}
