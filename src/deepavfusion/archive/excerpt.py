"""An excerpt: what is seen and heard in a moment of a recording, as small files that browsers play.

NAME.jpg    the frame in the middle, or the photo
NAME.mp4    the frames and the sound of a moment of a video
NAME.wav    the sound of a moment without moving picture
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from deepavfusion.archive.searching import Hit
from deepavfusion.atomic import replacing
from deepavfusion.audio import SAMPLE_RATE
from deepavfusion.data.clip import storage_of
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.media import MediaError
from deepavfusion.data.media.film_writer import FilmWriter
from deepavfusion.data.stored_media import media_digest
from deepavfusion.drawing.film import QUALITY, film_size
from deepavfusion.inference.inputs import Recording, open_recording

FRAME_RATE = 25.0
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Excerpt:
    """Names of the files of a moment; None where there is none of a kind."""

    picture: str | None = None
    film: str | None = None
    sound: str | None = None


def write_excerpt(hit: Hit, folder: Path, name: str) -> Excerpt:
    """Write the excerpt of a moment that was found.

    Args:
        hit: the moment.
        folder: where the files go.
        name: of the files, without suffix.

    Raises:
        MediaError: the recording cannot be read, is not as long any more, or what lies in its place is another clip.
        ValueError: it has no picture, or no sound, any more.
        NotWrittenError: a full disk.
    """
    if storage_of(hit.path) == "row" and hit.digest not in (None, media_digest(hit.path)):  # shards look themselves
        raise MediaError(hit.path, "is another clip now: the file was written anew since it was indexed")
    with open_recording(hit.recording) as recording:
        info = recording.info
        if hit.start_seconds > info.duration_seconds + _ROUNDING:
            raise MediaError(hit.path, f"is only {info.duration_seconds:.1f} s long now")
        length = max(0.0, min(hit.end_seconds, info.duration_seconds) - hit.start_seconds)
        sound = np.zeros(0, np.float32)
        if info.has_sound and length:
            sound = recording.sound(hit.start_seconds, length)
        picture = film = heard = None
        if info.has_picture:
            picture = f"{name}.jpg"
            crop = FrameCrop.whole(film_size(info.height, info.width))
            (still,) = recording.frames([hit.start_seconds + length / 2], crop)
            with replacing(folder / picture) as path:
                Image.fromarray(still).save(path, "jpeg", quality=85)
            if length and not info.is_photo:
                film = f"{name}.mp4"
                with replacing(folder / film) as path:
                    _write_film(path, recording, hit.start_seconds, length, crop, sound)
        if film is None and len(sound):
            heard = f"{name}.wav"
            with replacing(folder / heard) as path:
                soundfile.write(path, sound, SAMPLE_RATE, subtype="PCM_16")
        return Excerpt(picture, film, heard)


def _write_film(
    path: Path, recording: Recording, start_seconds: float, length_seconds: float, crop: FrameCrop, sound: np.ndarray
) -> None:
    count = max(1, round(length_seconds * FRAME_RATE))
    wanted = [(start_seconds + number / FRAME_RATE, (crop,)) for number in range(count)]
    rate = SAMPLE_RATE if len(sound) else None
    with FilmWriter(path, crop.output_size, FRAME_RATE, rate, QUALITY) as film:
        for (frame,) in recording.film(wanted):
            film.add_picture(frame)
        if len(sound):
            film.add_sound(sound)
