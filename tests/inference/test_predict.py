"""The command: files in, a folder per file out; what fails is one line, what is done stays, nothing lands elsewhere."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deepavfusion.inference.predict import NOTHING_STARTED, SOME_FAILED, predict
from deepavfusion.storage.bundle import Bundle
from deepavfusion.verbs.inference import INFERENCE
from deepavfusion.verbs.verb import parsed
from tests.data.media_writer import Clip, write_clip
from tests.inference.test_inputs import png
from tests.inference.tiny_models import film, tiny_models, write_film, write_wav


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "bundle"
    Bundle.save(folder, tiny_models())
    return str(folder)


def run(model: str, *words: object) -> int:
    return predict(parsed(INFERENCE["predict"], [*map(str, words), "--model", model, "--device", "cpu"]))


def tree(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_good_files_are_done_and_bad_ones_named(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs, out = tmp_path / "in", tmp_path / "out"
    write_film(inputs / "a.mp4", 1.3)
    write_wav(inputs / "sub" / "b.wav", 0.3)
    Image.fromarray(film(0.1)[0][0]).save(inputs / "c.jpg")
    write_wav(inputs / "c.wav", 1.0)
    (inputs / "empty.mp4").touch()
    (inputs / "page.mp4").write_text("<html><script>alert(1)</script></html>")
    code = run(model, "classification", inputs, tmp_path / "nothing.mov", "--out", out, "--json")
    told = capsys.readouterr()
    assert code == SOME_FAILED
    records = [json.loads(line) for line in told.out.splitlines()]
    assert [Path(record["name"]).name for record in records] == ["a.mp4", "c.jpg", "b.wav"]
    assert records[1]["duration_seconds"] == 1.0
    lines = told.err.splitlines()
    assert len(lines) == 4
    assert lines[0].endswith("empty.mp4: cannot be opened: the file is empty")
    assert "page.mp4: cannot be opened: no media container" in lines[1]
    assert "nothing.mov: cannot be opened: No such file" in lines[2]
    assert lines[3] == f"3 predicted, 0 kept from an earlier run, 3 failed; results in {out}"
    files = ("classification.json", "classification.npz", "classification.png")
    assert tree(out) == {f"{name}/{file}" for name in ("a", "c", "sub__b") for file in files}
    record = json.loads((out / "a" / "classification.json").read_text())
    assert record == records[0]
    assert record["input"][0]["bytes"] == (inputs / "a.mp4").stat().st_size
    assert sum(c["score"] for c in record["classes"]) == pytest.approx(1, abs=1e-4)


def test_a_second_run_does_what_is_left(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs, out = tmp_path / "in", tmp_path / "out"
    for name in ("a", "b", "c"):
        write_film(inputs / f"{name}.mp4", 0.5)
    words: tuple[Any, ...] = ("localization", inputs, "--out", out, "--step_seconds", 0.25)
    assert run(model, *words) == 0
    stamps = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    (out / "b" / "localization.mp4").unlink()  # incomplete
    write_film(inputs / "c.mp4", 0.7)  # changed
    capsys.readouterr()
    assert run(model, *words, "--json") == 0
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 3
    assert told.err.startswith("2 predicted, 1 kept from an earlier run, 0 failed")
    assert stamps[out / "a" / "localization.json"] == (out / "a" / "localization.json").stat().st_mtime_ns
    for change in (("--step_seconds", "0.5"), ("--arrays",)):  # other settings, other results
        run(model, *words[:-2], *change)
        assert capsys.readouterr().err.startswith("3 predicted, 0 kept")
    assert run(model, *words[:-2], "--arrays", "--overwrite") == 0
    assert capsys.readouterr().err.startswith("3 predicted, 0 kept")
    (out / "a" / "localization.json").write_text("{")
    assert run(model, *words[:-2], "--arrays") == 0
    assert capsys.readouterr().err.startswith("1 predicted, 2 kept")


def test_every_task_writes_its_files(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_film(tmp_path / "a.mp4", 1.3)
    for task in ("classification", "localization", "separation", "segmentation", "embedding"):
        assert run(model, task, path, "--out", tmp_path / "out") == 0
    names = Counter(Path(name).suffix for name in tree(tmp_path / "out"))
    assert names == {".json": 5, ".png": 4, ".npz": 2, ".mp4": 2, ".wav": 2}
    assert run(model, "segmentation", path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["files"] == {"picture": "segmentation.png"}


def test_several_tasks_in_one_pass(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, sound = write_film(tmp_path / "a.mp4", 1.3), write_wav(tmp_path / "b.wav", 0.5)
    out = tmp_path / "out"
    assert run(model, "localization", path, "--out", out) == 0
    capsys.readouterr()
    words = ("embedding,localization,segmentation", path, sound, "--out", out, "--json")
    assert run(model, *words) == SOME_FAILED
    told = capsys.readouterr()
    records = [json.loads(line) for line in told.out.splitlines()]
    assert [(Path(r["name"]).name, r["task"]) for r in records] == [
        ("a.mp4", "embedding"),
        ("a.mp4", "localization"),
        ("a.mp4", "segmentation"),
        ("b.wav", "embedding"),
    ]
    for record in records:
        assert record == json.loads((out / Path(record["name"]).stem / f"{record['task']}.json").read_text())
    assert told.err.splitlines() == [
        f"{sound}: localization: has no video, which this task needs",
        f"{sound}: segmentation: has no video, which this task needs",
        f"3 predicted, 1 kept from an earlier run, 2 failed; results in {out}",
    ]
    assert not list(out.rglob(".*"))
    run(model, *words)
    assert capsys.readouterr().err.splitlines()[-1].startswith("0 predicted, 4 kept from an earlier run, 2 failed")
    run(model, "localization,segmentation", tmp_path / "none.mp4", "--out", out)
    assert len(capsys.readouterr().err.splitlines()) == 2  # a file that does not open fails once


def test_what_cannot_start_is_wrong_usage(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_film(tmp_path / "a.mp4", 0.5)
    (tmp_path / "empty").mkdir()
    tiny_models()["localization"].save_pretrained(tmp_path / "run" / "model")
    for task, given, place, message in (
        ("classification", path, tmp_path / "none", "neither a finished run nor a model folder"),
        ("classification", path, tmp_path / "run", "has no head for classification; it has localization, embedding"),
        ("classification", tmp_path / "empty", model, "no videos, sounds or photos in this folder"),
    ):
        assert run(str(place), task, given, "--out", tmp_path / "out") == NOTHING_STARTED
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


HOSTILE_NAMES = (
    "<img src=x onerror=alert(1)>.mp4",
    "..mp4",
    "...mp4",
    "a\nb.mp4",
    "\x1b[2Jgone.mp4",
    "$(touch pwned).mp4",
    "%2e%2e%2fup.mp4",
    "CON.mp4",
    "[red]x[bold].mp4",
    "\N{RIGHT-TO-LEFT OVERRIDE}4pm.mp4",
    "x" * 240 + ".mp4",
)


def test_hostile_names_stay_in_their_folder(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = write_film(tmp_path / "original.mp4", 0.3).read_bytes()
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)
    for name in HOSTILE_NAMES:
        (folder / name).write_bytes(content)
    bytes_name = os.fsencode(folder) + b"/\xff\xfe.mp4"
    with open(bytes_name, "wb") as file:
        file.write(content)
    (folder / "bad\n\x1b[31m<b>.mp4").write_bytes(b"no")
    before = tree(tmp_path)
    out = tmp_path / "results" / "here"
    files = [str(p) for p in folder.iterdir()]
    code = run(model, "embedding", *files, folder / ".." / "deep" / HOSTILE_NAMES[0], "--out", out, "--json")
    told = capsys.readouterr()
    assert code == SOME_FAILED
    assert len(told.err.splitlines()) == 2  # the bad one, and the count
    assert not set("\x1b\r") & set(told.err + told.out)
    assert not set("<>&") & set(told.out)
    assert len(told.out.splitlines()) == len(HOSTILE_NAMES) + 2
    made = tree(tmp_path) - before
    assert all(name.startswith("results/here/") and name.count("/") == 3 for name in made)
    assert len({name.split("/")[2] for name in made}) == len(HOSTILE_NAMES) + 2


def test_hostile_content_is_one_line(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "huge.png").write_bytes(png(100_000, 100_000))
    picture = Clip(seconds=0.2, video_codec="png", pix_fmt="rgb24", size=(36, 64))
    write_clip(folder / "wide.mov", replace(picture, size=(2, 20000)))
    content = bytearray(write_clip(folder / "claims.mov", picture).read_bytes())
    at = content.find(b"IHDR")
    while at >= 0:  # every frame claims to be 100,000 pixels wide and high, and says so correctly
        content[at + 4 : at + 12] = struct.pack(">II", 100_000, 100_000)
        content[at + 17 : at + 21] = struct.pack(">I", zlib.crc32(content[at : at + 17]))
        at = content.find(b"IHDR", at + 1)
    (folder / "claims.mov").write_bytes(bytes(content))
    write_clip(folder / "long.mp4", Clip(seconds=0.5, frame_times=[500 * n for n in range(101)]))
    (folder / "device.mp4").symlink_to("/dev/zero")
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    code = run(model, "localization", folder, "--out", tmp_path / "out", "--step_seconds", 0.5)
    lines = capsys.readouterr().err.splitlines()
    assert code == SOME_FAILED
    causes = {
        "claims.mov": "",
        "device.mp4": "not a regular file",
        "huge.png": "claims more pixels than are supported",
        "long.mp4": "claims to be 13.9 hours long; at most 12 are supported",
        "loop.mp4": "Too many levels of symbolic links",
        "wide.mov": "20000 x 2 pixels, more than is supported",
    }
    assert len(lines) == len(causes) + 1, lines
    for line, (name, cause) in zip(lines, causes.items(), strict=False):
        assert line.startswith(f"{folder / name}: ")
        assert cause in line
        assert len(line) < 400
    assert not list((tmp_path / "out").glob("*"))


PROGRAM = """
import sys
from deepavfusion.inference.predict import predict
from deepavfusion.inference.predict_config import PredictConfig
from deepavfusion.training.resident_memory import peak_resident
config = PredictConfig(sys.argv[1], (sys.argv[2],), sys.argv[3], model=sys.argv[4], step_seconds=1.0, device="cpu")
code = predict(config)
print(code, peak_resident())
"""


@pytest.mark.slow
def test_a_decompression_bomb_is_read_in_bounded_memory(model: str, tmp_path: Path) -> None:
    size = (9000, 9000)  # 243 MB a frame, of which a thousandth is stored
    bomb = Clip(
        seconds=1.0,
        video_codec="png",
        pix_fmt="rgb24",
        size=size,
        frame_rate=4,
        picture=lambda number, height, width: np.zeros((height, width, 3), np.uint8),
    )
    path = write_clip(tmp_path / "bomb.mov", bomb)
    assert path.stat().st_size < 4 * 2**20
    words = [sys.executable, "-c", PROGRAM, "localization", str(path), str(tmp_path / "out"), model]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    code, peak = map(int, done.stdout.split())
    assert code == 0, done.stderr
    assert peak < 2 * 2**30


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "localization", "separation", "segmentation", "embedding"])
def test_ten_minutes_need_no_more_memory_than_one(task: str, model: str, tmp_path: Path) -> None:
    still = np.random.default_rng(0).integers(0, 255, (36, 64, 3), dtype=np.uint8)
    peaks = []
    for seconds in (30, 600):
        clip = Clip(
            seconds=seconds,
            size=(36, 64),
            frame_rate=5,
            gop=50,
            picture=lambda number, height, width: np.roll(still, number % 60, axis=1),
        )
        path = write_clip(tmp_path / f"{seconds}.mp4", clip)
        words = [sys.executable, "-c", PROGRAM, task, str(path), str(tmp_path / "out"), model]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        code, peak = map(int, done.stdout.split())
        assert code == 0, done.stderr
        peaks.append(peak)
        record = json.loads((tmp_path / "out" / str(seconds) / f"{task}.json").read_text())
        assert record["duration_seconds"] == pytest.approx(seconds, abs=0.2)
    assert peaks[1] < peaks[0] + 100 * 2**20  # what the heap keeps between tensors varies: 28 to 72 MiB were seen
