"""One track of an open file: its packets from any time on, and the frames or sound decoded from them.

Damage is handled here. A packet that cannot be read or decoded is counted and skipped, up to stated limits; a container
that cannot seek is read from its start. Timestamps are integers in the track's time base as long as they are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from itertools import chain
from typing import Any

import av
import numpy as np

from deepavfusion.data.media.clock import MAX_LEAP_SECONDS, Kind
from deepavfusion.data.media.demuxer import Demuxer
from deepavfusion.data.media.media_error import MediaError, cause_of
from deepavfusion.data.media.packet_list import MAX_READ_ERRORS, TrackTimes

MAX_REFUSED_PACKETS = 128
"""So many packets in a row may be refused by the decoder before the track counts as unreadable."""
MAX_SPACING_SECONDS = 10
"""An index whose packets are further apart on average is not taken at its word."""
MAX_UNMARKED_PACKETS = 256
"""After a seek so many packets are looked at for one that is known from the file's list."""
MAX_PACKETS_READ_OVER = 2000
"""So many packets are read over at most to get to one that is not known by its place."""
MAX_FAILED_SEEKS = 4
"""After so many seeks in a row that lead astray the file is read from its start."""
MAX_BYTES_READ_OVER = 2**22
"""And so many bytes, where the file stands at its start."""

# Containers that can be read from any byte on; the others are sought by time.
_SOUGHT_BY_BYTE = ("mpegts", "mpeg", "wav", "w64", "mp3", "aac", "ac3", "amr", "aiff", "au")
# Damaged timestamps stay where a double is exact to the microsecond and libav's own sums cannot overflow.
_MAX_SECONDS = 1e9
# Encoders put packets before the presented start (priming, open groups of pictures), which decoders want to see.
_BEFORE_START_SECONDS = 10.0


class AstrayError(Exception):
    """A seek has led to where the file's list of packets does not say; what was read since is to be read again."""


