"""Clips of the animals of gcompris-qt-data: Qt's resources are read, and clips written."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from deepavfusion.data.clips import find_clips
from deepavfusion.data.opening import open_clip
from experiments.farm_animals import RESOURCE, read_resource, write_clips


def resource(version: int, flags: tuple[int, int] = (0, 1)) -> bytes:
    """`/farm/cow.txt` and, compressed, `/farm/é.txt`, written by Qt's own layout."""
    names, offsets = b"", []
    for name in ("farm", "cow.txt", "é.txt"):
        offsets.append(len(names))
        names += struct.pack(">HI", len(name), 0xABCD) + name.encode("utf-16-be")
    moo, packed = b"moo" * 50, b"\0\0\0\x03" + zlib.compress(b"baa")
    contents = struct.pack(">I", len(moo)) + moo + struct.pack(">I", len(packed)) + packed
    time = b"" if version == 1 else bytes(8)
    tree = struct.pack(">IHII", 0, 2, 1, 1) + time + struct.pack(">IHII", offsets[0], 2, 2, 2) + time
    for name, flag, offset in ((offsets[1], flags[0], 0), (offsets[2], flags[1], 4 + len(moo))):
        tree += struct.pack(">IHHHI", name, flag, 0, 1, offset) + time
    header = 20 if version < 3 else 24
    places = (header, header + len(tree), header + len(tree) + len(contents))
    return b"qres" + struct.pack(">4I", version, *places) + bytes(header - 20) + tree + contents + names


@pytest.mark.parametrize("version", [1, 2, 3])
def test_resources_are_read_with_their_folders_and_compression(version: int) -> None:
    found = dict(read_resource(resource(version), "x.rcc"))
    assert found == {"/farm/cow.txt": b"moo" * 50, "/farm/é.txt": b"baa"}


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x\.rcc: not one of Qt's binary resources"):
        list(read_resource(b"PK\3\4" + bytes(40), "x.rcc"))
    with pytest.raises(ValueError, match=r"x\.rcc: damaged"):
        list(read_resource(resource(2)[:60], "x.rcc"))
    with pytest.raises(ValueError, match=r"/farm/cow\.txt is compressed with zstd"):
        list(read_resource(resource(2, (4, 1)), "x.rcc"))
    (tmp_path / "other.rcc").write_bytes(resource(2))
    with pytest.raises(ValueError, match=r"other\.rcc: no cat\.webp in it"):
        write_clips(tmp_path / "other.rcc", tmp_path / "out", 1)
    with pytest.raises(ValueError, match="apt-get install gcompris-qt-data"):
        write_clips(tmp_path / "none.rcc", tmp_path / "out", 1)


def test_clips_of_the_package(tmp_path: Path) -> None:
    if not RESOURCE.is_file():
        pytest.skip("needs the Debian package gcompris-qt-data")
    write_clips(RESOURCE, tmp_path, 1)
    clips = find_clips(str(tmp_path / "clips.csv"))
    assert [clip.label for clip in clips] == ["blackcat", "hen", "cow", "dog", "duck", "horse", "owl", "pig", "sheep"]
    for clip in clips[:2]:
        with open_clip(clip) as media:
            assert media.frame(2.0).std() > 20
            assert np.abs(media.sound(0.0, 4.0, 16000)).max() > 0.1
