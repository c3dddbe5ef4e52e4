"""Base of all tasks on a pre-trained encoder: its weights, and its learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor

from deepavfusion.configuration import EncoderRunConfig
from deepavfusion.data.loading import StepSampler
from deepavfusion.evaluation.loop import Exchange, OneProcess
from deepavfusion.models.config import EarlyFusionConfig, FramesEncoded
from deepavfusion.models.encoder import EarlyFusionEncoder
from deepavfusion.models.encoder_model import EncoderModel
from deepavfusion.models.token_norm import recording, token_norms
from deepavfusion.storage.starting_point import encoder_config, load_encoder
from deepavfusion.storage.trained_models import open_models
from deepavfusion.tasks.adapters import add_adapters, fill_adapted, merge_adapters
from deepavfusion.training.task import Task

Model = TypeVar("Model", bound=EncoderModel)
Kept = TypeVar("Kept")
NUM_MEASURED = 128
"""Number of training samples, the first ones, on which the statistics of heads' input features are measured."""
MEASURED_BATCH = 32
"""Of these at most so many at a time, for a few processes to share them."""
HERE = OneProcess(torch.device("cpu"))


def starting_config(
    config: EncoderRunConfig, encode_frames: FramesEncoded = "all", kept: EarlyFusionConfig | None = None
) -> EarlyFusionConfig:
    """The encoder that a run starts from, with the frames that it wants and those of them that are encoded.

    Args:
        config: of the run.
        encode_frames: as the task's configuration has it.
        kept: the encoder of the trained model that the run continues from.

    Raises:
        ValueError: as `encoder_config`, a number of frames that is none, or one frame to choose from.
    """
    encoder = encoder_config(config.from_) if kept is None else kept
    if config.num_frames is not None:
        encoder = replace(encoder, num_frames=config.num_frames, encode_frames="all")
    if encode_frames == "all":
        return encoder
    if encoder.num_frames == 1:
        raise ValueError(f"encode_frames {encode_frames}: there is one frame; set --num_frames too")
    return replace(encoder, encode_frames=encode_frames)


def kept_config(place: str, kind: type[Kept], task: str, classes: Sequence[str]) -> Kept:
    """The configuration of the trained model of a task that a run continues from.

    Raises:
        ValueError: there is none of this task, or it knows other classes.
    """
    config = open_models(place).load(task).config
    assert isinstance(config, kind)
    known: Sequence[str] = getattr(config, "classes", ())
    if tuple(known) != tuple(classes):
        raise ValueError(
            f"keep_heads true: the {task} model in --from {place} knows {len(known)} classes, not the "
            f"{len(classes)} of this run; set it to false for new heads"
        )
    return config


class EncoderTask(Generic[Model]):
    """Base of the tasks on an encoder; each has a configuration with `from_` and `untrained`."""

    config: EncoderRunConfig
    kind: str

    def set_up(self, model: Model, keep_unused: bool = False) -> Model:
        """A new model as it is trained: its encoder frozen if it is to stay as it is, and, unless it is kept, what has
        no effect on the answer."""
        model.encoder.gradient_checkpointing = self.config.training.gradient_checkpointing
        if self.config.freeze_encoder:
            model.freeze_encoder()
        elif self._adapts:
            add_adapters(model.encoder, self.config.lora)
        if not keep_unused:
            model.freeze_unused()
        return model

    def load_published(self, model: Model, say: Callable[[str], None]) -> None:
        """The encoder's weights, or with the heads the whole model's, unless an untrained one is wanted."""
        if self.config.keep_heads:
            state = open_models(self.config.from_).load(self.kind).state_dict()
            fill_adapted(model, state, self.config.from_)
            say(f"{self.kind} from {self.config.from_}: {len(state)} tensors loaded")
        elif self.config.untrained:
            say(f"untrained encoder as configured in {self.config.from_}")
        else:
            plain = EarlyFusionEncoder(model.encoder.config) if self._adapts else model.encoder
            say(f"encoder from {self.load_weights(plain)}")
            if self._adapts:
                fill_adapted(model.encoder, plain.state_dict(), self.config.from_)

    def finished(self, model: Model) -> Model:
        """An ordinary model, whatever was trained of its encoder."""
        if self._adapts:
            merge_adapters(model.encoder)
        return model

    @property
    def _adapts(self) -> bool:
        """Whether adapters are trained."""
        return bool(self.config.lora.rank) and not self.config.freeze_encoder

    def measure_tokens(self, model: Model, processes: Exchange = HERE) -> None:
        """Set the statistics of every `TokenNorm` from the first `NUM_MEASURED` samples of training.

        The samples are cut into batches that do not depend on the number of processes and are dealt out to them; every
        process gets the statistics of all. Heads that are kept have their own.
        """
        norms = token_norms(model)
        if not norms or self.config.keep_heads:
            return
        size = self._measured_batch()
        num_batches, training = max(1, NUM_MEASURED // size), self.config.training
        num_steps = -(-num_batches // processes.count)  # in each of which every process takes a batch
        sampler = StepSampler(size * processes.count, 1, processes.count, processes.rank, 0, num_steps)
        own = range(processes.rank, num_batches, processes.count)
        was_training, device, task = model.training, next(model.parameters()).device, cast("Task[Model]", self)
        model.to(processes.device).eval()
        seen: dict[int, list[list[Tensor]]] = {}
        loader = task.loader(sampler, self.config.data.num_workers if own else 0, processes.device)
        with torch.random.fork_rng(devices=[]), torch.no_grad(), loader as batches:
            for number, batch in zip(own, batches, strict=False):
                torch.manual_seed(training.seed + number)
                with recording(model) as seen[number]:
                    task.loss_terms(model, task.inputs(batch.to(processes.device, non_blocking=True)))
        every = {number: found for part in processes.gather(seen) for number, found in part.items()}
        for i, norm in enumerate(norms):
            norm.settle([sums for number in sorted(every) for sums in every[number][i]])
        model.to(device).train(was_training)

    def _measured_batch(self) -> int:
        """Samples that are measured at a time: a batch of training, as far as that is no larger than allowed."""
        training, together = self.config.training, self.samples_together
        return min(training.batch_size // training.accumulation, max(1, MEASURED_BATCH // together) * together)

    @property
    def samples_together(self) -> int:
        """Consecutive samples that no batch may part."""
        return 1

    def load_weights(self, encoder: EarlyFusionEncoder) -> str:
        """Fill the encoder from the place that the configuration names; says from what."""
        return load_encoder(encoder, self.config.from_)

    def ramped(self, model: Model) -> set[str]:
        """All of a pre-trained encoder, but not its adapters: where `optim.pretrained_ramp` is not 0, new parameters
        learn first."""
        if self.config.untrained or self._adapts:
            return set()
        return {name for name, _ in model.named_parameters() if name.startswith("encoder.")}

    def layer_ids(self, model: Model) -> Mapping[str, int]:
        """Layers as the model counts them; what is not the encoder belongs to the last."""
        return model.layer_ids()
