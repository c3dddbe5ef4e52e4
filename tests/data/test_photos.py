"""Photos are read whole, as they are displayed, whatever holds them; a photo is no film."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from deepavfusion.data.clips import Clip
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.framed_clips import FramedClip, write_framed_clips
from deepavfusion.data.media import MediaError, MediaFile
from deepavfusion.data.photos import photo_of_image, probe_photo, read_photo
from deepavfusion.data.sets.readability import checked_clip, fault
from deepavfusion.inference.inputs import open_recording
from tests.data.media_writer import Clip as MediaClip
from tests.data.media_writer import write_clip
from tests.data.still_writer import Tile, avif_tile, colours, heic_tile, mirrored, shown_part, turned, write_grid

RED, GREEN, BLUE, WHITE, BLACK, YELLOW = COLOURS = (
    (200, 30, 30), (30, 170, 30), (30, 30, 200), (235, 235, 235), (10, 10, 10), (220, 200, 20),
)  # fmt: skip
SIDE = 64

needs_avif = pytest.mark.skipif(not ("avif" in features.modules and features.check("avif")), reason="needs AVIF")
has_heif = importlib.util.find_spec("pillow_heif") is not None


def seen(photo: np.ndarray, rows: int, columns: int) -> list[tuple[int, ...]]:
    """The nearest of COLOURS in the middle of each field of a grid, none further than 8 levels."""
    found = []
    for row in range(rows):
        for column in range(columns):
            pixel = photo[
                (2 * row + 1) * photo.shape[0] // (2 * rows), (2 * column + 1) * photo.shape[1] // (2 * columns)
            ]
            nearest = min(COLOURS, key=lambda colour: np.abs(np.subtract(colour, pixel.astype(int))).max())
            assert np.abs(np.subtract(nearest, pixel.astype(int))).max() <= 8, pixel
            found.append(nearest)
    return found


# Properties of the whole, and the fields that are to be seen: 2 x 3 tiles, the upper row red, green, blue.
GRIDS: dict[str, tuple[tuple[bytes, ...], tuple[int, int], list[tuple[int, int, int]]]] = {
    "whole": ((), (2, 3), [RED, GREEN, BLUE, WHITE, BLACK, YELLOW]),
    "turned": ((turned(1),), (3, 2), [BLUE, YELLOW, GREEN, BLACK, RED, WHITE]),
    "turned_back": ((turned(3),), (3, 2), [WHITE, RED, BLACK, GREEN, YELLOW, BLUE]),
    "upside_down": ((turned(2),), (2, 3), [YELLOW, BLACK, WHITE, BLUE, GREEN, RED]),
    "mirrored": ((mirrored(True),), (2, 3), [BLUE, GREEN, RED, YELLOW, BLACK, WHITE]),
    "cut": ((shown_part(128, 64, (32, 1), (0, 1)),), (2, 2), [GREEN, BLUE, BLACK, YELLOW]),
    "cut_turned_mirrored": (
        (shown_part(128, 64, (32, 1), (0, 1)), turned(1), mirrored(True)), (2, 2), [YELLOW, BLUE, BLACK, GREEN],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize(
    ("brand", "tile"),
    [
        pytest.param(b"avif", avif_tile, marks=needs_avif),
        pytest.param(b"mif1", avif_tile, marks=needs_avif),
        pytest.param(b"heic", heic_tile, marks=pytest.mark.skipif(not has_heif, reason="needs pillow-heif")),
    ],
)
def test_tiles_are_one_photo(tmp_path: Path, name: str, brand: bytes, tile: Callable[..., Tile]) -> None:
    properties, (rows, columns), expected = GRIDS[name]
    path = write_grid(tmp_path / "photo.mp4", brand, [tile(c, SIDE) for c in COLOURS], 3, SIDE, *properties)
    height, width = (64, 128) if name == "cut" else (rows * SIDE, columns * SIDE)
    if name == "cut_turned_mirrored":
        height, width = 128, 64
    assert read_photo(path).shape == (height, width, 3)
    assert seen(read_photo(path), rows, columns) == expected
    with open_recording(path) as recording:
        info = recording.info
        assert (info.is_photo, info.duration_seconds, info.height, info.width) == (True, 0.0, height, width)
        assert seen(recording.frames([0.0], FrameCrop.whole((60, 60)))[0], rows, columns) == expected
    if brand == b"avif":  # an image that Pillow has opened is the same photo
        with Image.open(path, formats=["AVIF"]) as image:
            np.testing.assert_array_equal(photo_of_image(image), read_photo(path))


@needs_avif
def test_a_photo_of_high_dynamic_range_is_brought_to_the_standard_one(tmp_path: Path) -> None:
    # 0.5807 of PQ is the light of white paper, 203 cd/m2 (BT.2408): 148 of 255.
    path = write_grid(tmp_path / "pq.avif", b"avif", [avif_tile((148, 148, 148), SIDE)], 1, SIDE, colours(9, 16, 9))
    assert read_photo(path)[30, 30].min() >= 250


@pytest.mark.skipif(has_heif, reason="pillow-heif is installed")
def test_heic_is_refused_by_name_where_nothing_reads_it(tmp_path: Path) -> None:
    path = write_grid(tmp_path / "photo.heic", b"heic", [heic_tile(c, SIDE) for c in COLOURS], 3, SIDE)
    with pytest.raises(MediaError, match=r"HEIC, which needs `pip install deepavfusion\[heif\]`"):
        read_photo(path)
    with pytest.raises(MediaError, match="HEIC, which needs"), open_recording(path):
        pass


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", pytest.param(".avif", marks=needs_avif)])
def test_a_photo_is_no_clip(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (64, 48), RED).save(tmp_path / f"a{suffix}")
    path = (tmp_path / f"a{suffix}").rename(tmp_path / "a.mp4")
    with pytest.raises(MediaError, match=r"a photo \(\w+\), neither video nor sound"):
        MediaFile(path)
    row = checked_clip(Clip("a", str(path)), "open")
    assert row.verdict == "quarantined"
    assert "a photo" in (row.reason or "")
    with open_recording(path) as recording:
        assert recording.info.is_photo


@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}, {"brand": "mif1"}])
def test_a_film_stays_a_film(tmp_path: Path, options: dict[str, str]) -> None:
    path = write_clip(tmp_path / "a.mp4", MediaClip(seconds=1.0, container_options=options))
    with open_recording(path) as recording:
        assert not recording.info.is_photo
        assert recording.info.duration_seconds == pytest.approx(1.0, abs=0.1)


def made(mode: str) -> Image.Image:
    """A picture of the colour (200, 30, 60), or of its grey, in a mode of Pillow."""
    image = Image.new("RGB", (20, 10), (200, 30, 60))
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB")
    if mode == "RGBa":
        return image.convert("RGBA").convert("RGBa")
    if mode in ("P", "PA"):
        return image.quantize(4) if mode == "P" else image.quantize(4).convert("PA")
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "LAB", "P", "PA", "L", "LA", "1"])
def test_every_mode_of_pillow_is_its_colours(mode: str) -> None:
    image = made(mode)
    expected = {"L": (84, 84, 84), "LA": (84, 84, 84)}.get(mode, (200, 30, 60))
    photo = photo_of_image(image)
    assert photo.shape == (10, 20, 3)
    if mode == "1":  # dithered: black and white, and nothing between
        assert set(np.unique(photo)) <= {0, 255}
    else:
        np.testing.assert_allclose(photo[5, 10], expected, atol=3)


def test_transparency_is_dropped(tmp_path: Path) -> None:
    palette = made("P")
    palette.info["transparency"] = 0
    palette.save(tmp_path / "a.png")
    clear = Image.new("RGBA", (20, 10), (200, 30, 60, 0))
    clear.save(tmp_path / "b.png")
    for image, path in ((palette, "a.png"), (clear, "b.png")):
        np.testing.assert_array_equal(photo_of_image(image), read_photo(tmp_path / path))
        np.testing.assert_allclose(photo_of_image(image)[5, 10], (200, 30, 60), atol=3)


@pytest.mark.parametrize("mode", ["I", "F", "I;16", "I;16B", "I;16L"])
def test_deep_pictures_are_refused_by_path_and_as_images(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (20, 10), 30000)
    with pytest.raises(ValueError, match="convert it to 8 bits a channel"):
        photo_of_image(image)
    with pytest.raises(ValueError, match=r"array: has pixels of kind .*convert it to 8 bits"), open_recording(image):
        pass
    image.save(tmp_path / "deep.tif")
    with pytest.raises(MediaError, match="convert it to 8 bits"):
        read_photo(tmp_path / "deep.tif")


# How a picture that is stored with red above white, in the left half, is to be displayed: the corners clockwise from
# the upper left, by the orientation in EXIF.
TURNS = {
    1: (RED, BLACK, BLACK, WHITE), 2: (BLACK, RED, WHITE, BLACK), 3: (BLACK, WHITE, RED, BLACK),
    4: (WHITE, BLACK, BLACK, RED), 5: (RED, WHITE, BLACK, BLACK), 6: (WHITE, RED, BLACK, BLACK),
    7: (BLACK, BLACK, RED, WHITE), 8: (BLACK, BLACK, WHITE, RED),
}  # fmt: skip


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_turns_are_applied_by_path_and_to_images(tmp_path: Path, orientation: int, suffix: str) -> None:
    stored = np.zeros((64, 128, 3), np.uint8) + np.array(BLACK, np.uint8)
    stored[:32, :64], stored[32:, :64] = RED, WHITE
    image = Image.fromarray(stored)
    exif = image.getexif()
    exif[0x112] = orientation
    path = tmp_path / f"a{suffix}"
    image.save(path, exif=exif, quality=95)
    expected = [TURNS[orientation][k] for k in (0, 1, 3, 2)]
    size = (64, 128) if orientation < 5 else (128, 64)
    with Image.open(path) as opened:
        for photo in (read_photo(path), photo_of_image(opened), photo_of_image(image)):
            assert photo.shape == (*size, 3)
            assert seen(photo, 2, 2) == expected
        assert opened.getexif().get(0x112, 1) in (1, orientation)  # what was given stays as it was
    with open_recording(image) as recording:
        assert (recording.info.height, recording.info.width) == size


def test_large_images_become_small_without_being_changed() -> None:
    image = Image.new("RGB", (4000, 1000), RED)
    assert photo_of_image(image).shape == (512, 2048, 3)
    assert photo_of_image(image, longest=None).shape == (1000, 4000, 3)
    assert image.size == (4000, 1000)
    with pytest.raises(ValueError, match="20000 x 2 pixels, more than is supported"):
        photo_of_image(Image.new("RGB", (20000, 2)))


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.gif"])
def test_animated_pictures_are_no_photo(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in COLOURS]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=100)
    with Image.open(tmp_path / name) as image, pytest.raises(ValueError, match=r"is animated \(6 frames"):
        photo_of_image(image)
    cause = "GIF is not among the formats read" if name == "a.gif" else r"is animated \(6 frames"
    with pytest.raises(MediaError, match=cause):
        read_photo(tmp_path / name)


@needs_avif
def test_a_moving_avif_is_a_film(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in COLOURS]
    frames[0].save(tmp_path / "a.avif", save_all=True, append_images=frames[1:], duration=200, quality=95)
    with open_recording(tmp_path / "a.avif") as recording:
        assert not recording.info.is_photo
        assert recording.info.duration_seconds == pytest.approx(1.2, abs=0.01)
        shown = recording.frames([0.1, 0.3, 0.5, 0.7, 0.9, 1.1], FrameCrop.whole((64, 64)))
        assert [seen(frame, 1, 1)[0] for frame in shown] == list(COLOURS)
    with Image.open(tmp_path / "a.avif") as image, pytest.raises(ValueError, match=r"is animated \(6 frames"):
        photo_of_image(image)


def test_pages_are_not_animation(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (20, 10), colour) for colour in (RED, BLUE)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert tuple(read_photo(tmp_path / "a.tif")[5, 5]) == RED


def test_pictures_of_tables_are_read_as_photos(tmp_path: Path) -> None:
    from deepavfusion.data.framed_clips import list_frames
    from deepavfusion.data.opening import open_clip
    from tests.inference.tiny_models import write_wav

    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (80, 40), RED).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "deep.png")
    sound = str(write_wav(tmp_path / "a.wav", 1.0))
    clips = [FramedClip(n, None, None, sound, (str(tmp_path / n),), (None,)) for n in ("turned.jpg", "deep.png")]
    write_framed_clips(str(tmp_path / "table.csv"), clips)
    turned_clip, deep_clip = list_frames(str(tmp_path / "table.csv"))
    with open_clip(turned_clip) as media:
        assert (media.info.height, media.info.width) == (80, 40)
    with pytest.raises(Exception, match="convert it to 8 bits"), open_clip(deep_clip):
        pass
    assert fault(clips[0], "open") is None
    assert fault(clips[0], "decode") is None
    for check in ("open", "decode"):
        assert "convert it to 8 bits" in (fault(clips[1], check) or "")  # type: ignore[arg-type]


def test_what_is_no_photo_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("nothing")
    for name, cause in (("text.png", "not a photo"), ("none.png", "no such file")):
        with pytest.raises(MediaError, match=cause):
            read_photo(tmp_path / name)
        with pytest.raises(MediaError, match=cause):
            probe_photo(tmp_path / name)
