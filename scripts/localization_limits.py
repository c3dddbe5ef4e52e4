"""How well Bandstand's localization could be done: by who knows everything that a number of frames can show.

    deepavfusion bandstand world --clips 502 --splits [localization]
    python scripts/localization_limits.py world --out docs/results/localization_limits.json

An ideal listener gets, from the annotations, the notes of every sound in the clip's middle 3 s, apart from each other,
with their timbres; and of every instrument that is seen its look, its size, and how high it is struck in the frames,
all exact but for `POSE_ERROR`. It knows how scenes are made, and says by Bayes' rule how probable it is that an
instrument is what sounds. What is left to chance is the camera's zoom, the notes of a melody, which timbre a look has,
and whether a sound comes from off screen.

Scores are those of the evaluation: `source chosen`, and the false positives at a recall of 0.9 with the probability
that anything seen sounds as the confidence. Foreign sounds are another clip's, without a class in common.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepavfusion.atomic import write_text
from deepavfusion.bandstand.score import SCALE, Note, pose
from deepavfusion.bandstand.sources import LARGEST, SMALLEST, TIMBRE_NAMES, USUAL_SHARE, USUAL_TIMBRE, pitch
from deepavfusion.data.clips import find_clips
from deepavfusion.data.scenes.annotation import ClipTruth, SourceTruth, read_annotation

WINDOW_SECONDS = 3.0
ZOOMS = np.linspace(0.93, 1.07, 141)
"""All alike."""
SIZES = np.linspace(SMALLEST, LARGEST, 201)
"""Of an instrument off screen, all alike."""
PITCH_ERROR = 0.25
"""Semitones."""
POSE_ERROR = 0.1
"""Standard deviation, of 1."""
KINDS = {"lookalikes": 0.6, "lookalikes_off_screen": 0.15, "off_screen": 0.15}
"""Shares of the scenes in which something is heard."""
RECALL = 0.9
FOREIGN = 20
"""Foreign sounds tried for every scene."""

Heard = list["Sound"]


@dataclass(frozen=True)
class Sound:
    """One sound of a mixture."""

    timbre: str
    hertz: NDArray[np.float64]
    """Of its notes in the window."""
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class Knowledge:
    """What is used beside size and pitch."""

    names: bool
    """Look and timbre."""
    num_frames: int
    """In how many frames strokes are seen; 0 ignores them."""


ROWS = {
    "size and pitch": Knowledge(False, 0),
    "and look and timbre": Knowledge(True, 0),
    "and the stroke in one frame": Knowledge(True, 1),
    "and the strokes in 3 frames": Knowledge(True, 3),
    "and the strokes in 9 frames": Knowledge(True, 9),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", type=Path, help="folder of the world")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    words = parser.parse_args()
    scenes = [read_annotation(clip.path) for clip in find_clips(str(words.world / "localization.csv"))]
    rows = [{"known": name, **scores(scenes, known)} for name, known in ROWS.items()]
    text = json.dumps({"scenes": len(scenes), "rows": rows}, indent=1) + "\n"
    write_text(words.out, text)
    sys.stdout.write(text)
    return 0


def scores(scenes: list[ClipTruth], known: Knowledge) -> dict[str, float]:
    """The ideal listener's scores."""
    rng = np.random.default_rng(0)
    heights = np.concatenate([seen_heights(source, frame_times(9)) for scene in scenes for source in visible(scene)])
    usual = density(heights)
    chosen: dict[str, list[bool]] = {}
    own, foreign, off_screen = [], [], []
    for scene in scenes:
        sounds = heard(scene)
        if not sounds:
            continue
        probabilities, anything = listen(scene, sounds, known, usual)
        sounding = [source.audible for source in visible(scene)]
        if not any(sounding):
            off_screen.append(anything)
            continue
        chosen.setdefault(scene.scene_type, []).append(sounding[int(np.argmax(probabilities))])
        own.append(anything)
        for other in strangers(scene, scenes, rng):
            foreign.append(listen(scene, heard(other), known, usual)[1])
            break
    threshold = np.quantile(own, 1 - RECALL)
    return {
        "source chosen": float(np.mean([right for scenes_of_kind in chosen.values() for right in scenes_of_kind])),
        "source chosen, lookalikes": float(np.mean(chosen["lookalikes"])),
        "false positives, foreign": float(np.mean(np.array(foreign) >= threshold)),
        "false positives, off_screen": float(np.mean(np.array(off_screen) >= threshold)),
    }


