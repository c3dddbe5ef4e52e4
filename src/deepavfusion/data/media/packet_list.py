"""The presentation time of every packet of a file, found by reading all packets once.

This is for containers without an index. Some store no presentation times (AVI, ASF, MXF at times), some one time per
pack (MPEG program streams), some none at all (compressed sound in WAV, MP3). Seeking in them goes by a byte rate that
may be a guess, and joined recordings have a clock that jumps or starts again. So the packets are listed with the times
that are stored, and missing times are filled in:

- where the clock jumps for good, two recordings were joined: the later part follows the earlier one, frames and sound
  together;
- sound without stored times follows the samples before it;
- frames without reliable presentation times are shown in the order in which the decoder returns them (`decoded_order`
  is then set): the first at the first decoding time, and so on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from deepavfusion.data.media.clock import (
    MAX_GAP_SECONDS,
    MAX_LEAP_SECONDS,
    Floats,
    Kind,
    Seam,
    StoredTimes,
    TrackClock,
    run_on,
)

Integers = npt.NDArray[np.int64]

MAX_READ_ERRORS = 8
"""So many times the demuxer may fail in a row before what follows counts as beyond the readable part."""
MAX_REORDERED_FRAMES = 16
"""So many frames may be decoded before a frame that is shown before them all (H.264 and HEVC allow no more)."""
NUM_FIRST_PICTURES = 40
"""So many pictures are decoded to learn how much later than their decoding they are shown, where only some say."""
CACHED_FILES = 16
"""Lists of so many files are remembered in a process."""

# What is stored, not what libav would make up where nothing is.
_AS_STORED = {"fflags": "+nofillin-genpts"}
# AVI has an index of chunks; times of sound are made from the byte rate in its header.
_SOUND_TIMES_BY_BYTE_RATE = "avi"


@dataclass(frozen=True)
class TrackTimes:
    """The packets of one track, numbered in the order of the file."""

    positions: Integers
    """Where in the file each begins; -1 where the demuxer does not say."""
    sizes: Integers
    is_key: npt.NDArray[np.bool_]
    seconds: Floats
    """When what it holds is presented, on the clock of the file's first part."""
    decoded_order: bool
    """Whether `seconds` ascend and belong to frames in the order of the decoder's output, not to packets."""
    end_seconds: float
    parts: Integers
    """The packets at which a later part of a joined file begins."""

    def __len__(self) -> int:
        return len(self.seconds)

    @cached_property
    def order(self) -> Integers:
        """The packets in the order of presentation."""
        return np.argsort(self.seconds, kind="stable")

    @cached_property
    def rank(self) -> Integers:
        """The place of each packet in that order."""
        rank = np.empty(len(self), np.int64)
        rank[self.order] = np.arange(len(self))
        return rank

    @cached_property
    def ordered_seconds(self) -> Floats:
        """`seconds`, ascending."""
        return self.seconds[self.order]

    @cached_property
    def keys(self) -> Integers:
        """The packets that decoding can start from."""
        return np.flatnonzero(self.is_key)

    @cached_property
    def marks(self) -> dict[tuple[int, int], int]:
        """Packets by position and size, without those that these do not tell apart."""
        known: dict[tuple[int, int], int] = {}
        twice = set()
        for number, mark in enumerate(zip(self.positions.tolist(), self.sizes.tolist(), strict=True)):
            if mark in known:
                twice.add(mark)
            known[mark] = number
        return {mark: number for mark, number in known.items() if mark[0] >= 0 and mark not in twice}

    @cached_property
    def marked(self) -> Integers:
        """The packets in `marks`, ascending."""
        return np.array(sorted(self.marks.values()), np.int64)


@dataclass(frozen=True)
class PacketList:
    """The times of both tracks of a file; a track without a packet is not there."""

    tracks: dict[Kind, TrackTimes]
    seams: tuple[Seam, ...]


def list_packets(path: str, options: dict[str, str], streams: dict[Kind, Any]) -> PacketList:
    """List the packets of a file.

    Args:
        path: the file.
        options: with which the demuxer is to be opened.
        streams: PyAV's streams of the tracks that are wanted, in the file opened in the ordinary way.

    Raises:
        av.FFmpegError: the file cannot be opened.
    """
    status = os.stat(path)
    wanted = tuple((kind, stream.index, _spacing(kind, stream)) for kind, stream in streams.items())
    identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return _read(path, identity, tuple(options.items()), wanted)


def _spacing(kind: Kind, stream: Any) -> float:
    if kind == "picture":
        rate = stream.average_rate or stream.guessed_rate
        return float(1 / rate) if rate else 1 / 25
    context = stream.codec_context
    size = context.frame_size or 0
    return size / context.sample_rate if size > 1 and context.sample_rate else 0.0


