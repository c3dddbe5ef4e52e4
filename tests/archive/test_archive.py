"""An index of real little files: what is in it, how it is brought up to date, what is found and when."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from deepavfusion.archive import window_table
from deepavfusion.archive.config import IndexConfig, SearchConfig
from deepavfusion.archive.indexing import index
from deepavfusion.archive.searching import OpenIndex, search
from deepavfusion.archive.space import VectorSpace, WindowVectors
from deepavfusion.archive.window_table import FORMAT, DamagedIndexError, IndexRecord, StoredFile, WindowTable
from deepavfusion.audio import SAMPLE_RATE, log_mel
from deepavfusion.cli import main, parse
from deepavfusion.data.clips import find_clips, write_manifest
from deepavfusion.data.media import MediaFile
from deepavfusion.data.views import centre_crop
from deepavfusion.images import normalize
from deepavfusion.models import AudioVisualMAE, EarlyFusionEncoder
from tests.archive.tiny_joint_model import save_joint_model
from tests.inference.tiny_models import ENCODER, randomized, write_film, write_wav


def needs_store() -> None:
    pytest.importorskip("lancedb", reason="needs the extra index")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with a joint space, with random weights."""
    return save_joint_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model without a joint space."""
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("streams")
    randomized(EarlyFusionEncoder(ENCODER)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of three windows, one of one, a sound, a photo, and what is none."""
    folder = tmp_path_factory.mktemp("files")
    write_film(folder / "long.mp4", 2.0, seed=1)
    write_film(folder / "it's short.mp4", 1.0, seed=2)
    write_wav(folder / "tone.wav", 1.0)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)).save(folder / "photo.png")
    (folder / "broken.mp4").write_bytes(b"not a video")
    return folder


