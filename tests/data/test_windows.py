"""Several windows of a clip: where they lie, on real files that tell the time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepavfusion.data.clips import find_clips
from deepavfusion.data.opening import open_clip
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.data.views import CentreView
from deepavfusion.data.windows import WindowSet


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_sample_clips(folder, 1, duration_seconds=3.0, size=64)
    return folder


def test_windows_reach_from_start_to_end_with_their_middle_frames(folder: Path) -> None:
    clip, view = find_clips(str(folder))[0], CentreView((32, 32), 1.0)
    with open_clip(clip) as media:
        length = media.info.duration_seconds
        reads = [replace(view, num_windows=5, window=k).read(media) for k in range(5)]
        room = length - 1.0
        assert [r.start_seconds for r in reads] == pytest.approx([k * room / 4 for k in range(5)])
        assert [r.frame_seconds for r in reads] == pytest.approx([0.5 + k * room / 4 for k in range(5)])
        middle = view.read(media)
        assert middle.start_seconds == pytest.approx(room / 2)
        np.testing.assert_array_equal(middle.image, reads[2].image)
        np.testing.assert_array_equal(middle.waveform, reads[2].waveform)
        whole = [replace(view, window_seconds=9.0, num_windows=3, window=k).read(media) for k in range(3)]
        assert {r.start_seconds for r in whole} == {0.0}
        for other in whole[1:]:
            np.testing.assert_array_equal(other.waveform, whole[0].waveform)
            np.testing.assert_array_equal(other.image, whole[0].image)


def test_a_set_lists_the_windows_of_each_clip_in_turn(folder: Path) -> None:
    clips = find_clips(str(folder)) * 2
    windows = WindowSet(clips, CentreView((32, 32), 1.0), 3)
    assert len(windows) == 6
    np.testing.assert_array_equal(windows[1].waveform, windows[4].waveform)
    assert not np.array_equal(windows[0].waveform, windows[1].waveform)
    with pytest.raises(ValueError, match="windows 0 must be at least 1"):
        WindowSet(clips, CentreView(), 0)
