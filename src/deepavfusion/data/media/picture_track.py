"""The frame of a clip that is shown at a given time.

Exact by presentation timestamps, whatever order of decoding, frame rate or start the track has: decoding starts at a
key frame that is not itself later than the time asked for; every packet from there to the frame is decoded, and as few
as possible behind it. Read with `nearest_key_frame`, one key frame is decoded instead.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from deepavfusion.data.media.demuxer import Demuxer
from deepavfusion.data.media.frame_pixels import Orientation
from deepavfusion.data.media.track import Track

MAX_WAITING_PACKETS = 256
"""So many packets are read ahead of the decoder at most."""
MAX_DELAY_PACKETS = 32
"""So many packets are decoded behind a frame's own before it counts as lost."""
MAX_REORDERED_FRAMES = 16
"""So many frames may be decoded before a frame that is shown before them all (H.264 and HEVC allow no more)."""
RESTART_SECONDS = 10.0
"""Frames further apart than this are sought one by one, not read through."""


class PictureTrack:
    """Frames of the picture track of an open file."""

    def __init__(self, demuxer: Demuxer) -> None:
        self.track = Track(demuxer, "picture")
        self._informed: Any = None
        """The decoder that has seen the first packet, where that is known to matter."""

    def shown_at(self, times_seconds: Sequence[float]) -> Iterator[Any]:
        """The decoded frame shown at each of some ascending times: the last one that starts at or before it.

        Before the first frame it is the first, after the last the last. Raises MediaError if nothing decodes.
        """
        wanted = [self.track.timestamp(time) for time in times_seconds]
        far = RESTART_SECONDS / self.track.stream.time_base
        run: _Run | None = None
        for index, timestamp in enumerate(wanted):
            last = index + 1 == len(wanted) or wanted[index + 1] - timestamp > far
            if run is None:
                run, frame = self._enter(timestamp, last)
            else:
                frame = run.frame_at(timestamp, last)
                if run.skipped and not run.has_target:
                    run, frame = self._enter(timestamp, last)
            if frame is None:
                raise self.track.nothing_decoded()
            if last:
                run = None
            yield frame

    def nearest_key_frame(self, time_seconds: float) -> Any:
        """The decoded key frame nearest to a time.

        The frame shown at the time where that one does not decode, and in containers without an index, which do not
        know where key frames are.
        """
        if not self.track.demuxer.has_index:
            return next(self.shown_at([time_seconds]))
        wanted = self.track.timestamp(time_seconds)
        before, after = (self._key_timestamp(wanted, later) for later in (False, True))
        later = after is not None and (before is None or after - wanted < wanted - before)
        frame = self._key_frame_from_here() if self.track.seek(wanted, later=later) else None
        if frame is None or self._needs_first_packet(frame):
            return next(self.shown_at([time_seconds]))
        return frame

    def displayed_size(self) -> tuple[int, int]:
        """Height and width of the displayed picture, in pixels; where the header is silent, of the first key frame."""
        stream = self.track.stream
        matrix = self.track.demuxer.display_matrices.get(stream.id)
        if matrix is not None:
            context = stream.codec_context
            return Orientation.from_matrix(matrix).displayed_size(context.height, context.width)
        self.track.rewind()
        frame = self._key_frame_from_here()
        if frame is None:
            _, frame = self._enter(self.track.start, last=True)
        if frame is None:
            raise self.track.nothing_decoded()
        return Orientation.of(frame).displayed_size(frame.height, frame.width)

    def _enter(self, wanted: int, last: bool) -> tuple[_Run, Any]:
        """Start decoding for the frame shown at a timestamp, from ever further before it until that works."""
        track = self.track
        back = int(1 / track.stream.time_base) + 1
        settling = int(track.settling_seconds / track.stream.time_base)
        point = wanted - settling
        skip = True
        while True:
            from_start = point <= track.start or not track.seek(point)
            if from_start:
                track.rewind()
            run = _Run(track, skip)
            run.read_to(wanted)
            settled = run.first_timestamp is not None and wanted - run.first_timestamp >= settling * 3 // 4
            if from_start or (run.at_key_frame and settled):
                frame = run.frame_at(wanted, last)
                if frame is not None and not from_start and self._needs_first_packet(frame):
                    self._decode_first_packet()
                    continue
                found = frame is not None and run.shown_timestamp <= wanted
                if (found and (run.has_target or not skip)) or (from_start and (run.has_target or not run.skipped)):
                    return run, frame
                skip = False  # a key frame that refreshes the picture bit by bit, or is damaged
            if not from_start:
                point = min(point, run.first_timestamp if run.first_timestamp is not None else point) - back
                back *= 4

    def _needs_first_packet(self, frame: Any) -> bool:
        # x264 before build 151 wrote 4:4:4 in a way of its own, and says which build it is in the first packet alone.
        context = self.track.stream.codec_context
        return context is not self._informed and context.name == "h264" and "444" in frame.format.name

    def _decode_first_packet(self) -> None:
        self.track.rewind()
        for packet in self.track.packets():
            self.track.decode(packet)
            break
        self._informed = self.track.stream.codec_context

    def _key_timestamp(self, wanted: int, later: bool) -> int | None:
        if self.track.seek(wanted, later=later):
            for packet in self.track.packets():
                if packet.is_keyframe:
                    return packet.pts
        return None

    def _key_frame_from_here(self) -> Any | None:
        for packet in self.track.packets():
            if packet.is_keyframe:
                frames = self.track.decode(packet) + self.track.decode(None)
                return frames[0] if frames else None
        return None


