"""Limits, and lines that name the visitor's file and never the server's folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from deepavfusion.page.intake import Given, Limits, describe, display_name, length, look_at
from tests.inference.test_inputs import png
from tests.inference.tiny_models import write_film, write_wav

LIMITS = Limits(2**20, 20.0)


def test_what_is_taken_and_what_is_said_of_it(clips: Path, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "photo.png")
    tone = str(clips / "tone.wav")
    assert describe(look_at(Given((str(clips / "film.mp4"),)), LIMITS)) == "1.5 s, video of 56 × 40, with sound"
    assert describe(look_at(Given((tone,)), LIMITS)) == "1.0 s, with sound"
    assert describe(look_at(Given((str(tmp_path / "photo.png"),)), LIMITS)) == "photo of 30 × 20, no sound"
    pair = Given((str(tmp_path / "photo.png"), tone))
    assert describe(look_at(pair, LIMITS)) == "1.0 s, photo of 30 × 20, with sound"
    assert pair.name == "photo.png + tone.wav"
    assert pair.folder == "photo"


def test_too_long_too_large_and_gone(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^long.mp4: is 30 s long; this page accepts at most 20 s$"):
        look_at(Given((str(clips / "long.mp4"),)), LIMITS)
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(2**20 + 1))
    with pytest.raises(ValueError, match=r"^large.mp4: has 1.0 MiB, more than the 1 MiB that this page accepts$"):
        look_at(Given((str(large),)), LIMITS)
    with pytest.raises(ValueError, match=r"^gone.mp4: no longer exists; upload it again$"):
        look_at(Given((str(tmp_path / "gone.mp4"),)), LIMITS)


@pytest.mark.parametrize("name", ["bad.mp4", "line\nbreak.mp4", "<img src=x onerror=alert(1)>.mp4", "é%00 ü.mp4"])
def test_a_bad_file_is_one_line_without_folders(name: str, clips: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes((clips / "bad.mp4").read_bytes())
    for given in (Given((str(path),)), Given((str(path), str(clips / "tone.wav")))):
        with pytest.raises(ValueError, match="no media container") as told:
            look_at(given, LIMITS)
        line = str(told.value)
        assert str(tmp_path) not in line
        assert "\n" not in line
        assert line.startswith(display_name(str(path)))


def test_hostile_pictures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "huge.png").write_bytes(png(100_000, 100_000))
    with pytest.raises(ValueError, match=r"^huge.png: claims .*more.* than (is|are) supported"):
        look_at(Given((str(tmp_path / "huge.png"),)), LIMITS)
    (tmp_path / "huge.png").rename(tmp_path / "huge.mp4")  # it is looked into, whatever it is called
    with pytest.raises(ValueError, match=r"^huge.mp4: claims .*more.* than (is|are) supported"):
        look_at(Given((str(tmp_path / "huge.mp4"),)), LIMITS)


def test_a_pair_needs_a_picture_and_a_sound(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", 0.5)
    write_film(tmp_path / "b.mp4", 0.5)
    with pytest.raises(ValueError, match=r"^a.wav: has no picture, a pair is") as told:
        look_at(Given((str(tmp_path / "a.wav"), str(tmp_path / "b.mp4"))), LIMITS)
    assert str(tmp_path) not in str(told.value)


def test_names_for_people_and_for_folders() -> None:
    assert display_name("/tmp/x/a\tb\n.mp4") == r"a\tb\n.mp4"
    long = display_name("/tmp/" + 300 * "x" + ".mp4")
    assert len(long) <= 60
    assert long.endswith("....mp4")
    folder = Given(("/tmp/<b>$(rm -rf)&'\".mp4",)).folder
    assert set("<>$()&'\"/ ") & set(folder) == set()
    assert Given(("/tmp/...mp4",)).folder.strip("._-")


def test_times_as_people_say_them() -> None:
    assert [length(t) for t in (0.3, 20, 120, 65, 3600, 3900)] == [
        "0.3 s",
        "20 s",
        "2 min",
        "1 min 05 s",
        "1 h",
        "1 h 05 min",
    ]
