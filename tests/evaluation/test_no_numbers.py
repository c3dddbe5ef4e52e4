"""A model whose answer is no number says so with every task and verb, is counted, and ends with exit code 1."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepavfusion.cli import main
from deepavfusion.data.clips import read_manifest, write_manifest
from deepavfusion.data.features import read_features
from deepavfusion.evaluation.loop import OneProcess, Outcome, predict_all
from deepavfusion.inference.predictor import Predictor
from deepavfusion.models import AudioVisualClassifier, ClassifierConfig, Segmenter, SegmenterConfig
from deepavfusion.models.no_numbers import NO_NUMBERS, NoNumbersError
from deepavfusion.storage.trained_models import LoadedModels
from tests.inference.tiny_models import ENCODER, tiny_models, write_film
from tests.tasks.segmentation_runs import write_world

TASKS = ("classification", "localization", "separation", "segmentation")
LEARNED = {
    "classification": "fusion_head",
    "localization": "head.fc2",
    "segmentation": "decoder",
    "separation": "decoder",
}


def spoil(model: torch.nn.Module, part: str = "encoder") -> torch.nn.Module:
    """One weight is NaN, as a run that went astray leaves it."""
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if name.startswith(part) and p.requires_grad).view(-1)[0] = (
            np.nan
        )
    return model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four annotated clips of one split, and models of every task without numbers."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, 4, "segmentation_test")
    clips = read_manifest(str(folder / "segmentation_test.csv"))
    rows = [replace(clip, label="ab"[i % 2], split="train") for i, clip in enumerate(clips)]
    write_manifest(str(folder / "labelled.csv"), rows)
    models = tiny_models()
    models["classification"] = AudioVisualClassifier(ClassifierConfig(encoder=ENCODER, classes=("a", "b")))
    models["segmentation"] = Segmenter(SegmenterConfig(encoder=ENCODER, decoder_dim=32))
    for task, model in models.items():
        spoil(model).save_pretrained(folder / task)
    return folder


@pytest.mark.parametrize("task", [*TASKS, "embedding"])
def test_predict_blames_the_model_and_counts(
    task: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        write_film(tmp_path / "films" / f"{name}.mp4", 1.0)
    model = world / ("classification" if task == "embedding" else task)
    words = ["predict", task, str(tmp_path / "films"), "--model", str(model), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0].endswith(f"one.mp4: {NO_NUMBERS}")
    assert lines[1].endswith(f"two.mp4: {NO_NUMBERS}")
    assert "0 predicted, 0 kept from an earlier run, 2 failed, 2 of them because the model gives no numbers" in lines[2]
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


@pytest.mark.parametrize("task", TASKS)
def test_evaluate_scores_nothing_of_a_model_without_numbers(
    task: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = world / ("labelled.csv" if task == "classification" else "segmentation_test.csv")
    source = ["--data.source", str(clips), "--data.split", "all", "--data.num_workers", "0"]
    out = tmp_path / "out"
    assert main(["evaluate", task, str(world / task), *source, "--out", str(out), "--batch_size", "2"]) == 1
    captured = capsys.readouterr()
    assert f"{NO_NUMBERS} for any of 4, such as " in captured.err
    assert "AP" not in captured.out
    assert not (out / "results.json").exists()


def test_embed_export_bundle_and_train_say_so_too(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(world / "classification")
    source = ["--data.source", str(world / "labelled.csv"), "--data.num_workers", "0"]
    commands: Sequence[tuple[list[str], str]] = [
        (["embed", "--from", model, *source, "--data.split", "all", "--out", str(tmp_path / "f.npz")], "any of 4"),
        (["export", model, "--out", str(tmp_path / "m.pt2")], "which is not exported"),
        (["bundle", str(tmp_path / "b"), "--classification", model], "holds none"),
        (
            ["train", "localization", "--from", model, *source, "--run_dir", str(tmp_path / "t")],
            f"from {model} hold none",
        ),
    ]
    for words, message in commands:
        assert main(words) == 1
        said = capsys.readouterr().err
        assert NO_NUMBERS in said, words
        assert message in said, said
    for name in ("f.npz", "m.pt2", "b", "t/model"):
        assert not (tmp_path / name).exists()
    assert main(["inspect", model]) == 0
    assert "NaN in 1 tensors, such as encoder." in capsys.readouterr().out


class SomeAnswers:
    """An evaluator of eight items; the model's answer to some is NaN, one cannot be read."""

    def __init__(self, silent: set[int]) -> None:
        self.silent, self.ids = silent, [f"clip{i}" for i in range(8)]

    def loader(self, positions: Sequence[int], batch_size: int, num_workers: int, device: torch.device) -> Any:
        from contextlib import nullcontext

        return nullcontext(list(positions[i : i + batch_size]) for i in range(0, len(positions), batch_size))

    def predict(self, batch: list[int], device: torch.device) -> Outcome:
        failed = {i: "broken" for i, position in enumerate(batch) if position == 5}
        silent = frozenset(i for i, position in enumerate(batch) if position in self.silent)
        return Outcome({"x": torch.tensor(batch)}, failed, silent)


