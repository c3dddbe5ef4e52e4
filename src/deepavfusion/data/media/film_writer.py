"""Writing of mp4 videos (H.264, AAC), frame by frame and sample by sample.

Frames and sound are interleaved as they come, so that neither waits in memory for the other.

Shapes: `T` frames, `H W` pixels, `n` samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from numpy.typing import NDArray

_BLOCK = 1024  # samples of an AAC frame


@dataclass(frozen=True)
class FilmQuality:
    """How a film is encoded."""

    video: Mapping[str, str]
    """Options of x264. Without mbtree=0 in x264-params the bytes vary from run to run: x264's assembly for it reads
    memory that it has not set."""
    audio: Mapping[str, str] = field(default_factory=dict)
    """Options of the AAC encoder."""
    audio_bit_rate: int | None = None
    """None leaves it to the encoder."""
    key_frame_every: int | None = None
    """Pictures; None leaves it to the encoder."""
    threads: int | None = 1
    """Of the picture's encoder; None leaves it to the encoder."""


class FilmWriter:
    """A film that grows, to be used in a `with` statement; it is playable when that has ended."""

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int],
        frame_rate: float | Fraction,
        sample_rate: int | None,
        quality: FilmQuality,
    ) -> None:
        """
        Args:
            path: the file.
            size: even height and width.
            frame_rate: pictures per second.
            sample_rate: of the sound that will be added; None for a silent film.
            quality: how it is encoded.
        """
        self._sample_rate = sample_rate
        self._waiting = np.zeros(0, np.float32)
        self._num_samples = 0
        self._container = av.open(str(path), "w", format="mp4")
        try:
            self._add_streams(size, Fraction(frame_rate).limit_denominator(1001), quality)
        except BaseException:
            self._container.close()
            raise

    def _add_streams(self, size: tuple[int, int], rate: Fraction, quality: FilmQuality) -> None:
        self._video = self._container.add_stream("libx264", rate=rate, options=dict(quality.video))
        self._video.height, self._video.width = size
        self._video.pix_fmt = "yuv420p"
        if quality.key_frame_every is not None:
            self._video.gop_size = quality.key_frame_every
        if quality.threads is not None:
            self._video.thread_count = quality.threads
        self._audio = None
        if self._sample_rate is not None:
            options = dict(quality.audio)
            self._audio = self._container.add_stream("aac", rate=self._sample_rate, layout="mono", options=options)
            if quality.audio_bit_rate is not None:
                self._audio.bit_rate = quality.audio_bit_rate

    def __enter__(self) -> FilmWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._container.mux(self._video.encode(None))
                if self._audio is not None:
                    self._encode(self._waiting)
                    self._container.mux(self._audio.encode(None))
        finally:
            self._container.close()

    def add_picture(self, picture: NDArray[np.uint8]) -> None:
        """Append a frame, `(H, W, 3)` of the video's size."""
        self._container.mux(self._video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")))

    def add_sound(self, waveform: NDArray[np.float32]) -> None:
        """The next samples, `(n,)`."""
        waiting = np.concatenate([self._waiting, waveform])
        whole = len(waiting) // _BLOCK * _BLOCK
        self._encode(waiting[:whole])
        self._waiting = waiting[whole:]

    def _encode(self, waveform: NDArray[np.float32]) -> None:
        assert self._audio is not None
        assert self._sample_rate is not None
        for first in range(0, len(waveform), _BLOCK):
            block = av.AudioFrame.from_ndarray(waveform[None, first : first + _BLOCK], "fltp", "mono")
            block.sample_rate, block.pts = self._sample_rate, self._num_samples
            block.time_base = Fraction(1, self._sample_rate)
            self._num_samples += block.samples
            self._container.mux(self._audio.encode(block))


def write_film(
    path: str | Path,
    frames: Iterable[NDArray[np.uint8]],
    sound: NDArray[np.float32],
    frame_rate: float | Fraction,
    sample_rate: int,
    quality: FilmQuality,
) -> None:
    """Write pictures `(T, H, W, 3)`, at least one, and sound `(n,)`, both from time 0."""
    pictures = iter(frames)
    first = next(pictures)
    with FilmWriter(path, (first.shape[0], first.shape[1]), frame_rate, sample_rate, quality) as film:
        film.add_picture(first)
        for picture in pictures:
            film.add_picture(picture)
        film.add_sound(sound)