class Track:
    """The packets of one track (`kind`), and its decoder."""

    def __init__(self, demuxer: Demuxer, kind: Kind) -> None:
        self.demuxer = demuxer
        self.kind = kind
        self.num_refused_packets = 0
        """Packets that could not be decoded since the file was opened."""
        self.last_refusal = ""
        """What the decoder, or the demuxer, said about the last packet refused."""
        self._refused_in_a_row = 0
        self._time_base = self.stream.time_base
        self._used = False
        self._drained = False
        self._num_failed_seeks = 0
        """Seeks in a row, in a file without an index, that did not lead where its list of packets says."""

    @property
    def stream(self) -> Any:
        """PyAV's stream; a new object after the file had to be opened again."""
        return self.demuxer.streams[self.kind]

    @property
    def start(self) -> int:
        """The timestamp the track claims to start with, 0 if it claims none."""
        return self.stream.start_time if self.stream.start_time is not None else 0

    @property
    def times(self) -> TrackTimes | None:
        """The track's packets and their times, where the file had to be read through for them."""
        return self.demuxer.packets.tracks.get(self.kind) if self.demuxer.packets is not None else None

    def timestamp(self, seconds: float) -> int:
        """The last timestamp at or before a time of the clip, to the microsecond."""
        bounded = min(max(seconds + self.demuxer.origin_seconds + 1e-6, -_MAX_SECONDS), _MAX_SECONDS)
        return math.floor(bounded * self._time_base.denominator / self._time_base.numerator)

    def seconds(self, timestamp: int) -> float:
        """The time of the clip a timestamp stands for."""
        return timestamp * self._time_base.numerator / self._time_base.denominator - self.demuxer.origin_seconds

    def seek(self, timestamp: int, *, any_packet: bool = False, later: bool = False) -> bool:
        """Go to the last point at or before a timestamp (`later`: the first at or after it) to decode from.

        False if the container cannot go there. Where a container lands is its affair; the caller checks.
        """
        self.demuxer.attend_to(self.kind)
        self.demuxer.is_untouched = False
        try:
            self.demuxer.container.seek(timestamp, backward=not later, any_frame=any_packet, stream=self.stream)
        except (av.FFmpegError, OverflowError):
            return False
        self._used = self._drained = False  # PyAV has flushed the decoders
        return True

    def rewind(self) -> None:
        """Go to the track's first packet; by opening the file again unless the container is known to find it."""
        if self.demuxer.is_untouched:
            self.demuxer.attend_to(self.kind)
        elif not (self.demuxer.has_index and self.seek(min(self.start, 0) - self.timestamp(_BEFORE_START_SECONDS))):
            self.demuxer.close()
            self.demuxer.open()
            self.demuxer.attend_to(self.kind)
            self._used = self._drained = False

    def packets(self) -> Iterator[Any]:
        """The packets from here to the end of what can be read."""
        self.demuxer.is_untouched = False
        num_errors = 0
        while num_errors < MAX_READ_ERRORS:
            try:
                for packet in self.demuxer.container.demux(self.stream):
                    if packet.size == 0 and packet.pts is None and packet.dts is None:  # PyAV's request to flush
                        return
                    num_errors = 0
                    yield packet
                return
            except av.FFmpegError as error:
                num_errors += 1
                self.last_refusal = cause_of(error)

    def packets_from(self, first: int) -> Iterator[tuple[int, Any]]:
        """The packets from one on, with their numbers in the file's list.

        Raises AstrayError where a seek has led to a place that does not go on as the list does; the next time the file
        is read from its start.
        """
        times = self.times
        assert times is not None
        is_near = self.demuxer.is_untouched and times.positions[first] <= MAX_BYTES_READ_OVER
        may_seek = not is_near and self._num_failed_seeks < MAX_FAILED_SEEKS
        if may_seek and (numbered := self._sought(times, first)) is not None:
            yield from numbered
            return
        self.rewind()
        for number, packet in zip(range(len(times)), self.packets(), strict=False):
            if number >= first:
                yield number, packet

    def _sought(self, times: TrackTimes, first: int) -> Iterator[tuple[int, Any]] | None:
        """The packets from one on after a seek; None if no seek leads before it."""
        for seek in self._seeks(times, first):
            if not seek():
                continue
            packets = self.packets()
            for _, packet in zip(range(MAX_UNMARKED_PACKETS), packets, strict=False):
                number = times.marks.get((-1 if packet.pos is None else packet.pos, packet.size))
                if number is not None:
                    if number <= first:
                        self._num_failed_seeks = 0
                        return self._followed(times, number, first, packet, packets)
                    break
        self._num_failed_seeks += 1
        return None

    def _seeks(self, times: TrackTimes, first: int) -> Iterator[Callable[[], bool]]:
        """Ways to get to a packet or before it."""
        if self.demuxer.container.format.name in _SOUGHT_BY_BYTE:
            place = int(np.searchsorted(times.marked, first, side="right")) - 1
            for back in (0, 2, 8):  # what a parser makes of the first bytes may be no packet of the list
                if place >= back and first - times.marked[place - back] <= MAX_PACKETS_READ_OVER:
                    yield partial(self._seek_byte, int(times.positions[times.marked[place - back]]))
        elif not len(times.parts):
            for earlier in (0.0, 2.0, 10.0):
                seconds = float(times.seconds[first]) - self.demuxer.origin_seconds - earlier
                yield partial(self.seek, self.timestamp(seconds))

    def _seek_byte(self, position: int) -> bool:
        self.demuxer.attend_to(self.kind)
        self.demuxer.is_untouched = False
        try:
            self.demuxer.container.seek(position, unsupported_byte_offset=True)
        except (av.FFmpegError, OverflowError):
            return False
        self._used = self._drained = False
        return True

    def _followed(
        self, times: TrackTimes, number: int, first: int, packet: Any, following: Iterator[Any]
    ) -> Iterator[tuple[int, Any]]:
        for this in chain([packet], following):
            position = -1 if this.pos is None else this.pos
            if number >= len(times) or (times.positions[number], times.sizes[number]) != (position, this.size):
                self._num_failed_seeks = MAX_FAILED_SEEKS
                raise AstrayError
            if number >= first:
                yield number, this
            number += 1

    def decode(self, packet: Any | None) -> list[Any]:
        """The frames that come out of the decoder for one more packet, or with None all it holds back."""
        context = self.stream.codec_context
        if self._drained:
            self.flush()
        self._used = True
        try:
            if packet is None:
                self._drained = True
                return context.decode(None)
            frames = context.decode(packet)
        except av.FFmpegError as error:
            self._refuse(packet, error)
            return []
        if frames:
            self._refused_in_a_row = 0
        return frames

    def flush(self) -> None:
        """Forget what was decoded since the last seek: the next packet is one that decoding can start from."""
        if self._used:
            self.stream.codec_context.flush_buffers()
        self._used = self._drained = False

    def _refuse(self, packet: Any | None, error: Exception) -> None:
        self.last_refusal = cause_of(error)
        if packet is None:
            return
        self.num_refused_packets += 1
        self._refused_in_a_row += 1
        if self._refused_in_a_row > MAX_REFUSED_PACKETS:
            raise MediaError(
                self.demuxer.path,
                f"the decoder refused {self._refused_in_a_row} {self.kind} packets: {self.last_refusal}",
            )

    def nothing_decoded(self) -> MediaError:
        """The error that says that no frame at all came out of this track."""
        why = f" ({self.last_refusal})" if self.last_refusal else ""
        return MediaError(self.demuxer.path, f"no part of its {self.kind} track can be decoded{why}")

    @cached_property
    def end_seconds(self) -> float | None:
        """Where the track's readable part ends, in seconds of the clip; None if it has no readable packet.

        The header's word is taken where the index behind it lies inside the file. Otherwise the last packets are
        read: the header may be silent, or promise what a truncated file no longer has.
        """
        if self.demuxer.packets is not None:
            return self.times.end_seconds - self.demuxer.origin_seconds if self.times is not None else None
        stream = self.stream
        claimed = stream.start_time + stream.duration if stream.start_time is not None and stream.duration else None
        if claimed is not None and self._index_reaches(claimed):
            return self.seconds(claimed)
        for point in self._points_before(claimed):
            if point is None or not self.seek(point, any_packet=True):
                self.rewind()
            end = self._last_end()
            if end is not None:
                return self.seconds(end)
        return None

    def _last_end(self) -> int | None:
        """When the last of the packets from here on ends; leaps of more than MAX_LEAP_SECONDS are damage."""
        end = None
        leap = MAX_LEAP_SECONDS / self.stream.time_base
        for packet in self.packets():
            begin = packet.pts if packet.pts is not None else packet.dts
            if begin is None or packet.is_discard:
                continue
            this = begin + (packet.duration or 0)
            if end is None or end - this > leap or 0 < this - end <= leap:
                end = this
        return end

    def _points_before(self, end: int | None) -> Iterator[int | None]:
        """Where to look for the last packets: ever further before the end, at last None for the whole track."""
        if end is None:
            yield self.timestamp(_MAX_SECONDS)
        else:
            back = math.ceil(1 / self.stream.time_base)
            while end - back > self.start:
                yield end - back
                back *= 4
        yield None

    def _index_reaches(self, claimed: int) -> bool:
        # The mov demuxer keeps the whole index in memory; PyAV shows it since 17. Elsewhere an index is but a part.
        entries = getattr(self.stream, "index_entries", None)
        if not entries or not self.demuxer.container.format.name.startswith("mov,"):
            return False
        first, last = entries[0], entries[-1]
        spacing = (last.timestamp - first.timestamp) / len(entries)
        return (
            last.pos + last.size <= self.demuxer.file_size
            and 0 <= claimed - last.timestamp <= 5 * spacing
            and spacing * self.stream.time_base <= MAX_SPACING_SECONDS
        )
