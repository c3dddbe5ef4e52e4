"""The sound of a clip in a time window, mono, at a given sample rate.

Packets are decoded from PRE_ROLL_SECONDS before the window (the first output of a decoder after a seek is unreliable),
placed by their timestamps, averaged over channels and resampled in one call. The plain average over channels keeps the
level of what all channels share: stereo and 5.1 with the same signal in every channel give that signal, and nothing can
clip.

Samples lie on one grid per clip and sample rate, whatever window they are read in: sample `k` is the sound at
`k / rate` seconds, so overlapping windows agree.
"""

from __future__ import annotations

import math
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import soxr
from numpy.lib.stride_tricks import sliding_window_view

from deepavfusion.data.media.demuxer import MAX_CHANNELS, MAX_SAMPLE_RATE, Demuxer
from deepavfusion.data.media.media_error import MediaError
from deepavfusion.data.media.track import AstrayError, Track

PRE_ROLL_SECONDS = 0.2
"""Sound decoded before the window."""
MARGIN_SECONDS = 0.1
"""Sound around the window that the resampling filter sees; the first half of the pre-roll it never does."""
MAX_WINDOW_SECONDS = 3600.0
"""The longest window that is read at once."""
LEAP_SECONDS = 0.01
"""Timestamps that leap by more than this, and stay, mean a gap (or an overlap, where the later sound counts).

Below it frames simply follow each other: Matroska rounds to milliseconds, and placing every frame by its own timestamp
would tear the sound.
"""
JITTER_FRAMES = 3
"""Timestamps of so many frames in a row may leap and come back (clips cut out of streams have such)."""
RESAMPLING_QUALITY = "HQ"
"""soxr's quality; it takes 0.5 ms for 3 s from 44.1 kHz, hardly more than the faster ones."""
MAX_LEVEL = 4.0
"""Samples of a float decoder are cut at this level before resampling. Real overshoots stay far below."""

Waveform = npt.NDArray[np.float32]


