"""A drawing or film that cannot be made takes no score with it: scores are written first, the failure is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deepavfusion.cli import main
from deepavfusion.data.clips import read_manifest, write_manifest
from deepavfusion.models import AudioVisualClassifier, ClassifierConfig, Segmenter, SegmenterConfig
from tests.inference.tiny_models import ENCODER, tiny_models
from tests.tasks.segmentation_runs import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, 3, "segmentation_test")
    clips = read_manifest(str(folder / "segmentation_test.csv"))
    write_manifest(str(folder / "labelled.csv"), [replace(clip, label="ab"[i % 2]) for i, clip in enumerate(clips)])
    models = tiny_models()
    models["classification"] = AudioVisualClassifier(ClassifierConfig(encoder=ENCODER, classes=("a", "b")))
    models["segmentation"] = Segmenter(SegmenterConfig(encoder=ENCODER, decoder_dim=32))
    for task, model in models.items():
        model.save_pretrained(folder / task)
    return folder


def evaluated(world: Path, task: str, out: Path, in_the_way: list[str], *words: str) -> dict:
    """The record of an evaluation in whose folder there are folders under the names of drawings."""
    for name in in_the_way:
        (out / name / "something").mkdir(parents=True)
    clips = world / ("labelled.csv" if task == "classification" else "segmentation_test.csv")
    source = ["--data.source", str(clips), "--data.split", "all", "--data.num_workers", "0", "--out", str(out)]
    assert main(["evaluate", task, str(world / task), *source, *words]) == 0
    record = json.loads((out / "results.json").read_text())
    assert record["scores"]
    assert (out / "samples.npz").is_file()
    assert not [path for path in out.rglob(".*") if path.is_file()]  # nothing half-written stays
    return record


def test_segmentation(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, *others = sorted(clip.id for clip in read_manifest(str(world / "segmentation_test.csv")))
    names = {clip: f"overlay_{''.join(c if c.isalnum() or c in '-_' else '_' for c in clip)}.mp4" for clip in [first]}
    record = evaluated(world, "segmentation", tmp_path / "out", [names[first], "overlays.png"], "--videos", "3")
    assert record["drawings_failed"].keys() == {first, "overlays.png"}
    assert record["pictures"] == []
    assert len([path for path in (tmp_path / "out").glob("overlay_*.mp4") if path.is_file()]) == len(others)
    said = capsys.readouterr().out
    assert f"no drawing of {first}: " in said
    assert "no drawing of overlays.png: " in said


def test_localization(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = read_manifest(str(world / "segmentation_test.csv"))[0].id
    path = f"videos/{clip.replace('/', '_')}.mp4"
    record = evaluated(world, "localization", tmp_path / "out", [path], "--overlay", "3")
    assert record["drawings_failed"].keys() == {clip}
    assert len(record["videos"]) == 2
    assert record["pictures"]
    assert f"no drawing of {clip}: " in capsys.readouterr().out


def test_separation_and_classification(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = evaluated(world, "separation", tmp_path / "s", ["improvement.png", "best.png"], "--examples", "2")
    assert record["drawings_failed"].keys() == {"improvement.png", "best"}
    assert [entry["file"] for entry in record["pictures"]] == ["worst.png"]
    assert "no drawing of best: " in capsys.readouterr().out
    record = evaluated(world, "classification", tmp_path / "c", ["confusion.png"])
    assert record["drawings_failed"].keys() == {"confusion.png"}
    assert record["pictures"] == []
    assert "no drawing of confusion.png: " in capsys.readouterr().out
    assert evaluated(world, "classification", tmp_path / "d", [])["pictures"][0]["file"] == "confusion.png"
