"""Every task trains, scores and predicts with several frames per clip, from an encoder of one."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from deepavfusion.audio import log_mel
from deepavfusion.data.clips import Clip
from deepavfusion.data.dataset import ClipSet, collate
from deepavfusion.data.features import read_features
from deepavfusion.data.views import CentreView
from deepavfusion.evaluation.config import EmbedConfig, EvaluateConfig, EvaluationData
from deepavfusion.evaluation.evaluate import evaluate
from deepavfusion.evaluation.features.embedding import embed
from deepavfusion.evaluation.localization.config import EvaluateLocalizationConfig
from deepavfusion.evaluation.segmentation.config import EvaluateSegmentationConfig
from deepavfusion.evaluation.separation.config import EvaluateSeparationConfig
from deepavfusion.images import normalize
from deepavfusion.inference.export import exportable, exported_program
from deepavfusion.inference.predictor import Predictor
from deepavfusion.models.config import FramesEncoded
from deepavfusion.storage.trained_models import open_models
from deepavfusion.tasks.classification import Classification
from deepavfusion.tasks.localization import Localization
from deepavfusion.tasks.localization_config import Recipe
from deepavfusion.tasks.pretraining import MaskedPretraining
from deepavfusion.tasks.segmentation import Segmentation
from deepavfusion.tasks.separation import Separation
from deepavfusion.training.loop import fit
from tests.inference.tiny_models import ENCODER, tiny_models
from tests.tasks import classification_runs, localization_runs, segmentation_runs, separation_runs
from tests.tasks.test_pretraining import make as make_pretraining

T = 3


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips of each of three splits, with masks."""
    folder = tmp_path_factory.mktemp("world")
    for split in ("segmentation_train", "segmentation_test", "pretrain"):
        segmentation_runs.write_world(folder, 4, split)
    return folder


def test_pretraining_masks_all_frames_and_draws_the_middle_one(world: Path, tmp_path: Path) -> None:
    config = make_pretraining(world / "pretrain.csv", tmp_path / "run")
    config = replace(config, model=replace(config.model, num_frames=T, audio_size=(32, 64)))
    task = MaskedPretraining(config)
    batch = task._picture_batch()
    assert batch.image.shape[1:] == (T, 3, 32, 48)
    assert batch.image_noise is not None
    assert batch.image_noise.shape[1] == T * 24
    assert fit(task, config, quiet()).status == "finished"
    assert (tmp_path / "run" / "pictures").is_dir()
    Predictor(open_models(tmp_path / "run")).embed(str(next((world / "pretrain").glob("*.mp4"))))


def test_segmentation(world: Path, tmp_path: Path) -> None:
    encoder = segmentation_runs.write_encoder(tmp_path / "encoder")
    config = segmentation_runs.make(world, encoder, tmp_path / "run", num_frames=T)
    assert fit(Segmentation(config), config, quiet()).status == "finished"
    data = EvaluationData(str(world / "segmentation_test.csv"), split="all", num_workers=0)
    result = evaluate(EvaluateSegmentationConfig(str(tmp_path / "run"), data, videos=1))
    assert result is not None
    found = Predictor(open_models(tmp_path / "run")).segment(str(first_clip(world)), step_seconds=0.5)
    assert found.masks.shape == (4, 32, 32)


def fit_localizer(recipe: Recipe, world: Path, folder: Path, **settings: Any) -> str:
    """A run of a recipe of localization; its folder."""
    encoder = localization_runs.write_encoder(folder / "encoder")
    run, source = folder / recipe, world / "manifest.csv"
    settings = {"num_frames": T, "splits": ("segmentation_train",), **settings}
    config = localization_runs.make(recipe, source, encoder, run, **settings)
    assert fit(Localization(config), config, quiet()).status == "finished"
    return str(run)


@pytest.mark.parametrize("encode_frames", ["all", "reference"])
def test_localization(world: Path, tmp_path: Path, encode_frames: FramesEncoded) -> None:
    run = fit_localizer("supervised", world, tmp_path, encode_frames=encode_frames)
    data = EvaluationData(str(world / "segmentation_test.csv"), split="all", num_workers=0)
    assert evaluate(EvaluateLocalizationConfig(run, data, overlay=1, batch_size=2)) is not None
    found = Predictor(open_models(run)).localize(str(first_clip(world)), step_seconds=0.5)
    assert found.maps.shape == (4, 1, 4, 4)


