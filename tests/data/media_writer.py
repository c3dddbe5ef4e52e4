"""Small real media files for tests: every picture shows its own number, every moment of sound tells its time.

A picture is a 2 x 5 grid of black and white fields, the bits of the frame's number, with a white frame of reference
left out on purpose: the grid fills the picture, so it survives any scaling. The sound is a chirp whose frequency rises
with time, so that a window's place is found by comparing it with the formula.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
    """How much later than claimed a window of the chirp really is, looked for within `reach`, to 0.1 ms."""
    times = start_seconds + np.arange(len(waveform)) / sample_rate
    offsets = np.arange(-reach, reach, 1e-4)
    return float(offsets[np.argmax([np.dot(waveform, chirp(times + offset)) for offset in offsets])])


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
    levels: Sequence[float] | None = None
    """Factor of the chirp in each channel; 1 everywhere if None."""
    video_options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)
    picture: Callable[[int, int, int], np.ndarray] = numbered_picture

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
        samples = (levels[:, None] * chirp(times)[None]).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=clip.layout)
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
