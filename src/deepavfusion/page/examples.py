"""Example clips of Bandstand, generated when the server starts, always the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import soundfile
from PIL import Image

from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.generation import make_cast, make_clip
from deepavfusion.bandstand.writer import encode

SIZE = 240
SECONDS = 8.0
SEED = 0


@dataclass(frozen=True)
class Example:
    """One of them: a film, or a photo and a sound."""

    title: str
    note: str
    poster: Path
    """A small JPEG."""
    video: Path | None = None
    photo: Path | None = None
    sound: Path | None = None


_CLIPS = (
    ("Solo", "one instrument", "solo", "test", 5),
    ("Duet", "two play at once", "duet", "duets", 2),
    ("Look-alikes", "one plays, the others mime", "lookalikes", "localization", 3),
    ("Twins", "same look, two sizes: which one plays?", "twins", "twins_test", 4),
    ("Photo and sound", "a photo with its sound", "photo", "test", 1),
)


def make_examples(folder: Path) -> list[Example]:
    """Write the files and return what they are.

    Args:
        folder: is made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = BandstandConfig(out=str(folder), size=SIZE, seconds=SECONDS, seed=SEED, stems=False, masks=False)
    cast = make_cast(config)
    found = []
    for title, note, name, split, index in _CLIPS:
        clip = make_clip(config, cast, split, index)
        frames, sound = clip.pictures.frames, clip.sounds.mixture
        still = Image.fromarray(frames[len(frames) // 2])
        poster = folder / f"{name}_poster.jpg"
        still.save(poster, quality=88)
        if name == "photo":
            photo, wav = folder / f"{name}.png", folder / f"{name}.wav"
            still.save(photo)
            soundfile.write(wav, sound, clip.truth.sample_rate, subtype="PCM_16")
            found.append(Example(title, note, poster, photo=photo, sound=wav))
        else:
            video = folder / f"{name}.mp4"
            encode(str(video), frames, sound, clip.truth.frame_rate, clip.truth.sample_rate)
            found.append(Example(title, note, poster, video=video))
    return found
