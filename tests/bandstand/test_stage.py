"""Composition and mixing as arrays: masks where sprites are, stems that sum, rooms that ring."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deepavfusion.bandstand.backdrop import draw_backdrop
from deepavfusion.bandstand.score import Note
from deepavfusion.bandstand.sources import Instrument, draw_instrument
from deepavfusion.bandstand.stage import Camera, Performer, Room, Scene, Stage, boxes

STAGE = Stage()
NOTES = (Note(0.8, 0.5, 0, 1.0), Note(2.0, 0.5, 4, 0.8))


def _instrument(look: str = "drum", size: float = 60.0) -> Instrument:
    return draw_instrument(np.random.default_rng(3), look, "pluck", size, 4.0, NOTES)


def _scene(*performers: Performer, camera: Camera = Camera(), room: Room = Room()) -> Scene:  # noqa: B008
    return Scene(performers, draw_backdrop(np.random.default_rng(1)), camera, room)


def test_masks_are_where_the_picture_differs_from_the_empty_stage() -> None:
    scene = _scene(Performer(_instrument(), (70.0, 80.0), True))
    pictures, empty = STAGE.film(scene, (0, 25)), STAGE.film(replace(scene, performers=()), ())
    differs = np.abs(pictures.frames[0].astype(int) - empty.frames[0]).max(-1) > 12
    mask = pictures.masks[0] == 1
    assert np.sum(differs & mask) > 0.97 * mask.sum()
    assert np.sum(differs & ~mask) < 0.15 * mask.sum()
    (box,) = boxes(pictures.masks[0], 1)
    assert box is not None
    assert (box[0] + box[2]) / 2 == pytest.approx(70, abs=4)
    assert (box[1] + box[3]) / 2 == pytest.approx(80, abs=4)


def test_the_lower_one_stands_in_front() -> None:
    back, front = Performer(_instrument(), (80.0, 70.0), True), Performer(_instrument("bell"), (85.0, 90.0), True)
    both = STAGE.film(_scene(front, back), (0,)).masks[0]
    alone = STAGE.film(_scene(front), (0,)).masks[0]
    assert np.array_equal(both == 1, alone == 1)
    assert 0 < np.sum(both == 2) < np.sum(STAGE.film(_scene(back), (0,)).masks[0] == 1)


def test_a_stroke_is_seen_at_its_onset() -> None:
    frames = STAGE.film(_scene(Performer(_instrument(), (80.0, 90.0), True)), ()).frames.astype(float)
    bright = frames[:, 20:150, 20:140].mean((1, 2, 3))
    assert np.argmax(bright) == 10  # 0.8 s
    assert np.argmax(bright[18:]) + 18 == 25  # 2.0 s
    assert np.ptp(bright[:9]) < 0.05  # at rest before


def test_mirrored_scenes_are_mirrored_pictures() -> None:
    scene = _scene(Performer(_instrument(), (60.0, 80.0), True), camera=Camera(drift=(3.0, 2.0), noise=0.01))
    plain, mirrored = STAGE.film(scene, (5,)), STAGE.film(replace(scene, mirrored=True), (5,))
    assert np.array_equal(plain.frames[:, :, ::-1], mirrored.frames)
    assert np.array_equal(plain.masks[5][:, ::-1], mirrored.masks[5])


def test_picture_size_scales_the_stage() -> None:
    scene = _scene(Performer(_instrument(), (60.0, 90.0), True))
    (small,), (large,) = (boxes(Stage(size=size).film(scene, (0,)).masks[0], 1) for size in (96, 192))
    assert small is not None
    assert np.array(large) == pytest.approx(2 * np.array(small), abs=2.5)


def test_stems_and_noise_sum_to_the_mixture_exactly_even_when_turned_down() -> None:
    loud = [Performer(_instrument(size=size), (80.0, 80.0), True, 18.0) for size in (50.0, 70.0)]
    sounds = STAGE.record(_scene(*loud, room=Room(wet=0.1, noise_rms=0.01, noise_slope=0.5)))
    total = sounds.noise.astype(np.int64) + sum(stem.astype(np.int64) for stem in sounds.stems.values())
    assert np.array_equal(total, sounds.mixture)
    assert sounds.gain_db < 0
    assert 0.85 < np.abs(sounds.mixture).max() / 32767 < 0.91


def test_a_silent_performer_is_seen_striking_but_not_heard() -> None:
    scene = _scene(Performer(_instrument(), (80.0, 90.0), False))
    assert STAGE.record(scene).stems == {}
    assert not STAGE.record(scene).mixture.any()
    frames = STAGE.film(scene, ()).frames
    assert np.array_equal(frames, STAGE.film(_scene(replace(scene.performers[0], audible=True)), ()).frames)


def test_room_echo_and_noise_have_their_levels() -> None:
    performer = Performer(_instrument(), (80.0, 80.0), True)
    dry = STAGE.record(_scene(performer)).mixture / 32767
    wet = STAGE.record(_scene(performer, room=Room(0.3, wet=0.2))).mixture / 32767
    after = slice(int(2.51 * 16000), int(2.6 * 16000))  # just after the second note's end
    assert np.abs(dry[after]).max() < 1e-3 < np.abs(wet[after]).max()
    noise = STAGE.record(_scene(room=Room(noise_rms=0.02, noise_slope=1.0))).noise / 32767
    power = np.abs(np.fft.rfft(noise)) ** 2
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(0.02, rel=0.01)
    assert power[4 * 400 : 4 * 800].mean() == pytest.approx(2 * power[4 * 800 : 4 * 1600].mean(), rel=0.2)
