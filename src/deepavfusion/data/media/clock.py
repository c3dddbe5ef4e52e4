"""Timestamps of a file whose packets are listed: missing times are filled in, jumps removed, tracks kept in step."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Kind = Literal["picture", "sound"]
Floats = npt.NDArray[np.float64]

MAX_LEAP_SECONDS = 600.0
"""Times that leap further ahead than this are no gap in what was recorded."""
MAX_GAP_SECONDS = 10.0
"""And so are shorter leaps than that, in containers that are made to be joined (MPEG streams, Ogg)."""
MAX_STEP_BACK_SECONDS = 0.3
"""Times of decoding never step back; steps as small as this are rounding or damage."""
MAX_REORDERING_SECONDS = 1.0
"""Times of presentation do, by a few frames."""
MAX_DELAY_SECONDS = 5.0
"""A time of presentation so much further from that of decoding than others is damage, and is not believed."""
STRAY_PACKETS = 3
"""Times of so many packets in a row may leap and come back: they are damage, and are not believed."""
UNEVEN = 2.5
"""Packets without a time lie evenly between those that have one, unless that is so many times their duration."""
MIN_GAP_SECONDS = 0.05
"""Shorter steps of a clock made from a byte rate are rounding."""
MAX_OVERLAP_SECONDS = 0.25
"""Sound at the end of a part may be so much longer than the picture (padding); the next part's sound counts there."""


class Seam(NamedTuple):
    """A place where the file's clock leaps."""

    seconds: float
    """Where, on the clock of the first part, counted on."""
    leap_seconds: float
    """By how much."""


@dataclass
class StoredTimes:
    """What is stored of a track's packets: lists of equal length, times in seconds and NaN where there is none."""

    spacing: float
    """How long a packet usually lasts, in seconds; 0 where that is not known."""
    positions: list[int]
    sizes: list[int]
    is_key: list[bool]
    shown: list[float]
    decoded: list[float]
    durations: list[float]
    places: list[int]
    """The packet's place among those of all tracks."""
    in_order_of_output: list[int]
    """Of the first pictures, where some have a time of presentation: the packets as the decoder gives frames back."""