@lru_cache(CACHED_FILES)
def _read(
    path: str,
    identity: tuple[int, ...],  # so that a file that was replaced is read anew
    options: tuple[tuple[str, str], ...],
    wanted: tuple[tuple[Kind, int, float], ...],
) -> PacketList:
    with av.open(
        os.path.abspath(path), container_options=dict(options) | _AS_STORED, metadata_errors="replace"
    ) as container:
        joinable = bool(container.format.flags & 0x0200)  # AVFMT_TS_DISCONT
        by_byte_rate = container.format.name == _SOUND_TIMES_BY_BYTE_RATE
        # A damaged file can show fewer tracks the second time. PyAV takes no tracks for all of them.
        wanted = tuple(track for track in wanted if track[1] < len(container.streams))
        tracks = _listed(container, wanted, by_byte_rate) if wanted else {}
    tracks = {kind: stored for kind, stored in tracks.items() if stored.sizes}
    clocks = {kind: TrackClock(kind, stored) for kind, stored in tracks.items()}
    if "sound" in clocks and by_byte_rate:
        clocks["sound"].count_samples()
    seams = run_on(clocks, MAX_GAP_SECONDS if joinable else MAX_LEAP_SECONDS)
    return PacketList({kind: _track_times(stored, clocks[kind]) for kind, stored in tracks.items()}, seams)


def _track_times(stored: StoredTimes, clock: TrackClock) -> TrackTimes:
    return TrackTimes(
        positions=np.array(stored.positions, np.int64),
        sizes=np.array(stored.sizes, np.int64),
        is_key=np.array(stored.is_key, np.bool_),
        seconds=clock.seconds,
        decoded_order=clock.decoded_order,
        end_seconds=clock.end,
        parts=np.array(clock.parts, np.int64),
    )


def _listed(
    container: Any, wanted: tuple[tuple[Kind, int, float], ...], count_samples: bool
) -> dict[Kind, StoredTimes]:
    tracks = {index: StoredTimes(spacing, [], [], [], [], [], [], [], []) for _, index, spacing in wanted}
    counters = {index: _SampleCounter(container.streams[index]) for kind, index, _ in wanted if kind == "sound"}
    discard = getattr(av.stream, "Discard", None)  # PyAV 18
    if discard is not None:
        for stream in container.streams:
            stream.discard = discard.default if stream.index in tracks else discard.all
    streams = [container.streams[index] for index in tracks]
    first_pictures: list[Any] = []
    for place, packet in enumerate(readable_packets(container, streams)):
        index, unit = packet.stream.index, packet.time_base
        track = tracks[index]
        track.positions.append(-1 if packet.pos is None else packet.pos)
        track.sizes.append(packet.size)
        track.is_key.append(packet.is_keyframe)
        track.shown.append(np.nan if packet.pts is None else packet.pts * unit.numerator / unit.denominator)
        track.decoded.append(np.nan if packet.dts is None else packet.dts * unit.numerator / unit.denominator)
        duration = (packet.duration or 0) * unit.numerator / unit.denominator
        if index in counters and packet.pts is None and (count_samples or not duration):
            duration = counters[index].seconds(packet)
        track.durations.append(duration)
        track.places.append(place)
        if index not in counters and len(first_pictures) < NUM_FIRST_PICTURES:
            first_pictures.append(packet)
    for kind, index, _ in wanted:
        has_time = np.isfinite(tracks[index].shown)
        if kind == "picture" and has_time.any() and not has_time.all():
            tracks[index].in_order_of_output = _output_order(container.streams[index], first_pictures)
    return {kind: tracks[index] for kind, index, _ in wanted}


def _output_order(stream: Any, packets: list[Any]) -> list[int]:
    context, frames = stream.codec_context, []
    if context is None:
        return []
    context.thread_count, context.thread_type = 1, "NONE"
    for number, packet in enumerate([*packets, None]):
        if packet is not None:
            packet.pts = packet.dts = number
        try:
            frames += [frame.pts for frame in context.decode(packet)]
        except av.FFmpegError:
            continue
    # Frames of later packets may belong before the last ones.
    given = [number for number in frames if number is not None and 0 <= number < len(packets)]
    return given if len(packets) < NUM_FIRST_PICTURES else given[:-MAX_REORDERED_FRAMES]


def readable_packets(container: Any, streams: list[Any]) -> Iterator[Any]:
    """The packets of some tracks to the end of what can be read; errors on the way are passed over."""
    num_errors = 0
    while num_errors < MAX_READ_ERRORS:
        try:
            for packet in container.demux(streams):
                if packet.size == 0 and packet.pts is None and packet.dts is None:  # PyAV's request to flush
                    return
                num_errors = 0
                yield packet
            return
        except av.FFmpegError:
            num_errors += 1


class _SampleCounter:
    """How long the sound in packets lasts, by decoding them."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._seconds_per_byte = 0.0
        """Of sound that is not compressed, where one packet tells for all."""

    def seconds(self, packet: Any) -> float:
        context = self._stream.codec_context
        if context is None:
            return 0.0
        if self._seconds_per_byte:
            return packet.size * self._seconds_per_byte
        try:
            seconds = sum(frame.samples / frame.sample_rate for frame in context.decode(packet) if frame.sample_rate)
        except av.FFmpegError:
            return 0.0
        if context.name.startswith("pcm_") and packet.size:
            self._seconds_per_byte = seconds / packet.size
        return seconds
