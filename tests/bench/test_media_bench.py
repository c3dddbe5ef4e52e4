"""Every way of reading is measured on the same views, and a table comes out."""

import json
from pathlib import Path

import pytest

from deepavfusion.bench.config import MediaBenchConfig
from deepavfusion.bench.media import run, write_clip
from deepavfusion.data.jpeg import installed_decoders
from deepavfusion.data.media import MediaFile


def test_the_clip_written_is_the_one_described(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", seed=0, num_seconds=4)
    with MediaFile(str(tmp_path / "clip.mp4")) as media:
        info = media.info
        assert (info.width, info.height, info.frame_rate, info.sample_rate, info.channels) == (640, 360, 30, 44_100, 2)
        assert info.duration_seconds == pytest.approx(4, abs=0.1)


def test_all_ways_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_clip(tmp_path / "clip.mp4", seed=0, num_seconds=4)
    path = tmp_path / "speed.json"
    speeds = run(MediaBenchConfig(source=str(tmp_path), views=3, json=str(path)))
    assert [speed.num_views for speed in speeds] == [3] * (2 + 2 * len(installed_decoders()))
    assert all(speed.milliseconds > 0 and speed.clips_per_core_second > 0 for speed in speeds)
    assert len(json.loads(path.read_text())["speeds"]) == len(speeds)
    assert "files, exact" in capsys.readouterr().out
