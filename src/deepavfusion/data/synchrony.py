"""Which parts of the frame move when something sounds, computed from the video alone, without boxes or labels.

A struck string swings, a bow turns, a mouth opens at the moment of the sound. Where the change of a cell of the frame
over time is correlated with the onsets of the sound, the source is likely to be; an instrument that mimes to another
score, or stands still, is not correlated. Light that flashes with the sound also falls on what is beside the source. So
changes are those of edges and texture: of the frame without its smooth part, divided by the contrast around; and where
little changes, a correlation counts less.

The idea is old (Hershey and Movellan 2000, "Audio vision: using audio-visual synchrony to locate sounds") and weak for
one clip. But over many clips it is enough to teach a model which sound belongs to what, also in a single image.

Shape legend: `T` frames, `h w` cells down and across, `H W` pixels, `M` mel bands, `F` frames of the log-mel
spectrogram.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from deepavfusion.audio import FRAMES_PER_SECOND, SAMPLE_RATE, log_mel
from deepavfusion.data.clips import Clip, ClipError
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.media import MediaError
from deepavfusion.data.stored_media import open_media
from deepavfusion.data.views import OpenClip

UNDECIDED = 2
"""Number of cells that may or may not belong to the source."""
SYNCHRONOUS, ASYNCHRONOUS = 0.2, 0.1
"""Synchrony from which on a cell belongs to the source, and below which it does not."""
SMALL_CHANGE = 0.2
"""Standard deviation over time of a cell's change at which its correlation counts half."""
GRID, CELL = 20, 8
"""Cells down and across, and the pixels on a side of one, of the picture squeezed to a square."""
FRAME_RATE = 12.5
"""Frames looked at per second."""
STRETCH_SECONDS = 10.0
"""The longest stretch that is correlated: a short clip whole, of a longer one what lies around the window."""
LEAST_FRAMES = 16
"""Under so many frames a correlation says nothing."""
EDGE_SIGMA, CONTRAST_SIGMA = 1.0, 2.0
"""Standard deviations in pixels of the smooth part of a frame, and of the surroundings that give its contrast."""
NO_CONTRAST = 4.0
"""Contrast, in 256ths of white, far below which a cell counts as flat, so that noise does not count as texture."""
DYNAMIC_RANGE = 3.0
"""Decades of power below the loudest cell of a spectrogram under which nothing is heard."""


class SynchronyMasks:
    """1 where the picture changes with the onsets of the sound, `UNDECIDED` where it may, else 0.

    A clip of one stretch is correlated once and then remembered.
    """

    def __init__(self) -> None:
        self._known: dict[str, NDArray[np.uint8]] = {}

    def times(self, clip: Clip) -> Sequence[float]:
        """None: cells are taken to hold for all of a stretch."""
        return ()

    def read(self, clip: Clip, frame_seconds: float, start_seconds: float, end_seconds: float) -> NDArray[np.uint8]:
        """`(20, 20)`. Raises ClipError for a clip that is no video file, or cannot be read."""
        if clip.path in self._known:
            return self._known[clip.path]
        if clip.storage not in ("file", "row"):
            raise ClipError(clip.id, f"{clip.storage} storage has too few frames; give the clips' files or manifest")
        try:
            with open_media(clip.path) as media:
                duration = media.info.duration_seconds
                middle = (start_seconds + end_seconds) / 2
                begin = min(max(middle - STRETCH_SECONDS / 2, 0.0), max(duration - STRETCH_SECONDS, 0.0))
                mask = decide(correlate(media, begin, min(duration - begin, STRETCH_SECONDS)))
        except (MediaError, ValueError) as error:
            raise ClipError(clip.id, str(error)) from error
        if duration <= STRETCH_SECONDS:
            self._known[clip.path] = mask
        return mask


def correlate(media: OpenClip, start_seconds: float, duration_seconds: float) -> NDArray[np.float64]:
    """Synchrony `(20, 20)` of a stretch of a file, in [-1, 1]; 0 throughout where it is too short.

    Raises:
        MediaError: it cannot be read.
        ValueError: it has no picture or no sound.
    """
    num_frames = int(duration_seconds * FRAME_RATE)
    if num_frames < LEAST_FRAMES:
        return np.zeros((GRID, GRID))
    times = np.arange(num_frames) / FRAME_RATE
    crop = FrameCrop.whole((GRID * CELL, GRID * CELL))
    frames = media.frames([start_seconds + time for time in times], crop)
    sound = media.sound(start_seconds, duration_seconds, SAMPLE_RATE)
    sound = np.pad(sound, (0, max(0, round(duration_seconds * SAMPLE_RATE) - len(sound))))
    spectrogram = log_mel(torch.from_numpy(sound)[None])[0, 0].numpy()
    return synchrony(visual_change(frames), onset_strength(spectrogram, times))


