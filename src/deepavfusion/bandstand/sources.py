"""Sources, each a sprite and its sound, and the instruments as sources.

The stage knows nothing of instruments: it asks a source for its sprite at a pose and for its dry sound. Another cast is
another list of sources.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deepavfusion.bandstand import score, timbres
from deepavfusion.bandstand.looks import LOOKS, Palette, Sprite, draw
from deepavfusion.bandstand.score import Note

LOOK_NAMES = tuple(LOOKS)
TIMBRE_NAMES = tuple(timbres.TIMBRES)
CLASSES = tuple(f"{look}-{timbre}" for look in LOOK_NAMES for timbre in TIMBRE_NAMES)
"""The 24 classes, look by look."""
USUAL_TIMBRE = {
    "guitar": "pluck",
    "drum": "chime",
    "trumpet": "brass",
    "accordion": "reed",
    "bell": "chime",
    "lyre": "pluck",
}
"""The timbre that a look has most of the time where looks and timbres are paired loosely."""
USUAL_SHARE = 0.75
SMALLEST, LARGEST = 40.0, 90.0
"""Range of body sizes in stage units."""
HIGHEST_HERTZ = 1000.0
"""Own pitch of an instrument of the smallest size."""
LEVEL = 0.08
"""Root mean square of a stroke of full strength at 0 dB gain, relative to full scale."""


class Source(Protocol):
    """A sprite and a sound."""

    @property
    def class_name(self) -> str:
        """Name of its class."""

    @property
    def look(self) -> str:
        """Name of its look family."""

    @property
    def timbre(self) -> str:
        """Name of its timbre family."""

    @property
    def size(self) -> float:
        """Longest side at rest in stage units."""

    def pose(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pose at times `T`, 0 (rest) to 1."""

    def sprite(self, diameter: float, pose: float, centre: tuple[float, float], light: tuple[float, float]) -> Sprite:
        """Its picture: diameter in pixels, pose, sub-pixel shift, direction of the light."""

    def sound(self, num_samples: int, sample_rate: int) -> NDArray[np.float32]:
        """Its dry sound over the clip, float32 `num_samples`, at 0 dB gain."""

    def sounding(self) -> tuple[tuple[float, float], ...]:
        """Stretches (start, end) in seconds in which it sounds, if it is heard."""

    def describe(self, heard: bool) -> dict[str, Any]:
        """What only this kind of source can say of itself, for the annotation; heard or mimed."""


def pitch(size: float) -> float:
    """Own pitch in hertz of an instrument of a size in stage units: bigger is lower, by the cube of the size."""
    return HIGHEST_HERTZ * (SMALLEST / size) ** 3


@dataclass(frozen=True)
class Instrument:
    """A drawn instrument that plays a synthesised melody, or mimes one when it is not heard."""

    look: str
    timbre: str
    size: float
    notes: tuple[Note, ...]
    palette: Palette
    tilt: float
    """Radians, clockwise."""
    mirrored: bool
    seed: int
    """Of breath and strike noise."""

    @property
    def class_name(self) -> str:
        return f"{self.look}-{self.timbre}"

    def pose(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        return score.pose(self.notes, seconds)

    def sprite(self, diameter: float, pose: float, centre: tuple[float, float], light: tuple[float, float]) -> Sprite:
        return draw(
            self.look,
            diameter,
            pose,
            self.palette,
            tilt=self.tilt,
            mirrored=self.mirrored,
            centre=centre,
            light=light,
        )

    def hertz(self, note: Note) -> float:
        """Pitch of one of its notes."""
        return pitch(self.size) * 2 ** (note.semitones / 12)

    def sound(self, num_samples: int, sample_rate: int) -> NDArray[np.float32]:
        rng = np.random.default_rng(self.seed)
        total = np.zeros(num_samples, np.float32)
        for note in self.notes:
            wave = timbres.play(self.timbre, self.hertz(note), note.duration_seconds, sample_rate, rng)
            start = round(note.onset_seconds * sample_rate)
            wave = wave[: max(num_samples - start, 0)]
            total[start : start + len(wave)] += np.float32(LEVEL * note.velocity) * wave
        return total

    def sounding(self) -> tuple[tuple[float, float], ...]:
        return score.intervals(self.notes)

    def describe(self, heard: bool) -> dict[str, Any]:
        strokes = [
            {"onset_seconds": n.onset_seconds, "end_seconds": round(n.end_seconds, 3), "velocity": n.velocity}
            for n in self.notes
        ]
        if not heard:
            return {"strokes": strokes}
        return {
            "own_hertz": round(pitch(self.size), 2),
            "strokes": [s | {"hertz": round(self.hertz(n), 2)} for s, n in zip(strokes, self.notes, strict=True)],
        }


def draw_palette(rng: np.random.Generator) -> Palette:
    """Colours at random: a lively body, a trim of another hue, dark outline, light details."""
    hue = rng.random()
    body = colorsys.hsv_to_rgb(hue, rng.uniform(0.45, 0.85), rng.uniform(0.65, 0.98))
    trim = colorsys.hsv_to_rgb((hue + rng.uniform(0.2, 0.8)) % 1, rng.uniform(0.4, 0.8), rng.uniform(0.55, 0.95))
    return Palette(body, trim, (0.13, 0.11, 0.16), (0.98, 0.95, 0.88))


def draw_instrument(
    rng: np.random.Generator, look: str, timbre: str, size: float, seconds: float, notes: tuple[Note, ...] | None = None
) -> Instrument:
    """An instrument of given look, timbre and size, everything else by chance.

    Args:
        rng: source of chance.
        look: a name in `LOOK_NAMES`.
        timbre: a name in `TIMBRE_NAMES`.
        size: in stage units.
        seconds: length of the clip.
        notes: its score; drawn if None.
    """
    return Instrument(
        look=look,
        timbre=timbre,
        size=round(size, 2),
        notes=score.draw_notes(rng, seconds) if notes is None else notes,
        palette=draw_palette(rng),
        tilt=float(rng.uniform(-0.22, 0.22)),
        mirrored=bool(rng.random() < 0.5),
        seed=int(rng.integers(2**31)),
    )


def draw_timbre(rng: np.random.Generator, look: str) -> str:
    """A timbre for a look, loosely paired: the usual one in three of four, else any of the others alike."""
    if rng.random() < USUAL_SHARE:
        return USUAL_TIMBRE[look]
    return str(rng.choice([name for name in TIMBRE_NAMES if name != USUAL_TIMBRE[look]]))
