"""Classification and embedding of whole recordings: one result per window.

Windows are those of evaluation: the sound of a window, continued by its time-reversal where it is short, and the centre
crop of the frame in the window's middle, or of the frames of a model of several.

Shape legend: `B` windows of a batch, `N` frames of each, `T` windows of a recording, `C` classes, `D` width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepavfusion.audio import SAMPLE_RATE, log_mel
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.views import centre_crop, image_shape, seconds
from deepavfusion.data.waveforms import continue_sound
from deepavfusion.images import normalize
from deepavfusion.inference.inputs import Recording
from deepavfusion.inference.shared_film import SharedFilm
from deepavfusion.inference.sliding_sound import SlidingSound
from deepavfusion.inference.steps import Steps
from deepavfusion.inference.windows import Windows, split
from deepavfusion.models.classifier import AudioVisualClassifier, mean_pool, streams_of
from deepavfusion.models.config import EarlyFusionConfig
from deepavfusion.models.encoder import EarlyFusionEncoder, EncoderOutput
from deepavfusion.models.no_numbers import check_numbers


@dataclass(frozen=True)
class WindowBatch:
    """Model inputs of consecutive windows; what a window lacks is zero and not present."""

    image: Tensor
    """`(B, 3, H, W)` ImageNet-normalised, of several frames `(B, N, 3, H, W)`."""
    audio: Tensor
    """`(B, 1, M, T)` log-mel."""
    image_present: Tensor
    """`(B,)` bool."""
    audio_present: Tensor
    """`(B,)` bool."""
    end_seconds: float
    """Where the last window ends."""
    encoded: dict[int, EncoderOutput] = field(default_factory=dict)
    """What encoders made of it, by identity."""

    def tokens(self, encoder: EarlyFusionEncoder, compute: Compute) -> EncoderOutput:
        """What an encoder makes of it: computed once, whoever asks."""
        if id(encoder) not in self.encoded:
            with torch.inference_mode(), compute.autocast():
                self.encoded[id(encoder)] = encoder(
                    self.image, self.audio, image_present=self.image_present, audio_present=self.audio_present
                )
        return self.encoded[id(encoder)]


@dataclass(frozen=True)
class Compute:
    """How a forward pass runs."""

    device: torch.device
    dtype: torch.dtype | None = None
    """Under autocast; None is plain float32."""
    batch_size: int = 16
    """Windows or frames per forward pass."""

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)


def windows_of(recording: Recording, config: EarlyFusionConfig, hop_seconds: float | None) -> Windows:
    """The windows of a recording; by default they overlap by half."""
    window = seconds(config)
    return split(recording.info.duration_seconds, window, window / 2 if hop_seconds is None else hop_seconds)


def window_batches(
    recording: Recording,
    film: SharedFilm,
    config: EarlyFusionConfig,
    windows: Windows,
    compute: Compute,
) -> Iterator[WindowBatch]:
    """Inputs of all windows in their order, a batch at a time; what they see is asked of the film at once.

    Raises:
        MediaError: the recording cannot be read.
    """
    info, times = recording.info, windows.frame_seconds(config.num_frames)
    seen = None
    if info.has_picture:
        seen = film.reader(times, centre_crop(info.height, info.width, config.image_size))

    def batches() -> Iterator[WindowBatch]:
        sound, count = SlidingSound(recording), round(seconds(config) * SAMPLE_RATE)
        try:
            for first in range(0, len(windows.start_seconds), compute.batch_size):
                part = slice(first, first + compute.batch_size)
                starts = windows.start_seconds[part]
                frames = np.zeros((len(starts), *image_shape(config.num_frames, config.image_size)), np.uint8)
                if seen is not None:
                    frames = seen.at(times[part])
                waveforms, heard = np.zeros((len(starts), count), np.float32), []
                for row, start in zip(waveforms, starts, strict=True):
                    own = sound.window(float(start), seconds(config))
                    heard.append(len(own) > 0)
                    if len(own):
                        row[:] = continue_sound(own, count)
                yield WindowBatch(
                    normalize(to_images(frames).to(compute.device)),
                    log_mel(torch.from_numpy(waveforms).to(compute.device), config.audio_size[0]),
                    torch.full((len(starts),), seen is not None, device=compute.device),
                    torch.tensor(heard, device=compute.device),
                    float(starts[-1]) + windows.length_seconds,
                )
        finally:
            if seen is not None:
                seen.close()

    return batches()


class Film(Protocol):
    """Whatever has frames: a recording, or an opened clip."""

    def frames(self, times_seconds: Sequence[float], crop: FrameCrop) -> NDArray[np.uint8]: ...


def read_frames(film: Film, times_seconds: NDArray[np.float64], crop: FrameCrop) -> NDArray[np.uint8]:
    """The frames at times `(B, N)` in any order, in one pass: `(B, N, H, W, 3)`, for one frame each `(B, H, W, 3)`.

    Raises:
        MediaError or ClipError: they cannot be read.
    """
    ascending, places = np.unique(times_seconds, return_inverse=True)
    frames = film.frames(ascending.tolist(), crop)[places.reshape(times_seconds.shape)]
    return frames[:, 0] if times_seconds.shape[1] == 1 else frames


def to_images(frames: NDArray[np.uint8]) -> Tensor:
    """`(..., H, W, 3)` to `(..., 3, H, W)`."""
    return torch.from_numpy(frames).movedim(-1, -3).contiguous()


def still_images(pictures: Tensor, num_frames: int) -> Tensor:
    """Pictures `(N, 3, H, W)` as a model of several frames takes them, `(N, num_frames, 3, H, W)`: nothing moves."""
    return pictures if num_frames == 1 else pictures[:, None].expand(-1, num_frames, -1, -1, -1)


def check_modality(model: AudioVisualClassifier, recording: Recording) -> None:
    """Raise ValueError unless there is what a model of one modality looks at."""
    lacking = {"image": "picture", "audio": "sound"}.get(model.config.modalities)
    if lacking is not None and not getattr(recording.info, f"has_{lacking}"):
        raise ValueError(f"{recording.name}: has no {lacking}, which is all that this model uses")


def class_logits(
    model: AudioVisualClassifier,
    encoder: EarlyFusionEncoder,
    name: str,
    batches: Iterator[WindowBatch],
    compute: Compute,
) -> Steps[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Logits `(T, C)` of every window, averaged over the heads, and whether there was anything to read, `(T,)`.

    Args:
        model: the classifier.
        encoder: its encoder, or one of the same weights that others ask too.
        name: of the recording.
        batches: of all windows.
        compute: how.

    Raises:
        MediaError: the recording cannot be read.
        ValueError: it has nothing that the model looks at.
        NoNumbersError: the model's answer is not finite.
    """
    logits, present = [], []
    for batch in batches:
        with torch.inference_mode(), compute.autocast():
            if model.config.modalities == "both":
                pooled = model.pool(streams_of(batch.tokens(encoder, compute)))
                out = model.classify(pooled, batch.image_present, batch.audio_present)
            else:
                out = model(batch.image, batch.audio, batch.image_present, batch.audio_present)
        has = torch.stack(list(out.present.values())).any(dim=0)
        check_numbers(out.average[has])
        logits.append(out.average.float().cpu().numpy())
        present.append(has.cpu().numpy())
        yield batch.end_seconds
    rows, flags = np.concatenate(logits), np.concatenate(present)
    if not flags.any():
        raise ValueError(f"{name}: has nothing that this model uses")
    return rows, flags


