"""The frames of a recording for several readers at once: each frame is decoded once.

All readers state which frames they need before the first is read. Then the recording is decoded once; frames that a
reader has not fetched yet are kept for it. So readers should advance together: the frames between them are in memory.

Shape legend: `T` moments, `B` those fetched at once, `N` frames of each, `H W` pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from deepavfusion.data.crops import FrameCrop
from deepavfusion.inference.inputs import Recording


class SharedFilm:
    """One pass over the pictures of a recording."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._readers: list[FilmReader] = []
        self._pass: Iterator[list[NDArray[np.uint8]]] | None = None
        self._for_whom: Iterator[list[FilmReader]] = iter(())

    def reader(self, times_seconds: NDArray[np.float64], crop: FrameCrop) -> FilmReader:
        """A reader of the frames at times `(T, N)`; to be asked for before any reader is read."""
        assert self._pass is None, "the pass has begun"
        self._readers.append(FilmReader(self, times_seconds, crop))
        return self._readers[-1]

    def advance(self) -> None:
        """Read the next picture, for all who want it.

        Raises:
            MediaError: it cannot be read.
        """
        if self._pass is None:
            by_time: dict[float, list[FilmReader]] = {}
            for reader in self._readers:
                for time in reader.times:
                    by_time.setdefault(time, []).append(reader)
            times = sorted(by_time)
            self._for_whom = iter([by_time[time] for time in times])
            self._pass = self._recording.film([(time, [r.crop for r in by_time[time]]) for time in times])
        pictures = next(self._pass)
        for reader, picture in zip(next(self._for_whom), pictures, strict=True):
            reader.take(picture)


class FilmReader:
    """What one reader sees."""

    def __init__(self, film: SharedFilm, times_seconds: NDArray[np.float64], crop: FrameCrop) -> None:
        self.times: list[float] = np.unique(times_seconds).tolist()
        self.crop = crop
        self._film, self._num_fetched = film, 0
        self._waiting: deque[NDArray[np.uint8]] = deque()
        self._held: dict[float, NDArray[np.uint8]] = {}
        self._is_open = True

    def take(self, picture: NDArray[np.uint8]) -> None:
        """The next picture has been read."""
        if self._is_open:
            self._waiting.append(picture)

    def close(self) -> None:
        """No more is wanted: nothing waits from here on."""
        self._is_open = False
        self._waiting.clear()

    def at(self, times_seconds: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The frames at the next times `(B, N)`, `(B, N, H, W, 3)`, of one frame each `(B, H, W, 3)`.

        None may lie before the earliest of those asked for last.

        Raises:
            MediaError: they cannot be read.
        """
        first, last = float(times_seconds.min()), float(times_seconds.max())
        self._held = {time: picture for time, picture in self._held.items() if time >= first}
        while self._num_fetched < len(self.times) and self.times[self._num_fetched] <= last:
            while not self._waiting:
                self._film.advance()
            self._held[self.times[self._num_fetched]] = self._waiting.popleft()
            self._num_fetched += 1
        frames = np.stack([self._held[time] for time in times_seconds.ravel().tolist()])
        return frames if times_seconds.shape[1] == 1 else frames.reshape(*times_seconds.shape, *frames.shape[1:])
