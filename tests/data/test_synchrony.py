"""What moves when it sounds: by hand, against numpy, and on a really encoded clip with a decoy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from deepavfusion.data import synchrony
from deepavfusion.data.clips import Clip, ClipError
from deepavfusion.data.synchrony import (
    UNDECIDED,
    SynchronyMasks,
    blurred,
    decide,
    onset_strength,
    texture,
    visual_change,
)
from tests.data.media_writer import Clip as Written
from tests.data.media_writer import write_clip

HEARD = (0.5, 1.1, 1.5, 2.4, 3.2)
MIMED = (0.3, 0.8, 1.9, 2.1, 2.8)
FRAME_RATE = 25


def swing(seconds: float, strokes: tuple[float, ...]) -> float:
    """1 at a stroke, gone after a quarter of a second."""
    since = [seconds - stroke for stroke in strokes if seconds >= stroke]
    return float(np.exp(-since[-1] / 0.08)) if since else 0.0


def two_players(number: int, height: int, width: int) -> np.ndarray:
    """The upper left quarter moves when it sounds, the lower right one at other times; so does the light in the upper
    right one, which is nobody's."""
    picture = np.random.default_rng(0).integers(60, 120, (height, width, 3)).astype(float)
    seconds, rows, columns = number / FRAME_RATE, height // 2, width // 2
    for upper, left, when in ((0, 0, HEARD), (rows, columns, MIMED)):
        place = slice(upper, upper + rows), slice(left, left + columns)
        picture[place] = np.roll(picture[place], round(8 * swing(seconds, when)), axis=0)
    picture[:rows, columns:] += 30 * swing(seconds, HEARD)
    return picture.astype(np.uint8)


def strokes(times: np.ndarray) -> np.ndarray:
    """Decaying tones at the heard strokes."""
    out = np.zeros_like(times)
    for stroke in HEARD:
        since = np.maximum(times - stroke, 0)
        out += np.where(times >= stroke, 0.4 * np.exp(-since / 0.15) * np.sin(2 * np.pi * 440 * since), 0)
    return out


@pytest.fixture(scope="module")
def duet(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    written = Written(seconds=4.0, size=(80, 80), frame_rate=FRAME_RATE, picture=two_players, sound=strokes)
    return Clip("duet", str(write_clip(tmp_path_factory.mktemp("duet") / "duet.mp4", written)))


def test_the_player_who_is_heard_is_found_and_the_one_who_mimes_is_not(duet: Clip) -> None:
    mask = SynchronyMasks().read(duet, 1.5, 0.0, 3.0)
    assert mask.shape == (20, 20)
    assert (mask[1:9, 1:9] == 1).mean() > 0.9
    assert (mask[11:19, 11:19] == 1).sum() == 0
    assert (mask[1:9, 11:19] == 1).mean() < 0.1
    others = np.concatenate([mask[1:9, 12:19].ravel(), mask[12:19, 1:9].ravel()])  # an edge bleeds into one cell
    assert (others == 1).mean() < 0.05


def test_a_short_clip_is_correlated_once(duet: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = SynchronyMasks()
    first = masks.read(duet, 1.5, 0.0, 3.0)
    monkeypatch.setattr(synchrony, "correlate", None)
    assert masks.read(duet, 2.5, 1.0, 4.0) is first


def test_clips_without_sound_or_files_are_named(tmp_path: Path) -> None:
    mute = write_clip(tmp_path / "mute.mp4", Written(seconds=4.0, audio_codec=None))
    with pytest.raises(ClipError, match="no sound"):
        SynchronyMasks().read(Clip("mute", str(mute)), 1.0, 0.0, 3.0)
    with pytest.raises(ClipError, match="shard storage has too few frames"):
        SynchronyMasks().read(Clip("a", "shards/00000.tar#0"), 1.0, 0.0, 3.0)


def test_what_moves_changes_and_a_flash_of_light_does_not() -> None:
    rng = np.random.default_rng(0)
    still = rng.integers(60, 120, (32, 32, 3)).astype(np.float64)  # texture everywhere
    frames = np.stack([still] * 3)
    frames[1:, 8:16, 8:16] = rng.integers(60, 120, (8, 8, 3))  # another thing there
    glow = 60 * np.exp(-((np.arange(32) - 24.0) ** 2) / 50)
    frames[1] += (glow[:, None] * glow / 60)[..., None]  # bright at the lower right, in one frame
    change = visual_change(frames.astype(np.uint8))
    assert change.shape == (2, 4, 4)
    assert change[0].argmax() == 5  # row 1, column 1
    assert change[0, 3, 3] < 0.4 * change[0, 1, 1]
    plain = np.abs(np.diff(frames, axis=0)).mean(axis=3)[0].reshape(4, 8, 4, 8).mean(axis=(1, 3))
    assert plain[3, 3] > plain[1, 1]  # by brightness the flash would be the source
    assert change[1, 1, 1] < 0.3 * change[0, 1, 1]


def test_texture_is_free_of_gain_and_offset() -> None:
    x = 100 + 40 * torch.randn(1, 3, 24, 24, generator=torch.manual_seed(0))
    bright = texture(0.5 * x + 90)
    torch.testing.assert_close(bright, texture(x), atol=0.05, rtol=0.15)
    assert not texture(torch.full((1, 3, 24, 24), 77.0)).abs().max() > 1e-4


def test_blurring_is_a_gaussian() -> None:
    x = torch.zeros(1, 1, 15, 15)
    x[0, 0, 7, 7] = 1
    weight = np.exp(-(np.arange(-6, 7) ** 2) / 8)
    expected = np.outer(weight, weight) / weight.sum() ** 2
    np.testing.assert_allclose(blurred(x, 2.0)[0, 0, 1:14, 1:14], expected, atol=1e-6)


def test_an_onset_falls_to_the_frame_that_shows_it() -> None:
    spectrogram = np.full((4, 64), -7.0, np.float32)
    spectrogram[:2, 21:] = 0.0  # half of the bands, from 21/64 s on: between the frames at 0.3 and 0.4 s
    onsets = onset_strength(spectrogram, np.arange(10) / 10)
    assert onsets.argmax() == 3
    assert onsets[3] == pytest.approx(synchrony.DYNAMIC_RANGE / 2)  # the floor lies three decades down
    np.testing.assert_allclose(np.delete(onsets, 3), 0)


def test_synchrony_is_a_correlation_less_where_little_changes_and_zero_where_nothing_does() -> None:
    rng = np.random.default_rng(0)
    change, onsets = rng.random((30, 2, 3)), rng.random(30)
    change[:, 1, 2] = 0.5
    found = synchrony.synchrony(change, onsets)
    for row in range(2):
        for column in range(3):
            if (row, column) != (1, 2):
                x = change[:, row, column]
                expected = np.corrcoef(x, onsets)[0, 1] * x.std() / (x.std() + synchrony.SMALL_CHANGE)
                assert found[row, column] == pytest.approx(expected)
    assert found[1, 2] == 0
    assert not synchrony.synchrony(change, np.ones(30)).any()  # a sound that never rises has no source


def test_cells_between_the_two_limits_are_undecided() -> None:
    np.testing.assert_array_equal(
        decide(np.array([-0.9, 0.09, 0.1, 0.19, 0.2, 1.0])), [0, 0, UNDECIDED, UNDECIDED, 1, 1]
    )
