"""The cast of stamps, on a small folder laid out like the package; `test_stamps_package` has the real one."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from deepavfusion.bandstand.backdrop import TEXTURES
from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.generation import BandstandSummary, generate, make_cast, make_clip
from deepavfusion.bandstand.photos import PhotoBackdrop, load_photo
from deepavfusion.bandstand.stage import boxes
from deepavfusion.bandstand.stamp_scenes import SOLOS, Stamps
from deepavfusion.bandstand.stamps import Stamp, load_take
from deepavfusion.bandstand.things import read_things, theme_of
from deepavfusion.data.clips import find_clips
from deepavfusion.data.opening import open_clip
from deepavfusion.data.scenes.annotation import read_annotation, read_mask
from tests.bandstand.stamp_folder import LANGUAGES, NUM_ANIMALS, RATE, build, cut_out, effect_hertz, tone


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("package") / "stamps")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven photographs, each of one colour."""
    place = tmp_path_factory.mktemp("photos")
    for number in range(7):
        Image.new("RGB", (120, 90), (30 * number, 80, 200)).save(place / f"{number}.png")
    return place


@pytest.fixture(scope="module")
def cast(folder: Path, photos: Path) -> Stamps:
    return Stamps(str(folder), str(photos), ("da", "el"))


@pytest.fixture(scope="module")
def world(folder: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> BandstandSummary:
    """Two solos of each kind of sound and eight scenes."""
    config = BandstandConfig(
        out=str(tmp_path_factory.mktemp("world")),
        cast="stamps",
        stamps=str(folder),
        backgrounds=str(photos),
        splits=("effects_train", "names_languages", "localization", "segmentation_test", "duets"),
        clips=14,
        num_workers=0,
        sheets=False,
    )
    return generate(config)


def _stamps(cast: Stamps, split: str, count: int) -> Iterator[tuple[Stamp, bool, bool, int]]:
    """Stamps of a split's clips: each, whether it is heard, whether it is seen, and its background's group."""
    for index in range(count):
        scene = cast.plan(0, split, index, 4.0).scene
        backdrop = scene.backdrop
        if isinstance(backdrop, PhotoBackdrop):
            group = int(Path(backdrop.path).stem) % 5
        else:
            group = TEXTURES.index(backdrop.texture)
        for performer in scene.performers:
            assert isinstance(performer.source, Stamp)
            yield performer.source, performer.audible, performer.centre is not None, group


def test_files_are_grouped_into_things_and_what_is_left_out_is_counted(folder: Path) -> None:
    found = read_things(str(folder))
    things = {thing.name: thing for thing in found.things}
    assert list(things) == sorted(["badger", *(f"beast{k:02d}" for k in range(NUM_ANIMALS)), "beaver", "pear"])
    beast = things["beast03"]
    assert beast.theme == "mammals"
    assert [effect.path for effect in beast.effects] == ["animals/mammals/beast03.ogg"]
    assert {code: [r.path for r in rs] for code, rs in beast.names.items()} == {
        code: [f"animals/mammals/beast03_desc_{code}.ogg"] for code in LANGUAGES
    }
    assert beast.words == {("en", "beast of kind 3"), ("fr", "une bête 3"), ("ru", "зверь 3")}
    assert [p.mirrors for k in (0, 1) for p in things[f"beast{k:02d}"].pictures] == [False, True]
    pear = things["pear"]
    assert [picture.path for picture in pear.pictures] == ["food/fruit/cartoon/pear.png", "food/fruit/pear.png"]
    assert [recording.path for recording in pear.names["fr"]] == ["food/fruit/cartoon/pear_desc_fr.wav"]
    assert things["badger"].effects == things["beaver"].effects == ()
    assert found.left_out == {
        "pictures and sounds of letters, digits and signs": 2,
        "pictures in SVG": 1,
        "pictures mirrored by hand": 1,
        "pictures that are mostly translucent": 1,
        "pictures that are too small": 1,
        "pictures without a sound": 1,
        "pictures without an outline": 1,
        "sounds that several things share": 2,
        "sounds without one of the pictures used": 1,
    }
    assert [theme_of(s) for s in ("animals/birds/x", "hobbies/music/brass/x", "hobbies/x", "town/a/x", "x")] == [
        "birds", "music", "hobbies", "town", "things",
    ]  # fmt: skip


def test_the_digest_names_the_files_that_are_used(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert read_things(str(copy)).digest == read_things(str(folder)).digest
    soundfile.write(copy / "misc/nobody.ogg", tone(999), RATE)  # not used
    assert read_things(str(copy)).digest == read_things(str(folder)).digest
    soundfile.write(copy / "animals/mammals/beast02.wav", tone(999), RATE)
    assert read_things(str(copy)).digest != read_things(str(folder)).digest


def test_solos_hold_every_thing_once_a_round(cast: Stamps) -> None:
    for split, kind in (("effects_test", "effect"), ("names_train", "name"), ("names_languages", "name")):
        block = cast.splits[split].block
        assert block == {"effects_test": 12, "names_train": 15, "names_languages": 12}[split]
        plans = [cast.plan(0, split, index, 4.0) for index in range(2 * block)]
        for round_ in (plans[:block], plans[block:]):
            assert len({plan.label for plan in round_}) == block
        for plan in plans:
            (performer,) = plan.scene.performers
            assert isinstance(performer.source, Stamp)
            assert performer.audible
            assert plan.label == performer.source.class_name
            assert performer.source.recording is not None
            assert performer.source.recording.kind == kind
            assert plan.facts is not None
            assert plan.facts["theme"] == performer.source.thing.theme


def test_languages_and_pairs_of_thing_and_background_are_held_out(cast: Stamps) -> None:
    place = {name: number for number, name in enumerate(cast.classes)}
    languages: dict[str, set[str]] = {}
    for split in cast.splits:
        heard = languages.setdefault(split, set())
        for stamp, audible, seen, group in _stamps(cast, split, 60):
            if seen:
                held_out = split in SOLOS and SOLOS[split][1]
                assert (place[stamp.class_name] % 5 == group) == held_out, (split, stamp.class_name, group)
            if audible and stamp.recording is not None and stamp.recording.language:
                heard.add(stamp.recording.language)
    for split, heard in languages.items():
        assert heard <= ({"da", "el"} if split.endswith("languages") else {"fr", "ru"}), split
    assert languages["names_languages"] == languages["localization_languages"] == {"da", "el"}
    assert languages["pretrain"] == {"fr", "ru"}


def test_things_of_a_clip_differ_and_silent_ones_could_be_heard(cast: Stamps) -> None:
    for index in range(200):
        plan = cast.plan(0, "localization", index, 4.0)
        stamps = [performer.source for performer in plan.scene.performers]
        names = [stamp.class_name for stamp in stamps]
        assert len(set(names)) == len(names)
        assert not {"badger", "beaver"} <= set(names)  # the same word in French
        assert plan.scene_type.endswith(("effect", "name")[index % 2])
        heard = [p for p in plan.scene.performers if p.audible]
        assert (
            len(heard)
            == {"one": 1, "one_and_off_screen": 2, "off_screen": 1, "silent": 0}[plan.scene_type.rsplit("_", 1)[0]]
        )
        for stamp in stamps:
            assert isinstance(stamp, Stamp)
            assert stamp.thing.effects if index % 2 == 0 else stamp.thing.names


def test_duets_and_scenes_of_segmentation_come_in_turn(cast: Stamps) -> None:
    for index in range(18):
        plan = cast.plan(0, "duets", index, 4.0)
        played = [p.source for p in plan.scene.performers]
        kinds = [stamp.recording.kind for stamp in played if isinstance(stamp, Stamp) and stamp.recording]
        assert kinds == [["effect", "effect"], ["name", "name"], ["effect", "name"]][index % 3]
        assert all(p.centre is not None and p.audible for p in plan.scene.performers)
        plan = cast.plan(0, "segmentation_test", index, 4.0)
        seen = [p for p in plan.scene.performers if p.centre is not None]
        assert 2 <= len(seen) <= 4
        assert sum(p.audible for p in seen) == [1, 1, 2, 2, 0, 0][index % 6]
        assert sum(p.audible for p in plan.scene.performers) == [1, 1, 2, 2, 0, 1][index % 6]


def test_listening_shows_the_same_frames_with_four_sounds(folder: Path, cast: Stamps) -> None:
    config = BandstandConfig("", cast="stamps", stamps=str(folder), size=64, seconds=2.0)
    four = [make_clip(config, cast, "listening", index) for index in range(4, 8)]
    assert [clip.truth.facts for clip in four] == [
        {"sound": sound, "kind": "name"} for sound in ("own", "silence", "noise", "foreign")
    ]
    assert all(np.array_equal(clip.pictures.frames, four[0].pictures.frames) for clip in four)
    own, silence, noise, foreign = four
    assert [source.off_screen for source in foreign.truth.sources if source.audible] == [True]
    assert [source.visible for source in own.truth.sources if source.audible] == [True]
    assert not silence.sounds.mixture.any()
    assert noise.sounds.mixture.std() == pytest.approx(0.045 * 32767, rel=0.05)


@pytest.mark.parametrize(
    ("tilt", "mirrored", "diameter"), [(0.0, False, 80.0), (0.2, True, 57.3), (-0.2, False, 140.0)]
)
def test_the_sprite_is_the_picture_turned_and_its_mask_the_outline(
    cast: Stamps, tilt: float, mirrored: bool, diameter: float
) -> None:
    stamp = next(s for s, *_ in _stamps(cast, "effects_train", 60) if s.class_name == "beast05")
    sprite = replace(stamp, tilt=tilt, mirrored=mirrored).sprite(diameter, 0.0, (0.3, 0.8), (0.0, 0.0))
    side = len(sprite.rgba)
    assert side % 2 == 0
    # The ellipse of 80 x 50 pixels that `cut_out` draws, by its equation at the middle of every pixel.
    axis = np.arange(side) + 0.5 - side / 2
    x, y = np.meshgrid(axis - 0.3, axis - 0.8)
    u, v = np.cos(tilt) * x + np.sin(tilt) * y, np.cos(tilt) * y - np.sin(tilt) * x
    radius = (u / (diameter / 2)) ** 2 + (v / (diameter * 50 / 80 / 2)) ** 2
    assert not sprite.mask[radius > 1.1].any()
    assert sprite.mask[radius < 0.9].all()
    assert np.sum(sprite.mask != (radius < 1)) < 0.03 * np.sum(radius < 1)
    assert np.all(sprite.rgba[..., :3] <= sprite.rgba[..., 3:] + 1e-6)
    # The white end is on the right, or on the left of a mirrored one.
    ahead = -u if mirrored else u
    white, body = (radius < 0.8) & (ahead > 0.35 * diameter), (radius < 0.8) & (ahead < 0.2 * diameter)
    assert sprite.rgba[white].min() > 0.98
    assert np.abs(sprite.rgba[body] - np.array([100, 155, 128, 255]) / 255).max() < 0.02


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_stamp_sounds_when_its_intervals_say(cast: Stamps, rate: int) -> None:
    for stamp, *_ in list(_stamps(cast, "effects_train", 12))[:3]:
        wave = stamp.sound(4 * rate, rate)
        inside = np.zeros(4 * rate, bool)
        for start, end in stamp.sounding():
            assert end - start == pytest.approx(0.5, abs=0.05)  # the tone, without the silence about it
            inside[round(start * rate) : round(end * rate)] = True
        assert len(stamp.sounding()) >= 2
        assert np.sqrt(np.mean(wave[inside] ** 2)) == pytest.approx(0.08, rel=0.05)
        assert np.abs(wave[~inside]).max() < 2e-3
        loudest = np.argmax(np.abs(np.fft.rfft(wave))) / 4
        assert loudest == pytest.approx(effect_hertz(int(stamp.class_name.removeprefix("beast"))), abs=3)


def test_pauses_longer_than_a_quarter_of_a_second_are_no_sound(tmp_path: Path) -> None:
    bark, short, long = tone(500, 0.3, 0), np.zeros(round(0.2 * RATE)), np.zeros(round(0.4 * RATE))
    soundfile.write(tmp_path / "dog.wav", np.concatenate([long, bark, short, bark, long, bark, short]), RATE)
    take = load_take(str(tmp_path / "dog.wav"))
    assert np.array(take.stretches) == pytest.approx(np.array([[0, 0.8], [1.2, 1.5]]), abs=0.04)
    assert take.duration_seconds == pytest.approx(1.5, abs=0.04)
    soundfile.write(tmp_path / "none.wav", np.zeros(9000), RATE)
    with pytest.raises(ValueError, match=r"none\.wav: silent"):
        load_take(str(tmp_path / "none.wav"))
    (tmp_path / "text.ogg").write_text("no sound")
    with pytest.raises(ValueError, match=r"text\.ogg: cannot be read as sound"):
        load_take(str(tmp_path / "text.ogg"))


def test_decoded_clips_are_what_their_annotations_say(world: BandstandSummary, folder: Path, photos: Path) -> None:
    """Boxes, masks and stems exactly; frames and sound but for their compression; intervals by the energy."""
    config = BandstandConfig(out="", cast="stamps", stamps=str(folder), backgrounds=str(photos))
    cast, seen, shares = make_cast(config), 0, []
    for clip in find_clips(world.manifest):
        truth, place = read_annotation(clip.path), os.path.dirname(clip.path)
        made = make_clip(config, cast, truth.split, truth.index)
        with open_clip(clip) as media:
            wave = media.sound(0.0, 4.0, 16000)
            for number in (0, 25):
                frame = media.frame(number / truth.frame_rate)
                error = (frame.astype(float) - made.pictures.frames[number]) @ [0.299, 0.587, 0.114]
                assert 10 * np.log10(255**2 / np.mean(error**2)) > 30
        for number in range(len(truth.annotated_frames)):
            mask = read_mask(clip.path, truth, number)
            assert np.array_equal(mask, made.pictures.masks[truth.annotated_frames[number]])
            found = boxes(mask, len(truth.sources))
            for source in truth.sources:
                assert source.boxes is None or source.boxes[number] == found[source.number]
                seen += source.boxes is not None
        names = {source.number: source.stem for source in truth.sources if source.stem is not None}
        stems = {k: soundfile.read(os.path.join(place, name), dtype="int16")[0] for k, name in names.items()}
        noise = soundfile.read(os.path.join(place, str(truth.noise_stem)), dtype="int16")[0]
        total = noise.astype(np.int64) + sum((stem.astype(np.int64) for stem in stems.values()), np.int64(0))
        assert np.array_equal(total, made.sounds.mixture)
        assert set(stems) == {source.number for source in truth.sources if source.audible}
        if stems:
            error = wave - total / 32768
            assert 10 * np.log10(np.mean((total / 32768) ** 2) / np.mean(error**2)) > 20
        for number, stem in stems.items():
            inside = np.zeros(len(stem), bool)
            for start, end in truth.sources[number].sounding:
                inside[round(start * 16000) : round(end * 16000)] = True
            shares.append(np.sum(stem[inside].astype(float) ** 2) / np.sum(stem.astype(float) ** 2))
            details = truth.sources[number].details
            assert details["recording"].startswith(details["picture"].removesuffix(".png").replace("cartoon/", ""))
    assert seen > 200
    assert min(shares) > 0.75  # the rest is echo
    assert np.mean(shares) > 0.95


def test_readme_counts_and_manifests_by_theme(world: BandstandSummary, folder: Path) -> None:
    out = Path(world.out)
    text = (out / "README.md").read_text()
    assert "General Public License, version 2" in text
    for line in (
        "| things | 15 |",
        "| things with an effect | 12 |",
        "| names in `da` (held out) | 12 |",
        "| names in `fr` | 15 |",
        "| photographs as backgrounds | 7 |",
        "| sounds that several things share | 2 |",
    ):
        assert line in text
    solos = find_clips(str(out / "effects_train_theme.csv"))
    assert {clip.label for clip in solos} == {"mammals"}
    assert [clip.id for clip in solos] == [clip.id for clip in find_clips(str(out / "effects_train.csv"))]
    assert "effects_train_theme" not in (out / "manifest.csv").read_text()
    settings = json.loads((out / "world.json").read_text())
    assert settings["held_out_languages"] == ["da", "el"]
    config = BandstandConfig(world.out, cast="stamps", stamps=str(folder), num_workers=0, sheets=False)
    with pytest.raises(ValueError, match="backgrounds"):
        generate(config)


def test_workers_get_the_cast_as_it_was_read(cast: Stamps) -> None:
    """They are given it, so that the folder is read once."""
    copy = pickle.loads(pickle.dumps(cast))
    for split, index in (("pretrain", 3), ("names_languages", 5), ("duets", 2)):
        assert copy.plan(0, split, index, 4.0) == cast.plan(0, split, index, 4.0)


@pytest.mark.slow
def test_two_processes_write_what_one_writes(folder: Path, tmp_path: Path) -> None:
    config = BandstandConfig(
        str(tmp_path / "one"), cast="stamps", stamps=str(folder), splits=("duets",), clips=3, size=64, seconds=2.0,
        num_workers=0, sheets=False,
    )  # fmt: skip
    generate(config)
    generate(replace(config, out=str(tmp_path / "two"), num_workers=1))
    for path in sorted((tmp_path / "one/duets").glob("*.*")):
        assert path.read_bytes() == (tmp_path / "two/duets" / path.name).read_bytes()


def test_a_photograph_is_seen_in_the_light_of_the_scene(cast: Stamps, photos: Path) -> None:
    plans = (cast.plan(0, "pretrain", index, 4.0) for index in range(40))
    backdrop = next(plan.scene.backdrop for plan in plans if isinstance(plan.scene.backdrop, PhotoBackdrop))
    plain = replace(backdrop, path=str(photos / "4.png"), light=(1.0, 1.0, 1.0), light_slope=0.0)
    assert plain.paint(40, 4, 0.25) == pytest.approx(np.broadcast_to(np.array([120, 80, 200]) / 255, (40, 40, 3)))
    lit = replace(plain, light=(0.9, 1.0, 1.0), light_slope=0.2, light_from=(1.0, 0.0)).paint(40, 4, 0.25)
    assert lit[..., 0] == pytest.approx(lit[..., 1] * 120 / 80 * 0.9)
    assert np.all(np.diff(lit[20, :, 1]) > 0)


def test_wrong_folders_and_settings_are_named(folder: Path, photos: Path, tmp_path: Path) -> None:
    install = "apt-get install tuxpaint-stamps-default"
    with pytest.raises(ValueError, match=f"cast stamps needs --stamps: `{install}`"):
        BandstandConfig("x", cast="stamps")
    with pytest.raises(ValueError, match="belong to --cast stamps"):
        BandstandConfig("x", stamps=str(folder))
    with pytest.raises(ValueError, match="held_out_languages belong to --cast stamps"):
        BandstandConfig("x", held_out_languages=("fr",))
    with pytest.raises(ValueError, match=f"nowhere: there is no such folder; install .*{install}"):
        read_things(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=rf"no cut-out picture NAME\.png with NAME\.ogg .*{install}"):
        read_things(str(photos))
    with pytest.raises(ValueError, match="no names in 'xx'; there are da, el, fr, ru"):
        Stamps(str(folder), None, ("da", "xx"))
    with pytest.raises(ValueError, match="0 things with a name; at least 10"):
        Stamps(str(folder), None, LANGUAGES)
    with pytest.raises(ValueError, match="no photographs in it"):
        Stamps(str(folder), str(tmp_path), ("da",))
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.jpg: cannot be read as a picture"):
        Stamps(str(folder), str(tmp_path), ("da",))
    Image.new("RGB", (99, 99)).save(tmp_path / "broken.jpg")
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "broken.jpg").read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"broken\.jpg: cannot be read as a picture"):
        load_photo(str(tmp_path / "broken.jpg"))
    few = tmp_path / "few"
    (few / "animals").mkdir(parents=True)
    cut_out((9, 9, 9)).save(few / "animals/cow.png")
    soundfile.write(few / "animals/cow.ogg", tone(400), RATE)
    with pytest.raises(ValueError, match="1 things with an effect; at least 10 are needed"):
        Stamps(str(few), None, ())