def test_what_only_a_localizer_looked_at_is_no_part_of_the_encoder_it_leaves(world: Path, tmp_path: Path) -> None:
    run = fit_localizer("supervised", world, tmp_path, encode_frames="reference")
    config = segmentation_runs.make(world, Path(run), tmp_path / "masks")
    assert Segmentation(config).model_config.encoder.num_frames == 1
    with pytest.raises(ValueError, match="encode_frames reference: there is one frame; set --num_frames too"):
        fit_localizer("supervised", world, tmp_path / "one", num_frames=None, encode_frames="reference")


@pytest.mark.slow
def test_localization_without_masks_with_shifts_and_with_rise(world: Path, tmp_path: Path) -> None:
    run = fit_localizer("self_supervised", world, tmp_path)
    data = EvaluationData(str(world / "segmentation_test.csv"), split="all", num_workers=0)
    assert evaluate(EvaluateLocalizationConfig(run, data, shifts=2, out=str(tmp_path / "shifted"))) is not None
    assert evaluate(EvaluateLocalizationConfig(run, data, method="rise", out=str(tmp_path / "rise"))) is not None


def test_separation(tmp_path: Path) -> None:
    """Of one source each; the others of a Bandstand scene are painted over in all frames."""
    world = segmentation_runs.write_world(tmp_path / "world", 8, "pretrain")
    encoder = separation_runs.write_encoder(tmp_path / "encoder", audio_size=(32, 64))
    mixing = {"pictures": "source"}
    config = separation_runs.make(world / "pretrain.csv", encoder, tmp_path / "run", num_frames=T, mixing=mixing)
    task = Separation(config)
    assert fit(task, config, quiet()).status == "finished"
    data = EvaluationData(str(world / "pretrain.csv"), split="all", num_workers=0)
    result = evaluate(EvaluateSeparationConfig(str(tmp_path / "run"), data, batch_size=2, examples=1))
    assert result is not None
    predictor = Predictor(open_models(tmp_path / "run"))
    boxes = [(0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)]
    clip = str(next((world / "pretrain").glob("*.mp4")))
    assert predictor.separate(clip, boxes=boxes).sources.shape[0] == 2
    still = np.zeros((20, 20, 3), np.uint8)
    assert predictor.separate(clip, pictures=[still]).sources.shape[0] == 1


def test_classification(tmp_path: Path) -> None:
    source = classification_runs.write_data(tmp_path)
    encoder = classification_runs.write_encoder(tmp_path / "encoder")
    for recipe in ("probe", "finetune"):
        config = classification_runs.make(recipe, source, encoder, tmp_path / recipe, num_frames=T)
        assert fit(Classification(config), config, quiet()).status == "finished"
        data = EvaluationData(str(source), num_workers=0)
        assert evaluate(EvaluateConfig(str(tmp_path / recipe), data, windows=2)) is not None
    embed(EmbedConfig(str(tmp_path / "finetune"), data, str(tmp_path / "features.npz"), tokens="all"))
    assert read_features(str(tmp_path / "features.npz")).streams["image"].shape[1:] == (T * 24, 16)
    clip = next((tmp_path / "clips").rglob("*.mp4"))
    predictor = Predictor(open_models(tmp_path / "finetune"))
    found = predictor.classify(str(clip))
    # The window in the middle is the model's own answer for the centre view.
    view = CentreView.from_config(predictor.models.load("classification").config.encoder)
    batch = collate([ClipSet([Clip("a", str(clip))], view)[0]])
    model = predictor.models.load("classification")
    with torch.inference_mode():
        logits = model(normalize(batch.image), log_mel(batch.waveform, 32)).average
    np.testing.assert_allclose(found.logits[1:2], logits.numpy(), atol=1e-5)


@pytest.mark.slow
def test_models_of_several_frames_are_exported() -> None:
    model = tiny_models(replace(ENCODER, num_frames=T))["segmentation"]
    whole = exportable(model)
    assert whole.inputs["image"].shape[1:] == (T, 3, *ENCODER.image_size)
    program = exported_program(whole).module()
    given = [torch.cat([x, x[:1]]) for x in whole.inputs.values()]
    torch.testing.assert_close(program(*given), whole.module(*given), atol=1e-5, rtol=1e-4)


def first_clip(world: Path) -> Path:
    return min((world / "segmentation_test").glob("*.mp4"))
