"""Windows and moments of recordings: they cover, they are spaced as evaluation spaces them, and one is exactly one."""

from __future__ import annotations

import numpy as np
import pytest

from deepavfusion.data.views import CentreView
from deepavfusion.inference.inputs import Arrays, open_recording
from deepavfusion.inference.sliding_sound import BLOCK_SECONDS, SlidingSound, sound_blocks
from deepavfusion.inference.windows import around, check_duration, mean_over_windows, split, step_times


@pytest.mark.parametrize("duration", [0.0, 0.1, 2.9, 3.0, 3.0000001, 3.1, 4.5, 10.0, 61.7])
@pytest.mark.parametrize("hop", [0.5, 1.5, 3.0])
def test_windows_cover_a_recording_and_end_with_it(duration: float, hop: float) -> None:
    windows = split(duration, 3.0, hop)
    starts = windows.start_seconds
    assert starts[0] == 0
    assert starts[-1] + windows.length_seconds == pytest.approx(duration, abs=1e-6)
    assert windows.length_seconds == min(duration, 3.0)
    assert (np.diff(starts) <= hop + 1e-9).all()
    if duration <= 3.0001:
        assert len(starts) == 1
        assert windows.centre_seconds[0] == pytest.approx(duration / 2)
    else:
        assert len(starts) == 1 + np.ceil(round((duration - 3) / hop, 6))
        assert len(starts) < 2 or np.allclose(np.diff(starts), starts[1])


def test_windows_lie_where_evaluation_lays_them() -> None:
    windows = split(10.0, 3.0, 7 / 9)  # ten of them

    class Silent:
        class info:
            duration_seconds, has_picture, has_sound, width, height = 10.0, False, False, 0, 0

    views = [CentreView((8, 8), 3.0, 10, w).read(Silent()) for w in range(10)]  # type: ignore[arg-type]
    assert np.allclose(windows.start_seconds, [view.start_seconds for view in views])
    assert np.allclose(windows.centre_seconds, [view.frame_seconds for view in views])


def test_moments_and_the_windows_around_them() -> None:
    assert step_times(0.0, 0.1).tolist() == [0.0]
    assert np.allclose(step_times(0.3, 0.1), [0, 0.1, 0.2])
    assert np.allclose(step_times(0.31, 0.1), [0, 0.1, 0.2, 0.3])
    assert [around(t, 3.0, 10.0) for t in (0.0, 1.5, 5.0, 9.9)] == [0.0, 0.0, 3.5, 7.0]
    assert around(0.2, 3.0, 0.3) == 0.0


def test_lengths_that_are_none_are_refused() -> None:
    for duration in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValueError, match="claims a length"):
            check_duration(duration)
    with pytest.raises(ValueError, match=r"277777\.8 hours long; at most 12 are supported: cut it"):
        step_times(1e9, 0.1)
    with pytest.raises(ValueError, match="must be positive"):
        split(1.0, 3.0, 0.0)


def test_the_mean_of_one_window_is_its_own_value() -> None:
    rows = np.float32([[0.1, 1 / 3], [5.0, 7.0], [np.float32(np.nan), 0.0]])
    assert np.array_equal(mean_over_windows(rows[:1], np.array([True])), rows[0])
    assert np.array_equal(mean_over_windows(rows, np.array([True, True, False])), (rows[0] + rows[1]) / 2)
    assert np.array_equal(mean_over_windows(rows, np.zeros(3, bool)), np.zeros(2))


def test_sliding_sound_is_the_sound_and_keeps_little_of_it() -> None:
    waveform = np.random.default_rng(0).uniform(-1, 1, round(2.3 * BLOCK_SECONDS * 16000)).astype(np.float32)
    with open_recording(Arrays(sound=waveform, rate=16000)) as recording:
        sound = SlidingSound(recording)
        for start in (0.0, 0.0, 0.37, 12.0, 29.5, 30.0, 55.0, 67.5, 68.9, 500.0):
            first = round(start * 16000)
            assert np.array_equal(sound.window(start, 3.0), waveform[first : first + 48000])
            assert len(sound._held) <= (BLOCK_SECONDS + 3) * 16000
        with pytest.raises(ValueError, match="must ascend"):
            sound.window(0.0, 1.0)
        assert np.array_equal(np.concatenate(list(sound_blocks(recording))), waveform)


def test_words_become_task_files_and_switches() -> None:
    from deepavfusion.arguments import UsageError
    from deepavfusion.verbs.inference import INFERENCE
    from deepavfusion.verbs.verb import parsed

    verb = INFERENCE["predict"]
    names = ["a.mp4", "b, c.mp4", "[d].mp4", 'quo"te\\.mp4', "tab\t\n.mp4", "\N{GRINNING FACE}.mp4", "{e: f}", "-x.mp4"]
    names += ["null", "1", "\udcff.mp4", "ü.mp4", "'", "#", "~", "*a", "&b", "\x7f\x1b[31m"]
    for words in (
        [*names, "--json", "--out", "o", "--arrays"],
        ["--json", *names, "--arrays", "true", "--out", "o"],
        [names[0], "--out=o", "--arrays", *names[1:], "--json"],
    ):
        config = parsed(verb, ["localization", *words])
        assert config.task == "localization"
        assert config.files == tuple(names)
        assert config.json
        assert config.arrays
        assert not config.overwrite
        assert config.out == "o"
    boxes = ["--boxes", "[[0,0,0.5,1],[0.5,0,1,1]]"]
    config = parsed(verb, ["separation", "a", "--out", "o", *boxes, "--json", "false"])
    assert config.boxes == ((0, 0, 0.5, 1), (0.5, 0, 1, 1))
    assert not config.json
    config = parsed(verb, ["embedding,segmentation", "a", "--out", "o"])
    assert config.tasks == ("embedding", "segmentation")
    for given, message in (
        (["localization"], "missing --files"),
        ([], "missing --task, --files"),
        (["levitation", "a", "--json"], "--task"),
        (["embedding,embedding", "a", "--json"], "--task .* must name at least one, and each once"),
        (["embedding,localization", "a", "--json", "--consistent"], "of separation, not of embedding, localization"),
        (["localization", "a"], "--out is missing: give --out DIR, or --json"),
        (["separation", "a", "--json"], "--out is missing: separated sounds need a folder"),
        (["localization", "a", "--json", "--consistent"], "settings of separation, not of localization"),
        (["localization", "a", "--json", "--step_seconds", "0"], "--step_seconds 0.0 must be from 0.01"),
        (["localization", "a", "--json", "--bacth_size", "1"], "did you mean --batch_size"),
    ):
        with pytest.raises(UsageError, match=message):
            parsed(verb, given)
