"""Evaluation of trained classifiers on real little clips: files, windows, missing modalities, processes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deepavfusion.arguments import parse_arguments
from deepavfusion.audio import log_mel
from deepavfusion.data.clips import find_clips, read_manifest, write_manifest
from deepavfusion.data.dataset import ClipSet, collate
from deepavfusion.data.views import CentreView
from deepavfusion.evaluation.classification.evaluator import ClassifierEvaluator, truth
from deepavfusion.evaluation.config import EvaluateConfig, EvaluationData
from deepavfusion.evaluation.evaluate import evaluate
from deepavfusion.evaluation.frame import show
from deepavfusion.evaluation.loop import OneProcess, predict_all
from deepavfusion.images import normalize
from deepavfusion.models import AudioVisualClassifier, ClassifierConfig
from deepavfusion.report.results import read_evaluation
from tests.data.media_writer import Clip as MediaClip
from tests.data.media_writer import write_clip
from tests.tasks.classification_runs import ENCODER, quiet, write_data

CLASSES = ("disc", "ring", "square", "triangle")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), 7)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    make_model().save_pretrained(folder / "model")
    return folder


def make_model(**settings: object) -> AudioVisualClassifier:
    torch.manual_seed(2)
    model = AudioVisualClassifier(ClassifierConfig(encoder=ENCODER, classes=CLASSES, **settings))  # type: ignore[arg-type]
    with torch.no_grad():
        for name in model.config.heads:
            model.get_submodule(f"{name}_head").weight.normal_()  # type: ignore[operator,union-attr]
    return model.eval()


def settings(run: Path, source: Path, **changes: object) -> EvaluateConfig:
    data = EvaluationData(str(source), split=str(changes.pop("split", "all")), num_workers=0)
    return EvaluateConfig(str(run), data, **{"batch_size": 3, **changes})  # type: ignore[arg-type]


def test_files_tell_scores_predictions_and_coverage(data: Path, run: Path) -> None:
    result = evaluate(settings(run, data))
    assert result is not None
    assert result.out == run / "evaluation" / "clips-all"
    assert sorted(p.name for p in result.out.iterdir()) == [
        "classes.csv",
        "confusion.png",
        "predictions.npz",
        "results.json",
        "samples.npz",
    ]
    record = json.loads((result.out / "results.json").read_text())
    shown = read_evaluation(result.out / "results.json")
    assert shown.scores["top1 fusion"].value == pytest.approx(record["heads"]["fusion"]["top1"])
    assert record["protocol"] == "single label, centre window"
    assert set(record["heads"]) == {"average", "image", "audio", "fusion"}
    assert record["coverage"]["num_scored"] == record["coverage"]["num_official"] == 7
    with np.load(result.out / "predictions.npz") as saved:
        assert saved["ids"].tolist() == [clip.id for clip in read_manifest(str(data))]
        # The same by hand: all clips in one batch through the model.
        clips = find_clips(str(data))
        batch = collate([ClipSet(clips, CentreView.from_config(ENCODER))[i] for i in range(7)])
        model = make_model()
        with torch.no_grad():
            out = model(normalize(batch.image), log_mel(batch.waveform, 32))
        np.testing.assert_allclose(saved["average"], out.average.numpy(), rtol=1e-4, atol=1e-5)
        labels = np.array([CLASSES.index(str(clip.label)) for clip in clips])
        assert record["heads"]["average"]["top1"] == pytest.approx((saved["average"].argmax(1) == labels).mean())
        np.testing.assert_array_equal(saved["targets"], np.eye(4, dtype=bool)[labels])
    with open(result.out / "classes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(CLASSES)
    assert sum(int(row["num_clips"]) for row in rows) == 7
    console = quiet()
    show(result, console)
    assert "scored 7 of 7 official clips" in console.file.getvalue()  # type: ignore[attr-defined]


def test_windows_are_averaged_and_named(data: Path, run: Path, tmp_path: Path) -> None:
    result = evaluate(settings(run, data, windows=3, split="test", out=str(tmp_path)))
    assert result is not None
    assert result.record.protocol == "single label, 3 windows"
    assert result.record.coverage.num_scored == 2
    # A second of sound in a window of half a second: three windows differ. By hand, from single windows:
    clips = [clip for clip in find_clips(str(data)) if clip.split == "test"]
    view = CentreView.from_config(ENCODER)
    model, each = make_model(), []
    for window in range(3):
        batch = collate([ClipSet([clip], replace(view, num_windows=3, window=window))[0] for clip in clips])
        with torch.no_grad():
            each.append(model(normalize(batch.image), log_mel(batch.waveform, 32)).average)
    assert not torch.allclose(each[0], each[1], atol=1e-4)
    with np.load(tmp_path / "predictions.npz") as saved:
        np.testing.assert_allclose(saved["average"], torch.stack(each).mean(0).numpy(), rtol=1e-4, atol=1e-5)


def test_dropped_modalities_and_unreadable_clips(data: Path, run: Path, tmp_path: Path) -> None:
    rows = list(find_clips(str(data)))
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    rows[2] = replace(rows[2], path=str(tmp_path / "broken.mp4"))
    write_manifest(str(tmp_path / "clips.csv"), rows)
    results = {
        modalities: evaluate(
            settings(run, tmp_path / "clips.csv", modalities=modalities, out=str(tmp_path / modalities))
        )
        for modalities in ("both", "image", "audio")
    }
    for modalities, result in results.items():
        assert result is not None
        assert result.record.coverage.num_scored == 6
        assert list(result.record.coverage.failed) == [rows[2].id]
        expected = {"average", "image", "audio", "fusion"} - {"both": set(), "image": {"audio"}, "audio": {"image"}}[
            modalities
        ]
        assert set(result.record.details["heads"]) == expected
    assert results["image"] is not None
    assert results["image"].record.protocol == "single label, centre window, image alone at test time"
    predicted = {name: np.load(tmp_path / name / "predictions.npz") for name in results}
    assert not predicted["image"]["audio_present"].any()
    image_and_fusion = (predicted["image"]["image"] + predicted["image"]["fusion"]) / 2
    np.testing.assert_allclose(predicted["image"]["average"], image_and_fusion, rtol=1e-5, atol=1e-6)
    assert not np.allclose(predicted["image"]["fusion"], predicted["both"]["fusion"])


def test_a_model_of_one_modality_fails_on_clips_without_it(data: Path, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "silent.mp4", MediaClip(seconds=1.0, audio_codec=None))
    clips = [*find_clips(str(data))[:2], replace(find_clips(str(data))[0], id="silent", path=str(path))]
    model = make_model(heads=("audio", "fusion"), modalities="audio")
    found = predict_all(ClassifierEvaluator(model, clips), OneProcess(CPU), 4, 0)
    assert found.failed == {"silent": "no sound"}
    with pytest.raises(ValueError, match="the model was trained only on audio"):
        ClassifierEvaluator(model, clips, modalities="image")


def test_labels_the_model_does_not_know_stop_the_evaluation(data: Path, run: Path, tmp_path: Path) -> None:
    rows = [replace(c, label="star" if i == 1 else c.label) for i, c in enumerate(find_clips(str(data)))]
    write_manifest(str(tmp_path / "clips.csv"), rows)
    with pytest.raises(ValueError, match=r"1 labels are not among the model's 4 classes: 'star' \("):
        evaluate(settings(run, tmp_path / "clips.csv"))
    with pytest.raises(ValueError, match="one is needed"):
        truth(["a|b"], ["x"], ("a", "b"), multi_label=False)
    assert truth(["a|b"], ["x"], ("a", "b"), multi_label=True).targets.tolist() == [[True, True]]


@pytest.mark.slow
def test_two_processes_equal_one_exactly(data: Path, run: Path, tmp_path: Path) -> None:
    words = [str(run), str(data), str(tmp_path / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*program, "-m", "tests.evaluation.evaluate_program", *words],
        capture_output=True,
        text=True,
        timeout=180,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    words[2] = str(tmp_path / "one")
    alone = subprocess.run(
        [sys.executable, "-m", "tests.evaluation.evaluate_program", *words],
        capture_output=True,
        text=True,
        timeout=180,
        env=environment,
    )
    assert alone.returncode == 0, alone.stderr
    with np.load(tmp_path / "one" / "predictions.npz") as one, np.load(tmp_path / "two" / "predictions.npz") as two:
        assert one.files == two.files
        for name in one.files:
            np.testing.assert_array_equal(one[name], two[name])
        assert len(one["ids"]) == 7
    a, b = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    assert a["heads"] == b["heads"]
    assert a["coverage"] == b["coverage"]


def test_settings_read_from_the_command_line() -> None:
    config = parse_arguments(
        EvaluateConfig, ["runs/a", "--data.source", "x.csv", "--windows", "10"], positional=("run",)
    )
    assert (config.run, config.windows, config.data.split) == ("runs/a", 10, "test")
    with pytest.raises(ValueError, match="were fixed when they were written"):
        EvaluateConfig("run", EvaluationData("x"), features="x.npz", windows=2)
