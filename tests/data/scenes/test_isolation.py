"""One source of a real generated clip at a time: what its picture shows, and its stem."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.generation import generate
from deepavfusion.data.clips import Clip, ClipError, find_clips
from deepavfusion.data.crops import WHOLE
from deepavfusion.data.mixture_set import MixtureSet, RatedView
from deepavfusion.data.mixtures import mix_recordings
from deepavfusion.data.opening import open_clip
from deepavfusion.data.scenes.annotation import annotation_of
from deepavfusion.data.scenes.isolation import (
    OthersHidden,
    box_region,
    only_sounding,
    others_mask,
    read_stem,
    see_source,
)
from deepavfusion.data.separable import recordings, single_sources
from deepavfusion.data.views import CentreView
from deepavfusion.images import MEAN_COLOUR


@pytest.fixture(scope="module")
def duets(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    out = str(tmp_path_factory.mktemp("duets"))
    generate(BandstandConfig(out=out, clips=4, splits=("duets",), num_workers=0, sheets=False))
    return find_clips(f"{out}/duets.csv")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    out = str(tmp_path_factory.mktemp("scenes"))
    config = BandstandConfig(
        out=out, clips=8, splits=("localization",), num_workers=0, sheets=False, stems=False, masks=False
    )
    generate(config)
    return find_clips(f"{out}/localization.csv")


def test_the_picture_keeps_its_source_and_paints_over_the_other(duets: list[Clip]) -> None:
    for clip in duets:
        truth = annotation_of(clip)
        place = truth.nearest_annotated(2.0)
        for number in range(2):
            mask = others_mask(truth, place, number)
            own, other = (truth.sources[n].boxes[place] for n in (number, 1 - number))  # type: ignore[index]
            assert own is not None
            assert other is not None
            assert not mask[own[1] : own[3], own[0] : own[2]].any()
            assert mask.sum() == mask[other[1] : other[3], other[0] : other[2]].sum() > 0
            # The view's crop is 7 / 8 of 160 pixels, moved so that the source is as central as the border allows.
            image = see_source(clip, number, RatedView((140, 140))).image
            painted = (image == MEAN_COLOUR).all(axis=2)
            left, top = (min(max((own[i] + own[i + 2]) / 2 - 70, 0), 20) for i in range(2))
            rows, columns = (np.floor(np.arange(140) + 0.5 + start).astype(int) for start in (top, left))
            seen = mask[np.ix_(rows, columns)] == 1
            assert painted[seen].all()
            assert painted[~seen].mean() < 0.01
            with open_clip(clip) as media:
                whole = media.frame(truth.annotated_frames[place] / truth.frame_rate)
            # Nothing is enlarged: the rest is the frame itself, moved by less than a pixel.
            difference = np.abs(image.astype(int) - whole[np.ix_(rows, columns)])
            assert np.median(difference[~seen]) <= 4


def test_stems_and_room_add_up_to_what_is_heard(duets: list[Clip]) -> None:
    found, others = recordings(duets, 2)
    assert (len(found), others) == (4, {})
    items = MixtureSet(mix_recordings(found, 0), RatedView((64, 64), 3.0))
    for number, clip in enumerate(duets):
        first, second, _, _, whole = (items[5 * number + i] for i in range(5))
        assert whole.clip == clip
        rest = whole.waveform - first.waveform - second.waveform
        # What remains is the room and the coder: far below the sources.
        assert 10 * np.log10((rest**2).sum() / (whole.waveform**2).sum()) < -12
        wrong_order = whole.waveform - np.roll(first.waveform + second.waveform, 800)
        assert (wrong_order**2).sum() > 5 * (rest**2).sum()


def test_stems_at_another_rate_and_beyond_their_end(duets: list[Clip]) -> None:
    stem = read_stem(duets[0], 0, 0.5, 11025, 11025)
    assert stem.shape == (11025,)
    ending = read_stem(duets[0], 0, 3.5, 16000, 16000)  # half a second is left: it is followed by its reversal
    assert np.array_equal(ending[8000:], ending[:8000][::-1])
    with pytest.raises(ClipError, match=r"ends before 9\.00 s"):
        read_stem(duets[0], 0, 9.0, 100, 16000)


def test_only_scenes_of_one_visible_sound_are_single_sources(scenes: list[Clip], duets: list[Clip]) -> None:
    parts, others = single_sources([*scenes, *duets], "source")
    assert len(parts) + len(others) == 12
    for part in parts:
        truth = annotation_of(part.clip)
        assert [s.number for s in truth.sources if s.audible] == [part.source]
        assert part.label == truth.sources[part.source].class_name  # type: ignore[index]
    assert all(clip.id in others for clip in duets)
    assert only_sounding(annotation_of(duets[0])) is None
    assert len(single_sources(scenes, "whole")[0]) == 8
    assert recordings(scenes, 2)[0] == []


def test_boxes_are_enlarged_alike_in_mixtures_of_clips_and_of_recordings(scenes: list[Clip], duets: list[Clip]) -> None:
    parts, _ = single_sources(scenes, "box")
    assert [part.clip for part in parts] == [part.clip for part in single_sources(scenes, "source")[0]]
    found, _ = recordings(duets, 2, "box")
    items = MixtureSet(mix_recordings(found, 0), RatedView((64, 64), 3.0))
    for number, (clip, pair) in enumerate(found):
        truth = annotation_of(clip)
        for place, part in enumerate(pair):
            assert part.region is not None
            region, boxes = part.region, truth.sources[part.source].boxes  # type: ignore[index]
            seen = [box for box in boxes or () if box is not None]
            for box in seen:  # in world pixels
                low = (region.left * truth.size, region.top * truth.size)
                high = (region.right * truth.size, region.bottom * truth.size)
                assert low[0] <= box[0] + 1e-6
                assert low[1] <= box[1] + 1e-6
                assert box[2] <= high[0] + 1e-6
                assert box[3] <= high[1] + 1e-6
            longest = max(
                max(box[2] for box in seen) - min(box[0] for box in seen),
                max(box[3] for box in seen) - min(box[1] for box in seen),
            )
            assert (region.right - region.left) * truth.size == pytest.approx(min(1.3 * longest, truth.size))
            assert region.right - region.left == pytest.approx(region.bottom - region.top)
            with open_clip(clip) as media:
                whole = media.frame(2.0)
            # 7 / 8 of the square, its middle, nearest pixels: the enlarged picture is the frame's own part.
            side = (region.right - region.left) * truth.size
            steps = side * (1 / 16 + 7 / 8 * (np.arange(64) + 0.5) / 64)
            rows, columns = (np.floor(start * truth.size + steps).astype(int) for start in (region.top, region.left))
            image = items[5 * number + place].image
            assert np.median(np.abs(image.astype(int) - whole[np.ix_(rows, columns)])) <= 6


def test_a_box_as_large_as_the_picture_is_nothing_to_paint_in(duets: list[Clip]) -> None:
    found, _ = recordings(duets, 2, "box")
    clip, pair = found[0]
    large = [replace(part, region=WHOLE) for part in pair]
    item = MixtureSet(mix_recordings([(clip, large), *found[1:]], 0), RatedView((64, 64), 3.0))[0]
    with open_clip(clip) as media:
        np.testing.assert_array_equal(item.image, CentreView((64, 64), 3.0).read(media).image)


def test_a_source_that_is_never_seen_has_no_box(duets: list[Clip]) -> None:
    truth = annotation_of(duets[0])
    hidden = replace(truth, sources=tuple(replace(source, boxes=None) for source in truth.sources))
    with pytest.raises(ClipError, match="source 1 is hidden in every annotated frame"):
        box_region(duets[0], hidden, 1)


def test_training_masks_lie_on_silent_instruments(scenes: list[Clip], duets: list[Clip]) -> None:
    truth = OthersHidden()
    parts, _ = single_sources(scenes, "source")
    assert parts
    clip = parts[0].clip
    times = truth.times(clip)
    mask = truth.read(clip, times[3], 0.0, 3.0)
    told = annotation_of(clip)
    assert mask.shape == (told.size, told.size)
    for source in told.sources:
        box = source.boxes[3] if source.boxes else None
        if box is not None:
            inside = mask[box[1] : box[3], box[0] : box[2]]
            assert inside.mean() > 0.3 if source.number != parts[0].source else not inside.any()
    with pytest.raises(ClipError, match="not exactly one source"):
        truth.read(duets[0], 0.0, 0.0, 3.0)


def test_clips_without_annotation_or_stems_say_so(scenes: list[Clip], duets: list[Clip], tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="no annotation beside the clip"):
        annotation_of(replace(duets[0], path=str(tmp_path / "a.mp4")))
    with pytest.raises(ClipError, match="shards do not hold annotations"):
        annotation_of(replace(duets[0], path="a.tar#512"))
    sounding = single_sources(scenes, "source")[0][0]
    with pytest.raises(ClipError, match="has no stem"):
        read_stem(sounding.clip, sounding.source or 0, 0.0, 100, 16000)