class SoundTrack:
    """Windows of the sound track of an open file."""

    def __init__(self, demuxer: Demuxer) -> None:
        self.track = Track(demuxer, "sound")

    def window(self, start_seconds: float, duration_seconds: float, sample_rate: int) -> Waveform:
        """Mono samples `(n,)` in [-1, 1] of a window: as many as it has before the track ends.

        `n` is round(duration_seconds * sample_rate) if the track covers the window, and 0 if it ends before it. What
        the track leaves out, before its start and in gaps, is silence. Raises MediaError if there are packets and
        none decodes.
        """
        first = round(start_seconds * sample_rate)
        num_samples = round(duration_seconds * sample_rate)
        begin, end = first / sample_rate, (first + num_samples) / sample_rate
        runs, ended = self._decode(begin - PRE_ROLL_SECONDS, end + MARGIN_SECONDS)
        if not runs:
            return np.zeros(0 if ended else num_samples, np.float32)
        rate = max(runs, key=lambda run: run.num_samples / run.rate).rate
        # The native samples start where both grids meet, so that resampled ones fall on the grid of the clip.
        period = rate // math.gcd(rate, sample_rate)
        origin = max(0, math.floor((begin - MARGIN_SECONDS) * rate / period)) * period
        native = np.zeros(max(0, math.ceil((end + MARGIN_SECONDS) * rate) - origin), np.float32)
        track_end = 0
        for run in runs:
            position, parts = run.at_rate(rate)
            track_end = max(track_end, _place(parts, position - origin, native) + origin)
        if ended:
            if self.track.end_seconds is not None:  # the last packet may hold more than is to be played
                track_end = min(track_end, round(self.track.end_seconds * rate))
            native = native[: max(0, track_end - origin)]
            num_samples = max(0, min(num_samples, math.ceil(track_end * sample_rate / rate) - first))
        if num_samples == 0:
            return np.zeros(0, np.float32)
        if not np.isfinite(native).all():  # damage can decode to infinity and NaN, which a filter would spread
            native = np.nan_to_num(native, nan=0.0, posinf=0.0, neginf=0.0)
        np.clip(native, -MAX_LEVEL, MAX_LEVEL, out=native)
        waveform = native if rate == sample_rate else soxr.resample(native, rate, sample_rate, RESAMPLING_QUALITY)
        skip = first - origin * sample_rate // rate
        waveform = waveform[skip : skip + num_samples]
        if len(waveform) < num_samples:  # the resampler's own rounding of the track's end
            waveform = np.pad(waveform, (0, num_samples - len(waveform)))
        return np.clip(waveform, -1.0, 1.0)

    def specimen(self) -> Any:
        """The first frame that decodes: its rate and channels are those of the sound, whatever the header claims."""
        self.track.rewind()
        for packet in self.track.packets():
            frames = self.track.decode(packet)
            if frames:
                return frames[0]
        frames = self.track.decode(None)
        if not frames:
            raise self.track.nothing_decoded()
        return frames[0]

    def _decode(self, begin_seconds: float, end_seconds: float) -> tuple[list[_Run], bool]:
        """What decodes between two times, and whether the track ends before the second."""
        track, back = self.track, 0.5
        if track.demuxer.packets is not None:
            try:
                return self._decode_by_list(begin_seconds, end_seconds)
            except AstrayError:
                return self._decode_by_list(begin_seconds, end_seconds)
        while True:
            begin, end = track.timestamp(begin_seconds), track.timestamp(end_seconds)
            from_start = begin <= track.start or not track.seek(begin)
            if from_start:
                track.rewind()
            parts: list[_Part] = []
            num_refused = track.num_refused_packets
            landed, ended = None, True
            for packet in track.packets():
                time = packet.pts if packet.pts is not None else packet.dts
                if time is not None:
                    landed = time if landed is None else landed
                    if time > end:
                        ended = False
                    if time > end or (landed > begin and not from_start):
                        break
                self._append(track.decode(packet), parts)
            if landed is not None and landed > begin and not from_start:  # behind the time asked for
                begin_seconds = min(begin_seconds, track.seconds(landed)) - back
                back *= 2
                continue
            self._append(track.decode(None), parts)
            if not parts and track.num_refused_packets > num_refused:
                raise track.nothing_decoded()
            return _runs(parts), ended

    def _decode_by_list(self, begin_seconds: float, end_seconds: float) -> tuple[list[_Run], bool]:
        track, times = self.track, self.track.times
        if times is None:
            return [], True
        begin, end = (seconds + track.demuxer.origin_seconds for seconds in (begin_seconds, end_seconds))
        first = max(0, int(np.searchsorted(np.maximum.accumulate(times.seconds), begin, side="right")) - 1)
        if track.demuxer.container.format.name == "ogg":  # each part has headers of its own, with its first packet
            first = max((int(part) for part in times.parts if part <= first), default=first)
        parts: list[_Part] = []
        num_refused, ended = track.num_refused_packets, True
        for number, packet in track.packets_from(first):
            seconds = float(times.seconds[number])
            if seconds > end:
                ended = False
                break
            packet.pts = packet.dts = round(seconds / packet.time_base)
            self._append(track.decode(packet), parts, seconds - float(packet.pts * packet.time_base))
        self._append(track.decode(None), parts)
        if not parts and track.num_refused_packets > num_refused:
            raise track.nothing_decoded()
        return _runs(parts), ended

    def _append(self, frames: list[Any], parts: list[_Part], later_seconds: float = 0.0) -> None:
        for frame in frames:
            rate, channels = frame.sample_rate, frame.layout.nb_channels
            if not (0 < rate <= MAX_SAMPLE_RATE and 0 < channels <= MAX_CHANNELS):
                raise MediaError(self.track.demuxer.path, f"its sound decodes to {channels} channels at {rate} Hz")
            timestamp = frame.pts if frame.pts is not None else frame.dts
            position = math.nan if timestamp is None else (self.track.seconds(timestamp) + later_seconds) * rate
            parts.append(_Part(rate, position, _average(frame)))