class TrackClock:
    """The times of one track while they are being mended; `seconds` are those that its packets are presented at."""

    def __init__(self, kind: Kind, stored: StoredTimes) -> None:
        self.kind = kind
        self.shown = np.array(stored.shown, np.float64)
        self.decoded = np.array(stored.decoded, np.float64)
        durations = np.array(stored.durations, np.float64)
        stated = durations[durations > 0]
        self.spacing = float(np.median(stated)) if kind == "sound" and len(stated) else stored.spacing
        use_spacing = durations <= 0 if kind == "sound" else np.ones(len(durations), np.bool_)
        self.durations = np.where(use_spacing, self.spacing, durations)
        later = self.shown - self.decoded
        if np.isfinite(later).any():
            self.shown[np.abs(later - np.nanmedian(later)) > MAX_DELAY_SECONDS] = np.nan
        self.places = stored.places
        self._output_order = np.array(stored.in_order_of_output, np.int64)
        self.seconds = np.zeros(len(self.shown))
        self.decoded_order = False
        """Whether `seconds` belong to frames in the order in which the decoder gives them back."""
        self.parts: list[int] = []
        """The packets at which a later part of a joined file begins."""

    @property
    def end(self) -> float:
        """Where the track ends."""
        return float((self.seconds + self.durations).max())

    def span(self, begin: int, end: int) -> tuple[float, float]:
        """Where some packets begin and end."""
        seconds = self.seconds[begin:end]
        return float(seconds.min()), float((seconds + self.durations[begin:end]).max())

    def count_samples(self) -> None:
        """Take no time at its word but the first: only where it steps much further than it usually does is a gap."""
        steps, lasting = np.diff(self.decoded), self.durations[:-1]
        share = np.divide(steps, lasting, out=np.full_like(steps, np.nan), where=lasting > 0)
        usual = np.nanmedian(share) if np.isfinite(share).any() else 0.0
        if usual > 0:
            gaps = np.nan_to_num(steps / usual - lasting)
            self.durations = np.append(
                lasting + np.where(gaps > np.maximum(lasting, MIN_GAP_SECONDS), gaps, 0.0), self.durations[-1:]
            )
        self.decoded[1:] = self.shown[1:] = np.nan

    @property
    def _running(self) -> Floats:
        """The stored times that ascend in the order of the file, or nearly; NaN where there is none."""
        return np.where(np.isnan(self.decoded), self.shown, self.decoded)

    def leaps(self, max_gap_seconds: float) -> list[tuple[int, bool]]:
        """The packets at which the clock leaps for good, and whether it leaps back.

        Times that leap and come back are forgotten.
        """
        times = self._running
        leaps: list[tuple[int, bool]] = []
        known = np.flatnonzero(np.isfinite(times))
        if len(known) < 2:
            return []
        steps = np.diff(times[known])
        usual = max(self.spacing, float(np.median(np.abs(steps))))
        max_gap_seconds = max(max_gap_seconds, 4 * usual)
        back = MAX_REORDERING_SECONDS if np.isnan(self.decoded[known]).any() else MAX_STEP_BACK_SECONDS

        def leap(one: int, other: int) -> int:
            step = times[known[other]] - times[known[one]]
            counted = self.spacing * (known[other] - known[one])
            if step < -back or step < counted / 4 - MAX_REORDERING_SECONDS:
                return -1
            return int(step - counted > max_gap_seconds)

        passed = 0
        too_slow = steps < self.spacing * np.diff(known) / 4 - MAX_REORDERING_SECONDS
        for suspect in (np.flatnonzero((steps > max_gap_seconds) | (steps < -back) | too_slow) + 1).tolist():
            if suspect <= passed or not (direction := leap(suspect - 1, suspect)):
                continue
            for later in range(suspect + 1, min(suspect + STRAY_PACKETS + 1, len(known))):
                step, counted = times[known[later]] - times[known[suspect - 1]], known[later] - known[suspect - 1]
                if not leap(suspect - 1, later) and step > self.spacing * counted / 2 - MAX_REORDERING_SECONDS:
                    stray = known[suspect:later]
                    self.shown[stray] = self.decoded[stray] = np.nan
                    passed = later
                    break
            else:
                leaps.append((int(known[suspect]), direction < 0))
        return leaps

    def count(self, bounds: list[int]) -> None:
        """Fill in `seconds`, on the clock as it is stored, in each of the stretches between some packets."""
        has_shown = np.isfinite(self.shown)
        if self.kind == "sound":
            stored = np.where(has_shown, self.shown, self.decoded)
        else:
            stored = self.shown if has_shown.all() else self._running
        if self.kind == "picture" and np.isnan(stored).any():
            stored = self._without_slips(stored, bounds)
        for first, behind in pairwise(bounds):
            self.seconds[first:behind] = _counted_on(stored[first:behind], self.durations[first:behind])
        if self.kind == "picture":
            stretches = list(pairwise(bounds))
            if has_shown.all():
                self.decoded_order = all((np.diff(self.shown[a:b]) >= 0).all() for a, b in stretches)
                return
            self.decoded_order = True
            self.seconds += self._delay()
            for first, behind in stretches:
                part = self.seconds[first:behind]
                part[0] = np.fmin(part[0], self.shown[first])  # some writers let the clock stand at its start
                np.maximum.accumulate(part, out=part)

    def _without_slips(self, times: Floats, bounds: list[int]) -> Floats:
        """Times without those a frame off: a time at the start of a pack can be given to the packet beside its own."""
        times = times.copy()
        for first, behind in pairwise(bounds):
            known = first + np.flatnonzero(np.isfinite(times[first:behind]))
            if len(known) < 3:
                continue
            early = times[known] - self.spacing * known
            one, other = np.append(early[1], early[:-1]), np.append(early[1:], early[-2])
            one[0], other[0] = early[1], early[2]
            one[-1], other[-1] = early[-2], early[-3]
            off = (np.abs(one - other) < self.spacing / 2) & (np.abs(early - one) < 1.5 * self.spacing)
            times[known] = np.where(off, one + self.spacing * known, times[known])
        return times

    def _delay(self) -> float:
        """How much later than its decoding a picture is shown, by those whose time of presentation is stored."""
        later = self.shown[self._output_order] - self.seconds[np.sort(self._output_order)]
        later = later[np.isfinite(later)]
        return float(np.median(later)) if len(later) else 0.0


