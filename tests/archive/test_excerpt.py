"""Excerpts of real little files: what is seen and heard in them is what the recording has there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from deepavfusion.archive.excerpt import Excerpt, write_excerpt
from deepavfusion.archive.searching import Hit
from deepavfusion.audio import SAMPLE_RATE
from deepavfusion.data.media import MediaError, MediaFile, film_writer
from deepavfusion.drawing.film import QUALITY
from tests.inference.tiny_models import write_film, write_wav


def hit(path: Path, start: float, end: float, sound: Path | None = None) -> Hit:
    return Hit(str(path), None if sound is None else str(sound), start, end, 0.5, "both")


def stepped(path: Path) -> Path:
    """A film of 3 s that gets lighter every second, and a tone that gets higher."""
    frames = np.repeat(np.array([40, 120, 200], np.uint8), 12)[:, None, None, None] * np.ones((1, 40, 56, 3), np.uint8)
    times = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    sound = 0.3 * np.sin(2 * np.pi * (300 * (1 + times.astype(int))) * times)
    film_writer.write_film(path, frames, sound.astype(np.float32), 12, SAMPLE_RATE, QUALITY)
    return path


def test_a_film_is_cut_to_the_moment(tmp_path: Path) -> None:
    film = stepped(tmp_path / "film.mp4")
    found = write_excerpt(hit(film, 1.0, 2.0), tmp_path, "moment_1")
    assert found == Excerpt("moment_1.jpg", "moment_1.mp4", None)
    with MediaFile(tmp_path / "moment_1.mp4") as media:
        assert media.info.duration_seconds == pytest.approx(1.0, abs=0.1)
        assert (media.info.height, media.info.width) == (40, 56)
        for time in (0.1, 0.5, 0.9):
            assert media.frame(time).mean() == pytest.approx(120, abs=6)
        sound = media.sound(0.2, 0.5, SAMPLE_RATE)
    assert np.abs(np.fft.rfft(sound)).argmax() / 0.5 == pytest.approx(600, abs=5)
    assert np.asarray(Image.open(tmp_path / "moment_1.jpg")).mean() == pytest.approx(120, abs=6)


def test_what_a_recording_lacks_has_no_file(tmp_path: Path) -> None:
    tone = write_wav(tmp_path / "tone.wav", 2.0)
    photo = tmp_path / "photo.png"
    Image.new("RGB", (900, 300), (10, 200, 90)).save(photo)
    assert write_excerpt(hit(tone, 0.5, 1.5), tmp_path, "a") == Excerpt(None, None, "a.wav")
    with MediaFile(tone) as media:
        sound, rate = soundfile.read(tmp_path / "a.wav")
        assert (len(sound), rate) == (SAMPLE_RATE, SAMPLE_RATE)
        np.testing.assert_allclose(sound, media.sound(0.5, 1.0, SAMPLE_RATE), atol=1e-4)
    assert write_excerpt(hit(photo, 0.0, 0.0), tmp_path, "b") == Excerpt("b.jpg", None, None)
    assert Image.open(tmp_path / "b.jpg").size == (480, 160)
    assert write_excerpt(hit(photo, 0.5, 1.5, tone), tmp_path, "c") == Excerpt("c.jpg", None, "c.wav")
    mute = tmp_path / "mute.mp4"
    with film_writer.FilmWriter(mute, (40, 56), 10, None, QUALITY) as film:
        for light in range(0, 200, 10):
            film.add_picture(np.full((40, 56, 3), light, np.uint8))
    assert write_excerpt(hit(mute, 0.5, 1.5), tmp_path, "d") == Excerpt("d.jpg", "d.mp4", None)
    with MediaFile(tmp_path / "d.mp4") as media:
        assert not media.info.has_sound


def test_a_recording_that_is_gone_or_shorter_is_an_error(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", 1.0)
    with pytest.raises(MediaError, match=r"film.mp4: is only 1.0 s long now"):
        write_excerpt(hit(film, 5.0, 6.0), tmp_path, "a")
    film.unlink()
    with pytest.raises(MediaError, match="No such file"):
        write_excerpt(hit(film, 0.0, 1.0), tmp_path, "a")
    assert list(tmp_path.iterdir()) == []
