"""The frame of a clip that is shown at a given time.

Exact by presentation timestamps, for any decoding order, frame rate and start time of the track: decoding starts at a
key frame not later than the time asked for, and every packet from there to the frame is decoded, and as few as possible
after it. With `nearest_key_frame`, one key frame is decoded instead.

Where the container has no index, or its timestamps follow the decoding order while the decoder returns frames in
another order, the file's packet list tells when each frame is shown.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from deepavfusion.data.media.demuxer import Demuxer
from deepavfusion.data.media.frame_pixels import Orientation
from deepavfusion.data.media.packet_list import MAX_REORDERED_FRAMES, TrackTimes
from deepavfusion.data.media.picture_pass import MAX_DELAY_PACKETS, PicturePass
from deepavfusion.data.media.track import AstrayError, Track

MAX_WAITING_PACKETS = 256
"""So many packets are read ahead of the decoder at most."""
RESTART_SECONDS = 10.0
"""Frames further apart than this are sought one by one, not read through."""


class PictureTrack:
    """Frames of the picture track of an open file."""

    def __init__(self, demuxer: Demuxer) -> None:
        self.track = Track(demuxer, "picture")
        self._informed: Any = None
        """The decoder that has seen the first packet, where that is known to matter."""
        self._reorders = False
        """Whether the decoder is known to give frames back in another order than it gets packets."""
        if demuxer.packets is None and _lacks_times(demuxer.container, self.track.stream):
            demuxer.list_packets()

    def shown_at(self, times_seconds: Sequence[float]) -> Iterator[Any]:
        """The decoded frame shown at each of some ascending times: the last one that starts at or before it.

        Before the first frame it is the first, after the last the last. Raises MediaError if nothing decodes.
        """
        if self.track.demuxer.packets is not None:
            yield from self._shown_by_list(times_seconds)
            return
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
            if run.is_in_order_of_decoding and self.track.stream.codec_context.has_b_frames:
                self.track.demuxer.list_packets()
                yield from self._shown_by_list(times_seconds[index:])
                return
            if last:
                run = None
            yield frame

    def _shown_by_list(self, times_seconds: Sequence[float]) -> Iterator[Any]:
        times = self.track.times
        if times is None:
            raise self.track.nothing_decoded()
        clock = [time + self.track.demuxer.origin_seconds + 1e-6 for time in times_seconds]
        ranks = np.maximum(np.searchsorted(times.ordered_seconds, clock, side="right") - 1, 0).tolist()
        run: PicturePass | None = None
        for index, rank in enumerate(ranks):
            last = index + 1 == len(ranks) or clock[index + 1] - clock[index] > RESTART_SECONDS
            try:
                run, frame = self._pass_on(times, run, rank, last)
            except AstrayError:
                run, frame = self._pass_on(times, None, rank, last)
            if last:
                run = None
            yield frame

    def _pass_on(
        self, times: TrackTimes, run: PicturePass | None, rank: int, last: bool
    ) -> tuple[PicturePass | None, Any]:
        """Decode on, or from a key frame, to the frame with a rank in time."""
        place = self._key_before(times, int(times.order[rank]))
        if run is not None:
            if place >= 0 and self._entry(times, place)[0] > run.fed:
                run.skip_to(*self._entry(times, place))
            frame, is_it = run.frame_at(rank, last)
            self._reorders |= run.reorders
            if is_it:
                return run, frame
        back, frame = 1, None
        while True:
            reordered = self._reorders
            from_start = place < 0
            entry, trusted = (0, 0) if from_start else self._entry(times, place)
            run = PicturePass(self.track, times, entry, trusted)
            frame, is_it = run.frame_at(rank, last)
            self._reorders |= run.reorders
            if frame is not None and entry and self._needs_first_packet(frame):
                self._decode_first_packet()
                continue
            if self._reorders and not reordered and not from_start and times.decoded_order:
                continue  # now that it is known, from a key frame earlier
            if is_it or entry == 0:
                if frame is None:
                    raise self.track.nothing_decoded()
                return run, frame
            place -= back  # a key frame that refreshes the picture bit by bit, or damage
            back *= 2

    def _key_before(self, times: TrackTimes, packet: int) -> int:
        """The place among key frames of the latest that a frame's decoding can start from; -1 for the first packet."""
        place = int(np.searchsorted(times.keys, packet, side="right")) - 1
        while place >= 0 and not times.decoded_order and times.seconds[times.keys[place]] > times.seconds[packet]:
            place -= 1
        return place

    def _entry(self, times: TrackTimes, place: int) -> tuple[int, int]:
        """The packet to decode from so that a key frame and all behind it are right, and the first that is."""
        trusted = int(times.keys[place])
        if not (times.decoded_order and (self._reorders or self.track.stream.codec_context.has_b_frames)):
            return trusted, trusted
        return (int(times.keys[place - 1]), trusted) if place > 0 else (0, 0)

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
            frame = next(self.shown_at([0.0]))
        return Orientation.of(frame).displayed_size(frame.height, frame.width)

    def _enter(self, wanted: int, last: bool) -> tuple[_Run, Any]:
        """Start decoding for the frame shown at a timestamp, from ever further before it until that works."""
        track = self.track
        back = int(1 / track.stream.time_base) + 1
        point = wanted
        skip = True
        while True:
            from_start = point <= track.start or not track.seek(point)
            if from_start:
                track.rewind()
            run = _Run(track, skip)
            run.read_to(wanted)
            if from_start or run.at_key_frame:
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


def _lacks_times(container: Any, stream: Any) -> bool:
    # Matroska stores times of decoding alone for pictures in the way of AVI, which it marks by their four letters.
    tag = stream.codec_context.codec_tag
    return container.format.name.startswith("matroska,") and tag.strip("\0") != ""


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
        self._num_packets = 0
        self._differs = False

    @property
    def is_in_order_of_decoding(self) -> bool:
        """Whether all that was read is to be shown when it is decoded, as far as the container says."""
        return self._num_packets > 1 and not self._differs

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
        self._num_packets += 1
        self._differs |= packet.pts != packet.dts
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
