"""Voices: right pitch, right families of partials, equal strength; and the scores they play."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from deepavfusion.bandstand import score, timbres
from deepavfusion.bandstand.sources import LARGEST, SMALLEST, pitch

RATE = 16000


def _spectrum(timbre: str, hertz: float, start: float = 0.1) -> np.ndarray:
    wave = timbres.play(timbre, hertz, 1.2, RATE, np.random.default_rng(0))[int(start * RATE) :][: RATE // 2]
    return np.abs(np.fft.rfft(wave * np.hanning(len(wave))))  # 2 Hz per bin


def _level(spectrum: np.ndarray, hertz: float) -> float:
    place = round(hertz / 2)
    return float(spectrum[place - 6 : place + 7].max())


@pytest.mark.parametrize("timbre", timbres.TIMBRES)
@pytest.mark.parametrize("hertz", [pitch(LARGEST) * 2 ** (-3 / 12), 300.0, pitch(SMALLEST) * 2 ** (7 / 12)])
def test_notes_have_their_pitch_and_are_equally_strong(timbre: str, hertz: float) -> None:
    spectrum = _spectrum(timbre, hertz)
    loud = np.flatnonzero(spectrum > 0.1 * spectrum.max()) * 2
    assert loud[0] == pytest.approx(hertz, abs=0.03 * hertz + 6)
    wave = timbres.play(timbre, hertz, 0.5, RATE, np.random.default_rng(0))
    assert wave.dtype == np.float32
    assert len(wave) == RATE // 2
    assert np.sqrt(np.mean(wave[: int(0.15 * RATE)] ** 2)) == pytest.approx(1, rel=1e-3)


def test_families_differ_in_their_partials() -> None:
    levels = {name: [_level(_spectrum(name, 250), 250 * k) for k in (1, 2, 3, 5)] for name in timbres.TIMBRES}
    assert levels["reed"][1] < 0.02 * levels["reed"][0] < levels["reed"][2]  # odd ones only
    assert levels["pluck"][1] > 0.3 * levels["pluck"][0]
    assert max(levels["brass"][2:]) > levels["brass"][0]  # the formant
    chime = _spectrum("chime", 250)
    assert _level(chime, 2.756 * 250) > 20 * _level(chime, 2 * 250)


def test_strings_and_bars_die_away_while_pipes_hold() -> None:
    for name, low, high in (("pluck", 0, 0.3), ("chime", 0, 0.3), ("reed", 0.8, 1.3), ("brass", 0.8, 1.5)):
        wave = timbres.play(name, 220, 1.5, RATE, np.random.default_rng(0))
        early, late = (np.sqrt(np.mean(wave[int(t * RATE) :][:1600] ** 2)) for t in (0.1, 1.3))
        assert low <= late / early <= high, name


def test_partials_stay_below_the_limit_of_the_sample_rate() -> None:
    for name in ("pluck", "brass"):
        wave = timbres.play(name, 1500, 0.5, RATE, np.random.default_rng(0))
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
        assert spectrum[int(0.47 * len(wave)) :].max() < 1e-2 * spectrum.max()


def test_bigger_is_lower() -> None:
    assert pitch(80) == pytest.approx(pitch(40) / 8)
    assert 80 < pitch(LARGEST) < 100 < pitch(SMALLEST) == 1000


def test_scores_fit_the_clip_and_have_at_least_three_notes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        notes = score.draw_notes(rng, 4.0)
        assert len(notes) >= 3
        assert all(b.onset_seconds >= a.end_seconds - 2e-3 for a, b in pairwise(notes))
        assert notes[-1].end_seconds <= 4.0 + 1e-3
        assert all(0.55 <= note.velocity <= 1 and note.duration_seconds > 0.15 for note in notes)


def test_pose_follows_the_strokes() -> None:
    notes = (score.Note(1.0, 0.3, 0, 0.8), score.Note(2.0, 0.3, 0, 1.0))
    times = np.array([0.5, 1.0, 1.0 + score.DECAY_SECONDS, 1.98, 2.0])
    assert score.pose(notes, times) == pytest.approx([0, 0.8, 0.8 / np.e, 0.5, 1.0], abs=1e-9)


def test_intervals_close_short_pauses() -> None:
    notes = (score.Note(0.1, 0.2, 0, 1.0), score.Note(0.34, 0.2, 0, 1.0), score.Note(1.0, 0.5, 0, 1.0))
    assert score.intervals(notes) == ((0.1, 0.54), (1.0, 1.5))
