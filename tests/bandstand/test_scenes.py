"""Plans by the thousand: balance, loose pairing, the laws of the world, and what must not leak."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from deepavfusion.bandstand.scenes import (
    LOOKALIKE_RATIO,
    MAX_TOGETHER,
    SIZES,
    SPLITS,
    TWIN_RATIOS,
    Band,
    _solo,
    share_together,
)
from deepavfusion.bandstand.score import Note
from deepavfusion.bandstand.sources import CLASSES, LOOK_NAMES, TIMBRE_NAMES, USUAL_SHARE, USUAL_TIMBRE, Instrument
from deepavfusion.bandstand.splits import Plan, shares
from deepavfusion.bandstand.stage import Performer, Scene, Stage
from deepavfusion.bandstand.world import stream
from deepavfusion.data.sets.vocabularies import shipped_classes

BAND = Band()


def _plans(split: str, count: int, seed: int = 0) -> list[Plan]:
    return [BAND.plan(seed, split, index, 4.0) for index in range(count)]


def _instrument(performer: Performer) -> Instrument:
    assert isinstance(performer.source, Instrument)
    return performer.source


@pytest.fixture(scope="module")
def solos() -> list[Plan]:
    return _plans("train", 1200)


@pytest.fixture(scope="module")
def ensembles() -> list[Plan]:
    return _plans("pretrain", 1000)


def _eta_squared(groups: list[str], values: list[float]) -> float:
    """Share of the variance that group means explain; about (groups - 1) / count where there is nothing to explain."""
    names, x = np.array(groups), np.array(values)
    between = sum(np.sum(names == g) * (x[names == g].mean() - x.mean()) ** 2 for g in set(groups))
    return float(between / np.sum((x - x.mean()) ** 2))


def test_the_shipped_list_of_classes_is_that_of_the_world() -> None:
    assert shipped_classes("bandstand") == CLASSES


def test_every_class_is_equally_frequent_in_every_round_of_solos(solos: list[Plan]) -> None:
    labels = [plan.label for plan in solos]
    assert all(sorted(labels[k : k + 24]) == sorted(CLASSES) for k in range(0, len(labels), 24))
    assert len({tuple(labels[k : k + 24]) for k in range(0, len(labels), 24)}) > 45
    assert all(plan.label == plan.scene.performers[0].source.class_name for plan in solos)


def test_looks_do_not_tell_what_is_heard_nor_timbres_what_is_seen(solos: list[Plan]) -> None:
    players = [_instrument(plan.scene.performers[0]) for plan in solos]

    def notes(measure: str) -> list[float]:
        return [float(np.mean([getattr(note, measure) for note in player.notes])) for player in players]

    heard = {
        "log size": [np.log(p.size) for p in players],
        "gain": [plan.scene.performers[0].gain_db for plan in solos],
        "notes": [float(len(p.notes)) for p in players],
        "semitones": notes("semitones"),
        "velocity": notes("velocity"),
        "duration": notes("duration_seconds"),
        "noise": [plan.scene.room.noise_rms for plan in solos],
    }
    seen = {
        "log size": heard["log size"],
        "velocity": heard["velocity"],  # height of the pose
        "first stroke": [p.notes[0].onset_seconds for p in players],
        "strokes": heard["notes"],
        "x": [plan.scene.performers[0].centre[0] for plan in solos],  # type: ignore[index]
        "y": [plan.scene.performers[0].centre[1] for plan in solos],  # type: ignore[index]
        "tilt": [p.tilt for p in players],
        "red": [p.palette.body[0] for p in players],
        "light": [plan.scene.backdrop.light_slope for plan in solos],
        "pose in the middle": [float(p.pose(np.array([2.0]))[0]) for p in players],
    }
    for name, values in heard.items():
        assert _eta_squared([p.look for p in players], values) < 0.014, name
    for name, values in seen.items():
        assert _eta_squared([p.timbre for p in players], values) < 0.012, name


def test_a_solo_of_another_class_differs_in_nothing_but_look_and_timbre() -> None:
    for index in range(3):
        plans = [_solo(stream(0, "train", index, "scene"), number, 4.0) for number in range(24)]
        calm = {_with(plan.scene, look="bell", timbre="reed") for plan in plans}
        assert len(calm) == 1


def test_picture_is_the_same_whatever_the_timbre_and_sound_whatever_the_look(solos: list[Plan]) -> None:
    stage = Stage(size=64, seconds=2.0)
    for plan in solos[:4]:
        frames = [stage.film(_with(plan.scene, timbre=timbre), ()).frames for timbre in TIMBRE_NAMES]
        waves = [stage.record(_with(plan.scene, look=look)).mixture for look in LOOK_NAMES]
        assert all(np.array_equal(frames[0], other) for other in frames)
        assert all(np.array_equal(waves[0], other) for other in waves)


def _with(scene: Scene, **changes: str) -> Scene:
    """The scene with its first instrument changed."""
    first, *others = scene.performers
    changed = replace(first, source=replace(_instrument(first), **changes))  # type: ignore[arg-type]
    return replace(scene, performers=(changed, *others))


def test_pairing_is_loose_outside_the_solos(ensembles: list[Plan]) -> None:
    pairs = Counter((p.source.look, p.source.timbre) for plan in ensembles for p in plan.scene.performers)
    for look in LOOK_NAMES:
        count = sum(pairs[look, timbre] for timbre in TIMBRE_NAMES)
        assert count / sum(pairs.values()) == pytest.approx(1 / 6, abs=0.03)
        assert pairs[look, USUAL_TIMBRE[look]] / count == pytest.approx(USUAL_SHARE, abs=0.08)
        assert all(pairs[look, timbre] > 0.04 * count for timbre in TIMBRE_NAMES)


def test_one_to_four_stand_on_the_stage_and_silent_ones_mime(ensembles: list[Plan]) -> None:
    visible = [[p for p in plan.scene.performers if p.centre is not None] for plan in ensembles]
    assert set(map(len, visible)) == {1, 2, 3, 4}
    silent = [p for stage in visible for p in stage if not p.audible]
    loud = [p for stage in visible for p in stage if p.audible]
    assert len(silent) > 250
    strokes = [np.mean([len(_instrument(p).notes) for p in group]) for group in (silent, loud)]
    assert strokes[0] == pytest.approx(strokes[1], rel=0.05)
    assert 0.1 < np.mean([any(p.centre is None for p in plan.scene.performers) for plan in ensembles]) < 0.2


def test_lookalikes_differ_in_size_and_sizes_fit_the_crowd(ensembles: list[Plan]) -> None:
    for plan in ensembles:
        stage = [_instrument(p) for p in plan.scene.performers if p.centre is not None]
        low, high = SIZES[len(stage)]
        assert all(low - 0.01 <= p.size <= high + 0.01 for p in stage)
        for n, p in enumerate(stage):
            for q in stage[:n]:
                assert p.look != q.look or max(p.size, q.size) / min(p.size, q.size) > LOOKALIKE_RATIO - 0.01


def test_localization_scenes() -> None:
    plans = _plans("localization", 400)
    kinds = Counter(plan.scene_type for plan in plans)
    assert set(kinds) == {"lookalikes", "lookalikes_off_screen", "off_screen", "silent"}
    alike = 0
    for plan in plans:
        on = [p for p in plan.scene.performers if p.centre is not None]
        off = [p for p in plan.scene.performers if p.centre is None]
        assert sum(p.audible for p in on) == plan.scene_type.startswith("lookalikes")
        assert len(off) == plan.scene_type.endswith("off_screen")
        assert len(on) >= 2
        alike += any(p.audible and not q.audible and p.source.look == q.source.look for p in on for q in on)
    assert alike > 100


def test_duets_segmentation_and_listening() -> None:
    for index, plan in enumerate(_plans("duets", 60)):
        a, b = (p.source for p in plan.scene.performers)
        assert all(p.audible for p in plan.scene.performers)
        assert plan.scene_type == ("duet_same" if index % 2 else "duet_different")
        assert (a.class_name == b.class_name) == (index % 2 == 1)
        assert index % 2 or (a.look != b.look and a.timbre != b.timbre)
    for index, plan in enumerate(_plans("segmentation_test", 90)):
        heard = sum(p.audible and p.centre is not None for p in plan.scene.performers)
        assert (heard == 1, heard >= 2, heard == 0)[index % 3]
    plans = _plans("listening", 80)
    for own, silence, noise, foreign in zip(*(plans[k::4] for k in range(4)), strict=True):
        seen = [
            [p.source for p in plan.scene.performers if p.centre is not None] for plan in (own, silence, noise, foreign)
        ]
        assert seen[0] == seen[1] == seen[2] == seen[3]
        assert len({plan.scene.backdrop for plan in (own, silence, noise, foreign)}) == 1
        heard = [[p for p in plan.scene.performers if p.audible] for plan in (own, silence, noise, foreign)]
        assert [len(h) for h in heard] == [1, 0, 0, 1]
        assert silence.scene.room.noise_rms == 0 < 10 * own.scene.room.noise_rms < 12 * noise.scene.room.noise_rms
        assert heard[3][0].centre is None
        assert heard[3][0].source.timbre not in {source.timbre for source in seen[0]}


def test_twins_are_at_chance_for_each_sense_and_for_features_without_place() -> None:
    plans = _plans("twins_test", 400)
    for k in range(0, len(plans), 4):
        four = plans[k : k + 4]
        players = [next(_instrument(p) for p in plan.scene.performers if p.audible) for plan in four]
        assert [plan.scene.mirrored for plan in four] == [False, False, True, True]
        # Same picture, both answers; same sound, both answers; same picture up to mirroring and same sound, both.
        assert four[0].label != four[1].label
        assert four[2].label != four[3].label
        assert players[0] is not players[1]
        assert players[0] == players[2]
        assert four[0].label != four[2].label
        assert four[1].label != four[3].label
        a, b = (_instrument(p) for p in four[0].scene.performers)
        assert (a.look, a.timbre, a.notes) == (b.look, b.timbre, b.notes)
        assert TWIN_RATIOS[0] - 0.01 < max(a.size, b.size) / min(a.size, b.size) < TWIN_RATIOS[1] + 0.01
        left, right = (p.centre for p in four[0].scene.performers)
        assert left is not None
        assert right is not None
        assert left[0] + (a.size + b.size) / 2 <= right[0] + 0.1
        low = min(a, b, key=lambda p: p.hertz(Note(0, 1, 0, 1)))
        assert low.size == max(a.size, b.size)
    assert 150 < sum(plan.facts == {"playing": "bigger"} for plan in plans) < 250


def test_motion_scenes_are_at_chance_for_each_sense_and_for_all_that_stands_still() -> None:
    plans = _plans("motion_test", 200)
    for k in range(0, len(plans), 4):
        four = plans[k : k + 4]
        assert {plan.scene_type for plan in four} == {"motion"}
        players = [next(_instrument(p) for p in plan.scene.performers if p.audible) for plan in four]
        assert [plan.scene.mirrored for plan in four] == [False, False, True, True]
        # Same picture, both answers; same sound, both answers.
        assert len({plan.scene.backdrop for plan in four}) == 1
        assert [plan.label for plan in four] in (["left", "right", "right", "left"],)
        assert (players[0], players[1]) == (players[2], players[3])
        a, b = (_instrument(p) for p in four[0].scene.performers)
        assert (a.look, a.timbre, a.size) == (b.look, b.timbre, b.size)
        assert max(share_together(a.notes, b.notes), share_together(b.notes, a.notes)) <= MAX_TOGETHER
        left, right = (p.centre for p in four[0].scene.performers)
        assert left is not None
        assert right is not None
        assert left[0] + a.size <= right[0] + 0.1


def test_strokes_together_by_hand() -> None:
    one, other = ([Note(t, 0.2, 0, 1.0) for t in times] for times in ((0.1, 1.0, 2.0), (0.17, 1.2, 2.9, 2.0)))
    assert share_together(tuple(one), tuple(other)) == pytest.approx(2 / 3)
    assert share_together(tuple(other), tuple(one)) == pytest.approx(2 / 4)


def test_plans_depend_on_seed_split_and_index_alone() -> None:
    assert BAND.plan(3, "pretrain", 7, 4.0) == Band().plan(3, "pretrain", 7, 4.0)
    others = [BAND.plan(4, "pretrain", 7, 4.0), BAND.plan(3, "pretrain", 8, 4.0), BAND.plan(3, "localization", 7, 4.0)]
    assert all(other.scene != BAND.plan(3, "pretrain", 7, 4.0).scene for other in others)


def test_shares_of_the_splits() -> None:
    counts = shares(10_000, SPLITS, ())
    assert sum(counts.values()) == 10_000
    assert set(counts) == {name for name, split in SPLITS.items() if not split.by_name}
    assert all(counts[name] % SPLITS[name].block == 0 for name in counts)
    assert counts["pretrain"] >= 5000
    assert shares(7, SPLITS, ("test",)) == {"test": 7}
    assert shares(120, SPLITS, ("motion_train", "motion_test")) == {"motion_train": 80, "motion_test": 40}
    assert sum(shares(5, SPLITS, ()).values()) == 5
    with pytest.raises(ValueError, match="no split 'tset'"):
        shares(10, SPLITS, ("tset",))
    with pytest.raises(ValueError, match="twice"):
        shares(10, SPLITS, ("test", "test"))