def test_the_loop_counts_items_without_numbers() -> None:
    here = OneProcess(torch.device("cpu"))
    found = predict_all(SomeAnswers({1, 6}), here, 3, 0)
    assert (found.num_without_numbers, len(found.ids), list(found.failed)) == (2, 7, ["clip5"])
    assert predict_all(SomeAnswers(set()), here, 3, 0).num_without_numbers == 0
    with pytest.raises(NoNumbersError, match="for any of 7, such as clip0"):
        predict_all(SomeAnswers({0, 1, 2, 3, 4, 6, 7}), here, 3, 0)


def test_a_few_clips_without_numbers_are_counted_and_scores_are_written(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = AudioVisualClassifier(ClassifierConfig(encoder=ENCODER, classes=("a", "b")))
    good.save_pretrained(tmp_path / "good")
    forward, calls = AudioVisualClassifier.forward, []

    def overflowing(self: AudioVisualClassifier, *inputs: Any) -> Any:
        """The second batch overflows, as half precision does."""
        out = forward(self, *inputs)
        calls.append(len(out.average))
        return replace(out, average=out.average * float("nan")) if len(calls) == 2 else out

    monkeypatch.setattr(AudioVisualClassifier, "forward", overflowing)
    source = ["--data.source", str(world / "labelled.csv"), "--data.split", "all", "--data.num_workers", "0"]
    words = ["evaluate", "classification", str(tmp_path / "good"), *source, "--out", str(tmp_path / "out")]
    assert main([*words, "--batch_size", "1"]) == 1
    assert f"error: {NO_NUMBERS} for 1 of what was asked" in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["counted_as_wrong"] == {"prediction not finite": 1}
    assert record["num_scored"] == 4


def test_embed_leaves_out_clips_without_numbers(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepavfusion.models import EarlyFusionEncoder

    EarlyFusionEncoder(ENCODER).save_pretrained(tmp_path / "good")
    forward, calls = EarlyFusionEncoder.forward, []

    def overflowing(self: EarlyFusionEncoder, *inputs: Any, **more: Any) -> Any:
        out = forward(self, *inputs, **more)
        calls.append(1)
        return replace(out, fusion=out.fusion * float("inf")) if len(calls) == 2 else out

    monkeypatch.setattr(EarlyFusionEncoder, "forward", overflowing)
    source = ["--data.source", str(world / "segmentation_test.csv"), "--data.split", "all", "--data.num_workers", "0"]
    words = ["embed", "--from", str(tmp_path / "good"), *source, "--out", str(tmp_path / "f.npz"), "--batch_size", "1"]
    assert main(words) == 1
    assert f"error: {NO_NUMBERS} for 1 of what was asked" in capsys.readouterr().err
    features = read_features(str(tmp_path / "f.npz"))
    assert len(features.ids) == 3
    assert list(features.failed.values()) == [NO_NUMBERS]


@pytest.mark.parametrize("task", TASKS)
def test_python_s_methods_raise_it(task: str, tmp_path: Path) -> None:
    """Also where only the head is spoiled."""
    models = tiny_models()
    predictor = Predictor(LoadedModels({task: spoil(models[task], LEARNED[task])}), "cpu")
    ask = {
        "classification": "classify",
        "localization": "localize",
        "separation": "separate",
        "segmentation": "segment",
    }
    with pytest.raises(NoNumbersError, match="the model gives no numbers"):
        getattr(predictor, ask[task])(write_film(tmp_path / "film.mp4", 1.0))
