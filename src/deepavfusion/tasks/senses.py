"""What the tasks do alike: make a model's inputs of a batch, tell what was left out."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from deepavfusion.audio import log_mel
from deepavfusion.data.dataset import Batch
from deepavfusion.images import normalize


def seen_and_heard(batch: Batch, num_mels: int) -> dict[str, Tensor]:
    """Normalised pictures, log-mel spectrograms of so many bands, and which clips have them, made on the device."""
    return {
        "image": normalize(batch.image),
        "audio": log_mel(batch.waveform, num_mels),
        "image_present": batch.image_present,
        "audio_present": batch.audio_present,
    }


def told(left_out: Mapping[str, int]) -> list[str]:
    """Such as `3 held out` and `1 quarantined`: what there is of what was left out."""
    return [f"{count} {why}" for why, count in left_out.items() if count]
