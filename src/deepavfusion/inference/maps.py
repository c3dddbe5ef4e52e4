"""Localization and segmentation of whole videos: a map or mask for every moment.

Each moment's frame is resized whole to the model's input and combined with the window of sound around it. At the ends
of the recording the window is moved inside, as in the videos of evaluation. A model of several frames also gets the
frames around the moment. Results come batch by batch, so that a video of hours needs no more memory than one of
seconds.

Shape legend: `B` moments of a batch, `K` maps (classes, or one), `R C` rows and columns of a map, `H W` pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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
from deepavfusion.inference.shared_film import SharedFilm
from deepavfusion.inference.sliding_sound import SlidingSound
from deepavfusion.inference.timeline import Compute, to_images
from deepavfusion.inference.windows import around, times_around
from deepavfusion.metrics.semantic_segmentation import semantic_labels
from deepavfusion.models.config import EarlyFusionConfig
from deepavfusion.models.encoder import EarlyFusionEncoder, EncoderOutput
from deepavfusion.models.localizer import Localizer
from deepavfusion.models.no_numbers import check_numbers
from deepavfusion.models.segmenter import Segmenter


@dataclass(frozen=True)
class MomentBatch:
    """Model inputs of consecutive moments."""

    times_seconds: NDArray[np.float64]
    """`(B,)`."""
    image: Tensor
    """`(B, 3, H, W)` ImageNet-normalised, of several frames `(B, N, 3, H, W)`."""
    audio: Tensor
    """`(B, 1, M, T)` log-mel."""
    heard: Tensor | None
    """`(B,)` bool: whether there is sound; None if there is at all of them."""
    encoded: dict[tuple[int, bool], EncoderOutput] = field(default_factory=dict)
    """What encoders made of it, by identity and whether they were told what is heard."""

    def tokens(self, encoder: EarlyFusionEncoder, compute: Compute, told: bool) -> EncoderOutput:
        """What an encoder makes of it, with every layer: computed once, whoever asks.

        Args:
            encoder: in evaluation mode.
            compute: how.
            told: whether moments without sound are marked as such; else silence is heard.
        """
        heard = self.heard if told else None
        key = id(encoder), heard is not None
        if key not in self.encoded:
            with torch.inference_mode(), compute.autocast():
                self.encoded[key] = encoder(self.image, self.audio, return_layers=True, audio_present=heard)
        return self.encoded[key]


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
    model: Localizer, encoder: EarlyFusionEncoder, batches: Iterable[MomentBatch], compute: Compute
) -> Iterator[MapBatch]:
    """Score maps of moments. A moment after the end of the sound is seen with silence.

    Args:
        model: the localizer.
        encoder: its encoder, or one of the same weights that others ask too.
        batches: of all moments.
        compute: how.

    Raises:
        MediaError: the recording cannot be read.
    """
    for batch in batches:
        with torch.inference_mode(), compute.autocast():
            out = model.answer(batch.image, batch.tokens(encoder, compute, told=False))
        check_numbers(out.maps, out.pooled)
        maps, pooled = (t.sigmoid().float().cpu().numpy() for t in (out.maps, out.pooled))
        yield MapBatch(batch.times_seconds, maps, pooled)


def segment_moments(
    model: Segmenter, encoder: EarlyFusionEncoder, batches: Iterable[MomentBatch], compute: Compute
) -> Iterator[MapBatch]:
    """Masks of moments: the best class of every pixel, or 1 where its probability exceeds one half.

    A moment after the end of the sound is segmented unheard. Arguments and errors as of `localize_moments`.
    """
    count = max(2, model.config.num_logits)
    for batch in batches:
        with torch.inference_mode(), compute.autocast():
            if model.config.hears:
                tokens = batch.tokens(encoder, compute, told=True)
                logits = model.answer(batch.image, tokens, batch.heard)
            else:
                logits = model(batch.image, None)
        check_numbers(logits)
        chosen = logits[:, 0] > 0 if logits.shape[1] == 1 else semantic_labels(logits).clamp_min(0)
        masks = chosen.to(torch.uint8).cpu().numpy()
        shares = np.stack([np.bincount(mask.reshape(-1), minlength=count) / mask.size for mask in masks])
        yield MapBatch(batch.times_seconds, masks, shares.astype(np.float32))


def check_tracks(recording: Recording, hears: bool) -> None:
    """Raise ValueError unless there is a picture to look at, and a sound if one is needed."""
    if not recording.info.has_picture:
        raise ValueError(f"{recording.name}: has no video, which this task needs")
    if hears and not recording.info.has_sound:
        raise ValueError(f"{recording.name}: has no sound, which this task needs")


def moment_batches(
    recording: Recording,
    film: SharedFilm,
    config: EarlyFusionConfig,
    times: NDArray[np.float64],
    compute: Compute,
) -> Iterator[MomentBatch]:
    """Inputs of moments, a batch at a time; what they see is asked of the film at once.

    Raises:
        MediaError: the recording cannot be read.
    """
    window, length = seconds(config), recording.info.duration_seconds
    shown = times_around(times, window, config.num_frames, length)
    seen = film.reader(shown, FrameCrop.whole(config.image_size))

    def batches() -> Iterator[MomentBatch]:
        sound, count = SlidingSound(recording), round(window * SAMPLE_RATE)
        try:
            for first in range(0, len(times), compute.batch_size):
                part = slice(first, first + compute.batch_size)
                moments, images = times[part], seen.at(shown[part])
                waveforms, heard = np.zeros((len(images), count), np.float32), []
                for row, moment in zip(waveforms, moments, strict=True):
                    own = sound.window(around(float(moment), window, length), window)
                    heard.append(len(own) > 0)
                    if len(own):
                        row[:] = continue_sound(own, count)
                yield MomentBatch(
                    moments,
                    normalize(to_images(images).to(compute.device)),
                    log_mel(torch.from_numpy(waveforms).to(compute.device), config.audio_size[0]),
                    None if all(heard) else torch.tensor(heard, device=compute.device),
                )
        finally:
            seen.close()

    return batches()
