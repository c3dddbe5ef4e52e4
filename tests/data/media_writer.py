"""Small real media files for tests: every picture shows its own number, every moment of sound tells its time.

A picture is a 2 x 5 grid of black and white fields, the bits of the frame's number, with a white frame of reference
left out on purpose: the grid fills the picture, so it survives any scaling. The sound is a chirp whose frequency rises
with time, so that a window's place is found by comparing it with the formula.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

ROWS, COLUMNS = 2, 5
NUM_CODES = 2 ** (ROWS * COLUMNS)
# Times of frames that are not evenly spaced are written in these units.
TICK = Fraction(1, 1200)


def numbered_picture(number: int, height: int, width: int) -> np.ndarray:
    """A picture `(height, width, 3)` that shows a number below NUM_CODES."""
    bits = [(number >> bit) & 1 for bit in range(ROWS * COLUMNS)]
    rows = np.minimum(np.arange(height) * ROWS // height, ROWS - 1)
    columns = np.minimum(np.arange(width) * COLUMNS // width, COLUMNS - 1)
    fields = np.array(bits, np.uint8).reshape(ROWS, COLUMNS)[rows][:, columns]
    return np.repeat((fields * 215 + 20)[..., None], 3, axis=2).astype(np.uint8)


def number_in(picture: np.ndarray) -> int:
    """The number a picture `(H, W, 3)` shows, read in the middle of each field."""
    height, width = picture.shape[:2]
    number = 0
    for bit in range(ROWS * COLUMNS):
        row, column = divmod(bit, COLUMNS)
        y, x = int((row + 0.5) * height / ROWS), int((column + 0.5) * width / COLUMNS)
        number |= int(picture[y - 1 : y + 2, x - 1 : x + 2].mean() > 128) << bit
    return number


def chirp(times_seconds: np.ndarray) -> np.ndarray:
    """Sound at some times of the clip: 0.5 * a tone that starts at 200 Hz and rises by 300 Hz a second."""
    return 0.5 * np.sin(2 * np.pi * (200 * times_seconds + 150 * times_seconds**2))


def chirp_offset_seconds(waveform: np.ndarray, start_seconds: float, sample_rate: int, reach: float = 0.05) -> float:
    """How much later than claimed a window of the chirp really is, looked for within `reach`, to a sample."""
    most = round(reach * sample_rate)
    around = chirp(start_seconds + np.arange(-most, len(waveform) + most) / sample_rate)
    return float(np.argmax(np.correlate(around, waveform, "valid")) - most) / sample_rate


@dataclass(frozen=True)
class Clip:
    """What is written into a file."""

    seconds: float = 3.0
    """Length of the sound, and of the picture unless `frame_times` says otherwise."""
    video_codec: str | None = "libx264"
    audio_codec: str | None = "aac"
    size: tuple[int, int] = (48, 80)
    """Height and width."""
    frame_rate: int = 20
    frame_times: Sequence[float] | None = None
    """When each frame is shown; evenly spaced if None."""
    pix_fmt: str = "yuv420p"
    gop: int = 8
    sample_rate: int = 44100
    layout: str = "stereo"
    sound_start: float = 0.0
    """Sound before this time is not written: its first packet is later."""
    clock_start: float = 0.0
    """What the file's clock says at the beginning."""
    levels: Sequence[float] | None = None
    """Factor of the chirp in each channel; 1 everywhere if None."""
    video_options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)
    picture: Callable[[int, int, int], np.ndarray] = numbered_picture
    """From number, height and width to `(height, width, 3)`."""
    sound: Callable[[np.ndarray], np.ndarray] = chirp
    """From times in seconds to samples."""

    def times(self) -> list[float]:
        """When each frame is shown."""
        if self.frame_times is not None:
            return list(self.frame_times)
        return [index / self.frame_rate for index in range(round(self.seconds * self.frame_rate))]


