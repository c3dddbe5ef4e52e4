"""Files that do not say when their packets are presented, or say it wrongly: the frames and sounds of the right time.

Every picture shows its number, and the sound is a chirp that tells its time; nothing is compared with libav's reading.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from deepavfusion.data.audit import AuditConfig, inspect_clip
from deepavfusion.data.clips import Clip as Row
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.media import MediaFile
from deepavfusion.data.media.packet_list import PacketList, list_packets
from tests.data.media_writer import B_FRAMES, MPEG, OPEN_GOP, Clip, chirp_offset_seconds, number_in, write_clip

WHOLE = FrameCrop.whole((48, 80))
NO_B_FRAMES = {"x264-params": "bframes=0:keyint=16:scenecut=0"}
PLAIN = Clip(seconds=4.0, frame_rate=25, sample_rate=48000, layout="mono")
MP3 = replace(PLAIN, audio_codec="libmp3lame")
MP2 = replace(PLAIN, audio_codec="mp2")
SILENT = replace(PLAIN, audio_codec=None)

# No times of presentation, B-frames, open groups, a time per pack, or one in a way of its own.
UNTIMED = {
    "h264.avi": replace(MP3, video_options=B_FRAMES),
    "open_gop.avi": replace(MP3, video_options=OPEN_GOP),
    "no_b_frames.avi": replace(MP3, video_options=NO_B_FRAMES),
    "xvid.avi": replace(MP3, video_codec="mpeg4", video_options={"bf": "2"}),
    "mpeg2.avi": replace(MP2, video_codec="mpeg2video", video_options=MPEG),
    "msmpeg4.avi": replace(PLAIN, video_codec="msmpeg4", audio_codec="adpcm_ms"),
    "h264.asf": replace(SILENT, video_options=B_FRAMES),
    "xvid.asf": replace(MP3, video_codec="mpeg4", video_options={"bf": "2"}),
    "h264.mxf": replace(SILENT, video_options=B_FRAMES),
    "mpeg2.mxf": replace(SILENT, video_codec="mpeg2video", video_options={"b": "5000000", "bf": "2"}),
    "no_b_frames.vob": replace(MP2, video_options=NO_B_FRAMES),
    "h264.vob": replace(MP2, video_options=B_FRAMES),
    "open_gop.vob": replace(SILENT, video_options=OPEN_GOP),
    "mpeg2.vob": replace(PLAIN, audio_codec="ac3", video_codec="mpeg2video", video_options=MPEG),
    "h264.ts": replace(PLAIN, video_options=B_FRAMES),
    "h264.flv": replace(PLAIN, video_options=B_FRAMES, sample_rate=44100),
    "h264.nut": replace(PLAIN, video_options=B_FRAMES),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("times")


def assert_every_frame(path: Path, num_frames: int, frame_rate: int = 25) -> float:
    """Every frame in one pass, from seeks to and fro, and from a fresh opening; returns when the first one is shown."""
    with MediaFile(path) as media:
        # The picture starts a little after the sound, whose encoder needs a beginning.
        dense = np.arange(0, 0.2, 0.001).tolist()
        shown = [number_in(picture) for picture in media.frames(dense, WHOLE)]
        start = dense[shown.index(1)] - 1 / frame_rate
        assert -0.002 <= start < 0.06
        middles = [start + (number + 0.5) / frame_rate for number in range(num_frames)]
        assert [number_in(picture) for picture in media.frames(middles, WHOLE)] == list(range(num_frames))
        order = np.random.default_rng(0).permutation(num_frames)[:24].tolist()
        assert [number_in(media.frame(middles[number], WHOLE)) for number in order] == order
        assert media.info.picture_end_seconds == pytest.approx(start + num_frames / frame_rate, abs=2e-3)
        assert media.num_refused_packets == 0
    with MediaFile(path) as media:
        few = [num_frames // 3, num_frames // 3 + 1, num_frames * 4 // 5]
        assert [number_in(picture) for picture in media.frames([middles[n] for n in few], WHOLE)] == few
    return start


def assert_sound(path: Path, starts: list[float], late: float, tolerance: float = 3e-3) -> None:
    with MediaFile(path) as media:
        for start in starts:
            waveform = media.sound(start, 0.25)
            assert waveform.shape == (4000,)
            assert chirp_offset_seconds(waveform, start, 16000) == pytest.approx(-late, abs=tolerance), start


@pytest.mark.parametrize("name", UNTIMED)
def test_frames_follow_the_decoder_where_no_time_says_more(folder: Path, name: str) -> None:
    clip = UNTIMED[name]
    path = write_clip(folder / name, clip)
    start = assert_every_frame(path, 100)
    if clip.audio_codec is not None:
        late = {"aac": 0.0213, "libmp3lame": 0.0230, "mp2": 0.0100, "ac3": 0.0053, "adpcm_ms": 0.0}[clip.audio_codec]
        if clip.sample_rate == 44100:
            late = 0.0232
        if not name.endswith(("avi", "asf")):  # they are written with what precedes the sound as a part of it
            assert start == pytest.approx(late, abs=6e-3)
        assert_sound(path, [0.5, 2.9, 1.7, 3.3], late, 20e-3 if name.endswith("asf") else 3e-3)


def test_mp4_and_matroska_that_only_know_the_order_of_decoding(folder: Path) -> None:
    whole = write_clip(folder / "order.mp4", replace(SILENT, video_options=B_FRAMES))
    with av.open(str(whole)) as source, av.open(str(folder / "decoded.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        first = None
        for packet in source.demux(video=0):
            if packet.dts is not None:
                first = packet.dts if first is None else first
                packet.pts = packet.dts = packet.dts - first
                packet.stream = stream
                target.mux(packet)
    assert_every_frame(folder / "decoded.mp4", 100)


def test_packed_b_frames(folder: Path) -> None:
    """As DivX and XviD packed them: two pictures in one chunk, and a placeholder in the next."""
    loose = write_clip(folder / "loose.avi", replace(SILENT, video_codec="mpeg4", video_options={"bf": "1"}))
    with av.open(str(loose)) as source, av.open(str(folder / "packed.avi"), "w") as target:
        template = source.streams.video[0]
        stream = target.add_stream_from_template(template)
        chunks = [bytes(packet) for packet in source.demux(template) if packet.size]
        for number, chunk in enumerate(packed(chunks)):
            packet = av.Packet(chunk)
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            packet.is_keyframe = b"\x00\x00\x01\xb6" in chunk and chunk[chunk.index(b"\x00\x00\x01\xb6") + 4] >> 6 == 0
            target.mux(packet)
    assert_every_frame(folder / "packed.avi", 100)


def packed(chunks: list[bytes]) -> Iterator[bytes]:
    """Chunks of pictures with each B-frame moved into the chunk of the picture that is decoded before it."""
    kinds = [chunk[chunk.index(b"\x00\x00\x01\xb6") + 4] >> 6 for chunk in chunks]
    divx = b"\x00\x00\x01\xb2DivX503b1393p"
    number = 0
    while number < len(chunks):
        chunk = chunks[number]
        if kinds[number] == 0:
            place = chunk.index(b"\x00\x00\x01\xb6")
            chunk = chunk[:place] + divx + chunk[place:]
        if number + 1 < len(chunks) and kinds[number + 1] == 2:
            yield chunk + chunks[number + 1]
            yield b"\x00\x00\x01\xb6\x50\x00\x00\x7f"  # a picture that is not coded
            number += 2
        else:
            yield chunk
            number += 1


COMPRESSED = {
    "ms.wav": ("adpcm_ms", 44100),
    "ima.wav": ("adpcm_ima_wav", 44100),
    "yamaha.wav": ("adpcm_yamaha", 44100),
    "swf.wav": ("adpcm_swf", 44100),
    "g726.wav": ("g726", 8000),
    "g722.wav": ("g722", 16000),
    "mp3.wav": ("libmp3lame", 44100),
    "mp2.wav": ("mp2", 44100),
    "ac3.wav": ("ac3", 48000),
    "mulaw.wav": ("pcm_mulaw", 8000),
    "plain.wav": ("pcm_s16le", 44100),
    "ms.w64": ("adpcm_ms", 44100),
    "mp3.w64": ("libmp3lame", 44100),
}


@pytest.mark.parametrize("guess", [None, 0, 16000, 999_999])
@pytest.mark.parametrize("name", COMPRESSED)
def test_sound_is_not_sought_by_a_byte_rate(folder: Path, name: str, guess: int | None) -> None:
    codec, rate = COMPRESSED[name]
    # The chirp must stay below half the lowest sample rate.
    clip = replace(PLAIN, seconds=10.0, video_codec=None, audio_codec=codec, sample_rate=rate)
    path = folder / name
    if not path.exists():
        write_clip(path, clip)
    if codec == "g726" and guess is not None:
        pytest.skip("its decoder takes the width of its samples from the byte rate")
    content = bytearray(path.read_bytes())
    place = content.index(b"fmt ") + (24 if name.endswith("w64") else 8) + 8
    if guess is not None:
        struct.pack_into("<I", content, place, guess)
    changed = folder / f"guess_{name}"
    changed.write_bytes(content)
    late = {"libmp3lame": 1105 / rate, "mp2": 481 / rate, "ac3": 256 / rate, "g722": 22 / 16000}.get(codec, 0.0)
    assert_sound(changed, [8.5, 0.4, 4.7, 9.2, 6.1], late)
    with MediaFile(changed) as media:
        assert media.info.sound_end_seconds == pytest.approx(10.0, abs=0.12)
        assert media.sound(10.5, 1.0).shape == (0,)


@pytest.mark.parametrize(
    ("name", "codec", "late"),
    [
        ("x.aac", "aac", 1024),
        ("x.mp3", "libmp3lame", 0),
        ("x.mp2", "mp2", 481),
        ("x.ac3", "ac3", 256),
        ("x.flac", "flac", 0),
        ("x.au", "pcm_mulaw", 0),
        ("ima.aiff", "adpcm_ima_qt", 0),
        ("ima.caf", "adpcm_ima_qt", 0),
        ("x.opus", "libopus", 0),
        ("flac.ogg", "flac", 0),
    ],
)
def test_bare_sound_is_found_to_and_fro(folder: Path, name: str, codec: str, late: int) -> None:
    clip = replace(PLAIN, seconds=10.0, video_codec=None, audio_codec=codec)
    assert_sound(write_clip(folder / name, clip), [8.5, 0.4, 4.7, 9.2, 6.1], late / 48000)


def part(folder: Path, ending: str, clip: Clip, number: int, clock: float) -> bytes:
    """The `number`th 4 s of a long clip, written with a clock that starts at some second."""

    def picture(index: int, height: int, width: int) -> np.ndarray:
        return clip.picture(100 * number + index, height, width)

    def sound(times: np.ndarray) -> np.ndarray:
        return clip.sound(times + 4.0 * number)

    path = folder / f"part{number}.{ending}"
    return write_clip(path, replace(clip, picture=picture, sound=sound, clock_start=clock)).read_bytes()


JOINED: dict[str, tuple[str, Clip]] = {
    "ts": ("ts", replace(PLAIN, video_options=B_FRAMES)),
    "ts_ac3": ("ts", replace(PLAIN, audio_codec="ac3", video_codec="mpeg2video", video_options=MPEG)),
    "ts_sound": ("ts", replace(MP2, video_codec=None)),
    "ts_picture": ("ts", replace(SILENT, video_options=B_FRAMES)),
    "vob": ("vob", replace(MP2, video_codec="mpeg2video", video_options=MPEG)),
    "vob_h264": ("vob", replace(PLAIN, audio_codec="ac3", video_options=B_FRAMES)),
    "mpg": ("mpg", replace(MP2, video_codec="mpeg1video", video_options=MPEG)),
}
CLOCKS = {
    "starts over": (0, 0),
    "leaps": (0, 1000),
    "leaps a little": (0, 30),
    "leaps back": (500, 3),
    "twice": (0, 900, 0),
}


@pytest.mark.parametrize(
    ("name", "clocks"),
    [(name, "leaps") for name in JOINED]
    + [(name, clocks) for name in ("ts", "vob_h264") for clocks in CLOCKS if clocks != "leaps"],
)
def test_joined_streams_are_read_on_across_the_seam(folder: Path, name: str, clocks: str) -> None:
    ending, clip = JOINED[name]
    parts = CLOCKS[clocks]
    path = folder / f"joined_{name}.{ending}"
    path.write_bytes(b"".join(part(folder, ending, clip, number, clock) for number, clock in enumerate(parts)))
    seconds = 4.0 * len(parts)
    with MediaFile(path) as media:
        assert media.info.duration_seconds == pytest.approx(seconds, abs=0.1)
        seams = media.seams
        assert [seam.seconds for seam in seams] == pytest.approx([4.0 * n for n in range(1, len(parts))], abs=0.1)
        leaps = [later - earlier - 4 for earlier, later in pairwise(parts)]
        if clocks != "leaps back":  # this one is taken for the clock's overflow after 26 hours
            assert [seam.leap_seconds for seam in seams] == pytest.approx(
                leaps, abs=0.7
            )  # MPEG-PS starts its clock at 0.5 s
    start = assert_every_frame(path, 100 * len(parts)) if clip.video_codec is not None else 0.0
    if clip.audio_codec is not None:
        late = {"aac": 0.0213, "mp2": 0.0100, "ac3": 0.0053}[clip.audio_codec]
        assert abs(start - late) < 6e-3 or clip.video_codec is None
        # Sound alone is as long as its frames, the last of each part filled up.
        assert_sound(path, [0.5, seconds - 0.6, 3.5, 4.3, 6.0], late, 3e-3 if clip.video_codec else 20e-3)
        with MediaFile(path) as media:
            across = media.sound(3.5, 1.0)
        assert across.shape == (16000,)
    row = inspect_clip(Row(id="joined", path=str(path)), AuditConfig(source=str(folder), out="none.csv"))
    assert "joined: its clock leaps at 4." in (row.reason or "")
    assert row.verdict == ("ok" if clip.video_codec and clip.audio_codec else "quarantined")


def test_a_stray_time_is_no_seam(folder: Path) -> None:
    plain = write_clip(folder / "plain.ts", replace(MP2, video_options=NO_B_FRAMES))
    with av.open(str(plain)) as source, av.open(str(folder / "stray.ts"), "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is None:
                continue
            packet.stream = streams[packet.stream.index]
            if packet.stream.type == "video" and packet.is_keyframe and packet.dts * packet.time_base > 2:
                packet.pts += round(50 / packet.time_base)
            target.mux(packet)
    assert_every_frame(folder / "stray.ts", 100)


def test_a_gap_in_one_track_is_no_seam(folder: Path) -> None:
    clip = replace(
        MP2, seconds=30.0, sound=lambda times: PLAIN.sound(times % 10), frame_rate=5, video_options=NO_B_FRAMES, gop=5
    )
    plain = write_clip(folder / "long.ts", clip)
    with av.open(str(plain)) as source, av.open(str(folder / "gap.ts"), "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is None or (packet.stream.type == "audio" and 5 < packet.dts * packet.time_base < 20):
                continue
            packet.stream = streams[packet.stream.index]
            target.mux(packet)
    with MediaFile(folder / "gap.ts") as media:
        assert media.seams == ()
        assert np.abs(media.sound(8.0, 10.0)).max() < 1e-3
        assert number_in(media.frame(25.1, WHOLE)) == 125
        assert chirp_offset_seconds(media.sound(22.0, 0.25), 2.0, 16000) == pytest.approx(-0.01, abs=3e-3)
        assert chirp_offset_seconds(media.sound(28.0, 0.25), 8.0, 16000) == pytest.approx(-0.01, abs=3e-3)


@pytest.mark.parametrize("ending", ["opus", "ogg", "mp3", "aac", "ac3"])
def test_sound_files_written_one_behind_the_other(folder: Path, ending: str) -> None:
    codec = {"opus": "libopus", "ogg": "flac", "mp3": "libmp3lame"}.get(ending, ending)
    parts = []
    for number in range(2):
        clip = replace(PLAIN, video_codec=None, audio_codec=codec, sound=later_chirp(4.0 * number))
        parts.append(write_clip(folder / f"single{number}.{ending}", clip).read_bytes())
    path = folder / f"chained.{ending}"
    path.write_bytes(b"".join(parts))
    with MediaFile(path) as media:
        assert media.info.sound_end_seconds == pytest.approx(8.0, abs=0.1)
        waveform = media.sound(5.5, 0.25)
        lag = chirp_offset_seconds(waveform, 5.5, 16000, reach=0.1)
        assert abs(lag) < 0.1  # encoders begin and end with a little silence
        expected = clip.sound(1.5 + lag + np.arange(4000) / 16000)
        assert np.corrcoef(waveform, expected)[0, 1] > 0.98
        assert chirp_offset_seconds(media.sound(1.0, 0.25), 1.0, 16000) == pytest.approx(0.0, abs=0.025)


def later_chirp(seconds: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda times: PLAIN.sound(times + seconds)


def test_a_file_without_picture_and_sound_has_no_packets_to_list(folder: Path) -> None:
    path = write_clip(folder / "none.avi", replace(SILENT, seconds=0.4))
    assert list_packets(str(path), {}, {}) == PacketList({}, ())
