"""The clips the package writes itself, decoded again."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import av
import numpy as np
import pytest

from deepavfusion.data.sample_clips import draw_clip, write_sample_clips


def decode(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with av.open(str(path)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    with av.open(str(path)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    return frames, sound


def test_written_clips_show_and_sound_what_was_drawn(tmp_path: Path) -> None:
    (path,) = write_sample_clips(tmp_path, 1, seed=5, duration_seconds=2.0)
    frames, sound = draw_clip("disc", np.random.default_rng((5, 0)), 2.0, 160)
    seen, heard = decode(path)
    assert seen.shape == frames.shape == (25, 160, 160, 3)
    error = np.mean((seen.astype(float) - frames) ** 2)
    assert 10 * np.log10(255**2 / error) > 27  # decibels, after 4:2:0 chroma
    assert np.corrcoef(heard[: len(sound)], sound)[0, 1] > 0.98
    assert np.median(np.abs(np.diff(frames.astype(int), axis=0)).max(axis=(1, 2, 3))) > 50  # it moves


def test_clips_depend_on_seed_and_number_alone(tmp_path: Path) -> None:
    first = write_sample_clips(tmp_path / "a", 5, seed=1, duration_seconds=0.5)
    again = write_sample_clips(tmp_path / "b", 3, seed=1, duration_seconds=0.5)
    other = write_sample_clips(tmp_path / "c", 3, seed=2, duration_seconds=0.5)
    assert [p.relative_to(tmp_path / "a").as_posix() for p in first] == [
        "disc/0000.mp4",
        "square/0001.mp4",
        "triangle/0002.mp4",
        "ring/0003.mp4",
        "disc/0004.mp4",
    ]
    digests = [[hashlib.sha256(p.read_bytes()).hexdigest() for p in paths[:3]] for paths in (first, again, other)]
    assert digests[0] == digests[1]
    assert not set(digests[0]) & set(digests[2])
    assert len(list((tmp_path / "a").rglob("*"))) == 4 + 5  # no partial files


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    (path,) = write_sample_clips(tmp_path, 1, duration_seconds=0.5)
    os.utime(path, (0, 0))
    write_sample_clips(tmp_path, 1, duration_seconds=0.5)
    assert path.stat().st_mtime == 0


def test_writing_is_quick(tmp_path: Path) -> None:
    start = time.process_time()
    write_sample_clips(tmp_path, 4)
    assert (time.process_time() - start) / 4 < 0.3


def test_odd_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size 161 must be even"):
        write_sample_clips(tmp_path, 1, size=161)
