"""Films of high dynamic range and wide colours are seen as their standard counterparts would be."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from deepavfusion.data.audit import AuditConfig, audit
from deepavfusion.data.clips import read_manifest
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.media import MediaFile
from deepavfusion.data.media.dynamic_range import ColourCoding, colour_coding, standard_range

# Linear RGB of BT.709 to that of BT.2020, from BT.2087.
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
PQ, HLG, BT2020, BT709 = 16, 18, 9, 1
COLOURS = [(200, 30, 60), (30, 180, 40), (40, 60, 220), (128, 128, 128), (255, 255, 255), (20, 20, 20), (250, 240, 90)]


def srgb_light(levels: np.ndarray) -> np.ndarray:
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def pq_signal(nits: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084."""
    power = (nits / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def hlg_signal(nits: np.ndarray) -> np.ndarray:
    """BT.2100 for a screen of 1000 cd/m2: the light that the camera saw, then its signal."""
    shown = nits / 1000
    seen = shown * (shown @ [0.2627, 0.6780, 0.0593])[..., None] ** (1 / 1.2 - 1)
    bright = 0.17883277 * np.log(np.maximum(12 * seen - 0.28466892, 1e-9)) + 0.55991073
    return np.where(seen <= 1 / 12, np.sqrt(3 * seen), bright)


def encoded(colour: tuple[int, int, int], transfer: int, white: float = 203.0) -> np.ndarray:
    """A colour of sRGB as a signal `(3,)` in 0 to 1 of BT.2020, its white of so much light."""
    light = TO_BT2020 @ srgb_light(np.array(colour) / 255)
    return {PQ: pq_signal, HLG: hlg_signal}[transfer](white * light) if transfer in (PQ, HLG) else light ** (1 / 2.2)


def write_film(path: Path, signal: np.ndarray, codec: str, tags: tuple[int, int], options: dict[str, str]) -> Path:
    """Five frames of one colour, 10 bits, BT.2020's matrix, with transfer and primaries as tags."""
    luma = signal @ [0.2627, 0.6780, 0.0593]
    planes = (64 + 876 * luma, 512 + 896 * (signal[2] - luma) / 1.8814, 512 + 896 * (signal[0] - luma) / 1.4746)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 96, 64, "yuv420p10le", 1
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace, context.color_range = *tags, 9, 1
        for number in range(5):
            frame = av.VideoFrame(96, 64, "yuv420p10le")
            for plane, value in zip(frame.planes, planes, strict=True):
                plane.update(np.full(plane.buffer_size // 2, round(float(value)), "<u2").tobytes())
            frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = *tags, 9, 1
            frame.pts, frame.time_base = number, Fraction(1, 5)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


CODECS = {
    "a.mkv": ("libsvtav1", {"preset": "12", "crf": "10"}),
    "a.mp4": ("libx264", {"crf": "4"}),
    "b.mkv": ("libx265", {"x265-params": "log-level=none:crf=4:pools=none:frame-threads=1:info=0"}),
}


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("colour", COLOURS)
def test_colours_of_the_standard_range_come_back(tmp_path: Path, colour: tuple[int, int, int], transfer: int) -> None:
    path = write_film(tmp_path / "a.mp4", encoded(colour, transfer), "libx264", (transfer, BT2020), {"crf": "4"})
    with MediaFile(path) as media:
        assert media.converted_from is None
        whole, part = media.frame(0.3), media.frame(0.5, FrameCrop(0.2, 0.1, 0.5, 0.6, (20, 30), flip=True))
        assert whole.dtype == np.uint8
        assert (whole.shape, part.shape) == ((64, 96, 3), (20, 30, 3))
        np.testing.assert_allclose(whole[30, 40].astype(int), colour, atol=8)
        np.testing.assert_array_equal(part[10, 10], whole[30, 40])
        assert media.converted_from == ColourCoding({PQ: "PQ", HLG: "HLG"}[transfer], "BT.2020")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CODECS)
def test_every_codec_says_how_it_is_coded(tmp_path: Path, name: str) -> None:
    codec, options = CODECS[name]
    path = write_film(tmp_path / name, encoded((200, 30, 60), PQ), codec, (PQ, BT2020), options)
    with MediaFile(path) as media:
        np.testing.assert_allclose(media.frame(0.0)[30, 40].astype(int), (200, 30, 60), atol=8)


def test_the_container_says_it_where_the_pictures_do_not(tmp_path: Path) -> None:
    codec, options = CODECS["b.mkv"]
    bare = write_film(tmp_path / "bare.mkv", encoded((200, 30, 60), PQ), codec, (2, 2), options)
    with av.open(str(bare)) as source, av.open(str(tmp_path / "told.mkv"), "w") as target:
        told = target.add_stream_from_template(source.streams.video[0])
        told.codec_context.color_trc, told.codec_context.color_primaries = PQ, BT2020
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = told
                target.mux(packet)
    with MediaFile(bare) as media:
        assert media.frame(0.0)[30, 40, 0] < 150
        assert media.converted_from is None
    with MediaFile(tmp_path / "told.mkv") as media:
        np.testing.assert_allclose(media.frame(0.0)[30, 40].astype(int), (200, 30, 60), atol=8)


def test_wide_colours_of_standard_range_are_converted_and_ordinary_ones_left(tmp_path: Path) -> None:
    signal = encoded((200, 30, 60), 14)
    with MediaFile(write_film(tmp_path / "w.mp4", signal, "libx264", (14, BT2020), {"crf": "4"})) as media:
        np.testing.assert_allclose(media.frame(0.0)[30, 40].astype(int), (200, 30, 60), atol=8)
        assert media.converted_from is not None
        assert media.converted_from.name == "BT.2020"
    signal = np.array([200, 30, 60]) / 255
    with MediaFile(write_film(tmp_path / "o.mp4", signal, "libx264", (1, BT709), {"crf": "4"})) as media:
        np.testing.assert_allclose(media.frame(0.0)[30, 40].astype(int), (200, 30, 60), atol=3)
        assert media.converted_from is None


@pytest.mark.parametrize(("transfer", "code"), [(PQ, pq_signal), (HLG, hlg_signal)])
def test_shades_keep_their_order_and_brighter_light_is_white(
    transfer: int, code: Callable[[np.ndarray], np.ndarray]
) -> None:
    nits = np.array([1e-6, 1, 10, 50, 100, 150, 203, 400, 999])[:, None] * np.ones(3)
    coding = colour_coding([None, transfer], [None, BT2020])
    assert coding is not None
    shades = standard_range(np.rint(65535 * code(nits)).astype(np.uint16)[None], coding)[0]
    # White is 203 cd/m2 and an exponent of 2.2 the screen's: 100 cd/m2 is 255 * (100 / 203) ** (1 / 2.2).
    np.testing.assert_allclose(shades[:, 1].astype(int), [0, 23, 65, 135, 185, 222, 255, 255, 255], atol=1)
    assert (np.ptp(shades.astype(int), axis=1) <= 1).all()  # grey stays grey


def test_what_is_said_first_counts() -> None:
    assert colour_coding([2, None, PQ], [2, None, 2]) == ColourCoding("PQ", "BT.2020")
    assert colour_coding([0, HLG, 1], [BT709, BT2020]) == ColourCoding("HLG", "BT.709")
    assert colour_coding([1, PQ], [1, BT2020]) is None
    assert colour_coding([None], [None]) is None
    assert colour_coding([13], [12]) == ColourCoding("standard", "P3")


def test_the_audit_notes_it(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    signal = encoded((200, 30, 60), HLG)
    write_film(tmp_path / "clips/a.mp4", signal, "libx264", (HLG, BT2020), {})
    write_film(tmp_path / "clips/b.mp4", signal, "libx264", (1, BT709), {})
    config = AuditConfig(str(tmp_path / "clips"), str(tmp_path / "clips.csv"), num_workers=0, tolerate=("no audio",))
    summary = audit(config)
    wide, plain = read_manifest(str(tmp_path / "clips.csv"))
    assert "converted from HLG, BT.2020" in (wide.reason or "").split("; ")
    assert "converted" not in (plain.reason or "")
    assert summary.reasons["converted from"] == 1
    kept = AuditConfig(
        str(tmp_path / "clips"), str(tmp_path / "other.csv"), num_workers=0, tolerate=("no audio", "frozen picture")
    )
    audit(kept)
    assert {clip.verdict for clip in read_manifest(str(tmp_path / "other.csv"))} == {"ok"}  # a note is no fault
