"""Inputs of every kind come out as what they show and sound like, and hostile ones as one line."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.media import MediaError
from deepavfusion.inference.inputs import Arrays, name_of, open_recording, read_photo
from deepavfusion.inference.listing import list_items, safe_name, shown
from tests.inference.tiny_models import film, write_film, write_wav

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8)
WHOLE = FrameCrop.whole((30, 40))


def test_files(tmp_path: Path) -> None:
    with open_recording(write_film(tmp_path / "a.mp4", 1.0)) as media:
        assert (media.info.has_picture, media.info.has_sound, media.info.is_photo) == (True, True, False)
        assert media.info.duration_seconds == pytest.approx(1.0, abs=0.1)
        assert media.frames([0.0, 0.5], FrameCrop.whole((8, 9))).shape == (2, 8, 9, 3)
    with open_recording(str(write_wav(tmp_path / "a.wav", 0.7))) as media:
        assert (media.info.has_picture, media.info.has_sound) == (False, True)
        assert len(media.sound(0.0, 3.0)) == 11200
    Image.fromarray(PICTURE).save(tmp_path / "photo.png")
    with open_recording(tmp_path / "photo.png") as media:
        assert (media.info.duration_seconds, media.info.is_photo, media.info.has_sound) == (0.0, True, False)
        assert np.array_equal(media.frames([0.0, 5.0], WHOLE), [PICTURE, PICTURE])
    (tmp_path / "photo.mp4").write_bytes((tmp_path / "photo.png").read_bytes())  # what it is decides, not its name
    with open_recording(tmp_path / "photo.mp4") as media:
        assert media.info.is_photo


def test_a_photo_and_a_sound_are_a_recording(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "photo.png")
    wav = write_wav(tmp_path / "a.wav", 2.5)
    with open_recording((tmp_path / "photo.png", wav)) as media:
        assert media.info.duration_seconds == pytest.approx(2.5)
        assert (media.info.width, media.info.height, media.info.has_sound) == (40, 30, True)
        assert np.array_equal(media.frames([2.0], WHOLE)[0], PICTURE)
        assert len(media.sound(2.0, 1.0)) == 8000
    with open_recording((PICTURE, Arrays(sound=np.zeros(160), rate=16000))) as media:
        assert media.info.duration_seconds == 0.01
    film_path = write_film(tmp_path / "a.mp4", 1.0)
    with open_recording((film_path, wav)) as media:
        assert media.info.duration_seconds == pytest.approx(2.5)
    for pair in ((wav, wav), (tmp_path / "photo.png", tmp_path / "photo.png"), (film_path, wav, wav)):
        with pytest.raises(ValueError, match="pair is"), open_recording(pair):  # type: ignore[arg-type]
            pass


def test_arrays_of_every_library(tmp_path: Path) -> None:
    frames, wave = film(1.0)
    tensor = torch.from_numpy(frames).permute(0, 3, 1, 2)
    for pictures in (frames, tensor, frames.astype(np.float32) / 255, tensor.float() / 255):
        with open_recording(Arrays(pictures, 12.5, wave, 16000)) as media:
            assert media.info.duration_seconds == pytest.approx(1.0, abs=0.09)
            shown_at = media.frames([0.0, 0.085, 0.99, 7.0], FrameCrop.whole((40, 56)))
            assert np.array_equal(shown_at, frames[[0, 1, 11, 11]])
            assert np.array_equal(media.sound(0.25, 0.5), np.clip(wave[4000:12000], -1, 1))
    for picture in (PICTURE, Image.fromarray(PICTURE), torch.from_numpy(PICTURE).movedim(2, 0)):
        with open_recording(picture) as media:
            assert np.array_equal(media.frames([0.0], WHOLE)[0], PICTURE)
    stereo = np.stack([wave, np.zeros_like(wave)], axis=1)
    for sound in (stereo, torch.from_numpy(stereo.T), (32767 * stereo).astype(np.int16)):
        with open_recording(Arrays(sound=sound, rate=16000)) as media:
            np.testing.assert_allclose(media.sound(0.0, 9.0), wave / 2, atol=1e-4)
    with open_recording(Arrays(sound=wave, rate=8000)) as media:
        assert len(media.sound(0.0, 9.0)) == 2 * len(wave)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (Arrays(), "neither images nor sound"),
        (Arrays(np.zeros((3, 4, 5, 3), np.uint8)), "need fps"),
        (Arrays(np.zeros((4, 5), np.uint8)), r"is \(H, W, 3\)"),
        (Arrays(np.zeros((0, 5, 3), np.uint8)), r"is \(H, W, 3\)"),
        (Arrays(torch.zeros(4, 5, 3)), r"a tensor is \(3, H, W\)"),
        (Arrays(np.full((4, 5, 3), 9.0)), "floats from 0 to 1"),
        (Arrays(np.full((4, 5, 3), np.nan)), "floats from 0 to 1"),
        (Arrays(np.zeros((1, 20000, 3), np.uint8)), "more than is supported"),
        (Arrays(np.zeros((2, 4, 5, 3), np.uint8), fps=0), "fps 0 must be"),
        (Arrays(sound=np.zeros(5)), "needs its rate"),
        (Arrays(sound=np.zeros(0), rate=5), r"it is \(n,\)"),
        (Arrays(sound=np.full(5, np.inf), rate=5), "not finite"),
        (Arrays(sound=np.zeros(5, bool), rate=5), "signed integers"),
        (Arrays(sound=np.zeros(10**6, np.float32), rate=1), "277.8 hours long"),
    ],
)
def test_arrays_that_make_no_sense(arrays: Arrays, message: str) -> None:
    with pytest.raises((ValueError, MediaError), match=message), open_recording(arrays):
        pass


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that claims a size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def test_photos_that_are_none_are_refused(tmp_path: Path) -> None:
    for name, content, message in (
        ("huge.png", png(100_000, 100_000), "claims more pixels than are supported"),
        ("wide.png", png(30_000, 2), "30000 x 2 pixels, more than is supported"),
        ("bomb.png", png(10_001, 10_000), "10001 x 10000 pixels, more than is supported"),
        ("cut.png", png(40, 30)[:60], "not a readable image"),
        ("lies.png", png(40, 30, b"\0" * 50), "not a readable image"),
        ("not.bmp", b"BMnothing of the kind", "not a readable image"),
        ("tiff.tif", b"II*\0" + b"\xff" * 50, "not a readable image"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match=message), open_recording(tmp_path / name):
            pass
    Image.fromarray(np.zeros((4, 5), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(MediaError, match="convert it to 8 bits"):
        read_photo(str(tmp_path / "deep.png"))
    for name in ("missing.jpg", "", "a\0b.png"):
        with pytest.raises((MediaError, ValueError)), open_recording(str(tmp_path / name)):
            pass


def test_large_photos_are_made_small_and_turned(tmp_path: Path) -> None:
    tall = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8), 20)[None, :, None].repeat(300, 0).repeat(3, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    tall.save(tmp_path / "a.jpg", exif=exif)
    found = read_photo(str(tmp_path / "a.jpg"))
    assert found.shape[0] == 2048
    assert found.shape[1] < 130
    assert found[10, 5, 0] < 20 < 230 < found[-10, 5, 0]
    palette = Image.fromarray(PICTURE).convert("P")
    palette.save(tmp_path / "p.png")
    assert read_photo(str(tmp_path / "p.png")).shape == (30, 40, 3)


def test_names_of_results_are_harmless() -> None:
    tricks = [
        "../../etc/passwd", "/etc/passwd", "..", ".", "", ".hidden", "a\0b", "<script>alert(1)</script>", "a\nb",
        "\x1b[31mred", "C:\\evil", "con", "x" * 300, "\N{GRINNING FACE}" * 60, "\u202eexe.gpj", "\udcff", "a/../../b",
        "...", "~", "$(rm -rf)", "-rf", "a&amp;b", "\u00e9t\u00e9 1",
    ]  # fmt: skip
    for name in tricks:
        made = safe_name(name)
        assert made
        assert made not in (".", "..")
        assert not made.startswith(".")
        assert not set(made) & set("/\\<>&\0\n\x1b:$()'\"")
        assert len(made.encode(errors="surrogatepass")) <= 100
        made.encode()  # no lone surrogates
        assert "\n" not in shown(name)
        assert "\x1b" not in shown(name)
    assert safe_name("clip 1.x") == "clip_1.x"
    assert safe_name("a/b") == "a__b"
    assert safe_name("été") == "été"
    assert safe_name("x" * 300) != safe_name("x" * 301)


def test_files_and_folders_become_items(tmp_path: Path) -> None:
    for name in ("b.mp4", "b.wav", "c.jpg", "c.wav", "d.flac", "notes.txt", ".e.mp4", "sub/b.mkv", "b.webm"):
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.touch()
    items = list_items([str(tmp_path / "in"), str(tmp_path / "in" / "b.mp4"), str(tmp_path / "other.xyz")])
    told = {str(Path(i.path).relative_to(tmp_path)): (i.sound and Path(i.sound).name, i.folder) for i in items}
    assert list(told) == ["in/b.mp4", "in/b.webm", "in/c.jpg", "in/d.flac", "in/sub/b.mkv", "other.xyz"]
    assert told["in/c.jpg"] == ("c.wav", "c")
    assert told["in/d.flac"] == (None, "d")
    assert told["in/sub/b.mkv"] == (None, "sub__b")
    assert told["in/b.mp4"][1] != told["in/b.webm"][1]
    assert told["in/b.mp4"][1].startswith("b-")
    assert len({item.folder for item in items}) == len(items)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no videos, sounds or photos in this folder"):
        list_items([str(tmp_path / "empty")])
    paired = list_items([str(tmp_path / "in" / "c.jpg")], sound="x.wav")
    assert paired[0].given == (str(tmp_path / "in" / "c.jpg"), "x.wav")
    assert name_of(paired[0].given) == str(tmp_path / "in" / "c.jpg")