def visual_change(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How much the texture of every cell changes from one frame to the next, whatever the light does.

    Args:
        frames: `(T, H, W, 3)`, sides divisible by `CELL`.

    Returns:
        `(T - 1, h, w)`, root of the mean absolute difference of its pixels after `texture`. The root keeps one large
        movement from deciding a correlation.
    """
    x = texture(torch.from_numpy(np.ascontiguousarray(frames)).float().permute(0, 3, 1, 2))
    change = x.diff(dim=0).abs().mean(dim=1, keepdim=True)
    return F.avg_pool2d(change, CELL)[:, 0].sqrt().double().numpy()


def texture(frames: Tensor) -> Tensor:
    """Frames `(T, 3, H, W)` in 0 to 255 without their smooth part, divided by the contrast around each pixel."""
    edges = frames - blurred(frames, EDGE_SIGMA)
    return edges / (blurred(edges.square(), CONTRAST_SIGMA).sqrt() + NO_CONTRAST)


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Images `(T, C, H, W)` convolved with a Gaussian of three standard deviations either way, mirrored outside."""
    return _gaussian(x.shape[-2], sigma) @ x @ _gaussian(x.shape[-1], sigma).T


@lru_cache(maxsize=8)
def _gaussian(size: int, sigma: float) -> Tensor:
    """The convolution of one axis as a matrix `(size, size)`: on small images a product is ten times as fast."""
    radius = math.ceil(3 * sigma)
    kernel = torch.exp(-torch.arange(-radius, radius + 1).square() / (2 * sigma**2))
    mirrored = F.pad(torch.eye(size)[None], (radius, radius), mode="reflect").transpose(0, 1)
    return F.conv1d(mirrored, (kernel / kernel.sum()).view(1, 1, -1))[:, 0].T.contiguous()


def onset_strength(log_mel: NDArray[np.float32], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much the sound rises between one frame and the next.

    Args:
        log_mel: `(M, F)`, 64 columns a second.
        times: `(T,)` of the frames, in seconds, ascending.

    Returns:
        `(T - 1,)`: of the columns between two frames the largest rise over two columns, summed over what rises and
        averaged over bands.
    """
    loud = np.maximum(log_mel, log_mel.max() - DYNAMIC_RANGE)
    rise = np.zeros(loud.shape[1])
    rise[2:] = np.maximum(loud[:, 2:] - loud[:, :-2], 0).mean(axis=0)
    # A frame shows what has happened by then: a column that begins within it may still fall to it.
    edges = np.clip(np.ceil(times * FRAMES_PER_SECOND).astype(int), 0, len(rise))
    return np.array([rise[low : max(high + 1, low + 1)].max(initial=0) for low, high in pairwise(edges)])


def synchrony(change: NDArray[np.float64], onsets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation over time of every cell's change `(T - 1, h, w)` with the onsets `(T - 1,)`, shrunk where little
    changes: `(h, w)` in (-1, 1).

    The covariance is divided by the standard deviation of the onsets and by that of the cell plus `SMALL_CHANGE`. So a
    cell on which no more than light or noise from the source falls is below the source. 0 where a cell never changes or
    the sound never rises.
    """
    x, y = change - change.mean(axis=0), onsets - onsets.mean()
    together = (x * y[:, None, None]).mean(axis=0)
    size = (np.sqrt((x**2).mean(axis=0)) + SMALL_CHANGE) * np.sqrt((y**2).mean())
    return together / size if size.all() else np.zeros_like(size)


def decide(found: NDArray[np.float64]) -> NDArray[np.uint8]:
    """1 for a cell of the source, 0 for one that is not, `UNDECIDED` between."""
    numbers = np.where(found >= ASYNCHRONOUS, UNDECIDED, 0)
    return np.where(found >= SYNCHRONOUS, 1, numbers).astype(np.uint8)
