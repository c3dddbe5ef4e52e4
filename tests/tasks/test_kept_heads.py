"""Continuing from a trained model with its heads: weights, settings, another number of frames, bundles, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deepavfusion.models import (
    EarlyFusionEncoder,
    Localizer,
    LocalizerConfig,
    Segmenter,
    SegmenterConfig,
    Separator,
    SeparatorConfig,
)
from deepavfusion.models.encoder_model import EncoderModel
from deepavfusion.storage.bundle import bundle as write_bundle
from deepavfusion.storage.bundle import encoder_at
from deepavfusion.storage.bundle_config import BundleConfig
from deepavfusion.tasks.localization import Localization
from deepavfusion.tasks.segmentation import Segmentation
from deepavfusion.tasks.separation import Separation
from tests.tasks import localization_runs, segmentation_runs, separation_runs

SPLITS = ("segmentation_train",)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return localization_runs.write_world(tmp_path_factory.mktemp("world"), 6, *SPLITS)


def trained(model: EncoderModel, folder: Path) -> EncoderModel:
    """The model with weights and statistics as no new one has them, saved."""
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(0.1 * torch.rand_like(value))
    model.save_pretrained(folder)
    return model


def test_a_localizer_continues_with_more_frames(world: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LocalizerConfig(encoder=localization_runs.ENCODER, dim=24, stride=4)
    before = trained(Localizer(config), tmp_path / "model")
    run = localization_runs.make(
        "supervised", world, tmp_path / "model", tmp_path / "run", keep_heads=True, num_frames=4,
        encode_frames="reference", splits=SPLITS,
    )  # fmt: skip
    assert "--head.dim has no effect with --keep_heads true" in run.without_effect()
    task = Localization(run)
    model = task.build_model()
    task.load_published(model, lambda line: None)
    task.measure_tokens(model)
    assert (model.config.dim, model.config.stride, model.config.encoder.num_frames) == (24, 4, 4)
    state = before.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_segmenter_and_a_separator_continue(world: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    segmenter = SegmenterConfig(encoder=segmentation_runs.ENCODER, decoder="comparing", decoder_dim=64)
    before = trained(Segmenter(segmenter), tmp_path / "segmenter").state_dict()
    run = segmentation_runs.make(world, tmp_path / "segmenter", tmp_path / "a", keep_heads=True, image_size=(64, 64))
    assert "--image_size has no effect with --keep_heads true" in run.without_effect()
    task = Segmentation(run)
    model = task.build_model()
    task.load_published(model, lambda line: None)
    assert model.config.decoder == "comparing"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    shapes = separation_runs.write_shapes(tmp_path / "shapes")
    separator = SeparatorConfig(encoder=separation_runs.ENCODER, decoder_dim=16)
    before = trained(Separator(separator), tmp_path / "separator").state_dict()
    other = Separation(separation_runs.make(shapes, tmp_path / "separator", tmp_path / "b", keep_heads=True))
    found = other.build_model()
    other.load_published(found, lambda line: None)
    assert found.config.decoder_dim == 16
    assert all(torch.equal(value, before[name]) for name, value in found.state_dict().items())


def test_of_a_bundle_the_encoder_of_the_head_is_taken(world: Path, tmp_path: Path) -> None:
    encoder = localization_runs.ENCODER
    torch.manual_seed(0)
    first = trained(Localizer(LocalizerConfig(encoder=encoder, dim=16)), tmp_path / "localizer")
    trained(Segmenter(SegmenterConfig(encoder=encoder, decoder_dim=32)), tmp_path / "segmenter")
    write_bundle(
        BundleConfig(
            str(tmp_path / "bundle"), localization=str(tmp_path / "localizer"), segmentation=str(tmp_path / "segmenter")
        )
    )
    run = localization_runs.make(
        "supervised", world, tmp_path / "bundle", tmp_path / "run", keep_heads=True, splits=SPLITS
    )
    task = Localization(run)
    model = task.build_model()
    task.load_published(model, lambda line: None)
    state = first.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_frames_that_an_encoder_does_not_read_stay_with_the_head(tmp_path: Path) -> None:
    watching = replace(localization_runs.ENCODER, num_frames=4, encode_frames="reference")
    torch.manual_seed(0)
    trained(Localizer(LocalizerConfig(encoder=watching, dim=16)), tmp_path / "localizer")
    made = write_bundle(BundleConfig(str(tmp_path / "bundle"), localization=str(tmp_path / "localizer")))
    assert made.load("localization").config.encoder.num_frames == 4
    for place in ("localizer", "bundle"):
        assert encoder_at(str(tmp_path / place)).config == localization_runs.ENCODER
    assert EarlyFusionEncoder.from_pretrained(tmp_path / "bundle").config == localization_runs.ENCODER


def test_what_cannot_be_continued_is_refused(world: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LocalizerConfig(encoder=localization_runs.ENCODER, dim=16)
    trained(Localizer(replace(config, classes=("bell", "drum"))), tmp_path / "classes")
    made = lambda place: localization_runs.make(  # noqa: E731
        "supervised", world, place, tmp_path / "run", keep_heads=True, splits=SPLITS
    )
    with pytest.raises(ValueError, match="knows 2 classes, not the 0 of this run"):
        Localization(made(tmp_path / "classes"))
    with pytest.raises(ValueError, match="has no head for localization"):
        Localization(made(localization_runs.write_encoder(tmp_path / "encoder")))
    with pytest.raises(ValueError, match="heads belong to the weights"):
        localization_runs.make("supervised", world, tmp_path / "x", tmp_path / "run", keep_heads=True, untrained=True)
