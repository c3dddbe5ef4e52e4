"""The media reader against files written here, whose pictures and sound tell their own number and time."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.media import MediaError, MediaFile
from tests.data.media_writer import (
    KINDS,
    PRIMING_SECONDS,
    SHORT,
    Clip,
    number_in,
    set_display_matrix,
    write_clip,
    written,
)

WHOLE = FrameCrop.whole((48, 80))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    """Two seconds of H.264 and AAC, 20 frames a second."""
    return write_clip(folder / "plain.mp4", SHORT)


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


def test_info_tells_tracks_sizes_and_times(plain: Path, folder: Path) -> None:
    with MediaFile(plain) as media:
        info = media.info
    assert (info.has_picture, info.has_sound) == (True, True)
    assert (info.height, info.width, info.frame_rate) == (48, 80, 20.0)
    assert (info.sample_rate, info.channels) == (44100, 2)
    assert (info.video_codec, info.audio_codec) == ("h264", "aac")
    assert info.duration_seconds == pytest.approx(2.0, abs=1e-3)
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


def test_frames_far_apart_and_the_same_frame_twice(folder: Path) -> None:
    path = write_clip(folder / "long.mkv", Clip(seconds=26.0, frame_rate=5, audio_codec=None, gop=40))
    numbers = [3, 3, 4, 70, 71, 129]
    with MediaFile(path) as media:
        assert [number_in(f) for f in media.frames([n / 5 + 0.05 for n in numbers], WHOLE)] == numbers


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


def test_cover_art_is_no_picture(folder: Path, plain: Path) -> None:
    path = folder / "cover.m4a"
    with av.open(str(plain)) as source, av.open(str(path), "w", format="mp4") as target:
        sound = target.add_stream_from_template(source.streams.audio[0])
        cover = target.add_stream("mjpeg", rate=1)
        if not hasattr(cover, "disposition"):
            pytest.skip("PyAV before 14.1 does not know cover art")
        cover.width, cover.height, cover.pix_fmt = 200, 100, "yuvj420p"
        cover.disposition = type(cover.disposition).attached_pic
        picture = av.VideoFrame.from_ndarray(np.full((100, 200, 3), 99, np.uint8), format="rgb24")
        for packet in [*cover.encode(picture), *cover.encode(None)]:
            target.mux(packet)
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = sound
                target.mux(packet)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    with MediaFile(path) as media:
        assert (media.info.has_picture, media.info.has_sound, media.info.width) == (False, True, 0)
        assert len(media.sound(0.5, 0.5)) == 8000


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


@pytest.mark.parametrize("box", [(-0.1, 0, 1, 1), (0, 0, 0, 1), (0.6, 0, 0.5, 1), (0, 0, 1, float("nan"))])
def test_a_crop_outside_the_picture_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="crop"):
        FrameCrop(*box, output_size=(8, 8))
