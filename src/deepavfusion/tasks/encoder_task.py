"""What all tasks on a pre-trained encoder have in common: where its weights come from and how fast it learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol, cast

import torch
from torch import nn

from deepavfusion.configuration import EncoderRunConfig
from deepavfusion.data.loading import StepSampler
from deepavfusion.models.config import EarlyFusionConfig
from deepavfusion.models.encoder import EarlyFusionEncoder
from deepavfusion.models.token_norm import TokenNorm, measuring
from deepavfusion.storage.starting_point import encoder_config, load_encoder
from deepavfusion.training.task import Task

NUM_MEASURED = 128
"""Training samples, the first ones, that tell how the tokens are scaled which heads read."""


class EncoderModel(Protocol):
    """A model with an encoder inside."""

    @property
    def encoder(self) -> EarlyFusionEncoder: ...
    def layer_ids(self) -> dict[str, int]: ...


def starting_config(config: EncoderRunConfig) -> EarlyFusionConfig:
    """The encoder that a run starts from, with the frames that it wants.

    Raises:
        ValueError: as `encoder_config`, or a number of frames that is none.
    """
    encoder = encoder_config(config.from_)
    return encoder if config.num_frames is None else replace(encoder, num_frames=config.num_frames)


class EncoderTask:
    """Base of the tasks on an encoder; each has a configuration with `from_` and `untrained`."""

    config: EncoderRunConfig

    def load_published(self, model: nn.Module, say: Callable[[str], None]) -> None:
        """The encoder's weights, unless an untrained one is wanted, and how its tokens are scaled."""
        if self.config.untrained:
            say(f"untrained encoder as configured in {self.config.from_}")
        else:
            say(f"encoder from {self.load_weights(cast(EncoderModel, model).encoder)}")
        self.measure_tokens(model)

    def measure_tokens(self, model: nn.Module) -> None:
        """Set the statistics of every `TokenNorm` from the first samples of training; the same in all processes."""
        if not any(isinstance(module, TokenNorm) for module in model.modules()):
            return
        training = self.config.training
        num_steps = -(-NUM_MEASURED // training.batch_size)
        sampler = StepSampler(training.batch_size, training.accumulation, 1, 0, 0, num_steps)
        was_training, task = model.training, cast(Task, self)
        with torch.random.fork_rng(devices=[]), torch.no_grad(), measuring(model.eval()):
            torch.manual_seed(training.seed)
            with task.loader(sampler, 0, torch.device("cpu")) as loader:
                for batch in loader:
                    task.loss_terms(model, task.inputs(batch))
        model.train(was_training)

    def load_weights(self, encoder: EarlyFusionEncoder) -> str:
        """Fill the encoder from the place that the configuration names; says from what."""
        return load_encoder(encoder, self.config.from_)

    def ramped(self, model: nn.Module) -> set[str]:
        """All of a pre-trained encoder: where `optim.pretrained_ramp` is not 0, new parameters learn first."""
        names = (name for name, _ in model.named_parameters())
        return set() if self.config.untrained else {name for name in names if name.startswith("encoder.")}

    def layer_ids(self, model: nn.Module) -> Mapping[str, int]:
        """Layers as the model counts them; what is not the encoder belongs to the last."""
        return cast(EncoderModel, model).layer_ids()
