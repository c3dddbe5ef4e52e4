"""Masks are cropped as their pictures are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.generation import generate
from deepavfusion.data.clips import find_clips
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.dataset import ClipSet, ClipStream, collate
from deepavfusion.data.scenes.annotation import read_annotation
from deepavfusion.data.scenes.sounding_masks import SoundingMasks
from deepavfusion.data.truth import crop_mask, nearest_time
from deepavfusion.data.views import CentreView, TrainingView


def test_mask_follows_the_crop_by_hand() -> None:
    mask = np.arange(16, dtype=np.uint8).reshape(4, 4)
    quarter = FrameCrop(0.5, 0.25, 0.5, 0.5, (2, 2))
    assert crop_mask(mask, quarter).tolist() == [[9, 10], [13, 14]]
    assert crop_mask(mask, FrameCrop(0.5, 0.25, 0.5, 0.5, (2, 2), flip=True)).tolist() == [[10, 9], [14, 13]]
    assert crop_mask(mask, FrameCrop.whole((8, 8)))[::2, ::2].tolist() == mask.tolist()


def test_nearest_time_prefers_the_earlier_of_two() -> None:
    assert nearest_time([0.0, 0.4, 0.8], 0.59) == 0.4
    assert nearest_time([0.0, 1.0], 0.5) == 0.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    generate(BandstandConfig(str(out), clips=6, splits=("segmentation_train",), sheets=False, num_workers=0))
    return out


def test_batches_carry_masks_of_what_sounds(world: Path) -> None:
    clips = find_clips(str(world / "manifest.csv"))
    batch = collate([ClipSet(clips, CentreView((96, 96), whole=True), truth=SoundingMasks())[i] for i in range(6)])
    assert batch.truth is not None
    assert batch.truth.shape == (6, 96, 96)
    for clip, mask in zip(clips, batch.truth, strict=True):
        annotation = read_annotation(clip.path)
        place = annotation.nearest_annotated(2.0)
        sounding = [s for s in annotation.sources if s.visible and s.heard_between(0.5, 3.5)]
        assert bool(mask.any()) == any(s.boxes and s.boxes[place] for s in sounding)
        for y, x in mask.nonzero().tolist():
            u, v = (x + 0.5) / 96 * annotation.size, (y + 0.5) / 96 * annotation.size
            boxes = [s.boxes[place] for s in sounding if s.boxes]
            assert any(b and b[0] <= u < b[2] and b[1] <= v < b[3] for b in boxes)


def test_training_frames_are_annotated_ones_and_drawn_alike(world: Path) -> None:
    clips = find_clips(str(world / "manifest.csv"))
    stream = ClipStream(clips, TrainingView((64, 64)), seed=3, truth=SoundingMasks())
    plain = ClipStream(clips, TrainingView((64, 64)), seed=3)
    for number in range(6):
        sample, other = stream[number], plain[number]
        assert sample.failure is None
        assert sample.truth is not None
        assert np.array_equal(sample.waveform, other.waveform)  # masks change the frame alone
        assert set(np.unique(sample.truth)) <= {0, 1}


def test_shards_say_that_they_have_no_annotation(world: Path, tmp_path: Path) -> None:
    from deepavfusion.data.shard_writing import ShardConfig, write_shards

    write_shards(ShardConfig(str(world / "manifest.csv"), str(tmp_path / "shards"), num_workers=0), lambda *_: None)
    sample = ClipSet(find_clips(str(tmp_path / "shards")), CentreView((64, 64)), truth=SoundingMasks())[0]
    assert sample.failure is not None
    assert "shards do not hold annotations" in sample.failure.cause
