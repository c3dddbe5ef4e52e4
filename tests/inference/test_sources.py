"""What a separator is shown of a recording's picture when parts of it are asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.generation import generate
from deepavfusion.data.clips import Clip, find_clips
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.scenes.annotation import ClipTruth, annotation_of
from deepavfusion.data.scenes.isolation import read_stem, see_source
from deepavfusion.data.views import CentreView
from deepavfusion.inference import Predictor
from deepavfusion.inference.inputs import open_recording
from deepavfusion.inference.sources import Box, ask_for, source_parts
from deepavfusion.inference.timeline import read_frames
from deepavfusion.metrics.separation import si_sdr
from deepavfusion.models.config import EarlyFusionConfig
from deepavfusion.models.separator_config import SeparatorConfig

CONFIG = SeparatorConfig(encoder=EarlyFusionConfig(image_size=(160, 160)))


@pytest.fixture(scope="module")
def duets(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    out = str(tmp_path_factory.mktemp("duets"))
    generate(BandstandConfig(out=out, clips=12, splits=("duets",), num_workers=0, sheets=False, seed=5))
    return find_clips(f"{out}/duets.csv")


def boxes_of(truth: ClipTruth, place: int) -> list[Box]:
    """Of all sources in an annotated frame, as fractions."""
    found: list[Box] = []
    for source in truth.sources:
        box = source.boxes[place] if source.boxes else None
        assert box is not None
        left, top, right, bottom = (side / truth.size for side in box)
        found.append((left, top, right, bottom))
    return found


def test_boxes_show_what_the_evaluation_shows(duets: list[Clip]) -> None:
    duet = duets[0]
    truth = annotation_of(duet)
    place = truth.nearest_annotated(2.0)
    parts = source_parts(boxes_of(truth, place), truth.size, truth.size, replace(CONFIG, shows="source"))
    moment = np.array([[truth.annotated_frames[place] / truth.frame_rate]])
    with open_recording(duet.path) as recording:
        for source, part in zip(truth.sources, parts, strict=True):
            seen = see_source(duet, source.number, CentreView((160, 160)))
            np.testing.assert_array_equal(part.painted(read_frames(recording, moment, part.crop))[0], seen.image)


def test_the_shipped_separator_gains_by_boxes(duets: list[Clip]) -> None:
    shipped = Predictor.from_pretrained("shipped:bandstand", "cpu")
    gains = []
    for clip in duets:
        truth = annotation_of(clip)
        found = shipped.separate(clip.path, boxes=boxes_of(truth, truth.nearest_annotated(2.0)))
        length = truth.num_samples
        stems = torch.from_numpy(np.stack([read_stem(clip, s.number, 0.0, length, 16000) for s in truth.sources]))
        sources = torch.from_numpy(found.sources[:, :length]).double()
        mixture = torch.from_numpy(found.residual[:length]).double() + sources.sum(dim=0)
        gains.append(si_sdr(stems.double(), sources) - si_sdr(stems.double(), mixture.expand_as(sources)))
    # Enlarged, as they once were, the boxes cost it as much as they bring now: their size, and so the pitch, is wrong.
    assert torch.stack(gains).mean() > 0.2


def test_parts_follow_the_training() -> None:
    box = (0.25, 0.5, 0.5, 1.0)  # of 320 x 160: 80 x 80 pixels
    (whole,) = source_parts([box], 160, 320, CONFIG)
    assert whole.crop == FrameCrop(0.5, 0.25, 0.5, 0.25, (160, 160))
    (boxed,) = source_parts([box], 160, 320, replace(CONFIG, shows="box"))
    # A square of 1.3 x 80 = 104 pixels about it, at the lower border, and 7 / 8 of that: all of it, and a little more.
    found = [boxed.crop.left * 320, boxed.crop.top * 160, boxed.crop.width * 320, boxed.crop.height * 160]
    np.testing.assert_allclose(found, [120 - 45.5, 160 - 104 + 6.5, 91, 91])
    (kept,) = source_parts([box], 160, 320, replace(CONFIG, shows="source"))
    # The test view: 7 / 8 of the short side, moved to the box.
    found = [kept.crop.left * 320, kept.crop.top * 160, kept.crop.width * 320, kept.crop.height * 160]
    np.testing.assert_allclose(found, [120 - 70, 20, 140, 140])
    assert whole.hidden is None
    assert boxed.hidden is None
    assert not kept.hidden.any()  # type: ignore[union-attr]
    left, right = source_parts([(0, 0, 0.5, 1), (0.5, 0, 1, 1)], 160, 160, replace(CONFIG, shows="source"))
    assert (left.crop.left, right.crop.left) == (0.0, 0.125)
    np.testing.assert_array_equal(left.hidden.all(axis=0), np.arange(160) >= np.ceil(0.5 / 0.875 * 160 - 0.5))
    np.testing.assert_array_equal(left.hidden, right.hidden[:, ::-1])
    everything = (0.0, 0.0, 1.0, 1.0)
    assert source_parts([everything], 90, 160, replace(CONFIG, shows="box"))[0].crop == FrameCrop.whole((160, 160))
    with pytest.raises(ValueError, match="shows 'part' must be"):
        replace(CONFIG, shows="part")  # type: ignore[arg-type]


def test_pictures_that_ask_are_read_as_recordings_are(tmp_path: Path) -> None:
    upright = np.zeros((40, 20, 3), np.uint8)
    upright[:20] = 200
    turned = Image.fromarray(np.rot90(upright))
    exif = turned.getexif()
    exif[0x112] = 6  # a quarter clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    tensor = torch.from_numpy(upright).movedim(2, 0)
    asked = ask_for([tmp_path / "turned.png", turned, upright, tensor, upright / 255], ())
    assert len(asked.pictures) == 5
    for picture in asked.pictures:
        np.testing.assert_array_equal(picture, upright)
    for wrong in (np.zeros((40, 20), np.uint8), np.zeros((2, 40, 20, 3), np.uint8), Image.new("I;16", (4, 4)), b"png"):
        with pytest.raises(ValueError, match="pictures: "):
            ask_for([wrong], ())
