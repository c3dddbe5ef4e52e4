"""Localization and segmentation of whole videos: a map or mask for every moment.

Each moment's frame is resized whole to the model's input and combined with the window of sound around it. At the ends
of the recording the window is moved inside, as in the videos of evaluation. A model of several frames also gets the
frames around the moment. Results come batch by batch, so that a video of hours needs no more memory than one of
seconds.

Shape legend: `B` moments of a batch, `K` maps (classes, or one), `R C` rows and columns of a map, `H W` pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepavfusion.audio import SAMPLE_RATE, log_mel
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.views import seconds
from deepavfusion.data.waveforms import continue_sound
from deepavfusion.images import normalize
from deepavfusion.inference.inputs import Recording
from deepavfusion.inference.sliding_sound import SlidingSound
from deepavfusion.inference.timeline import Compute, Progress, read_frames, to_images
from deepavfusion.inference.windows import around, times_around
from deepavfusion.metrics.semantic_segmentation import semantic_labels
from deepavfusion.models.config import EarlyFusionConfig
from deepavfusion.models.localizer import Localizer
from deepavfusion.models.no_numbers import check_numbers
from deepavfusion.models.segmenter import Segmenter

MOMENTS_AT_ONCE = 64
"""Frames read in one pass over a file: after each, decoding starts again at a key frame."""


@dataclass(frozen=True)
class MapBatch:
    """Results of consecutive moments."""

    times_seconds: NDArray[np.float64]
    """`(B,)`."""
    maps: NDArray[Any]
    """Scores `(B, K, R, C)` float32 in [0, 1], or masks `(B, H, W)` uint8 of class numbers."""
    scores: NDArray[np.float32]
    """`(B, K)`: of a map its pooled score in [0, 1]; of a mask the share of the picture that each class has, the
    background included."""


def localize_moments(
    model: Localizer, recording: Recording, times: NDArray[np.float64], compute: Compute, progress: Progress | None
) -> Iterator[MapBatch]:
    """Score maps of moments. A moment after the end of the sound is seen with silence.

    Raises:
        MediaError: the recording cannot be read.
        ValueError: it has no picture or no sound.
    """
    check_tracks(recording, hears=True)
    for moments, image, audio, _ in _inputs(recording, model.config.encoder, times, compute, progress):
        with torch.inference_mode(), compute.autocast():
            out = model(image, audio)
        check_numbers(out.maps, out.pooled)
        yield MapBatch(moments, out.maps.sigmoid().float().cpu().numpy(), out.pooled.sigmoid().float().cpu().numpy())


def segment_moments(
    model: Segmenter, recording: Recording, times: NDArray[np.float64], compute: Compute, progress: Progress | None
) -> Iterator[MapBatch]:
    """Masks of moments: the best class of every pixel, or 1 where its probability exceeds one half.

    A moment after the end of the sound is segmented unheard.

    Raises:
        MediaError: the recording cannot be read.
        ValueError: it has no picture, or no sound for a model that listens.
    """
    check_tracks(recording, hears=model.config.hears)
    count = max(2, model.config.num_logits)
    for moments, image, audio, heard in _inputs(recording, model.config.encoder, times, compute, progress):
        with torch.inference_mode(), compute.autocast():
            logits = model(image, audio, None, heard).float()
        check_numbers(logits)
        chosen = logits[:, 0] > 0 if logits.shape[1] == 1 else semantic_labels(logits).clamp_min(0)
        masks = chosen.to(torch.uint8).cpu().numpy()
        shares = np.stack([np.bincount(mask.reshape(-1), minlength=count) / mask.size for mask in masks])
        yield MapBatch(moments, masks, shares.astype(np.float32))


def check_tracks(recording: Recording, hears: bool) -> None:
    """Raise ValueError unless there is a picture to look at, and a sound if one is needed."""
    if not recording.info.has_picture:
        raise ValueError(f"{recording.name}: has no picture to show a place in")
    if hears and not recording.info.has_sound:
        raise ValueError(f"{recording.name}: has no sound; nothing in it sounds")


def _inputs(
    recording: Recording,
    config: EarlyFusionConfig,
    times: NDArray[np.float64],
    compute: Compute,
    progress: Progress | None,
) -> Iterator[tuple[NDArray[np.float64], Tensor, Tensor, Tensor]]:
    """Moments, pictures as the model takes them, log-mel `(B, 1, M, T)` and whether there is sound, `(B,)`."""
    window, length, sound = seconds(config), recording.info.duration_seconds, SlidingSound(recording)
    count, crop = round(window * SAMPLE_RATE), FrameCrop.whole(config.image_size)
    for begin in range(0, len(times), MOMENTS_AT_ONCE):
        moments = times[begin : begin + MOMENTS_AT_ONCE]
        frames = read_frames(recording, times_around(moments, window, config.num_frames, length), crop)
        for first in range(0, len(frames), compute.batch_size):
            images = frames[first : first + compute.batch_size]
            moments = times[begin + first : begin + first + len(images)]
            waveforms, heard = np.zeros((len(images), count), np.float32), []
            for row, moment in zip(waveforms, moments, strict=True):
                own = sound.window(around(float(moment), window, length), window)
                heard.append(len(own) > 0)
                if len(own):
                    row[:] = continue_sound(own, count)
            yield (
                moments,
                normalize(to_images(images).to(compute.device)),
                log_mel(torch.from_numpy(waveforms).to(compute.device), config.audio_size[0]),
                torch.tensor(heard, device=compute.device),
            )
            if progress is not None:
                progress(min(length, float(moments[-1])), length)
