"""The interface between the training loop and a task. A task knows nothing of processes, devices or run folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from deepavfusion.data.clips import Clip
from deepavfusion.data.dataset import Batch
from deepavfusion.data.loading import ClipLoader, StepSampler
from deepavfusion.training.intake import Need
from deepavfusion.training.processes import Processes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Model = TypeVar("Model", bound=nn.Module)


class Task(Protocol[Model]):
    """A training task, for one class of model."""

    kind: str
    """Name of the task, kept in its checkpoints."""

    @property
    def clips(self) -> Sequence[Clip]:
        """The training clips, in a fixed order; one epoch draws each once."""

    @property
    def needs(self) -> Mapping[Need, str]:
        """What clips must have, `picture` or `sound`, with the advice that is given if no clip has it."""

    @property
    def summary(self) -> str:
        """The data in a few words, such as `20 clips of videos (3 quarantined)`."""

    def build_model(self) -> Model:
        """The model with its own initialisation, drawn from torch's global generator. It has `config` and
        `save_pretrained`."""

    def load_published(self, model: Model, say: Callable[[str], None]) -> None:
        """Load published weights, if the configuration names some, and `say` what was and was not found in them. Called
        when a run starts, not when it continues."""

    def measure_tokens(self, model: Model, processes: Processes) -> None:
        """Measure on the first training samples the statistics that the model needs (`models.token_norm`), the same for
        any number of processes; all must call it, after `load_published`."""

    def finished(self, model: Model) -> Model:
        """The trained model as it is saved; it is not trained any further."""

    def ramped(self, model: Model) -> set[str]:
        """Names of the parameters that start from published weights."""

    def layer_ids(self, model: Model) -> Mapping[str, int] | None:
        """Layer number of every parameter, for layer-wise rates; None if the task has none."""

    def loader(self, sampler: StepSampler, num_workers: int, device: torch.device) -> ClipLoader:
        """Batches of training samples in the order of the sampler."""

    def counts(self, batch: Batch) -> dict[str, int]:
        """For each loss term, the number of samples of this batch over which it is a mean. The first term is the main
        one: a run in which no sample has it fails."""

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What the loss needs, made from a batch that is on the device already, in float32 (no autocast)."""

    def loss_terms(self, model: Model, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """The terms that add up to the loss, each a mean over the samples that `counts` counts (0 over none).

        A column of metrics.csv is named `loss_` and the term's name. Runs under autocast.
        """

    def pictures(self, model: Model, device: torch.device) -> dict[str, Figure]:
        """Figures by name, from fixed clips and seeds; the model is in evaluation mode, without gradients."""

    def probe(self, model: Model, device: torch.device) -> dict[str, float]:
        """Scores of the model during training; empty if there is nothing to measure."""
