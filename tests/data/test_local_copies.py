"""Copies of remote files: made once, shared, limited. The URLs are of files here, read as remote ones are."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from deepavfusion.data import local_copies
from deepavfusion.data.audit import AuditConfig, audit
from deepavfusion.data.clip import Clip, ClipError
from deepavfusion.data.clips import list_clips, read_manifest, write_manifest
from deepavfusion.data.digest import file_digest
from deepavfusion.data.local_copies import local_copy
from deepavfusion.data.media import MediaFile
from deepavfusion.data.opening import open_clip
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.data.stored_media import media_digest, media_status, never_changes
from deepavfusion.data.workers import map_isolated


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEEPAVFUSION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_clip_at_a_url_is_read_as_its_file(tmp_path: Path, cache: Path) -> None:
    path = write_sample_clips(tmp_path, 1, duration_seconds=1.2, size=64)[0]
    url = f"file://{path}"
    for _ in range(2):
        with open_clip(Clip("a", url)) as clip, MediaFile(path) as file:
            assert np.array_equal(clip.frame(0.6), file.frame(0.6))
    assert [entry.suffix for entry in cache.iterdir()] == [".mp4"]
    assert media_digest(url) == file_digest(str(path))
    assert media_status(url) is None
    path.unlink()
    with open_clip(Clip("a", url)) as clip:  # the copy stays
        assert clip.info.has_sound
    refused = pytest.raises(ClipError, match=r"clip b: file:///nowhere/b\.mp4: cannot be fetched: ")
    with refused, open_clip(Clip("b", "file:///nowhere/b.mp4")):
        pass
    assert local_copy(str(path)) == str(path)


def test_a_row_at_a_url_is_read_from_a_copy_of_its_file(tmp_path: Path, cache: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'deepavfusion[hub]'")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = write_sample_clips(tmp_path, 1, duration_seconds=1.2, size=64)[0]
    parquet.write_table(pyarrow.table({"video": [path.read_bytes()]}), tmp_path / "a.parquet")
    with open_clip(Clip("a", f"file://{tmp_path}/a.parquet#0:video=video")) as clip, MediaFile(path) as file:
        assert np.array_equal(clip.sound(0.2, 0.5), file.sound(0.2, 0.5))
    assert len(list(cache.iterdir())) == 1


def test_what_was_used_longest_ago_makes_room(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPAVFUSION_CACHE_GB", "0.0000025")  # two files and a half
    copies = []
    for number, name in enumerate("abc"):
        (tmp_path / name).write_bytes(bytes(1000))
        copies.append(local_copy(f"file://{tmp_path}/{name}"))
        os.utime(copies[-1], (number, number))
        if name == "b":
            local_copy(f"file://{tmp_path}/a")
    assert [os.path.exists(copy) for copy in copies] == [True, False, True]
    with pytest.warns(UserWarning, match=r"fetched again .* within 2\.5e-06 GB; raise DEEPAVFUSION_CACHE_GB"):
        local_copy(f"file://{tmp_path}/b")
    monkeypatch.setenv("DEEPAVFUSION_CACHE_GB", "much")
    (tmp_path / "d").write_bytes(b"d")
    with pytest.raises(ValueError, match=r"DEEPAVFUSION_CACHE_GB 'much' must be a positive number of gigabytes"):
        local_copy(f"file://{tmp_path}/d")


def test_a_file_is_fetched_before_the_time_for_a_clip_runs(tmp_path: Path, cache: Path) -> None:
    """By the process that gives clips out: a worker may take only so long, and would be killed over a large file."""
    path = write_sample_clips(tmp_path, 1, duration_seconds=1.2, size=64)[0]
    source, out = str(tmp_path / "in.csv"), str(tmp_path / "out.csv")
    write_manifest(source, [Clip("a", f"local://{path}"), Clip("b", "local:///nowhere/b.mp4")])
    audit(AuditConfig(source, out, num_workers=1))
    assert {clip.path for clip in list_clips(source)} <= local_copies._FETCHED
    assert [clip.verdict for clip in read_manifest(out)] == ["ok", "quarantined"]
    assert (read_manifest(out)[1].reason or "").startswith("unreadable: ")


def test_processes_that_want_a_file_at_once_get_the_same(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "a.bin").write_bytes(os.urandom(1 << 22))
    found = list(map_isolated(partial(_copy_of, f"file://{tmp_path}/a.bin"), range(4), 2, 60.0))
    assert len(set(found)) == 1
    assert [entry.suffix for entry in cache.iterdir()] == [".bin"]


def _copy_of(url: str, number: int) -> str:
    return file_digest(local_copy(url))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("hf://datasets/a/b@0123456789abcdef0123456789abcdef01234567/x.mp4", True),
        ("hf://datasets/a/b@0123456789abcdef0123456789abcdef01234567/x.parquet#1:video=v", True),
        ("hf://datasets/a/b@main/x.mp4", False),
        ("hf://datasets/a/b/x.mp4", False),
        ("https://a/b@0123456789abcdef0123456789abcdef01234567/x.mp4", False),
    ],
)
def test_what_is_named_with_its_commit_never_changes(path: str, expected: bool) -> None:
    assert never_changes(path) == expected