class _Run:
    """Decoding onward from the point of the track that was sought last."""

    def __init__(self, track: Track, skip_to_key_frames: bool) -> None:
        self._track = track
        self._skip = skip_to_key_frames
        # Matroska and others leave the time of decoding to be guessed, and after a seek it is guessed wrongly.
        self._knows_decoding_times = track.demuxer.container.format.name.startswith("mov,")
        self._packets = track.packets()
        self._waiting: deque[Any] = deque()
        self._decoded: list[_Decoded] = []
        self._shown_next: list[int] = []
        self._num_later = 0
        self._target: int | None = None
        self._ended = False
        self._last_decoding_time: int | None = None
        self.skipped = False
        """Whether packets before a later key frame were left out."""
        self.first_timestamp: int | None = None
        """When the first packet read is decoded or shown."""
        self.at_key_frame = False
        """Whether decoding can start from the first packet waiting."""

    @property
    def shown_timestamp(self) -> int:
        """When the frame returned last is shown first."""
        return self._decoded[0].timestamp

    def read_to(self, wanted: int) -> None:
        """Read packets until all that the frame shown at `wanted` needs are waiting, and drop those it does not."""
        self._num_later = sum(shown > wanted for shown in self._shown_next)
        while not self._ended and not self._is_behind(wanted):
            packet = next(self._packets, None)
            if packet is None:
                self._ended = True
                return
            if self.first_timestamp is None:
                self.first_timestamp = packet.dts if packet.dts is not None else packet.pts
            if packet.is_keyframe and packet.pts is not None and packet.pts <= wanted:
                if self._skip:
                    self.skipped |= bool(self._waiting or self._decoded)
                    self._track.flush()
                    self._waiting.clear()
                self.at_key_frame = True
            self._wait_for(packet)
            self._num_later += packet.pts is not None and packet.pts > wanted
            if len(self._waiting) > MAX_WAITING_PACKETS:
                self._decode_next(wanted)

    def _is_behind(self, wanted: int) -> bool:
        """Whether every packet of a frame shown by `wanted` has been read."""
        if self._knows_decoding_times:
            return self._last_decoding_time is not None and self._last_decoding_time > wanted
        return self._num_later > MAX_REORDERED_FRAMES

    def frame_at(self, wanted: int, last: bool) -> Any | None:
        """The frame shown at a timestamp, not earlier than the one asked for before; None if nothing decodes.

        After the `last` one the run is over: the decoder is told to give back what it holds.
        """
        self.read_to(wanted)
        self._target = max((shown for shown in self._shown_next if shown <= wanted), default=self._target)
        self._shown_next = [shown for shown in self._shown_next if shown > wanted]
        timestamps = [packet.pts for packet in self._waiting]
        if self._target is not None and self._target in timestamps:
            for _ in range(timestamps.index(self._target) + 1):
                self._decode_next(wanted)
        num_behind = 0
        while not self.has_target:
            if (last and self._target is not None) or num_behind > MAX_DELAY_PACKETS or not self._more():
                self._collect(self._track.decode(None), wanted)
                break
            self._decode_next(wanted)
            num_behind += self._target is not None
        self._collect([], wanted)
        return self._decoded[0].frame if self._decoded else None

    @property
    def has_target(self) -> bool:
        """Whether the frame whose packet said it is the one has been decoded."""
        if self._target is None:
            return bool(self._decoded)
        return any(decoded.timestamp == self._target for decoded in self._decoded)

    def _more(self) -> bool:
        """Whether a packet is left; reads one if none is waiting."""
        if not self._waiting and not self._ended:
            packet = next(self._packets, None)
            if packet is None:
                self._ended = True
            else:
                self._wait_for(packet)
        return bool(self._waiting)

    def _wait_for(self, packet: Any) -> None:
        self._waiting.append(packet)
        self._last_decoding_time = packet.dts if packet.dts is not None else packet.pts
        if packet.pts is not None and not packet.is_discard:
            self._shown_next.append(packet.pts)

    def _decode_next(self, wanted: int) -> None:
        self._collect(self._track.decode(self._waiting.popleft()), wanted)

    def _collect(self, frames: list[Any], wanted: int) -> None:
        """Put frames in order of presentation (a decoder that learns of reordering late may not) and drop the past."""
        for frame in frames:
            timestamp = frame.pts if frame.pts is not None else frame.dts
            if timestamp is not None:
                insort(self._decoded, _Decoded(timestamp, frame))
        while len(self._decoded) > 1 and self._decoded[1].timestamp <= wanted:
            self._decoded.pop(0)


class _Decoded:
    __slots__ = ("frame", "timestamp")

    def __init__(self, timestamp: int, frame: Any) -> None:
        self.timestamp = timestamp
        self.frame = frame

    def __lt__(self, other: _Decoded) -> bool:
        return self.timestamp < other.timestamp
