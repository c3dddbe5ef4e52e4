"""The media reader against files written here, whose pictures and sound tell their own number and time."""

import statistics
import time
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import soxr

from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.media import MediaError, MediaFile
from deepavfusion.data.waveforms import continue_sound
from tests.data.media_writer import Clip, chirp, chirp_offset_seconds, number_in, set_display_matrix, write_clip

WHOLE = FrameCrop.whole((48, 80))
SHORT = Clip(seconds=2.0)
LONG = Clip(seconds=5.0)
B_FRAMES = {"x264-params": "bframes=3:b-pyramid=normal:keyint=16:scenecut=0"}
OPEN_GOP = {"x264-params": "open-gop=1:bframes=3:keyint=8:min-keyint=8:scenecut=0"}
MPEG = {"b": "2000000", "bf": "2"}

# Codec and container, with every order of decoding that a seek can land in.
KINDS = {
    "b_frames.mp4": replace(SHORT, video_options=B_FRAMES),
    "b_frames.mkv": replace(SHORT, video_options=B_FRAMES, audio_codec="libopus", sample_rate=48000),
    "open_gop.mp4": replace(SHORT, video_options=OPEN_GOP),
    "open_gop.mkv": replace(SHORT, video_options=OPEN_GOP),
    "gradual_refresh.mp4": replace(SHORT, video_options={"x264-params": "intra-refresh=1:keyint=8"}),
    "fragmented.mp4": replace(SHORT, container_options={"movflags": "frag_keyframe+empty_moov"}),
    "every_chroma.mp4": replace(SHORT, pix_fmt="yuv444p", audio_codec="libmp3lame"),
    "ten_bits.mp4": replace(SHORT, pix_fmt="yuv420p10le"),
    "odd_size.mkv": replace(SHORT, size=(33, 41), pix_fmt="yuv444p", audio_codec="pcm_s16le"),
    "intra.mov": replace(SHORT, video_codec="mjpeg", pix_fmt="yuvj420p", audio_codec="pcm_s24le"),
    "hevc.mp4": replace(
        SHORT, video_codec="libx265", video_options={"x265-params": "log-level=none:keyint=8:pools=1:frame-threads=1"}
    ),
    "vp9.webm": replace(
        SHORT, video_codec="libvpx-vp9", audio_codec="libopus", sample_rate=48000, video_options={"cpu-used": "8"}
    ),
    "vp8.webm": replace(
        SHORT,
        video_codec="libvpx",
        audio_codec="libopus",
        sample_rate=48000,
        video_options={"cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "10"},
    ),
    "mpeg1.mpg": replace(SHORT, video_codec="mpeg1video", audio_codec="mp2", frame_rate=25, video_options=MPEG),
    "mpeg2.mpg": replace(LONG, video_codec="mpeg2video", audio_codec="mp2", frame_rate=25, video_options=MPEG),
    "start_not_zero.ts": SHORT,
    "no_timestamps.avi": replace(SHORT, video_codec="mjpeg", pix_fmt="yuvj420p", audio_codec="libmp3lame"),
    "uneven.mp4": replace(SHORT, frame_times=[0.1, 0.15, 0.2, 0.5, 0.51, 0.52, 0.9, 1.4, 1.5, 1.55, 1.7]),
}
# Without an edit list the encoder's priming counts as sound: the clip starts with it, and the picture after it.
PRIMING_SECONDS = {"mpeg1.mpg": 0.0109, "mpeg2.mpg": 0.0109, "start_not_zero.ts": 0.0232, "no_timestamps.avi": 0.0251}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    """Two seconds of H.264 and AAC, 20 frames a second."""
    return write_clip(folder / "plain.mp4", SHORT)


def written(folder: Path, name: str) -> Path:
    path = folder / name
    return path if path.exists() else write_clip(path, KINDS[name])


@pytest.mark.parametrize("name", KINDS)
def test_the_frame_shown_at_a_time_is_exact(folder: Path, name: str) -> None:
    times = KINDS[name].times()
    shift = PRIMING_SECONDS.get(name, 0.0)
    # Every frame when it appears and just before the next one does, in an order that seeks to and fro.
    asked = [(t + shift + 0.002, index) for index, t in enumerate(times)]
    asked += [(t + shift - 0.002, index) for index, t in enumerate(times[1:])]
    asked = asked[::3] + asked[1::3] + asked[2::3]
    with MediaFile(written(folder, name)) as media:
        assert [number_in(media.frame(t, WHOLE)) for t, _ in asked] == [index for _, index in asked]
        ascending = sorted(asked)
        assert [number_in(f) for f in media.frames([t for t, _ in ascending], WHOLE)] == [i for _, i in ascending]


@pytest.mark.parametrize("name", KINDS)
def test_sound_is_where_it_belongs(folder: Path, name: str) -> None:
    with MediaFile(written(folder, name)) as media:
        for start in (0.3, 0.77, 1.5):
            waveform = media.sound(start, 0.25)
            assert waveform.dtype == np.float32
            assert waveform.shape == (4000,)
            # Priming counted as sound delays the picture and the sound alike. Matroska rounds to milliseconds.
            shift = -PRIMING_SECONDS.get(name, 0.0)
            assert chirp_offset_seconds(waveform, start, 16000) == pytest.approx(shift, abs=1e-3)
            assert np.abs(waveform).max() == pytest.approx(0.5, abs=0.05)


def test_info_tells_tracks_sizes_and_times(plain: Path, folder: Path) -> None:
    with MediaFile(plain) as media:
        info = media.info
    assert (info.has_picture, info.has_sound) == (True, True)
    assert (info.height, info.width, info.frame_rate) == (48, 80, 20.0)
    assert (info.sample_rate, info.channels) == (44100, 2)
    assert (info.video_codec, info.audio_codec) == ("h264", "aac")
    assert info.duration_seconds == pytest.approx(2.0, abs=1e-3)
    assert info.path == str(plain)
    assert media.info is info  # still known after closing
    uneven = written(folder, "uneven.mp4")
    with MediaFile(uneven) as media:
        assert media.info.sound_end_seconds == pytest.approx(2.0, abs=1e-3)
        assert media.info.picture_end_seconds < 2.0


def test_before_the_first_frame_and_after_the_last(folder: Path) -> None:
    times = [0.4 + index / 20 for index in range(12)]
    path = write_clip(folder / "shorter_picture.mp4", replace(SHORT, frame_times=times))
    with MediaFile(path) as media:
        assert [number_in(media.frame(t, WHOLE)) for t in (-1.0, 0.0, 0.39, 0.41, 1.5, 99.0)] == [0, 0, 0, 0, 11, 11]
        assert [number_in(f) for f in media.frames([0.0, 0.2, 0.46, 1.7, 1.9], WHOLE)] == [0, 0, 1, 11, 11]


def test_nearest_key_frame(plain: Path, folder: Path) -> None:
    with av.open(str(plain)) as container:
        packets = [p for p in container.demux(video=0) if p.is_keyframe]
        keys = [round(float(p.pts * p.time_base) * 20) for p in packets]
    assert len(keys) >= 4
    with MediaFile(plain, seek="nearest_keyframe") as media:
        for number in range(40):
            distance = abs(number_in(media.frame(number / 20, WHOLE)) - number)
            assert distance == min(abs(key - number) for key in keys)
    with MediaFile(written(folder, "mpeg1.mpg"), seek="nearest_keyframe") as media:  # no index: read exactly
        assert number_in(media.frame(1.02, WHOLE)) == 25


def test_pictures_are_scaled_in_one_pass_and_cropped_in_it(plain: Path) -> None:
    crop = FrameCrop(top=0.25, left=0.1, height=0.5, width=0.8, output_size=(30, 64))
    with av.open(str(plain)) as container:
        frame = next(container.decode(video=0))
        # The crop is 30 x 64 when the whole is 60 x 80.
        whole = frame.to_ndarray(format="rgb24", width=80, height=60, interpolation="BILINEAR")
    with MediaFile(plain) as media:
        np.testing.assert_array_equal(media.frame(0.0, crop), whole[15:45, 8:72])
        np.testing.assert_array_equal(media.frame(0.0, replace(crop, flip=True)), whole[15:45, 8:72][:, ::-1])
        assert media.frame(0.0).shape == (48, 80, 3)


# Where the four corners of the stored picture (row, column) come to lie, by the display matrix (a, b, c, d).
TURNS = {
    (1, 0, 0, 1): lambda picture: picture,
    (0, 1, -1, 0): lambda picture: np.rot90(picture, -1),  # a quarter clockwise
    (-1, 0, 0, -1): lambda picture: np.rot90(picture, 2),
    (0, -1, 1, 0): lambda picture: np.rot90(picture, 1),
    (-1, 0, 0, 1): lambda picture: picture[:, ::-1],
    (1, 0, 0, -1): lambda picture: picture[::-1],
    (0, 1, 1, 0): lambda picture: picture.transpose(1, 0, 2),
}


@pytest.mark.parametrize("matrix", TURNS)
def test_pictures_are_turned_for_display(folder: Path, plain: Path, matrix: tuple[int, int, int, int]) -> None:
    turned = folder / "turned.mp4"
    turned.write_bytes(plain.read_bytes())
    set_display_matrix(turned, matrix)
    with MediaFile(plain) as media, MediaFile(turned) as other:
        expected = TURNS[matrix](media.frame(0.75))
        np.testing.assert_array_equal(other.frame(0.75), expected)
        assert (other.info.height, other.info.width) == expected.shape[:2]
        # A crop is one of the displayed picture: in its lower left corner, at its own scale.
        height, width = expected.shape[0] // 4, expected.shape[1] // 2
        crop = FrameCrop(0.75, 0.0, 0.25, 0.5, (height, width), flip=True)
        np.testing.assert_array_equal(other.frame(0.75, crop), expected[-height:, :width][:, ::-1])


def test_size_and_turn_are_found_without_a_header_that_tells(folder: Path, plain: Path) -> None:
    turned = folder / "damaged_header.mp4"
    turned.write_bytes(plain.read_bytes())
    set_display_matrix(turned, (0, 1, -1, 0))
    content = bytearray(turned.read_bytes())
    content[content.index(b"mvhd") + 4 + 36 + 3] = 1  # the movie is scaled by a little as a whole besides
    turned.write_bytes(bytes(content))
    with MediaFile(turned) as media:
        assert (media.info.height, media.info.width) == (80, 48)


def test_a_tiny_crop_that_needs_an_enormous_picture_is_refused(plain: Path) -> None:
    with MediaFile(plain) as media, pytest.raises(ValueError, match="too large"):
        media.frame(0.0, FrameCrop(0.5, 0.5, 0.001, 0.001, (224, 224)))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 30), (30, 1), (2, 2), (3, 5)])
