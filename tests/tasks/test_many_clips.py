"""A manifest of a million rows stays a table: no task builds a clip for every row of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepavfusion.configuration import DataConfig
from deepavfusion.data.clip_table import ClipTable
from deepavfusion.tasks.classification import Classification
from deepavfusion.tasks.localization import Localization
from deepavfusion.tasks.pretraining import MaskedPretraining
from deepavfusion.tasks.pretraining_config import PretrainConfig
from deepavfusion.tasks.segmentation import Segmentation
from deepavfusion.tasks.separation import Separation
from tests.tasks import classification_runs, localization_runs, segmentation_runs, separation_runs


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return separation_runs.write_encoder(tmp_path_factory.mktemp("encoder") / "model")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classification_runs.write_data(tmp_path_factory.mktemp("data"), 12)


def test_clips_to_train_on_are_rows_of_the_manifest(manifest: Path, encoder: Path, tmp_path: Path) -> None:
    pretraining = PretrainConfig(run_dir=str(tmp_path), data=DataConfig(source=str(manifest)))
    tasks = (
        MaskedPretraining(pretraining),
        Classification(classification_runs.make("probe", manifest, encoder, tmp_path)),
        Localization(localization_runs.make("self_supervised", manifest, encoder, tmp_path)),
        Separation(separation_runs.make(manifest, encoder, tmp_path)),
    )
    for task in tasks:
        assert isinstance(task.clips, ClipTable), task.kind
        assert [clip.split for clip in task.clips] == 9 * ["train"], task.kind
        assert task.clips[0].id == "disc/0000"


def test_pictures_to_train_on_are_rows_of_the_manifest(encoder: Path, tmp_path: Path) -> None:
    world = localization_runs.write_world(tmp_path / "world", 4, "segmentation_train")
    task = Segmentation(segmentation_runs.make(world, encoder, tmp_path / "run"))
    assert isinstance(task.clips, ClipTable)
    assert len(task.clips) == 4
