"""The cast of digits, on small files in the data sets' own formats, and on the real ones where they lie."""

from __future__ import annotations

import gzip
import os
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.digits import MIDDLE, Digit, Digits
from deepavfusion.bandstand.generation import generate
from deepavfusion.bandstand.splits import Plan
from deepavfusion.data.clips import find_clips
from deepavfusion.data.scenes.annotation import read_annotation, read_mask

SPEAKERS = ("ann", "bob", "cyd")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """14 pictures of each digit and 7 takes of 3 speakers, no two alike."""
    folder = tmp_path_factory.mktemp("digits")
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10, dtype=np.uint8), 14)
    images = np.zeros((140, 28, 28), np.uint8)
    for number, label in enumerate(labels):
        images[number, 4:24, 8 : 12 + label % 3] = 255 - number  # no two alike
    for name, data, header in (
        ("images-idx3-ubyte.gz", images, (140, 28, 28)),
        ("labels-idx1-ubyte.gz", labels, (140,)),
    ):
        head = bytes([0, 0, 8, len(header)]) + np.array(header, ">u4").tobytes()
        (folder / name).write_bytes(gzip.compress(head + data.tobytes()))
    (folder / "recordings").mkdir()
    for digit in range(10):
        for speaker in SPEAKERS:
            for take in range(7):
                wave = 0.3 * rng.standard_normal(2400 + 100 * digit)
                soundfile.write(folder / "recordings" / f"{digit}_{speaker}_{take}.wav", wave, 8000)
    return str(folder), str(folder / "recordings")


@pytest.fixture(scope="module")
def cast(files: tuple[str, str]) -> Digits:
    return Digits(*files, held_out_speaker="cyd")


def _digits(plan: Plan) -> list[tuple[Digit, bool, tuple[float, float] | None]]:
    found = []
    for performer in plan.scene.performers:
        assert isinstance(performer.source, Digit)
        found.append((performer.source, performer.audible, performer.centre))
    return found


def test_label_is_where_the_spoken_digit_is(cast: Digits) -> None:
    plans = [cast.plan(0, "train", index, 4.0) for index in range(300)]
    assert Counter(plan.label for plan in plans) == {"left": 100, "right": 100, "absent": 100}
    for plan in plans:
        shown = [(d.digit, at) for d, _, at in _digits(plan) if at is not None]
        (spoken,) = [d.digit for d, heard, _ in _digits(plan) if heard]
        assert 2 <= len(shown) <= 4
        assert len({digit for digit, _ in shown}) == len(shown)
        where = {digit: "left" if at[0] < 80 else "right" for digit, at in shown}
        assert set(where.values()) == {"left", "right"}
        assert all(abs(at[0] - 80) > MIDDLE for _, at in shown)
        assert where.get(spoken, "absent") == plan.label
        assert plan.facts == {"spoken": [spoken]}


def test_held_out_speaker_and_handwriting_are_heard_and_seen_in_the_test_alone(cast: Digits) -> None:
    pictures: dict[str, set[bytes]] = {}
    takes: dict[str, set[bytes]] = {}
    for split in ("pretrain", "train", "val", "test"):
        found = [entry for index in range(120) for entry in _digits(cast.plan(0, split, index, 4.0))]
        pictures[split] = {digit.image.tobytes() for digit, _, _ in found}
        takes[split] = {take[:800].tobytes() for digit, _, _ in found for take in digit.takes}
        speakers = {digit.speaker for digit, _, _ in found}
        assert speakers == ({"cyd"} if split == "test" else {"ann", "bob"})
    for one, other in (("train", "val"), ("train", "test"), ("val", "test"), ("pretrain", "val"), ("pretrain", "test")):
        assert not pictures[one] & pictures[other]
        assert not takes[one] & takes[other]


def test_duets_speak_two_shown_digits(cast: Digits) -> None:
    for index in range(30):
        heard = [(d.digit, at) for d, audible, at in _digits(cast.plan(0, "duets", index, 4.0)) if audible]
        assert len({digit for digit, _ in heard}) == 2
        assert all(at is not None for _, at in heard)


def test_sprite_is_the_handwriting(cast: Digits) -> None:
    digit = _digits(cast.plan(0, "train", 0, 4.0))[0][0]
    sprite = digit.sprite(60.0, 0.0, (0.0, 0.0), (0.0, 0.0))
    rows, columns = np.flatnonzero(sprite.mask.any(1)), np.flatnonzero(sprite.mask.any(0))
    assert max(np.ptp(rows), np.ptp(columns)) == pytest.approx(60, abs=6)
    assert sprite.rgba.dtype == np.float32
    strokes = digit.image > 100
    scale = 60 / max(digit.image.shape)
    for found, drawn in ((rows, strokes.any(1)), (columns, strokes.any(0))):
        outline = 4  # two pixels on either side
        assert np.ptp(found) + 1 == pytest.approx(scale * drawn.sum() + outline, abs=3)


def test_sounding_intervals_are_those_of_the_recordings(cast: Digits) -> None:
    digit = _digits(cast.plan(0, "train", 1, 4.0))[0][0]
    wave = digit.sound(64000, 16000)
    inside = np.zeros(64000, bool)
    for start, end in digit.sounding():
        inside[round(start * 16000) : round(end * 16000)] = True
        assert np.mean(wave[round(start * 16000) : round(end * 16000)] ** 2) > 1e-4
    assert np.abs(wave[~inside]).max() < 1e-3
    assert len(digit.takes) >= 2


def test_wrong_files_are_named(files: tuple[str, str], tmp_path: Path) -> None:
    folder, recordings = files
    with pytest.raises(ValueError, match=r"'eve' is not among the speakers ann, bob, cyd"):
        Digits(folder, recordings, "eve")
    with pytest.raises(ValueError, match="no MNIST files"):
        Digits(recordings, recordings, "cyd")
    with pytest.raises(ValueError, match="neither a folder nor a zip"):
        Digits(folder, str(tmp_path / "none.zip"), "cyd")
    with pytest.raises(ValueError, match="no recordings"):
        Digits(folder, str(tmp_path), "cyd")
    (tmp_path / "images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + bytes(20))
    with pytest.raises(ValueError, match="images-idx3-ubyte: not an idx file"):
        Digits(str(tmp_path), recordings, "cyd")


def test_zip_files_hold_the_same_as_folders(files: tuple[str, str], cast: Digits, tmp_path: Path) -> None:
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for folder, _, names in os.walk(files[0]):
            for name in names:
                place = os.path.join(folder, name)
                target.write(place, os.path.relpath(place, files[0]))
    assert Digits(str(archive), str(archive), "cyd").digest == cast.digest


def test_real_digits_are_written(digit_files: tuple[str, str], tmp_path: Path) -> None:
    images, recordings = digit_files
    summary = generate(
        BandstandConfig(
            out=str(tmp_path),
            clips=6,
            cast="digits",
            splits=("test",),
            digit_images=images,
            digit_recordings=recordings,
            num_workers=0,
            sheets=False,
        )
    )
    clips = find_clips(summary.manifest)
    assert Counter(clip.label for clip in clips) == {"left": 2, "right": 2, "absent": 2}
    for clip in clips:
        truth = read_annotation(clip.path)
        (heard,) = [source for source in truth.sources if source.audible]
        assert heard.timbre == "yweweler"
        assert heard.off_screen == (clip.label == "absent")
        mask = read_mask(clip.path, truth, 5)
        for source in truth.sources:
            if source.visible and source.boxes and source.boxes[5]:
                assert 0.1 < np.sum(mask == source.number + 1) / source.size_pixels**2 < 0.8  # type: ignore[operator]