def test_very_small_pictures(folder: Path, height: int, width: int) -> None:
    def red(number: int, height: int, width: int) -> np.ndarray:
        return np.broadcast_to(np.array([250, 10, 10], np.uint8), (height, width, 3)).copy()

    clip = replace(SHORT, seconds=0.5, size=(height, width), pix_fmt="yuv444p", audio_codec=None, picture=red)
    with MediaFile(write_clip(folder / f"small_{height}_{width}.mp4", clip)) as media:
        assert media.frame(0.2).shape == (height, width, 3)
        large = media.frame(0.2, FrameCrop.whole((224, 224)))
    assert np.abs(large.astype(int) - [250, 10, 10]).max() <= 8


def test_windows_of_sound_agree_and_end_where_the_track_does(plain: Path) -> None:
    with MediaFile(plain) as media:
        long = media.sound(0.5, 1.0)
        np.testing.assert_allclose(media.sound(0.9, 0.5)[:4000], long[6400:10400], atol=2e-3)
        assert media.sound(1.5, 3.0).shape == (8000,)
        assert media.sound(2.5, 1.0).shape == (0,)
        assert media.sound(1.9, 0.05).shape == (800,)
        assert media.sound(0.0, 2.0, sample_rate=22050).shape == (44100,)
        assert media.sound(0.123, 1.0, sample_rate=11025).shape == (11025,)
        chunk = media.sound(0.4, 1 / 3)
        assert chunk.shape == (round(16000 / 3),)


