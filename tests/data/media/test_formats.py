"""A format that is not read is told by its name, not called damaged; damage is not called a format."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from deepavfusion.data.media import MediaError, MediaFile
from deepavfusion.inference.inputs import open_recording
from tests.data.media_writer import Clip, write_clip


def write_sound(path: Path, container: str, codec: str, sample_format: str) -> Path:
    """A tenth of a second of a tone."""
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=48000, options={"strict": "-2"})
        stream.layout = "stereo"
        tone = (9000 * np.sin(np.arange(4800) / 9)).astype(np.int16).repeat(2)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="stereo")
        frame.sample_rate = 48000
        resampler = av.AudioResampler(
            sample_format, "stereo", 48000, frame_size=stream.codec_context.frame_size or 1024
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return path


def write_film(path: Path, container: str, codec: str, pix_fmt: str) -> Path:
    """Three frames."""
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 64, 64, pix_fmt, 1
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 80 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            file.mux(stream.encode(frame.reformat(format=pix_fmt)))
        file.mux(stream.encode(None))
    return path


SOUNDS = {
    "a.wv": ("wv", "wavpack", "fltp", "WavPack"),
    "a.tta": ("tta", "tta", "s16", "True Audio"),
    "a.eac3": ("eac3", "eac3", "fltp", "E-AC-3"),
    "a.latm": ("latm", "aac", "fltp", "LATM"),
    "a.voc": ("voc", "pcm_s16le", "s16", "Creative Voice"),
    "a.sox": ("sox", "pcm_s32le", "s32", ""),
}
FILMS = {
    "a.gif": ("gif", "gif", "rgb8", "GIF"),
    "a.ivf": ("ivf", "libsvtav1", "yuv420p", "IVF"),
    "a.h264": ("h264", "libx264", "yuv420p", "bare H.264"),
    "a.m1v": ("mpeg1video", "mpeg1video", "yuv420p", "bare MPEG"),
    "a.y4m": ("yuv4mpegpipe", "rawvideo", "yuv420p", "YUV4MPEG"),
    "a.swf": ("swf", "flv", "yuv420p", "Flash"),
}
BEGINNINGS = {
    "a.dts": (b"\x7f\xfe\x80\x01" + bytes(900), "DTS"),
    "a.m3u8": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "M3U playlist"),
    "a.ape": (b"MAC \x96\x0f" + bytes(900), "Monkey's Audio"),
    "a.mid": (b"MThd\0\0\0\x06" + bytes(900), "MIDI"),
    "a.jxl": (b"\xff\x0a" + bytes(900), "JPEG XL"),
    "a.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(900), "JPEG 2000"),
    "a.pdf": (b"%PDF-1.4\n" + bytes(900), "PDF"),
}


@pytest.mark.parametrize("name", [*SOUNDS, *FILMS, *BEGINNINGS])
def test_a_format_that_is_not_read_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name in SOUNDS:
        write_sound(path, *SOUNDS[name][:3])
    elif name in FILMS:
        write_film(path, *FILMS[name][:3])
    else:
        path.write_bytes(BEGINNINGS[name][0])
    called = {**SOUNDS, **FILMS, **BEGINNINGS}[name][-1]
    disguised = path.with_suffix(".mp4")  # what it is decides, not its name
    path.rename(disguised)
    for opening in (MediaFile, open_recording):
        with pytest.raises(MediaError) as caught, opening(disguised):  # type: ignore[operator]
            pass
        assert f"cannot be opened: {called}" in str(caught.value)
        assert "not among the formats read" in str(caught.value)
        assert "Matroska" in str(caught.value)
        assert "FLAC" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_moving_png_is_named(tmp_path: Path) -> None:
    write_film(tmp_path / "a.apng", "apng", "apng", "rgb24")
    with pytest.raises(MediaError, match=r"a photo \(PNG\)"):
        MediaFile(tmp_path / "a.apng")
    with pytest.raises(MediaError, match=r"is animated \(3 frames of PNG\)"), open_recording(tmp_path / "a.apng"):
        pass


def test_ac3_is_read_though_it_begins_as_eac3_does(tmp_path: Path) -> None:
    with MediaFile(write_sound(tmp_path / "a.ac3", "ac3", "ac3", "fltp")) as media:
        assert media.info.audio_codec == "ac3"


def test_damage_is_still_called_so(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "a.mp4", Clip(seconds=1.0)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "page.mp4").write_text("<html>moved</html>")
    for name in ("cut.mp4", "page.mp4"):
        with pytest.raises(MediaError, match="no media container, or one whose index is missing or damaged"):
            MediaFile(tmp_path / name)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(MediaError, match="not a readable image"), open_recording(tmp_path / "cut.png"):
        pass
