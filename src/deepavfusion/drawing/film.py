"""A film with something drawn over its pictures, and its sound: an mp4 written picture by picture.

Pictures and sound are interleaved as they come, so that neither waits in memory for the other.

Shapes: `H W` pixels, `n` samples.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from numpy.typing import NDArray

from deepavfusion.audio import SAMPLE_RATE

MAX_SIDE = 480
"""Longer side of the film, in pixels; smaller pictures stay as they are."""
MIN_SIDE = 16
OPTIONS = {"preset": "veryfast", "crf": "22", "x264-params": "mbtree=0"}
_BLOCK = 1024  # samples of an AAC frame


class OverlayVideo:
    """An mp4 file (H.264, AAC) that grows; to be used in a `with` statement. It is playable when that has ended."""

    def __init__(self, path: Path, size: tuple[int, int], frame_rate: float, has_sound: bool) -> None:
        """
        Args:
            path: the file.
            size: even height and width.
            frame_rate: pictures per second.
            has_sound: whether sound will be added.
        """
        rate = Fraction(frame_rate).limit_denominator(1001)
        self._container = av.open(str(path), "w", format="mp4")
        try:
            self._add_streams(size, rate, has_sound)
        except BaseException:
            self._container.close()
            raise
        self._waiting = np.zeros(0, np.float32)
        self._num_samples = 0

    def _add_streams(self, size: tuple[int, int], rate: Fraction, has_sound: bool) -> None:
        self._video = self._container.add_stream("libx264", rate=rate, options=dict(OPTIONS))
        self._video.height, self._video.width = size
        self._video.pix_fmt, self._video.gop_size, self._video.thread_count = "yuv420p", 50, 1
        self._audio = self._container.add_stream("aac", rate=SAMPLE_RATE, layout="mono") if has_sound else None

    def __enter__(self) -> OverlayVideo:
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
        """The next picture, `(H, W, 3)` of the film's size."""
        self._container.mux(self._video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")))

    def add_sound(self, waveform: NDArray[np.float32]) -> None:
        """The next samples at 16 kHz, `(n,)`."""
        waiting = np.concatenate([self._waiting, waveform])
        whole = len(waiting) // _BLOCK * _BLOCK
        self._encode(waiting[:whole])
        self._waiting = waiting[whole:]

    def _encode(self, waveform: NDArray[np.float32]) -> None:
        assert self._audio is not None
        for first in range(0, len(waveform), _BLOCK):
            block = av.AudioFrame.from_ndarray(waveform[None, first : first + _BLOCK], "fltp", "mono")
            block.sample_rate, block.pts, block.time_base = SAMPLE_RATE, self._num_samples, Fraction(1, SAMPLE_RATE)
            self._num_samples += block.samples
            self._container.mux(self._audio.encode(block))


def film_size(height: int, width: int) -> tuple[int, int]:
    """Even height and width of the film of pictures of a size."""
    scale = min(1.0, MAX_SIDE / max(height, width))
    rows, columns = (max(MIN_SIDE, 2 * round(side * scale / 2)) for side in (height, width))
    return rows, columns