def test_resampling_is_one_call_over_the_average_of_the_channels(folder: Path) -> None:
    clip = replace(SHORT, audio_codec="pcm_f32le", levels=(1.0, 0.2), video_codec=None)
    path = write_clip(folder / "float.mov", clip)
    whole = chirp(np.arange(round(2.0 * 44100)) / 44100) * 0.6
    reference = soxr.resample(whole.astype(np.float32), 44100, 16000, "HQ")
    with MediaFile(path) as media:
        for start, duration in ((0.0, 2.0), (0.31, 0.5), (1.2, 3.0)):
            waveform = media.sound(start, duration)
            first = round(start * 16000)
            # Away from the window's edges nothing is left of them: the filter has settled in the margin.
            np.testing.assert_allclose(waveform, reference[first : first + len(waveform)], atol=2e-5)


@pytest.mark.parametrize(
    ("codec", "ending", "layout", "num_channels", "tolerance"),
    [
        ("pcm_u8", "wav", "stereo", 2, 8e-3),
        ("pcm_s16le", "wav", "stereo", 2, 1e-4),
        ("pcm_s24le", "wav", "mono", 1, 1e-5),
        ("pcm_s32le", "wav", "5.1", 6, 1e-5),
        ("pcm_f64le", "wav", "stereo", 2, 1e-5),
        ("flac", "flac", "5.1", 6, 1e-4),
    ],
)
def test_every_sample_format_keeps_its_level(
    folder: Path, codec: str, ending: str, layout: str, num_channels: int, tolerance: float
) -> None:
    clip = replace(SHORT, audio_codec=codec, layout=layout, video_codec=None)
    with MediaFile(write_clip(folder / f"{codec}_{layout}.{ending}", clip)) as media:
        assert media.info.channels == num_channels
        assert not media.info.has_picture
        waveform = media.sound(0.5, 0.5, sample_rate=44100)
    np.testing.assert_allclose(waveform, chirp(0.5 + np.arange(22050) / 44100), atol=tolerance)