def listen(
    scene: ClipTruth, sounds: Heard, known: Knowledge, usual: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> tuple[NDArray[np.float64], float]:
    """How probable it is of each visible source that it sounds `(V,)`, and that any of them does."""
    sources = visible(scene)
    times = frame_times(known.num_frames)
    fits = np.array([[fit(source, sound, known, times, usual) for source in sources] for sound in sounds])  # (S, V)
    elsewhere = np.array([off_screen_fit(sound) for sound in sounds])  # (S,)
    if len(sounds) == 1:
        weights = KINDS["lookalikes"] / len(sources) * fits[0]
    else:  # one of the two is seen
        weights = KINDS["lookalikes_off_screen"] * (fits * elsewhere[::-1, None]).sum(axis=0) / (2 * len(sources))
    total = weights.sum() + KINDS["off_screen"] * elsewhere.prod()
    if not total:
        return np.full(len(sources), 1 / len(sources)), 0.0
    return weights / total, float(weights.sum() / total)


def fit(
    source: SourceTruth,
    sound: Sound,
    known: Knowledge,
    times: NDArray[np.float64],
    usual: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> float:
    """Likelihood of a sound if this source makes it."""
    assert source.size_pixels is not None
    assert source.look is not None
    found = float(melody_fit(sound.hertz, source.size_pixels / ZOOMS).mean())
    if known.names:
        share = USUAL_SHARE if USUAL_TIMBRE[source.look] == sound.timbre else (1 - USUAL_SHARE) / 3
        found *= share * len(TIMBRE_NAMES)
    if len(times):
        apart = (seen_heights(source, times) - pose(sound.notes, times)) / POSE_ERROR
        alike = np.exp(-(apart**2) / 2) / (POSE_ERROR * np.sqrt(2 * np.pi))
        found *= float(np.prod(alike / usual(seen_heights(source, times))))
    return found


def off_screen_fit(sound: Sound) -> float:
    """Likelihood of a sound from off screen."""
    return float(melody_fit(sound.hertz, SIZES).mean())


def melody_fit(hertz: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Likelihood of the notes of an instrument of each size `(Z,)`: every step of the scale is as probable."""
    own = np.array([pitch(size) for size in sizes])
    steps = 12 * np.log2(hertz[None] / own[:, None])  # (Z, notes)
    apart = (steps[..., None] - np.array(SCALE)) / PITCH_ERROR
    return np.exp(-(apart**2) / 2).mean(axis=-1).prod(axis=-1)


def density(values: NDArray[np.float64]) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """How often heights near a value are seen."""

    def at(wanted: NDArray[np.float64]) -> NDArray[np.float64]:
        apart = (np.asarray(wanted)[:, None] - values) / POSE_ERROR
        return np.exp(-(apart**2) / 2).mean(axis=1) / (POSE_ERROR * np.sqrt(2 * np.pi))

    return at


def frame_times(count: int) -> NDArray[np.float64]:
    """Centres of equal parts of the middle window of a clip of 4 s."""
    return 0.5 + WINDOW_SECONDS * (np.arange(count) + 0.5) / max(count, 1)


def seen_heights(source: SourceTruth, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """How high a source is struck at some times."""
    return pose(notes_of(source), times)


def notes_of(source: SourceTruth) -> tuple[Note, ...]:
    strokes = source.details["strokes"]
    return tuple(Note(s["onset_seconds"], s["end_seconds"] - s["onset_seconds"], 0, s["velocity"]) for s in strokes)


def visible(scene: ClipTruth) -> list[SourceTruth]:
    return [source for source in scene.sources if source.visible]


def heard(scene: ClipTruth) -> Heard:
    """The sounds with a note in the window."""
    found = []
    for source in (source for source in scene.sources if source.audible):
        inside = [s["hertz"] for s in source.details["strokes"] if s["end_seconds"] > 0.5 and s["onset_seconds"] < 3.5]
        if inside:
            assert source.timbre is not None
            found.append(Sound(source.timbre, np.array(inside), notes_of(source)))
    return found


def strangers(scene: ClipTruth, scenes: list[ClipTruth], rng: np.random.Generator) -> Iterator[ClipTruth]:
    """Other scenes with sound and without a class in common, at random."""
    classes = {(source.look, source.timbre) for source in scene.sources if source.audible}
    for number in rng.permutation(len(scenes))[:FOREIGN]:
        other = scenes[number]
        if heard(other) and not classes & {(source.look, source.timbre) for source in other.sources if source.audible}:
            yield other


if __name__ == "__main__":
    raise SystemExit(main())