def write_clip(path: Path, clip: Clip) -> Path:
    """Write a clip; the container is that of the path's ending. Returns the path."""
    with av.open(str(path), "w", options=clip.container_options) as container:
        packets: list[tuple[float, av.Packet]] = []
        if clip.video_codec is not None:
            packets += _pictures(container, clip)
        if clip.audio_codec is not None:
            packets += _sound(container, clip)
        for _, packet in sorted(packets, key=lambda entry: entry[0]):
            later = round(clip.clock_start / packet.time_base)
            packet.pts, packet.dts = packet.pts + later, packet.dts + later
            container.mux(packet)
    return path


def _pictures(container: av.container.OutputContainer, clip: Clip) -> list[tuple[float, av.Packet]]:
    height, width = clip.size
    stream = container.add_stream(clip.video_codec, rate=clip.frame_rate)
    stream.width, stream.height, stream.pix_fmt = width, height, clip.pix_fmt
    stream.gop_size = clip.gop
    stream.thread_count = 1
    stream.options = dict(clip.video_options)
    even = clip.frame_times is None
    unit = Fraction(1, clip.frame_rate) if even else TICK
    stream.time_base = stream.codec_context.time_base = unit
    packets = []
    for index, time in enumerate(clip.times()):
        frame = av.VideoFrame.from_ndarray(clip.picture(index, height, width), format="rgb24")
        frame.pts, frame.time_base = round(time / unit), unit
        packets += stream.encode(frame)
    packets += stream.encode(None)
    return [(float(packet.dts * packet.time_base), packet) for packet in packets]


def _sound(container: av.container.OutputContainer, clip: Clip) -> list[tuple[float, av.Packet]]:
    stream = container.add_stream(clip.audio_codec, rate=clip.sample_rate, layout=clip.layout)
    stream.thread_count = 1
    num_channels = stream.layout.nb_channels
    levels = np.ones(num_channels) if clip.levels is None else np.asarray(clip.levels)
    first, last = round(clip.sound_start * clip.sample_rate), round(clip.seconds * clip.sample_rate)
    packets = []
    for begin in range(first, last, 1024):
        times = np.arange(begin, min(begin + 1024, last)) / clip.sample_rate
        samples = (clip.sound(times)[:, None] * levels[None]).astype(np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=clip.layout)
        frame.sample_rate, frame.pts, frame.time_base = clip.sample_rate, begin, Fraction(1, clip.sample_rate)
        packets += stream.encode(frame)
    packets += stream.encode(None)
    return [(float(packet.dts * packet.time_base), packet) for packet in packets]


def set_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write a display matrix (a, b, c, d in whole units) into the first track of an MP4 file."""
    content = bytearray(path.read_bytes())
    begin = content.index(b"tkhd") + 4 + 40
    a, b, c, d = (int(value * 65536) for value in matrix)
    entries = [a, b, 0, c, d, 0, 0, 0, 1 << 30]
    content[begin : begin + 36] = b"".join(entry.to_bytes(4, "big", signed=True) for entry in entries)
    path.write_bytes(bytes(content))


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
    "no_timestamps.avi": replace(SHORT, video_codec="mjpeg", pix_fmt="yuvj420p", audio_codec="pcm_s16le"),
    "uneven.mp4": replace(SHORT, frame_times=[0.1, 0.15, 0.2, 0.5, 0.51, 0.52, 0.9, 1.4, 1.5, 1.55, 1.7]),
}
# Without an edit list the encoder's priming counts as sound: the clip starts with it, and the picture after it.
PRIMING_SECONDS = {"mpeg1.mpg": 0.0109, "mpeg2.mpg": 0.0109, "start_not_zero.ts": 0.0232}


def written(folder: Path, name: str) -> Path:
    """The file of one of KINDS in a folder, written when it is asked for first."""
    path = folder / name
    return path if path.exists() else write_clip(path, KINDS[name])
