"""Pre-training with the method written out (`plain`), to be timed against ours."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from deepavfusion.bench import plain
from deepavfusion.models import AudioVisualMAE
from deepavfusion.tasks.pretraining import MaskedPretraining
from deepavfusion.tasks.pretraining_config import PretrainConfig


class WrittenOutPretraining(MaskedPretraining):
    """The same model, data and losses; every clip must have picture and sound."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__(config)
        self._loss = torch.compile(plain.masked_loss) if config.training.compile else plain.masked_loss

    def loss_terms(self, model: nn.Module, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Mean squared errors on hidden patches of either modality."""
        names = ("image", "audio", "image_noise", "audio_noise")
        image, audio = self._loss(cast(AudioVisualMAE, model), *(inputs[name] for name in names))
        return {"image": image, "audio": audio}