def features(
    encoder: EarlyFusionEncoder, batches: Iterator[WindowBatch], compute: Compute
) -> Steps[tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.bool_]]]]:
    """The mean token `(T, D)` of every stream of every window, and whether the window has the stream, `(T,)`.

    Raises:
        MediaError: the recording cannot be read.
    """
    # Bytes in one block each: small arrays kept between large tensors would hold the memory of these.
    rows: dict[str, bytearray] = {}
    flags: dict[str, bytearray] = {}
    dims: dict[str, int] = {}
    for batch in batches:
        with torch.inference_mode(), compute.autocast():
            means = mean_pool(streams_of(batch.tokens(encoder, compute)))
        has = {"image": batch.image_present, "audio": batch.audio_present}
        has["fusion"] = has["image"] | has["audio"]
        for stream, mean in means.items():
            check_numbers(mean[has[stream]])
            rows.setdefault(stream, bytearray()).extend(mean.float().cpu().numpy().tobytes())
            flags.setdefault(stream, bytearray()).extend(has[stream].cpu().numpy().tobytes())
            dims[stream] = mean.shape[1]
        yield batch.end_seconds
    vectors = {stream: np.frombuffer(own, np.float32).reshape(-1, dims[stream]) for stream, own in rows.items()}
    return vectors, {stream: np.frombuffer(own, np.bool_) for stream, own in flags.items()}
