"""Settings of `bundle`. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass

from deepavfusion.models.tasks import TASK_MODELS


@dataclass(frozen=True)
class BundleConfig:
    """Put trained models of several tasks into one folder, which holds a shared encoder once."""

    out: str
    """The folder to write; a bundle in it is replaced."""
    classification: str | None = None
    """A finished run of this task, or its model folder."""
    localization: str | None = None
    """A finished run of this task, or its model folder."""
    separation: str | None = None
    """A finished run of this task, or its model folder."""
    segmentation: str | None = None
    """A finished run of this task, or its model folder."""
    encoder: str | None = None
    """The encoder for features and further training, such as the pre-training run; by default the one that most heads
    use."""
    float16: bool = False
    """Store matrices in half precision: half the size, with a relative error of up to 0.0005 in every weight."""
    name: str = "deepavfusion bundle"
    """Title of the model card."""
    summary: str = ""
    """For the model card: one or two sentences."""
    data: str = ""
    """For the model card: the training data."""
    licence: str = "apache-2.0"
    """For the model card: licence of the weights."""
    results: tuple[str, ...] = ()
    """For the model card: evaluation folders whose scores it shows, [A,B,...]."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "results", tuple(self.results))
        if self.encoder is None and not self.places:
            raise ValueError(
                f"out {self.out}: nothing to put into it; name at least one of --{', --'.join(TASK_MODELS)}"
            )

    @property
    def places(self) -> dict[str, str]:
        """Runs or model folders by task."""
        found = {task: getattr(self, task) for task in TASK_MODELS}
        return {task: place for task, place in found.items() if place is not None}
