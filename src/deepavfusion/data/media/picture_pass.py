"""Decoding of frames from a given packet on, in a file whose packets are listed, each frame with its time.

Before decoding every packet gets its number as its timestamp, so a frame tells which packet it came from, whatever the
container stores. Where packets have true presentation times, nothing more is needed. Where they have none, the order of
the decoder is used: as soon as a run of frames is complete (every packet of it has given its frame), its frames get the
run's times in the order in which they came.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator
from typing import Any

from deepavfusion.data.media.packet_list import MAX_REORDERED_FRAMES, TrackTimes
from deepavfusion.data.media.track import Track

MAX_DELAY_PACKETS = 32
"""So many packets are decoded behind a frame's own before it counts as lost."""


class PicturePass:
    """Decoding onward from packet `entry`, which is a key frame or the first.

    `trusted` is the first packet whose stretch is sure to be complete: frames of a key frame's own stretch can lack
    when decoding starts there.
    """

    def __init__(self, track: Track, times: TrackTimes, entry: int, trusted: int) -> None:
        self._track = track
        self._times = times
        self._packets: Iterator[tuple[int, Any]] = track.packets_from(entry)
        self._ended = False
        self.fed = entry
        """The packet that is decoded next."""
        self._begin(entry, trusted)

    def _begin(self, entry: int, trusted: int) -> None:
        self.trusted = trusted
        self._frames: list[tuple[int, int, Any]] = []
        """Rank in time, packet and frame of those that may still be wanted, by rank."""
        self._given: list[tuple[int, Any]] = []
        """Packets and frames in the decoder's order, of the stretch that is not complete."""
        self._open = entry
        """The first packet of that stretch."""
        self._lost: set[int] = set()
        self.last_given = -1
        """The latest packet whose frame has come so far."""
        self.reorders = False
        """Whether the decoder has been seen to give frames back in another order than it got packets."""

    def skip_to(self, entry: int, trusted: int) -> None:
        """Read over packets to a later key frame, and begin anew there."""
        for number, packet in self._packets:
            if number >= entry:
                self._packets = _with(number, packet, self._packets)
                break
        else:
            self._ended = True
        self._track.flush()
        self.fed = entry
        self._begin(entry, trusted)

    def frame_at(self, rank: int, last: bool) -> tuple[Any | None, bool]:
        """The frame shown at a place in the order of presentation, not before the one asked for last.

        Returns the latest one at or before that place, the first of all where there is none, None where nothing
        decodes; and whether that is the very one, or all that is there to be had. After the `last` one the pass is
        over.
        """
        target = int(self._times.order[rank])
        while not self._has(rank):
            if last and not self._times.decoded_order and self.fed > target:
                self._drain()
                break
            if self.fed > target + MAX_DELAY_PACKETS + (MAX_REORDERED_FRAMES if self._times.decoded_order else 0):
                break
            if not self._decode_next():
                self._drain()
                break
        place = bisect_right(self._frames, rank, key=lambda entry: entry[0])
        del self._frames[: max(0, place - 1)]
        if not self._frames:
            return None, False
        found, packet, frame = self._frames[0]
        if self._times.decoded_order:
            return frame, self.trusted <= packet and found <= rank
        return frame, found == rank

    def _has(self, rank: int) -> bool:
        if self._times.decoded_order:  # a frame with this place, or a later one: then none has it
            return bool(self._frames) and self._frames[-1][0] >= rank
        return any(entry[0] == rank for entry in self._frames)

    def _decode_next(self) -> bool:
        number, packet = next(self._packets, (0, None))
        if packet is None:
            return False
        packet.pts = packet.dts = number
        self._take(self._track.decode(packet))
        self.fed = number + 1
        return True

    def _drain(self) -> None:
        if not self._ended:
            self._ended = True
            self._take(self._track.decode(None))
            self._complete(final=True)

    def _take(self, frames: list[Any]) -> None:
        for frame in frames:
            number = frame.pts if frame.pts is not None else frame.dts
            if number is None or not 0 <= number < len(self._times):
                continue
            self.reorders |= number < self.last_given
            self.last_given = max(number, self.last_given)
            if self._times.decoded_order:
                self._given.append((number, frame))
                self._complete(final=False)
            else:
                self._keep(number, frame)

    def _keep(self, packet: int, frame: Any) -> None:
        insort(self._frames, (int(self._times.rank[packet]), packet, frame), key=lambda entry: entry[0])

    def _complete(self, final: bool) -> None:
        """Give their times to the frames of complete stretches."""
        while self._given:
            count = self._num_complete()
            if count:
                stretch, self._given = self._given[:count], self._given[count:]
                packets = sorted(number for number, _ in stretch)
                for packet, (_, frame) in zip(packets, stretch, strict=True):
                    self._keep(packet, frame)
                self._open = max(self._open, packets[-1] + 1)
                self._lost = {number for number in self._lost if number >= self._open}
            elif final or len(self._given) > MAX_REORDERED_FRAMES:
                there = {number for number, _ in self._given}
                self._lost.add(
                    next(n for n in range(self._open, max(there) + 1) if n not in there and n not in self._lost)
                )
            else:
                return

    def _num_complete(self) -> int:
        """How many frames, from the first given on, are all those of the packets up to the latest of them."""
        missing: set[int] = set()
        reached = self._open
        for count, (number, _) in enumerate(self._given, 1):
            if number >= reached:
                missing.update(n for n in range(reached, number) if n not in self._lost)
                reached = number + 1
            missing.discard(number)
            if not missing:
                return count
        return 0


def _with(number: int, packet: Any, packets: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    yield number, packet
    yield from packets