def _counted_on(times: Floats, durations: Floats) -> Floats:
    """Times with those that are NaN filled in from the one before, or evenly where the next one is near."""
    known = np.flatnonzero(np.isfinite(times))
    elapsed = np.concatenate([[0.0], np.cumsum(durations)[:-1]])
    if not len(known):
        return elapsed
    numbers = np.arange(len(times))
    before = known[np.maximum(np.searchsorted(known, numbers, side="right") - 1, 0)]
    after = known[np.minimum(np.searchsorted(known, numbers, side="left"), len(known) - 1)]
    counted = times[before] + elapsed - elapsed[before]
    between = (before < numbers) & (numbers < after)
    expected = np.where(between, elapsed[after] - elapsed[before], 0.0)
    stretch = np.divide(times[after] - times[before], expected, out=np.zeros_like(expected), where=expected > 0)
    even = (stretch > 0) & (stretch < UNEVEN)
    return np.where(even, times[before] + (elapsed - elapsed[before]) * stretch, counted)


class _Part:
    """What lies on one clock: of each track the stretches of its packets, and where they begin and end."""

    def __init__(self) -> None:
        self.stretches: dict[Kind, list[tuple[int, int]]] = {}
        self.spans: dict[Kind, tuple[float, float]] = {}

    def add(self, kind: Kind, stretch: tuple[int, int], span: tuple[float, float]) -> None:
        self.stretches.setdefault(kind, []).append(stretch)
        low, high = self.spans.get(kind, span)
        self.spans[kind] = min(low, span[0]), max(high, span[1])

    @property
    def begin(self) -> float:
        return min(low for low, _ in self.spans.values())

    @property
    def end(self) -> float:
        return max(high for _, high in self.spans.values())


def run_on(clocks: dict[Kind, TrackClock], max_gap_seconds: float) -> tuple[Seam, ...]:
    """Fill in the times of all tracks, and let them run on over leaps together; says where the clock leaps.

    A part begins where the picture of the one before ends, so that pictures go on evenly; where sound reaches further,
    or one of them has no picture, where all tracks have ended.
    """
    stretches: list[tuple[int, Kind, int, int, bool]] = []
    for kind, clock in clocks.items():
        leaps = [(0, False), *clock.leaps(max_gap_seconds)]
        bounds = [first for first, _ in leaps] + [len(clock.seconds)]
        clock.count(bounds)
        for (first, is_back), behind in zip(leaps, bounds[1:], strict=True):
            stretches.append((clock.places[first], kind, first, behind, is_back))
    parts = [_Part()]
    for _, kind, first, behind, is_back in sorted(stretches):
        span = clocks[kind].span(first, behind)
        part = parts[-1]
        near = not part.spans or part.begin - MAX_GAP_SECONDS < span[0] < part.end + MAX_GAP_SECONDS
        if not near or (is_back and kind in part.spans):
            parts.append(_Part())
        parts[-1].add(kind, (first, behind), span)
    seams, shift = [], 0.0
    for before, part in pairwise(parts):
        join = _join(before, part)
        seams.append(Seam(part.begin + join + shift, -join))
        shift += join
        for kind, pieces in part.stretches.items():
            for first, behind in pieces:
                clocks[kind].seconds[first:behind] += shift
            clocks[kind].parts.append(pieces[0][0])
    return tuple(seams)


def _join(before: _Part, part: _Part) -> float:
    """By how much a part has to be later to follow another, both on their own clocks."""
    if "picture" in before.spans and "picture" in part.spans:
        join = before.spans["picture"][1] - part.spans["picture"][0]
        if before.end - (part.begin + join) <= MAX_OVERLAP_SECONDS:
            return join
    return before.end - part.begin
