"""Base of all models on an early-fusion encoder: layer numbers, frozen encoder, unused parameters.

Shape legend: `H W` pixels, `T` frames.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from deepavfusion.models.config import EarlyFusionConfig
from deepavfusion.models.encoder import EarlyFusionEncoder
from deepavfusion.saved_model import PretrainedModel


class HasEncoder(Protocol):
    """A model configuration with an encoder in it."""

    @property
    def encoder(self) -> EarlyFusionConfig: ...


class EncoderModel(nn.Module, PretrainedModel):
    """The early-fusion encoder and, in subclasses, what is built on it."""

    def __init__(self, config: HasEncoder) -> None:
        super().__init__()
        self.encoder = EarlyFusionEncoder(config.encoder)

    def layer_ids(self) -> dict[str, int]:
        """The layer number of every parameter: those of the encoder, and the last for all that stands on it."""
        ids = {f"encoder.{name}": i for name, i in self.encoder.layer_ids().items()}
        last = self.encoder.config.depth + 1
        return {name: ids.get(name, last) for name, _ in self.named_parameters()}

    def freeze_encoder(self) -> None:
        """Leave the encoder as it is from here on: no gradients, no drop path."""
        self.encoder.freeze()

    def freeze_unused(self) -> None:
        """Take out of training what cannot influence the answer, such as final norms that no head reads.

        It would get no gradient, and saying so is what training in several processes needs. Found by one backward
        pass from `blank_answer`.
        """
        was_training = self.training
        with torch.enable_grad():
            self.eval().blank_answer().sum().backward()
        for parameter in self.parameters():
            if parameter.grad is None:
                parameter.requires_grad_(False)
            parameter.grad = None
        self.train(was_training)

    def blank_answer(self) -> Tensor:
        """What the model says, in real numbers, of a blank sample of every input."""
        raise NotImplementedError

    def blank_image(self) -> Tensor:
        """`(1, 3, H, W)`, of several frames `(1, T, 3, H, W)`, zeros."""
        return torch.zeros(1, *self.encoder.config.image_shape, device=self.encoder.fusion_tokens.device)

    def blank_audio(self) -> Tensor:
        """`(1, 1, mels, frames)`, zeros."""
        return torch.zeros(1, 1, *self.encoder.config.audio_size, device=self.encoder.fusion_tokens.device)