class _Part(NamedTuple):
    """One decoded frame."""

    rate: int
    position: float
    """Where its timestamp places it, in native samples since the clip's start; NaN if it has none."""
    mono: Waveform


class _Run(NamedTuple):
    """Frames that follow each other without a gap, at one rate."""

    rate: int
    position: float
    parts: list[Waveform]

    @property
    def num_samples(self) -> int:
        return sum(map(len, self.parts))

    def at_rate(self, rate: int) -> tuple[int, list[Waveform]]:
        """Position and parts; resampled here only if the track changes its rate on the way."""
        if rate == self.rate:
            return round(self.position), self.parts
        whole = soxr.resample(np.concatenate(self.parts), self.rate, rate, RESAMPLING_QUALITY)
        return round(self.position * rate / self.rate), [whole]


def _runs(parts: list[_Part]) -> list[_Run]:
    """Part frames where timestamps leap for good; a leap that the next timestamps take back is jitter.

    Each run lies where the median of its frames' timestamps places it.
    """
    runs = []
    for rate, group in groupby(parts, key=lambda part: part.rate):
        frames = list(group)
        begins = np.cumsum([0] + [len(frame.mono) for frame in frames[:-1]])
        drifts = np.array([frame.position for frame in frames]) - begins
        if np.isnan(drifts).all():
            continue  # sound without a time has no place
        drifts = np.interp(begins, begins[~np.isnan(drifts)], drifts[~np.isnan(drifts)])
        smooth = np.median(
            sliding_window_view(np.pad(drifts, JITTER_FRAMES, mode="edge"), 2 * JITTER_FRAMES + 1), axis=1
        )
        first = 0
        for index in range(1, len(frames) + 1):
            if index == len(frames) or abs(smooth[index] - smooth[first]) > LEAP_SECONDS * rate:
                position = float(begins[first] + np.median(drifts[first:index]))
                runs.append(_Run(rate, position, [frame.mono for frame in frames[first:index]]))
                first = index
    return runs


# Of libav's sample formats: numpy's type, the value of silence, the size of a unit.
_SAMPLE_TYPES: dict[str, tuple[Any, float, float]] = {
    "u8": (np.uint8, 128.0, 2.0**-7),
    "s16": (np.int16, 0.0, 2.0**-15),
    "s32": (np.int32, 0.0, 2.0**-31),
    "s64": (np.int64, 0.0, 2.0**-63),
    "flt": (np.float32, 0.0, 1.0),
    "dbl": (np.float64, 0.0, 1.0),
}


def _average(frame: Any) -> Waveform:
    """The average of a frame's channels, `(samples,)`."""
    kind, silence, unit = _SAMPLE_TYPES[frame.format.name.removesuffix("p")]
    num_samples, planes = frame.samples, frame.planes[:MAX_CHANNELS]  # PyAV sees a ninth where there are eight
    if len(planes) > 1:
        num_channels = len(planes)
        total = np.frombuffer(planes[0], kind, num_samples).astype(np.float32)
        for plane in planes[1:]:
            total += np.frombuffer(plane, kind, num_samples)
    else:
        num_channels = frame.layout.nb_channels
        samples = np.frombuffer(planes[0], kind, num_samples * num_channels)
        total = samples.reshape(num_samples, num_channels).sum(axis=1, dtype=np.float32)
    if silence:
        total -= np.float32(silence * num_channels)
    total *= np.float32(unit / num_channels)
    return total


def _place(parts: list[Waveform], position: int, into: Waveform) -> int:
    """Copy samples to a position that may lie partly or wholly outside `into`; returns where they end."""
    for part in parts:
        begin, end = max(position, 0), min(position + len(part), len(into))
        if begin < end:
            into[begin:end] = part[begin - position : end - position]
        position += len(part)
    return position
