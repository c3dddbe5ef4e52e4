"""Which part of a clip a view shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from deepavfusion.configuration import DataConfig
from deepavfusion.data.crops import WHOLE, FrameCrop, Region
from deepavfusion.data.views import (
    CentreView,
    ClipView,
    TrainingView,
    centre_crop,
    frame_times,
    noisy,
    random_crop,
    recoloured,
    start_apart,
)
from deepavfusion.models.config import EarlyFusionConfig


@dataclass(frozen=True)
class ArrayInfo:
    duration_seconds: float
    has_picture: bool = True
    has_sound: bool = True
    width: int | None = 320
    height: int | None = 240


@dataclass
class ArrayClip:
    """A clip in memory: its sound is a ramp that tells the time in seconds / 100; remembers what was asked for."""

    info: ArrayInfo
    sound_seconds: float | None = None
    asked: list[tuple[float, FrameCrop]] = field(default_factory=list)

    def frame(self, time_seconds: float, crop: FrameCrop | None = None) -> NDArray[np.uint8]:
        assert crop is not None
        self.asked.append((time_seconds, crop))
        return np.full((*crop.output_size, 3), round(time_seconds * 10) % 256, np.uint8)

    def frames(self, times_seconds: Sequence[float], crop: FrameCrop) -> NDArray[np.uint8]:
        return np.stack([self.frame(time, crop) for time in times_seconds])

    def sound(self, start_seconds: float, duration_seconds: float, sample_rate: int = 16_000) -> NDArray[np.float32]:
        end = self.info.duration_seconds if self.sound_seconds is None else self.sound_seconds
        times = start_seconds + np.arange(round(duration_seconds * sample_rate)) / sample_rate
        return (times[times < end] / 100).astype(np.float32)


def draw(view: TrainingView, info: ArrayInfo, number: int) -> tuple[ClipView, FrameCrop]:
    clip = ArrayClip(info)
    drawn = view.read(clip, np.random.default_rng((7, number)))
    return drawn, clip.asked[0][1]


def test_window_frame_and_crop_are_spread_as_stated() -> None:
    view = TrainingView(image_size=(32, 32), window_seconds=3.0)
    drawn, crops = zip(*(draw(view, ArrayInfo(10.0), number) for number in range(2000)), strict=True)
    starts = np.array([v.start_seconds for v in drawn]) / 7  # uniform in [0, 1] of 10 - 3 seconds
    moments = np.array([v.frame_seconds - v.start_seconds for v in drawn]) / 3
    for values in (starts, moments):
        assert np.abs(np.sort(values) - np.linspace(0, 1, 2000)).max() < 1.95 / 2000**0.5  # Kolmogorov-Smirnov, 0.1 %
    assert abs(np.corrcoef(starts, moments)[0, 1]) < 0.08
    areas = np.array([crop.height * crop.width for crop in crops])
    ratios = np.array([crop.width * 320 / (crop.height * 240) for crop in crops])
    assert 0.49 < areas.min() < 0.52
    assert 0.9 < areas.max() <= 1
    assert ratios.min() > 0.74
    assert ratios.max() < 1.35
    assert abs(np.mean([crop.flip for crop in crops]) - 0.5) < 0.04
    assert max(crop.top + crop.height for crop in crops) > 0.99  # places reach every edge
    assert max(crop.left + crop.width for crop in crops) > 0.99
    assert min(min(crop.top, crop.left) for crop in crops) == 0


def test_area_and_ratio_are_uniform_where_every_draw_fits() -> None:
    view = TrainingView(crop_area=(0.1, 0.3), crop_ratio=(0.5, 2.0))
    rng = np.random.default_rng(0)
    crops = [random_crop(2000, 2000, view, False, rng) for _ in range(2000)]
    areas = np.sort([crop.height * crop.width for crop in crops])
    logs = np.sort([np.log2(crop.width / crop.height) for crop in crops])
    assert np.abs(areas - np.linspace(0.1, 0.3, 2000)).max() < 0.2 * 1.95 / 2000**0.5
    assert np.abs(logs - np.linspace(-1, 1, 2000)).max() < 2 * 1.95 / 2000**0.5


def test_crops_are_whole_pixels_and_follow_a_wide_output() -> None:
    view = TrainingView(image_size=(32, 64))
    rng = np.random.default_rng(0)
    for _ in range(200):
        crop = random_crop(101, 307, view, True, rng)
        pixels = np.array([crop.top * 101, crop.height * 101, crop.left * 307, crop.width * 307])
        np.testing.assert_allclose(pixels, pixels.round(), atol=1e-9)
        assert 2 * 0.73 < pixels[3] / pixels[1] < 2 * 1.36
        assert crop.output_size == (32, 64)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(100, 1000, (0, 433 / 1000, 1, 133 / 1000)), (1000, 100, (433 / 1000, 0, 133 / 1000, 1)), (1, 1, (0, 0, 1, 1))],
)
def test_a_picture_no_draw_fits_gives_its_centre(
    height: int, width: int, expected: tuple[float, float, float, float]
) -> None:
    crop = random_crop(height, width, TrainingView(crop_area=(0.9, 1.0)), False, np.random.default_rng(0))
    assert (crop.top, crop.left, crop.height, crop.width) == pytest.approx(expected)


def test_gain_is_uniform_in_decibels_and_clamped() -> None:
    view = TrainingView(image_size=(4, 4), window_seconds=0.1, gain_db=6.0)
    info = ArrayInfo(0.1, has_picture=False)
    gains = []
    for number in range(500):
        waveform = view.read(ArrayClip(info), np.random.default_rng(number)).waveform
        assert waveform is not None
        gains.append(20 * np.log10(waveform[800] / 0.0005))
    assert np.abs(np.sort(gains) - np.linspace(-6, 6, 500)).max() < 12 * 1.95 / 500**0.5
    loud = replace(view, window_seconds=250.0).read(
        ArrayClip(replace(info, duration_seconds=250.0)), np.random.default_rng(1)
    )
    assert loud.waveform is not None
    assert loud.waveform.max() == 1.0


def test_the_centre_view_takes_the_middle() -> None:
    clip = ArrayClip(ArrayInfo(10.0, width=640, height=360))
    view = CentreView((224, 224), 3.0).read(clip)
    assert (view.start_seconds, view.frame_seconds) == (3.5, 5.0)
    assert view.waveform is not None
    assert view.waveform.shape == (48_000,)
    np.testing.assert_allclose(view.waveform[[0, -1]], [0.035, 0.065], atol=1e-5)
    time, crop = clip.asked[0]
    assert time == 5.0
    # short side 360 to 256, so 224 pixels were 315 of them
    np.testing.assert_allclose([crop.height * 360, crop.width * 640, crop.top * 360], [315, 315, 22.5])


def test_a_region_is_seen_as_if_it_were_the_whole_picture() -> None:
    info, part = ArrayInfo(10.0, width=320, height=240), Region(0.25, 0.5, 0.75, 1.0)
    clip = ArrayClip(info)
    CentreView((112, 112), 3.0, region=part).read(clip)
    crop = clip.asked[0][1]
    # 160 x 120 pixels from (80, 120) on; the short side 120 to 128, so 112 pixels were 105 of them, in the middle.
    found = [crop.left * 320, crop.top * 240, crop.width * 320, crop.height * 240]
    np.testing.assert_allclose(found, [107.5, 127.5, 105, 105])
    view = TrainingView((112, 112), crop_area=(0.3, 1.0))
    for number in range(50):
        _, inside = draw(view, replace(info, width=160, height=120), number)
        _, placed = draw(replace(view, region=part), info, number)
        assert placed == part.within(inside)
    whole = FrameCrop(0.1, 0.2, 0.3, 0.4, (8, 8), True)
    assert WHOLE.within(whole) == whole
    with pytest.raises(ValueError, match="ascending"):
        Region(0.5, 0.0, 0.5, 1.0)


def test_the_centre_crop_covers_an_output_of_any_shape() -> None:
    crop = centre_crop(360, 640, (64, 128))  # wider than the picture: the width decides
    np.testing.assert_allclose([crop.width, crop.width * 640 / (crop.height * 360)], [224 / 256, 2])
    crop = centre_crop(360, 640, (64, 96))
    np.testing.assert_allclose([crop.height, crop.width * 640 / (crop.height * 360)], [224 / 256, 1.5])


@pytest.mark.parametrize("view", [TrainingView((8, 8), 3.0, gain_db=0.0), CentreView((8, 8), 3.0)])
def test_a_clip_shorter_than_the_window_is_continued_from_its_start(view: TrainingView | CentreView) -> None:
    for number in range(20):
        drawn = view.read(ArrayClip(ArrayInfo(1.0)), np.random.default_rng(number))
        assert drawn.start_seconds == 0
        assert 0 <= drawn.frame_seconds <= 1
        assert drawn.waveform is not None
        assert drawn.waveform.shape == (48_000,)
        np.testing.assert_array_equal(drawn.waveform[16_000:32_000], drawn.waveform[15_999::-1])
        np.testing.assert_array_equal(drawn.waveform[32_000:], drawn.waveform[:16_000])


def test_missing_tracks_are_none_and_do_not_move_what_is_there() -> None:
    view = TrainingView((8, 8), 1.0)
    full, silent, blind = (
        view.read(ArrayClip(ArrayInfo(10.0, picture, sound)), np.random.default_rng(3))
        for picture, sound in ((True, True), (True, False), (False, True))
    )
    assert silent.waveform is None
    assert blind.image is None
    assert full.start_seconds == silent.start_seconds == blind.start_seconds
    np.testing.assert_array_equal(full.image, silent.image)
    np.testing.assert_array_equal(full.waveform, blind.waveform)


def test_sound_that_ended_before_the_window_is_absent() -> None:
    view = CentreView((8, 8), 1.0)
    assert view.read(ArrayClip(ArrayInfo(10.0), sound_seconds=4.0)).waveform is None


def test_views_follow_the_configuration() -> None:
    data = DataConfig("x", crop_area=(0.2, 0.4), crop_ratio=(1, 1), flip=0.0, gain_db=3)
    model = EarlyFusionConfig(image_size=(96, 128), audio_size=(128, 64))
    view = TrainingView.from_config(data, model)
    assert view == TrainingView((96, 128), 1.0, (0.2, 0.4), (1.0, 1.0), 0.0, 3)
    assert view.num_samples == 16_000
    assert CentreView.from_config(model) == CentreView((96, 128), 1.0)
    with pytest.raises(ValueError, match="needs a generator"):
        view.read(ArrayClip(ArrayInfo(1.0)), None)


def test_several_frames_lie_at_the_centres_of_equal_parts() -> None:
    clip = ArrayClip(ArrayInfo(10.0))
    drawn = CentreView(image_size=(8, 8), window_seconds=2.0, num_frames=4).read(clip)
    assert drawn.image is not None
    assert drawn.image.shape == (4, 8, 8, 3)
    assert [time for time, _ in clip.asked] == pytest.approx([4.25, 4.75, 5.25, 5.75])
    assert len({crop for _, crop in clip.asked}) == 1
    assert (drawn.start_seconds, drawn.frame_seconds) == (4.0, 5.25)
    short = ArrayClip(ArrayInfo(1.0))
    CentreView(image_size=(8, 8), window_seconds=2.0, num_frames=2).read(short)
    assert [time for time, _ in short.asked] == pytest.approx([0.25, 0.75])


def test_one_frame_is_drawn_as_before() -> None:
    """The draws of a training view do not depend on the number of frames, but for the moment of the only one."""
    for number in range(5):
        one, several = ArrayClip(ArrayInfo(10.0)), ArrayClip(ArrayInfo(10.0))
        view = TrainingView(image_size=(8, 8), window_seconds=2.0)
        a = view.read(one, np.random.default_rng(number))
        b = replace(view, num_frames=3).read(several, np.random.default_rng(number))
        place, moment = np.random.default_rng(number).random(4)[:2]
        assert a.start_seconds == b.start_seconds == place * 8.0
        assert a.frame_seconds == a.start_seconds + moment * 2.0
        assert a.crop == b.crop
        assert a.waveform is not None
        assert np.array_equal(a.waveform, b.waveform)
        assert [t - b.start_seconds for t, _ in several.asked] == pytest.approx([1 / 3, 1, 5 / 3])


def test_the_only_frame_may_be_the_middle_one() -> None:
    clip = ArrayClip(ArrayInfo(10.0))
    view = TrainingView((32, 32), crop_area=(1, 1), gain_db=0)
    for number in range(20):
        anywhere, middle = (
            replace(view, frame=frame).read(clip, np.random.default_rng(number)) for frame in ("random", "middle")
        )
        assert middle.frame_seconds == pytest.approx(middle.start_seconds + 1.5)
        assert middle.start_seconds == anywhere.start_seconds
        annotated = replace(view, frame="middle").read(clip, np.random.default_rng(number), [2.0, 4.0, 9.5])
        assert annotated.frame_seconds in (2.0, 4.0, 9.5)
        assert annotated.start_seconds == pytest.approx(min(annotated.frame_seconds - 1.5, 7.0))
    assert TrainingView.from_config(DataConfig("x", frame="middle"), EarlyFusionConfig()).frame == "middle"
    with pytest.raises(ValueError, match="frame 'first' must be random or middle"):
        DataConfig("x", frame="first")


def test_the_window_moves_with_an_annotated_reference() -> None:
    """So that frames keep their time against the sound; at the end of the clip, where it cannot, frames move alone."""
    info, view = ArrayInfo(10.0), CentreView(image_size=(8, 8), window_seconds=2.0, num_frames=3)
    clip = ArrayClip(info)
    drawn = view.read(clip, times=[1.0, 5.3, 9.0])
    assert (drawn.start_seconds, drawn.frame_seconds) == pytest.approx((4.3, 5.3))
    assert drawn.waveform is not None
    assert drawn.waveform[0] == pytest.approx(0.043, abs=1e-6)
    start, times = frame_times(info, 4.0, 2.0, 3, [9.8])
    assert (start, times) == (8.0, pytest.approx([9.8 - 2 / 3, 9.8, 10.0]))
    assert frame_times(info, 4.0, 2.0, 1, [9.8]) == (4.0, [9.8])


def test_changed_colours_are_linear_in_the_channel_and_in_the_place() -> None:
    still = np.random.default_rng(0).integers(90, 160, (20, 30, 3), dtype=np.uint8)
    film = np.stack([still, still])
    changed = recoloured(film, 0.4, np.random.default_rng(1))
    assert np.array_equal(changed[0], changed[1])
    assert np.array_equal(changed[0], recoloured(still, 0.4, np.random.default_rng(1)))
    down, across = np.meshgrid(np.linspace(-1, 1, 20), np.linspace(-1, 1, 30), indexing="ij")
    for channel in range(3):
        x, y = still[..., channel].ravel().astype(float), changed[0, ..., channel].ravel().astype(float)
        design = np.stack([x - 127.5, np.ones_like(x), down.ravel(), across.ravel()], axis=1)
        (contrast, tint, *shading), *_ = np.linalg.lstsq(design, y, rcond=None)
        assert np.abs(design @ [contrast, tint, *shading] - y).max() <= 1  # rounding
        assert abs(contrast - 1) <= 0.41
        assert abs(tint - 127.5) <= 0.1 * 255 + 1
        assert all(abs(slope) <= 0.1 * 255 + 1 for slope in shading)
    assert np.array_equal(recoloured(still, 0.0, np.random.default_rng(1)), still)


def test_noise_has_a_level_between_a_hundredth_and_the_largest() -> None:
    silence = np.zeros(20_000, np.float32)
    levels = np.array([noisy(silence, 0.1, np.random.default_rng(n)).std() for n in range(200)])
    assert levels.min() > 0.00098
    assert levels.max() < 0.102
    assert np.median(np.log10(levels)) == pytest.approx(-2, abs=0.2)


def test_a_share_of_views_shows_the_reference_alone() -> None:
    moving = TrainingView(image_size=(8, 8), window_seconds=2.0, num_frames=3)
    still, number = 0, 40
    for seed in range(number):
        asked = []
        for view in (moving, replace(moving, still=0.25), replace(moving, still=1.0)):
            clip = ArrayClip(ArrayInfo(10.0))
            found = view.read(clip, np.random.default_rng(seed))
            asked.append([time for time, _ in clip.asked])
            assert asked[0][1] == found.frame_seconds
        assert asked[2] == [asked[0][1]] * 3
        assert asked[1] in (asked[0], asked[2])
        still += asked[1] == asked[2]
    assert 0.1 < still / number < 0.4
    with pytest.raises(ValueError, match=r"still 1\.5 must be between"):
        DataConfig(source="x", still=1.5)


def test_colours_and_noise_change_nothing_else_of_a_view() -> None:
    plain = TrainingView(image_size=(32, 32), window_seconds=3.0)
    loud = replace(plain, colour=0.4, noise=0.05)
    (a, _), (b, _) = draw(plain, ArrayInfo(10.0), 3), draw(loud, ArrayInfo(10.0), 3)
    assert a.start_seconds == b.start_seconds
    assert a.image is not None and b.image is not None and a.waveform is not None and b.waveform is not None  # noqa: PT018
    assert not np.array_equal(a.image, b.image)
    assert 1e-4 < (a.waveform - b.waveform).std() < 0.06
    silent = replace(ArrayInfo(10.0), has_sound=False)
    assert np.array_equal(draw(loud, silent, 3)[0].image, b.image)
    with pytest.raises(ValueError, match=r"colour 1\.5 must be between"):
        DataConfig(source="x", colour=1.5)


def test_a_second_window_shares_as_little_with_the_first_as_the_clip_allows() -> None:
    places = np.linspace(0, 1, 501)[:-1]
    for other in (0.0, 1.0, 3.5, 5.0):  # of 8 s with windows of 3 s, which start from 0 to 5 s
        starts = np.array([start_apart(place, 8.0, 3.0, other) for place in places])
        assert ((starts >= 0) & (starts <= 5) & (abs(starts - other) >= 3)).all()
        free = max(0, other - 3) + max(0, 2 - other)
        assert np.histogram(starts, [-1e-9, max(0, other - 3), 5])[0][0] / 500 == pytest.approx(
            max(0, other - 3) / free, abs=0.01
        )
    assert start_apart(0.7, 8.0, 3.0, 2.5) == 5.0  # no two windows fit beside one in the middle
    assert start_apart(0.7, 4.0, 3.0, 0.2) == 1.0
    assert start_apart(0.7, 4.0, 3.0, 0.9) == 0.0
    assert start_apart(0.7, 2.0, 3.0, 0.0) == 0.0
    view, clip = TrainingView((32, 32), crop_area=(1, 1), gain_db=0), ArrayClip(ArrayInfo(9.0))
    for number in range(20):
        first, second = (np.random.default_rng((seed, number)) for seed in (1, 2))
        drawn = view.read(clip, first)
        assert abs(view.read(clip, second, apart_from=drawn.start_seconds).start_seconds - drawn.start_seconds) >= 3
