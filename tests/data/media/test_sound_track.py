"""The sound of media files written here, whose chirp tells its own time."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import soxr

from deepavfusion.data.media import MediaError, MediaFile
from deepavfusion.data.waveforms import continue_sound
from tests.data.media_writer import KINDS, PRIMING_SECONDS, SHORT, chirp, chirp_offset_seconds, write_clip, written


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    """Two seconds of H.264 and AAC, 20 frames a second."""
    return write_clip(folder / "plain.mp4", SHORT)


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


def test_eight_channels_are_read_and_more_are_refused(folder: Path) -> None:
    surround = write_clip(folder / "surround.mp4", replace(SHORT, layout="7.1", video_codec=None))
    with MediaFile(surround) as media:
        assert media.info.channels == 8
        waveform = media.sound(0.5, 0.5)
        assert np.abs(waveform).max() == pytest.approx(0.5, abs=0.05)
        assert chirp_offset_seconds(waveform, 0.5, 16000) == pytest.approx(0.0, abs=1e-3)
    many = replace(SHORT, layout="hexadecagonal", video_codec=None, audio_codec="pcm_s16le")
    with pytest.raises(MediaError, match="16 channels"):
        MediaFile(write_clip(folder / "many.wav", many))


def test_timestamps_that_leap_and_come_back_do_not_tear_the_sound(folder: Path) -> None:
    steady = write_clip(folder / "steady.mkv", replace(SHORT, audio_codec="pcm_s16le", video_codec=None))
    jittery = folder / "jittery.mkv"
    with av.open(str(steady)) as source, av.open(str(jittery), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for number, packet in enumerate(source.demux()):
            if packet.dts is None:
                continue
            if number % 20 in (7, 8):
                packet.pts = packet.dts = packet.pts - 15  # milliseconds
            packet.stream = stream
            target.mux(packet)
    with MediaFile(jittery) as media:
        for start in (0.0, 0.4, 1.1):
            waveform = media.sound(start, 0.7)
            offset = chirp_offset_seconds(waveform, start, 16000)
            assert offset == pytest.approx(0.0, abs=1e-3)
            expected = chirp(start + offset + np.arange(len(waveform)) / 16000)
            assert np.corrcoef(waveform, expected)[0, 1] > 0.99
