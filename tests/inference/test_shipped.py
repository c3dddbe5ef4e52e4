"""The bundle that comes with the package: all four tasks on a clip of its own world, and small enough to ship."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.generation import generate
from deepavfusion.data.media import MediaFile
from deepavfusion.data.scenes.annotation import read_annotation, read_mask
from deepavfusion.inference import Arrays, Predictor
from deepavfusion.storage.starting_point import SHIPPED

FOLDER = SHIPPED / "bandstand"
MAX_BYTES = 24 * 2**20


@pytest.fixture(scope="module")
def shipped_predictor() -> Predictor:
    return Predictor.from_pretrained("shipped:bandstand", "cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of a seed that no head was trained or scored on."""
    out = tmp_path_factory.mktemp("world")
    generate(
        BandstandConfig(out=str(out), clips=6, seed=77, splits=("segmentation_test",), sheets=False, num_workers=1)
    )
    return out


def test_it_has_all_tasks_and_is_small(shipped_predictor: Predictor) -> None:
    tasks = {"classification", "localization", "separation", "segmentation", "embedding"}
    assert set(shipped_predictor.tasks) == tasks
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= MAX_BYTES


def test_its_card_tells_data_recipes_and_scores() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8").lower()
    for text in ("bandstand", "classification", "localization", "separation", "segmentation", "apache-2.0", "miou"):
        assert text in card, text


def test_masks_lie_on_instruments_and_vanish_in_silence(shipped_predictor: Predictor, world: Path) -> None:
    called = inside = silent = 0
    clips = sorted((world / "segmentation_test").glob("*.mp4"))
    assert len(clips) == 6
    for clip in clips:
        truth = read_annotation(clip)
        place = truth.nearest_annotated(2.0)
        seconds = truth.annotated_frames[place] / truth.frame_rate
        instruments = read_mask(clip, truth, place) > 0
        with MediaFile(clip) as media:
            picture, sound = media.frame(seconds), media.sound(seconds - 1.5, 3.0)
        own, quiet = (
            shipped_predictor.segment(Arrays(picture, sound=heard, rate=16000), step_seconds=1.5).masks[1] > 0
            for heard in (sound, np.zeros_like(sound))
        )
        called, inside, silent = called + own.sum(), inside + (own & instruments).sum(), silent + quiet.sum()
    assert called > 0
    assert inside > 0.7 * called
    assert silent < 0.1 * called