def test_sound_that_starts_late_or_has_a_gap_is_silent_there(folder: Path) -> None:
    late = write_clip(folder / "late.mp4", replace(SHORT, sound_start=0.7))
    with MediaFile(late) as media:
        waveform = media.sound(0.2, 1.0)
        assert waveform.shape == (16000,)
        assert np.abs(waveform[: round(0.45 * 16000)]).max() < 1e-3
        assert np.abs(waveform[round(0.55 * 16000) :]).max() > 0.4
        assert media.sound(0.1, 0.3).shape == (4800,)
        assert chirp_offset_seconds(waveform[9600:], 0.8, 16000) == pytest.approx(0.0, abs=1.1e-3)

    gap = folder / "gap.mkv"
    whole = write_clip(folder / "whole.mkv", replace(SHORT, audio_codec="pcm_s16le"))
    with av.open(str(whole)) as source, av.open(str(gap), "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            middle = packet.dts is not None and 0.8 < float(packet.pts * packet.time_base) < 1.2
            if packet.dts is None or (packet.stream.type == "audio" and middle):
                continue
            packet.stream = streams[packet.stream.index]
            target.mux(packet)
    with MediaFile(gap) as media:
        waveform = media.sound(0.5, 1.0)
        assert np.abs(waveform[round(0.35 * 16000) : round(0.65 * 16000)]).max() < 1e-3
        assert chirp_offset_seconds(waveform[:4000], 0.5, 16000) == pytest.approx(0.0, abs=1e-3)
        assert chirp_offset_seconds(waveform[-4000:], 1.25, 16000) == pytest.approx(0.0, abs=1e-3)


def test_a_missing_track_is_stated_and_asking_for_it_is_an_error(folder: Path) -> None:
    silent = write_clip(folder / "silent.mp4", replace(SHORT, audio_codec=None))
    with MediaFile(silent) as media:
        assert (media.info.has_sound, media.info.sample_rate, media.info.channels) == (False, 0, 0)
        with pytest.raises(ValueError, match="has no sound"):
            media.sound(0.0, 1.0)
    blind = write_clip(folder / "blind.m4a", replace(SHORT, video_codec=None))
    with MediaFile(blind) as media:
        assert (media.info.has_picture, media.info.width, media.info.height) == (False, 0, 0)
        with pytest.raises(ValueError, match="has no picture"):
            media.frame(0.0)


def test_the_best_of_several_tracks_is_read(folder: Path, plain: Path) -> None:
    small = write_clip(folder / "small.mkv", replace(SHORT, size=(24, 40), layout="mono", levels=(0.1,)))
    both = folder / "both.mkv"
    with av.open(str(small)) as first, av.open(str(plain)) as second, av.open(str(both), "w") as target:
        packets = []
        for source in (first, second):
            streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = streams[packet.stream.index]
                    packets.append(packet)
        for packet in sorted(packets, key=lambda p: float(p.dts * p.time_base)):
            target.mux(packet)
    with MediaFile(both) as media:
        assert (media.info.height, media.info.width, media.info.channels) == (48, 80, 2)
        assert number_in(media.frame(1.04, WHOLE)) == 20
        assert np.abs(media.sound(0.5, 0.5)).max() > 0.4


def test_damaged_packets_are_left_out_one_by_one(folder: Path) -> None:
    clip = replace(SHORT, seconds=4.0, video_options={"x264-params": "keyint=8:min-keyint=8:scenecut=0:bframes=0"})
    path = write_clip(folder / "damaged.mp4", clip)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        places = {packet.pts: (packet.pos, packet.size, packet.time_base) for packet in container.demux(video=0)}
    for pts, (position, size, time_base) in places.items():
        if pts is not None and 1.6 <= float(pts * time_base) < 2.0:
            content[position : position + size] = b"\xff" * size
    path.write_bytes(bytes(content))
    with MediaFile(path) as media:
        assert [number_in(media.frame(t + 0.01, WHOLE)) for t in (0.2, 1.5, 2.0, 3.9)] == [4, 30, 40, 78]
        # In the damaged group the last frame before it stays.
        assert number_in(media.frame(1.8, WHOLE)) == 31
        assert media.num_refused_packets > 0
        assert media.sound(1.5, 0.5).shape == (8000,)


def test_a_truncated_file_ends_where_its_data_do(folder: Path) -> None:
    clip = replace(SHORT, seconds=4.0, container_options={"movflags": "faststart"})
    path = write_clip(folder / "truncated.mp4", clip)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    with MediaFile(path) as media:
        assert 1.0 < media.info.duration_seconds < 3.5
        assert number_in(media.frame(1.01, WHOLE)) == 20
        assert number_in(media.frame(3.9, WHOLE)) == pytest.approx(media.info.picture_end_seconds * 20, abs=3)
        assert media.sound(3.8, 0.1).shape == (0,)


def test_unreadable_files_raise_one_error_that_names_file_and_cause(folder: Path, plain: Path) -> None:
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "page.mp4").write_text("<html><body>Video unavailable</body></html>" * 40)
    (folder / "list.mp4").write_text("#EXTM3U\n#EXTINF:10,\nplain.mp4\n")
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20000))
    (folder / "headless.mp4").write_bytes(plain.read_bytes()[: plain.stat().st_size // 2])
    causes = {
        "empty.mp4": "empty",
        "page.mp4": "cannot be opened",
        "list.mp4": "cannot be opened",
        "noise.mp4": "cannot be opened",
        "headless.mp4": "index",
        "absent.mp4": "No such file",
        ".": "not a regular file",
    }
    for name, cause in causes.items():
        with pytest.raises(MediaError, match=cause) as caught:
            MediaFile(folder / name)
        assert caught.value.path == str(folder / name)
        assert str(folder / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_enormous_pictures_are_refused_before_they_are_decoded(folder: Path) -> None:
    clip = Clip(seconds=0.1, video_codec="png", pix_fmt="rgb24", audio_codec=None, size=(2, 20000))
    path = write_clip(folder / "wide.mov", clip)
    with pytest.raises(MediaError, match="20000 x 2 pixels"):
        MediaFile(path)


def test_wrong_arguments_are_named(plain: Path) -> None:
    with pytest.raises(ValueError, match="'closest'"):
        MediaFile(plain, seek="closest")  # type: ignore[arg-type]
    with MediaFile(plain) as media:
        for times in ([], [1.0, 0.5], [float("nan")]):
            with pytest.raises(ValueError, match="ascending"):
                media.frames(times)
        with pytest.raises(ValueError, match="start_seconds"):
            media.sound(-1.0, 1.0)
        with pytest.raises(ValueError, match="duration_seconds"):
            media.sound(0.0, float("inf"))
        with pytest.raises(ValueError, match="sample_rate"):
            media.sound(0.0, 1.0, sample_rate=0)
    with pytest.raises(ValueError, match="closed"):
        media.frame(0.0)


def test_short_sound_is_continued_by_its_reversal() -> None:
    sound = np.array([1, 2, 3], np.float32)
    np.testing.assert_array_equal(continue_sound(sound, 11), [1, 2, 3, 3, 2, 1, 1, 2, 3, 3, 2])
    np.testing.assert_array_equal(continue_sound(sound[:1], 3), [1, 1, 1])
    np.testing.assert_array_equal(continue_sound(sound, 2), [1, 2])
    assert continue_sound(sound, 7).dtype == np.float32
    with pytest.raises(ValueError, match="empty"):
        continue_sound(sound[:0], 5)
    with pytest.raises(ValueError, match="one dimension"):
        continue_sound(sound[None], 5)


@pytest.mark.parametrize("box", [(-0.1, 0, 1, 1), (0, 0, 0, 1), (0.6, 0, 0.5, 1), (0, 0, 1, float("nan"))])
def test_a_crop_outside_the_picture_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="crop"):
        FrameCrop(*box, output_size=(8, 8))


@pytest.mark.slow
def test_reading_a_clip_takes_at_most_16_cpu_milliseconds(folder: Path) -> None:
    """Frame to 224 x 224 and 3 s of sound out of 10 s of 640 x 360 H.264 and AAC with a key frame every 16 frames."""
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 255, (90, 160, 3)).repeat(8, axis=0).repeat(8, axis=1)

    def moving(number: int, height: int, width: int) -> np.ndarray:
        x, y = int(320 + 300 * np.sin(number / 40)), int(180 + 150 * np.cos(number / 55))
        picture = scene[y : y + height, x : x + width] + rng.normal(0, 3, (height, width, 1))
        return np.clip(picture, 0, 255).astype(np.uint8)

    options = {"x264-params": "keyint=16:min-keyint=16:scenecut=0:threads=1"}
    clip = Clip(seconds=10.0, size=(360, 640), frame_rate=30, gop=16, video_options=options, picture=moving)
    path = write_clip(folder / "speed.mp4", clip)
    crop = FrameCrop(0.1, 0.1, 0.8, 0.6, (224, 224))
    taken = []
    for _ in range(60):
        start = rng.uniform(0, 7)
        began = time.process_time()
        with MediaFile(path) as media:
            assert media.info.height == 360
            media.frame(start + rng.uniform(0, 3), crop)
            media.sound(start, 3.0)
        taken.append(1e3 * (time.process_time() - began))
    assert statistics.median(taken) <= 16
