"""An index of clips of data sets: shards, rows of Parquet files, and what becomes of it when these are written anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepavfusion.archive.config import IndexConfig, SearchConfig
from deepavfusion.archive.excerpt import Excerpt, write_excerpt
from deepavfusion.archive.indexing import index
from deepavfusion.archive.searching import OpenIndex, search
from deepavfusion.archive.window_table import WindowTable
from deepavfusion.audio import SAMPLE_RATE
from deepavfusion.cli import main
from deepavfusion.data.clips import find_clips
from deepavfusion.data.locations import _local
from deepavfusion.data.media import MediaError, MediaFile
from deepavfusion.data.media.film_writer import FilmWriter
from deepavfusion.data.shard_writing import ShardConfig, write_shards
from deepavfusion.drawing.film import QUALITY
from deepavfusion.inference.inputs import open_recording
from tests.archive.tiny_joint_model import save_joint_model
from tests.inference.tiny_models import write_film, write_wav

pytest.importorskip("lancedb", reason="needs the extra index")
datasets = pytest.importorskip("datasets", reason="needs the extra hub")
parquet = pytest.importorskip("pyarrow.parquet")
pyarrow = pytest.importorskip("pyarrow")

Indexed = Callable[[str], IndexConfig]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with a joint space, whose windows are of one second."""
    return save_joint_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of three windows, one of less than a window, and one without sound."""
    folder = tmp_path_factory.mktemp("films")
    write_film(folder / "long.mp4", 2.0, seed=1)
    write_film(folder / "short.mp4", 0.64, seed=2)
    with FilmWriter(folder / "mute.mp4", (40, 56), 12, None, QUALITY) as film:
        for light in range(0, 240, 20):
            film.add_picture(np.full((40, 56, 3), light, np.uint8))
    return folder


@pytest.fixture
def config(model: str, tmp_path: Path) -> Indexed:
    return lambda source: IndexConfig(source, model, str(tmp_path / "idx"), device="cpu")


def shards_of(source: Path, out: Path) -> str:
    """With one frame a second."""
    shutil.rmtree(out, ignore_errors=True)
    _local.cache_clear()  # as in a process that has not read those
    write_shards(ShardConfig(str(source), str(out), num_workers=0, frames_per_second=1.0, short_side=32))
    return str(out)


def write_rows(path: Path, values: list[bytes | None]) -> str:
    rows = [{"video": None if value is None else {"bytes": value, "path": "x.mp4"}} for value in values]
    schema = datasets.Features({"video": datasets.Video(decode=False)}).arrow_schema
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), path)
    return f"hf:{path}"


def paths(out: str) -> dict[str | None, str]:
    return {file.clip: file.path for file in WindowTable.open(Path(out)).files()}


def test_a_clip_of_shards_is_found_with_its_times_and_seen_and_heard(
    config: Indexed, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = config(shards_of(films, tmp_path / "shards"))
    summary = index(made)
    assert (summary.num_added, summary.num_windows, summary.failed) == (3, 3 + 1 + 1, {})
    again = index(made)
    assert (again.num_kept, again.num_added, again.num_replaced, again.num_windows) == (3, 0, 0, 5)

    with MediaFile(str(films / "long.mp4")) as media:
        heard = media.sound(0.5, 1.0, SAMPLE_RATE)
    import soundfile

    soundfile.write(tmp_path / "piece.wav", heard, SAMPLE_RATE, subtype="PCM_16")
    result = search(SearchConfig(made.out, str(tmp_path / "piece.wav"), k=2, within="audio", device="cpu"))
    best = result.hits[0]
    clips = {clip.id: clip for clip in find_clips(made.source)}
    assert (best.clip, best.path, best.digest) == ("long", clips["long"].path, clips["long"].digest)
    assert (best.start_seconds, best.end_seconds) == (0.5, 1.5)
    assert best.similarity > 0.99
    assert f"0.5-1.5  audio   long in {best.path}" in result.table()
    assert json.loads(result.to_json())["hits"][0]["clip"] == "long"
    short = search(SearchConfig(made.out, str(films / "short.mp4"), k=1, device="cpu")).hits[0]
    assert (short.clip, short.start_seconds, round(short.end_seconds, 2)) == ("short", 0.0, 0.64)

    assert write_excerpt(best, tmp_path, "moment") == Excerpt("moment.jpg", "moment.mp4", None)
    with MediaFile(tmp_path / "moment.mp4") as media:
        sound = media.sound(0.1, 0.8, SAMPLE_RATE)
        assert np.corrcoef(sound, heard[1600 : 1600 + len(sound)])[0, 1] > 0.9
    assert Image.open(tmp_path / "moment.jpg").size == (56, 40)
    with open_recording(clips["mute"]) as recording:
        assert (recording.info.has_sound, recording.info.is_photo) == (False, False)
    capsys.readouterr()
    assert main(["index", made.source, "--model", made.model, "--out", made.out, "--device", "cpu"]) == 0


def test_shards_written_anew_are_followed_by_ids(config: Indexed, films: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(films, source)
    made = config(shards_of(source, tmp_path / "shards"))
    index(made)
    before = paths(made.out)
    write_film(source / "a new one.mp4", 1.0, seed=5)  # comes first: all others lie elsewhere now
    write_film(source / "mute.mp4", 1.0, seed=6)
    (source / "short.mp4").unlink()
    clips = {clip.id: clip for clip in find_clips(shards_of(source, tmp_path / "shards"))}
    gone = OpenIndex.open(made.out, device="cpu").search(str(films / "short.mp4"), k=1, exact=True).hits[0]
    assert gone.clip == "short"
    with pytest.raises(MediaError, match=r"shards/00000.tar#\d+: "):
        write_excerpt(gone, tmp_path, "gone")
    then = index(made)
    assert (then.num_added, then.num_kept, then.num_replaced, then.num_dropped) == (1, 1, 1, 0)
    after = paths(made.out)
    assert before["long"] != after["long"] == clips["long"].path
    assert set(after) == {"a new one", "long", "mute", "short"}
    assert then.num_windows == 1 + 3 + 1 + 1
    hits = search(SearchConfig(made.out, str(films / "long.mp4"), device="cpu")).hits
    (found,) = (hit for hit in hits if hit.clip == "long")
    assert (found.path, found.digest) == (clips["long"].path, clips["long"].digest)
    last = index(replace(made, drop_missing=True))
    assert (last.num_kept, last.num_dropped, last.num_recordings) == (3, 1, 3)
    assert set(paths(made.out)) == {"a new one", "long", "mute"}
    assert write_excerpt(found, tmp_path, "found").film == "found.mp4"

    other = index(replace(made, source=str(films / "long.mp4"), drop_missing=True))  # shards are not the source
    assert (other.num_added, other.num_dropped, other.num_recordings) == (1, 0, 4)
    shutil.rmtree(tmp_path / "shards")
    other = index(replace(made, source=str(films / "long.mp4"), drop_missing=True))
    assert (other.num_dropped, other.num_recordings) == (3, 1)


def test_rows_are_indexed_and_bad_ones_are_named(
    config: Indexed, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long, short, mute = ((films / f"{name}.mp4").read_bytes() for name in ("long", "short", "mute"))
    file = tmp_path / "rows.parquet"
    made = config(write_rows(file, [long, b"\0" * 300, mute, None]))
    summary = index(made)
    assert (summary.num_added, summary.num_windows) == (2, 3 + 1)
    assert list(summary.failed) == ["train/1", "train/3"]
    assert summary.failed["train/1"].startswith(f"{file}#1:video=video: cannot be opened: ")
    assert summary.failed["train/3"] == f"{file}#3:video=video: the row has no video"
    assert json.loads((tmp_path / "idx" / "failures.json").read_text()) == summary.failed
    words = ["index", made.source, "--model", made.model, "--out", made.out, "--device", "cpu"]
    assert main(words) == 1
    assert f"train/1: {file}#1:video=video: cannot be opened" in capsys.readouterr().err

    best = search(SearchConfig(made.out, str(films / "long.mp4"), k=1, device="cpu")).hits[0]
    assert (best.clip, best.path) == ("train/0", f"{file}#0:video=video")
    assert write_excerpt(best, tmp_path, "row").film == "row.mp4"
    seen = search(SearchConfig(made.out, str(films / "mute.mp4"), k=1, within="image", device="cpu")).hits[0]
    assert (seen.clip, seen.similarity) == ("train/2", pytest.approx(1, abs=1e-4))

    write_rows(file, [short, long, mute])
    with pytest.raises(MediaError, match="is another clip now"):
        write_excerpt(best, tmp_path, "row")
    then = index(made)
    assert (then.num_added, then.num_replaced, then.num_kept, then.failed) == (1, 1, 1, {})
    write_rows(file, [short, long])
    elsewhere = replace(made, source=str(films / "short.mp4"), drop_missing=True)
    assert index(elsewhere).num_dropped == 1
    assert set(paths(made.out)) == {"train/0", "train/1", None}


def test_photo_and_sound_of_a_row_are_one_recording(config: Indexed, tmp_path: Path) -> None:
    write_wav(tmp_path / "tone.wav", 1.5)
    Image.new("RGB", (60, 40), (200, 30, 10)).save(tmp_path / "red.png")
    row = {
        "photo": {"bytes": (tmp_path / "red.png").read_bytes(), "path": "red.png"},
        "sound": {"bytes": (tmp_path / "tone.wav").read_bytes(), "path": "tone.wav"},
    }
    types = {"photo": datasets.Image(decode=False), "sound": datasets.Audio(decode=False)}
    table = pyarrow.Table.from_pylist([row], schema=datasets.Features(types).arrow_schema)
    parquet.write_table(table, tmp_path / "rows.parquet")
    made = config(f"hf:{tmp_path}/rows.parquet")
    assert index(made).num_windows == 2
    best = search(SearchConfig(made.out, str(tmp_path / "red.png"), k=1, within="image", device="cpu")).hits[0]
    assert (best.clip, best.similarity) == ("train/0", pytest.approx(1, abs=1e-4))
    assert write_excerpt(best, tmp_path, "pair") == Excerpt("pair.jpg", None, "pair.wav")


def test_an_index_of_the_first_format_opens_and_goes_on(config: Indexed, films: Path, tmp_path: Path) -> None:
    lancedb = pytest.importorskip("lancedb")
    made = config(str(films))
    index(made)
    record = tmp_path / "idx" / "index.json"
    lancedb.connect(tmp_path / "idx").open_table("windows").drop_columns(["clip"])  # as format 1 had it
    record.write_text(record.read_text().replace('"format": 2', '"format": 1'))
    opened = OpenIndex.open(made.out, device="cpu")
    best = opened.search(str(films / "short.mp4")).hits[0]
    assert (Path(best.path).name, best.clip) == ("short.mp4", None)
    assert json.loads(record.read_text())["format"] == 1  # searching writes nothing
    shards = shards_of(films, tmp_path / "shards")
    assert index(made).num_kept == 3
    assert index(replace(made, source=shards)).num_added == 3
    assert json.loads(record.read_text())["format"] == 2
    found = opened.search(str(films / "long.mp4"), k=10)  # which was open all the while
    assert {hit.clip for hit in found.hits} == {None, "long", "short", "mute"}