@pytest.fixture(scope="module")
def made(files: Path, model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    needs_store()
    out = tmp_path_factory.mktemp("index") / "idx"
    summary = index(IndexConfig(str(files), model, str(out), device="cpu"))
    assert (summary.num_added, summary.num_kept, summary.num_recordings, summary.num_windows) == (
        4,
        0,
        4,
        3 + 1 + 1 + 1,
    )
    assert list(summary.failed) == [str(files / "broken.mp4")]
    return str(out)


def joint_vectors(model: str, path: Path, start: float) -> tuple[np.ndarray, np.ndarray]:
    """Image and sound of a window of one second, each encoded alone, step by step."""
    whole = AudioVisualMAE.from_pretrained(model)
    assert whole.alignment is not None
    with MediaFile(str(path)) as media:
        frame = media.frame(start + 0.5, centre_crop(media.info.height, media.info.width, ENCODER.image_size))
        sound = media.sound(start, 1.0, SAMPLE_RATE)
    image, audio = normalize(torch.from_numpy(frame).permute(2, 0, 1)[None]), log_mel(torch.from_numpy(sound)[None], 32)
    with torch.no_grad():
        alone = whole.encoder(image, None), whole.encoder(None, audio)
        seen, heard = (whole.alignment.embed(out)[0].numpy() for out in alone)
    return seen, heard


def test_vectors_are_those_of_each_sense_alone(made: str, model: str, files: Path) -> None:
    table = WindowTable.open(Path(made))
    for start in (0.0, 0.5, 1.0):
        seen, heard = joint_vectors(model, files / "long.mp4", start)
        both = (seen + heard) / np.linalg.norm(seen + heard)
        for stream, vector in (("image", seen), ("audio", heard), ("both", both)):
            best = table.search(stream, vector, 1)[0]
            assert (best.path, best.start_seconds, best.end_seconds) == (str(files / "long.mp4"), start, start + 1)
            assert best.similarity == pytest.approx(1, abs=1e-4)
    assert {found.path for found in table.search("image", seen, 100)} == {
        str(files / name) for name in ("long.mp4", "it's short.mp4", "photo.png")
    }


def test_a_sound_or_a_picture_finds_its_moment(made: str, files: Path, tmp_path: Path) -> None:
    with MediaFile(str(files / "long.mp4")) as media:
        soundfile.write(tmp_path / "piece.wav", media.sound(0.5, 1.0, SAMPLE_RATE), SAMPLE_RATE, subtype="FLOAT")
    Image.open(files / "photo.png").save(tmp_path / "same.bmp")
    where = {"piece.wav": ("long.mp4", "audio", 0.5, 1.5), "same.bmp": ("photo.png", "image", 0.0, 0.0)}
    for query, expected in where.items():
        result = search(SearchConfig(made, str(tmp_path / query), k=3, device="cpu"))
        best = result.hits[0]
        assert (Path(best.path).name, best.stream, best.start_seconds, best.end_seconds) == expected
        assert best.similarity == pytest.approx(1, abs=1e-4)
        assert len({hit.path for hit in result.hits}) == 3  # of one file the best moment alone
    every = search(SearchConfig(made, str(tmp_path / "piece.wav"), k=50, per_file=0, within="audio", device="cpu"))
    assert [hit.path for hit in every.hits].count(str(files / "long.mp4")) == 3
    assert len(every.hits) == 5  # all windows that have sound
    assert [hit.similarity for hit in every.hits] == sorted((hit.similarity for hit in every.hits), reverse=True)


def test_the_commands(made: str, files: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    query = str(files / "it's short.mp4")
    assert main(["search", made, "--query", query, "-k", "1", "--json", "--device", "cpu"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["compared"] == "both with both, in the joint space"
    assert record["hits"][0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert (record["hits"][0]["path"], record["num_windows"]) == (query, 6)
    assert main(["search", made, query, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[:4] == ["1", "1.0000", "0.0-1.0", "both"]
    assert main(["index", str(files), "--model", model, "--out", made, "--device", "cpu"]) == 1  # one is broken
    assert f"{files / 'broken.mp4'}: cannot be opened" in capsys.readouterr().err
    assert json.loads((Path(made) / "failures.json").read_text())[str(files / "broken.mp4")].startswith("cannot be")
    assert main(["search", made, "--query", str(files / "tone.wav"), "--by", "image"]) == 1
    assert "by image: " in capsys.readouterr().err
    assert main(["search", made, "--query", str(files / "broken.mp4")]) == 1
    assert "query " in capsys.readouterr().err


def test_an_index_is_brought_up_to_date(files: Path, model: str, tmp_path: Path) -> None:
    needs_store()
    source, out = tmp_path / "source", tmp_path / "idx"
    source.mkdir()
    for name in ("long.mp4", "tone.wav", "photo.png"):
        shutil.copy(files / name, source)
    config = IndexConfig(str(source), model, str(out), hop_seconds=1.0, device="cpu")
    first = index(config)
    assert (first.num_added, first.num_windows) == (3, 2 + 1 + 1)
    os.utime(source / "long.mp4", ns=(1, 1))  # the same bytes
    write_wav(source / "tone.wav", 3.0)
    (source / "photo.png").unlink()
    shutil.copy(files / "it's short.mp4", source)
    then = index(replace(config, hop_seconds=None))
    assert (then.num_added, then.num_kept, then.num_replaced, then.num_dropped) == (1, 1, 1, 0)
    assert (then.num_recordings, then.num_windows) == (4, 2 + 3 + 1 + 1)
    last = index(replace(config, drop_missing=True))
    assert (last.num_kept, last.num_dropped, last.num_recordings, last.num_windows) == (3, 1, 3, 2 + 3 + 1)
    with pytest.raises(ValueError, match=r"hop_seconds 0.5: .* was made with 1 s"):
        index(replace(config, hop_seconds=0.5))


def test_another_model_is_refused(made: str, files: Path, streams: str) -> None:
    with pytest.raises(ValueError, match="holds vectors of another model"):
        index(IndexConfig(str(files), streams, made, device="cpu"))
    with pytest.raises(ValueError, match="holds vectors of another model"):
        search(SearchConfig(made, str(files / "tone.wav"), model=streams, device="cpu"))
    with pytest.raises(ValueError, match="no index; make one with"):
        search(SearchConfig(str(files), str(files / "tone.wav"), device="cpu"))
    with pytest.raises(ValueError, match="holds other files"):
        index(IndexConfig(str(files), streams, str(files), device="cpu"))


def test_an_open_index_finds_the_same_and_sees_what_was_added(files: Path, model: str, tmp_path: Path) -> None:
    needs_store()
    out = str(tmp_path / "idx")
    index(IndexConfig(str(files / "long.mp4"), model, out, device="cpu"))
    opened = OpenIndex.open(out, device="cpu")
    query = str(files / "tone.wav")
    told: list[tuple[float, float]] = []
    first = opened.search(query, progress=lambda done, whole: told.append((done, whole)))
    assert first == search(SearchConfig(out, query, device="cpu"))
    assert [Path(hit.path).name for hit in first.hits] == ["long.mp4"]
    assert told[-1] == pytest.approx((1.0, 1.0))
    index(IndexConfig(query, model, out, device="cpu"))
    then = opened.search(query)
    assert [Path(hit.path).name for hit in then.hits] == ["tone.wav", "long.mp4"]
    assert then.num_windows == first.num_windows + 1
    both = opened.search((str(files / "photo.png"), query))  # a photo with its sound
    assert both.compared == "both with both, in the joint space"


def test_an_index_that_is_damaged_is_told_in_one_line(made: str, files: Path, tmp_path: Path) -> None:
    broken = tmp_path / "idx"
    shutil.copytree(made, broken)
    opened = OpenIndex.open(broken, device="cpu")
    for path in (broken / "windows.lance" / "data").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DamagedIndexError, match="the table of this index cannot be read") as told:
        OpenIndex.open(broken, device="cpu").search(str(files / "tone.wav"))
    assert "\n" not in str(told.value)
    (broken / "index.json").write_text(
        (broken / "index.json").read_text().replace('"model_digest": "', '"model_digest": "0')
    )
    with pytest.raises(DamagedIndexError, match="made anew since it was opened"):
        opened.search(str(files / "tone.wav"))
    shutil.rmtree(broken / "windows.lance")
    with pytest.raises(ValueError, match="the table of this index cannot be read"):
        OpenIndex.open(broken, device="cpu")


def test_a_model_that_was_moved_is_named(made: str, files: Path, model: str, tmp_path: Path) -> None:
    moved = tmp_path / "idx"
    shutil.copytree(made, moved)
    record = json.loads((moved / "index.json").read_text())
    (moved / "index.json").write_text(json.dumps({**record, "model": "/nowhere/model"}))
    with pytest.raises(ValueError, match=r"/nowhere/model: name its place now with --model"):
        search(SearchConfig(str(moved), str(files / "tone.wav"), device="cpu"))
    assert search(SearchConfig(str(moved), str(files / "tone.wav"), model=model, device="cpu")).hits


def test_without_a_joint_space_like_is_compared_with_like(files: Path, streams: str, tmp_path: Path) -> None:
    needs_store()
    out = str(tmp_path / "idx")
    index(IndexConfig(str(files / "long.mp4"), streams, out, device="cpu"))
    index(IndexConfig(str(files / "tone.wav"), streams, out, device="cpu"))
    found = search(SearchConfig(out, str(files / "tone.wav"), device="cpu"))
    assert found.compared == "audio with audio, mean tokens: this model has no joint space"
    assert [Path(hit.path).name for hit in found.hits] == ["tone.wav", "long.mp4"]
    found = search(SearchConfig(out, str(files / "long.mp4"), device="cpu"))
    assert [(Path(hit.path).name, hit.stream) for hit in found.hits] == [("long.mp4", "both")]  # the sound has no image
    with pytest.raises(ValueError, match=r"within audio: .* has no joint space"):
        search(SearchConfig(out, str(files / "long.mp4"), within="audio", device="cpu"))


def test_a_stopped_run_goes_on(files: Path, model: str, tmp_path: Path) -> None:
    needs_store()
    config = IndexConfig(str(files), model, str(tmp_path / "idx"), device="cpu")

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index(config, stop)
    summary = index(config)
    assert (summary.num_kept, summary.num_added, summary.num_recordings) == (2, 2, 4)  # one of three is broken
    (tmp_path / "idx" / "index.json").unlink()  # as if killed before it was written
    assert index(config).num_added == 4


def test_an_index_without_windows_is_not_searched(files: Path, model: str, tmp_path: Path) -> None:
    needs_store()
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(files / "broken.mp4", source)
    with pytest.raises(ValueError, match="none of 1 recordings could be read"):
        index(IndexConfig(str(source), model, str(tmp_path / "idx"), device="cpu"))
    with pytest.raises(ValueError, match=r"idx has no windows yet"):
        search(SearchConfig(str(tmp_path / "idx"), str(files / "photo.png"), device="cpu"))


PROGRAM = """
import sys
from deepavfusion.archive import indexing
from deepavfusion.archive.config import IndexConfig
indexing.COMMIT_WINDOWS = 1  # every recording is a commit
indexing.TIDY_COMMITS = 2
indexing.index(IndexConfig(*sys.argv[1:], device="cpu"), lambda done, total: print(done, flush=True))
"""


@pytest.mark.slow
@pytest.mark.parametrize("wait", [0.0, 0.02, 0.05])
def test_a_killed_run_leaves_whole_recordings(files: Path, model: str, tmp_path: Path, wait: float) -> None:
    needs_store()
    source, out = tmp_path / "source", tmp_path / "idx"
    source.mkdir()
    for number in range(12):
        shutil.copy(files / "long.mp4", source / f"{number:02d}.mp4")
    words = [sys.executable, "-c", PROGRAM, str(source), model, str(out)]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip() == "5":
            break
    time.sleep(wait)
    child.kill()
    child.wait()
    table = WindowTable.open(out)
    there = table.files()
    assert 4 <= len(there) < 12
    assert table.num_windows() == 3 * len(there)
    summary = index(IndexConfig(str(source), model, str(out), device="cpu"))
    assert (summary.num_kept, summary.num_added, summary.num_windows) == (len(there), 12 - len(there), 36)


def test_many_vectors_get_an_approximate_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_store()
    monkeypatch.setattr(window_table, "APPROXIMATE_FROM", 1000)
    rng = np.random.default_rng(0)
    table = WindowTable.create(tmp_path / "idx", IndexRecord(FORMAT, False, ("image", "audio"), 8, "m", "d", None))

    def recording(number: int, count: int) -> tuple[StoredFile, WindowVectors]:
        vectors = rng.standard_normal((count, 8)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        there = np.ones(count, np.bool_)
        starts = np.arange(count, dtype=np.float64)
        streams = {"image": vectors, "audio": np.zeros_like(vectors)}
        windows = WindowVectors(starts, starts + 1, streams, {"image": there, "audio": ~there})
        return StoredFile(f"/a/\udce9{number}.mp4", None, 1, number, "", number), windows

    recordings = [recording(number, 100) for number in range(20)]
    table.add(recordings[:19])
    table.tidy(timedelta(milliseconds=1))
    assert table.approximate() == ("image",)  # there is no sound
    table.add(recordings[19:])  # found before it is in the approximate index
    table.delete([3])
    assert (len(table.files()), table.num_windows(), table.next_number()) == (19, 1900, 20)
    kept = [pair for pair in recordings if pair[0].number != 3]
    vectors = np.concatenate([windows.streams["image"] for _, windows in kept])
    names = [(file.path, float(start)) for file, windows in kept for start in windows.start_seconds]
    own = {(name, start) for name, start in names}
    assert ("/a/\udce93.mp4", 0.0) not in own
    for query in recordings[19][1].streams["image"][:5]:
        true = [names[row] for row in np.argsort(-(vectors @ query))[:10]]
        for exact in (True, False):
            found = table.search("image", query, 10, exact)
            shared = {(f.path, f.start_seconds) for f in found} & set(true)
            assert len(shared) == 10 if exact else len(shared) >= 8
        assert (found[0].path, found[0].similarity) == (recordings[19][0].path, pytest.approx(1, abs=1e-5))
    assert table.search("audio", query, 10) == []


def test_sources(files: Path, model: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder, file or manifest here"):
        index(IndexConfig(str(tmp_path / "none"), model, str(tmp_path / "idx")))
    (tmp_path / "frames.csv").write_text("id,label,split,sound,frame,mask\na,,,a.wav,a.png,\n")
    with pytest.raises(ValueError, match=r"frames.csv: is a table of frames; index the videos"):
        index(IndexConfig(str(tmp_path / "frames.csv"), model, str(tmp_path / "idx")))
    (tmp_path / "rows.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"rows.parquet: a Parquet file is named as a data set, hf:.*rows.parquet"):
        index(IndexConfig(str(tmp_path / "rows.parquet"), model, str(tmp_path / "idx")))
    needs_store()
    rows = [clip for clip in find_clips(str(files)) if "broken" not in clip.path]
    write_manifest(str(tmp_path / "clips.csv"), rows)
    summary = index(IndexConfig(str(tmp_path / "clips.csv"), model, str(tmp_path / "idx"), device="cpu"))
    assert (summary.num_added, summary.failed) == (2, {})
    best = search(SearchConfig(str(tmp_path / "idx"), rows[0].path, device="cpu")).hits[0]
    assert (best.clip, best.path) == (rows[0].id, rows[0].path)


def test_the_extra_is_named(model: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lancedb", None)  # as where it is not installed
    with pytest.raises(ValueError, match=r'needs LanceDB: pip install "deepavfusion\[index\]"'):
        index(IndexConfig(str(files), model, str(tmp_path / "idx"), device="cpu"))
    assert not (tmp_path / "idx").exists()


def test_settings() -> None:
    _, config = parse(["search", "idx", "--query", "a.wav", "-k", "3", "--json", "--exact"])  # type: ignore[misc]
    assert (config.index, config.query, config.k, config.json, config.exact) == ("idx", "a.wav", 3, True, True)
    with pytest.raises(ValueError, match="k 0 must be at least 1"):
        SearchConfig("idx", "a.wav", k=0)
    with pytest.raises(ValueError, match=r"hop_seconds -1.0 must be positive"):
        IndexConfig("a", "m", "idx", hop_seconds=-1.0)


def test_the_space_of_a_bundle_is_its_encoders(streams: str) -> None:
    space = VectorSpace.open("shipped:bandstand", "cpu")
    assert (space.is_joint, space.streams, space.dim) == (False, ("image", "audio", "both"), 128)
    assert VectorSpace.open(streams, "cpu").digest() != space.digest()
