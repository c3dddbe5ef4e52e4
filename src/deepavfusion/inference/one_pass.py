"""Several tasks on one opened recording, in one pass over it.

Frames are decoded once, sound is read once, windows and moments with the same model inputs are prepared once, and heads
on one encoder share its forward pass. The results are the same as those of each task alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepavfusion.inference.inputs import Recording
from deepavfusion.inference.maps import (
    MapBatch,
    MomentBatch,
    check_tracks,
    localize_moments,
    moment_batches,
    segment_moments,
)
from deepavfusion.inference.predictions import Classification, Embedding
from deepavfusion.inference.ready_models import ReadyModels
from deepavfusion.inference.separation import SourceBlock, separate_recording
from deepavfusion.inference.shared_film import SharedFilm
from deepavfusion.inference.sources import AskedSources
from deepavfusion.inference.steps import Shared, Steps
from deepavfusion.inference.timeline import (
    Compute,
    WindowBatch,
    check_modality,
    class_logits,
    features,
    window_batches,
    windows_of,
)
from deepavfusion.inference.windows import Windows, step_times
from deepavfusion.models.config import EarlyFusionConfig


class OnePass:
    """A recording, to be gone through once by whatever its methods began."""

    def __init__(self, models: ReadyModels, recording: Recording, compute: Compute) -> None:
        self.recording, self.film = recording, SharedFilm(recording)
        self._models, self._compute = models, compute
        self._windows: dict[Any, Shared[WindowBatch]] = {}
        self._moments: dict[Any, Shared[MomentBatch]] = {}

    def classification(self, hop_seconds: float | None) -> Steps[Classification]:
        """Classes; the first step is without a batch, as of `embedding`."""
        model, recording = self._models.classifier(), self.recording
        check_modality(model, recording)
        windows, batches = self._windows_of(model.config.encoder, hop_seconds)
        yield 0.0
        encoder = self._models.shared(model.encoder)
        logits, present = yield from class_logits(model, encoder, recording.name, batches, self._compute)
        return Classification(
            recording.name,
            recording.info.duration_seconds,
            model.config.classes,
            model.config.multi_label,
            windows.start_seconds,
            windows.length_seconds,
            logits,
            present,
        )

    def embedding(self, hop_seconds: float | None) -> Steps[Embedding]:
        """Features."""
        encoder, recording = self._models.shared(self._models.encoder()), self.recording
        windows, batches = self._windows_of(encoder.config, hop_seconds)
        yield 0.0
        rows, present = yield from features(encoder, batches, self._compute)
        duration = recording.info.duration_seconds
        return Embedding(recording.name, duration, windows.start_seconds, windows.length_seconds, rows, present)

    def times(self, step_seconds: float) -> NDArray[np.float64]:
        """The moments `(T,)` of maps."""
        return step_times(self.recording.info.duration_seconds, step_seconds)

    def localization(self, step_seconds: float) -> Iterator[MapBatch]:
        """Score maps; what they need is asked for at once, as of the methods below."""
        model = self._models.localizer()
        check_tracks(self.recording, hears=True)
        batches = self._moments_of(model.config.encoder, step_seconds)
        return localize_moments(model, self._models.shared(model.encoder), batches, self._compute)

    def segmentation(self, step_seconds: float) -> Iterator[MapBatch]:
        """Masks."""
        model = self._models.segmenter()
        check_tracks(self.recording, hears=model.config.hears)
        batches = self._moments_of(model.config.encoder, step_seconds)
        return segment_moments(model, self._models.shared(model.encoder), batches, self._compute)

    def separation(self, asked: AskedSources, consistent: bool) -> Iterator[SourceBlock]:
        """Separated sound."""
        model = self._models.separator()
        return separate_recording(model, self.recording, self.film, asked, consistent, self._compute)

    def _windows_of(self, config: EarlyFusionConfig, hop: float | None) -> tuple[Windows, Iterator[WindowBatch]]:
        windows, key = windows_of(self.recording, config, hop), (_inputs(config), hop)
        if key not in self._windows:
            self._windows[key] = Shared(window_batches(self.recording, self.film, config, windows, self._compute))
        return windows, self._windows[key].reader()

    def _moments_of(self, config: EarlyFusionConfig, step: float) -> Iterator[MomentBatch]:
        key = _inputs(config), step
        if key not in self._moments:
            batches = moment_batches(self.recording, self.film, config, self.times(step), self._compute)
            self._moments[key] = Shared(batches)
        return self._moments[key].reader()


def _inputs(config: EarlyFusionConfig) -> tuple[Any, ...]:
    """What of an encoder tells its inputs."""
    return config.image_size, config.audio_size, config.num_frames
