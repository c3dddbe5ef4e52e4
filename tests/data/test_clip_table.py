"""Rows of a manifest as columns: the same clips as read one by one, and a sequence like any other."""

from __future__ import annotations

import csv
import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from deepavfusion.data import clip_table
from deepavfusion.data.clip import COLUMNS
from deepavfusion.data.clip_table import ClipTable
from deepavfusion.data.clips import (
    Clip,
    clips_where,
    column_of,
    find_clips,
    list_clips,
    quarantined,
    read_manifest,
    write_manifest,
)
from deepavfusion.data.splits import held_out, trained_on
from deepavfusion.training.run_folder import RunFolder

COUNT = 2 * 1024 + 137  # several chunks, the last one not full


def rows(folder: Path) -> list[Clip]:
    """Clips of every shape: known and unknown cells, many scripts, values that many share and that none does."""
    clips = []
    for i in range(COUNT):
        clip = Clip(f"clip {i}", str(folder / f"sub/{i}.mp4") if i % 3 else f"/elsewhere/ü{i}, \n{i}.mp4")
        if i % 5:
            clip = replace(clip, label=("dog", "Türe, zu", "犬", str(i))[i % 4], split=("train", "test", None)[i % 3])
        if i % 7:
            clip = replace(clip, duration_seconds=10 + i / 9, num_bytes=i * 10**10, modified_ns=17 * 10**17 + i)
        if i % 2:
            clip = replace(clip, width=640, height=i % 400, frame_rate=29.97, sample_rate=44100, channels=2)
        if i % 11 == 0:
            clip = replace(clip, verdict="quarantined", reason=f"duplicate of {i}", digest="")
        clips.append(replace(clip, digest=f"{i:032x}"))
    return clips


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Clip]]:
    folder = tmp_path_factory.mktemp("table")
    clips = rows(folder)
    write_manifest(str(folder / "clips.csv"), clips)
    return folder / "clips.csv", clips


def test_the_rows_are_those_that_were_written(manifest: tuple[Path, list[Clip]]) -> None:
    path, clips = manifest
    table = read_manifest(str(path))
    assert isinstance(table, ClipTable)
    assert len(table) == COUNT
    assert list(table) == clips
    assert table == clips
    assert table != clips[:-1]
    assert [table[i] for i in (0, 1, 1024, -1, COUNT - 2)] == [clips[i] for i in (0, 1, 1024, -1, COUNT - 2)]
    assert list(table[5:2000:7]) == clips[5:2000:7]
    assert list(table[::-1][3:5]) == clips[::-1][3:5]
    assert not table[7:7]
    assert clips[77] in table
    assert table.index(clips[1500]) == 1500
    for outside in (COUNT, -COUNT - 1):
        with pytest.raises(IndexError):
            table[outside]
    assert list(pickle.loads(pickle.dumps(table[10:20]))) == clips[10:20]
    for name in COLUMNS:
        assert list(table.column(name)) == [getattr(clip, name) for clip in clips]


def test_some_of_the_rows(manifest: tuple[Path, list[Clip]]) -> None:
    path, clips = manifest
    assert list(list_clips(str(path))) == clips
    assert list(find_clips(str(path))) == [clip for clip in clips if clip.verdict != "quarantined"]
    assert list(quarantined(str(path))) == [clip for clip in clips if clip.verdict == "quarantined"]
    found = find_clips(str(path))
    assert list(held_out(found)) == [clip for clip in found if clip.split == "test"]
    assert list(trained_on(found)[3:9]) == [clip for clip in found if clip.split != "test"][3:9]
    assert [*held_out(found), *trained_on(found)] != list(found)
    even = clips_where(found, "num_bytes", lambda value: value is not None and value % 20 == 0)
    assert list(even) == [clip for clip in found if clip.num_bytes is not None and clip.num_bytes % 20 == 0]
    assert list(column_of(even, "id")) == [clip.id for clip in even] == list(column_of(list(even), "id"))
    assert len(clips_where(found[:0], "label", lambda label: True)) == 0


def test_only_the_columns_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("label,path,id\n,x.mp4,a\n\ndog,/y.mp4,b\n", encoding="utf-8")
    table = read_manifest(str(tmp_path / "m.csv"))
    assert list(table) == [Clip("a", str(tmp_path / "x.mp4")), Clip("b", "/y.mp4", "dog")]
    assert len(clips_where(table, "split", lambda split: split is None)) == 2
    assert len(clips_where(table, "verdict", lambda verdict: verdict == "ok")) == 0


def test_a_selection_is_written_as_its_clips_are(manifest: tuple[Path, list[Clip]], tmp_path: Path) -> None:
    path, _ = manifest
    found = find_clips(str(path))
    for place in (tmp_path / "columns.csv", path.parent / "columns.csv"):
        write_manifest(str(place), found)
        write_manifest(str(place.with_name("rows.csv")), list(found))
        assert place.read_bytes() == place.with_name("rows.csv").read_bytes()
        assert list(read_manifest(str(place))) == list(found)


def test_what_is_wrong_far_down_is_named_with_its_line(tmp_path: Path) -> None:
    lines = ["id,path,width", *(f"{i},{i}.mp4,{i}" for i in range(3000))]
    for number, line, message in (
        (2001, "5,x.mp4,5", "line 2001: id '5' was already used in line 7"),
        (2500, "2498,x.mp4,wide", "line 2500: width 'wide' is not a number"),
        (2999, "2997,x.mp4", "line 2999: does not have 3 cells"),
        (1027, ",x.mp4,1", "line 1027: empty id"),
    ):
        wrong = [*lines[: number - 1], line, *lines[number:]]
        (tmp_path / "m.csv").write_text("\n".join(wrong))
        with pytest.raises(ValueError, match=message):
            read_manifest(str(tmp_path / "m.csv"))


def test_numbers_that_no_column_holds_are_read_row_by_row(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f"id,path,num_bytes\na,a.mp4,{10**30}\n")
    assert read_manifest(str(tmp_path / "m.csv"))[0].num_bytes == 10**30


def test_ids_of_one_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_table, "hash", lambda text: 1, raising=False)
    (tmp_path / "m.csv").write_text("id,path\na,a.mp4\nb,b.mp4\n")
    assert [clip.id for clip in read_manifest(str(tmp_path / "m.csv"))] == ["a", "b"]


def test_a_run_is_compared_by_ids_labels_and_order(manifest: tuple[Path, list[Clip]], tmp_path: Path) -> None:
    found, folder = find_clips(str(manifest[0])), RunFolder(tmp_path / "run")
    folder.write_start({}, found, 0, 1)
    folder.check({}, found)
    folder.check({}, list(found))
    swapped = [found[1], found[0], *found[2:]]
    relabelled = [replace(found[0], label="cat"), *found[1:]]
    for other in (found[:-1], swapped, relabelled):
        with pytest.raises(ValueError, match=f"holds a run on {len(found)} clips, now there are {len(other)}"):
            folder.check({}, other)
    with pytest.raises(ValueError, match=r"gone: \['clip 1'\], new: \['x'\]"):
        folder.check({}, [replace(found[0], id="x"), *found[1:]])


def test_texts_of_many_lengths_come_back(tmp_path: Path) -> None:
    ids = [f"{'é' * (i % 4)}{i}" for i in range(600)]
    with open(tmp_path / "m.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "path"), *((name, f"{name}.mp4") for name in ids)])
    table = read_manifest(str(tmp_path / "m.csv"))
    assert [clip.id for clip in table] == ids
    assert all(a.id != b.id for a, b in pairwise(table))
