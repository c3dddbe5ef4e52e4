"""Scores in the musical sense: when a source strikes, which note, how hard; and the pose that follows from the
strokes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ATTACK_SECONDS = 0.04
"""The pose rises over this time before a stroke."""
DECAY_SECONDS = 0.16
"""The pose falls by a factor e in this time after a stroke."""
SCALE = (-3, 0, 2, 4, 7)
"""Semitones above a source's own pitch that its melody uses."""


@dataclass(frozen=True)
class Note:
    """One stroke."""

    onset_seconds: float
    duration_seconds: float
    semitones: int
    """Above the source's own pitch."""
    velocity: float
    """Strength of the stroke, 0 to 1: amplitude of the sound and height of the pose."""

    @property
    def end_seconds(self) -> float:
        return self.onset_seconds + self.duration_seconds


def draw_notes(rng: np.random.Generator, seconds: float) -> tuple[Note, ...]:
    """A melody over a clip, drawn without regard to look, timbre or size.

    Times are multiples of a millisecond. A clip of 4 s gets at least three notes.

    Args:
        rng: source of chance.
        seconds: length of the clip.
    """
    beat = rng.uniform(0.28, 0.50)
    now = rng.uniform(0.05, 0.55)
    notes: list[Note] = []
    while True:
        step = beat * (1 + (rng.random() < 0.3))
        rest = len(notes) >= 3 and rng.random() < 0.2
        duration, semitones, velocity = step * rng.uniform(0.75, 0.95), int(rng.choice(SCALE)), rng.uniform(0.55, 1.0)
        if now + min(duration, 0.2) > seconds and notes:
            return tuple(notes)
        if not rest:
            duration = min(duration, seconds - now)
            notes.append(Note(round(now, 3), round(duration, 3), semitones, round(velocity, 3)))
        now += step


def pose(notes: Sequence[Note], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pose at the given times: 0 at rest, the velocity of the note at its onset.

    Args:
        notes: the strokes.
        seconds: times `T`.

    Returns:
        `T` values in 0 to 1.
    """
    height = np.zeros_like(seconds)
    for note in notes:
        since = seconds - note.onset_seconds
        rise = np.clip(1 + since / ATTACK_SECONDS, 0, 1)
        height = np.maximum(height, note.velocity * np.where(since < 0, rise, np.exp(-since / DECAY_SECONDS)))
    return height


def intervals(notes: Sequence[Note], gap_seconds: float = 0.05) -> tuple[tuple[float, float], ...]:
    """Stretches (start, end) in seconds in which notes sound; pauses shorter than the gap are closed."""
    spans: list[tuple[float, float]] = []
    for note in sorted(notes, key=lambda note: note.onset_seconds):
        end = round(note.end_seconds, 3)
        if spans and note.onset_seconds - spans[-1][1] < gap_seconds:
            spans[-1] = (spans[-1][0], max(spans[-1][1], end))
        else:
            spans.append((note.onset_seconds, end))
    return tuple(spans)
