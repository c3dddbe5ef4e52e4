"""A probe trained on features that `embed` wrote: same loop, order, heads and loss, without decoding or encoding.

A linear probe reads pooled features or all tokens, an attentive probe all tokens. The only difference to the probe on
clips is the view, which is always the centre, without random crops and gain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from deepavfusion.data.clips import Clip, clips_where, column_of
from deepavfusion.data.dataset import Batch
from deepavfusion.data.features import FeatureBatch, Features, FeatureSet, read_features, whole_batch
from deepavfusion.data.loading import ClipLoader, StepSampler
from deepavfusion.data.sampling import BalancedOrder, EpochOrder, ShuffledOrder
from deepavfusion.evaluation.classification.feature_evaluator import FeatureEvaluator, check_features, classify_features
from deepavfusion.evaluation.loop import Evaluator
from deepavfusion.models import AudioVisualClassifier
from deepavfusion.tasks.classification import Classification
from deepavfusion.tasks.classification_config import ClassificationConfig
from deepavfusion.tasks.mixing import smooth


class FeatureStream(FeatureSet):
    """The endless training stream: item `s` has the features of the clip that sample number `s` draws."""

    def __init__(self, features: Features, clips: Sequence[Clip], order: EpochOrder) -> None:
        super().__init__(features, clips)
        self.order = order

    def places(self, numbers: list[int]) -> list[int]:
        return [int(self.order(number // len(self.clips))[number % len(self.clips)]) for number in numbers]


class FeatureProbe(Classification):
    """Train the heads on features."""

    def __init__(self, config: ClassificationConfig) -> None:
        """Raises ValueError as `Classification`, and if the features do not cover the clips."""
        assert config.features is not None
        super().__init__(config)
        self.features = read_features(config.features)
        failed = self.features.failed
        rows = self.features.rows(list(column_of(self.clips, "id")))
        if failed:  # clips that no probe could be trained on either
            self.clips = clips_where(self.clips, "id", set(self.features.ids).__contains__)
            self.sampling = self.sampling[rows >= 0] / self.sampling[rows >= 0].sum()
            self.summary += f", {int((rows < 0).sum())} could not be read for {config.features}"
        there = {*self.features.ids, *failed}
        self._held_out = clips_where(self._held_out, "id", there.__contains__)

    def load_published(self, model: AudioVisualClassifier, say: Callable[[str], None]) -> None:
        """The encoder's weights, which must be those that the features were made with."""
        super().load_published(model, say)
        check_features(model, self.features)

    def loader(self, sampler: StepSampler, num_workers: int, device: torch.device) -> ClipLoader:
        """Features in the order in which `Classification` draws the clips, read in this process."""
        seed = self.config.training.seed
        order: EpochOrder = ShuffledOrder(seed, len(self.clips))
        if self.config.balance == "sampling":
            order = BalancedOrder(seed, self.sampling)
        stream = FeatureStream(self.features, self.clips, order)
        return ClipLoader(stream, batch_sampler=sampler, collate_fn=whole_batch, pin_memory=device.type == "cuda")

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Features and targets."""
        assert isinstance(batch, FeatureBatch)
        targets = self.targets(batch.ids).to(batch.image.device, non_blocking=True)
        return {
            "features": batch,
            "image_present": batch.image_present,
            "audio_present": batch.audio_present,
            "targets": smooth(targets, self.config.augmentation.label_smoothing),
        }

    def loss_terms(self, model: AudioVisualClassifier, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """The mean loss; the encoder is not run."""
        return {"class": self.loss(classify_features(model, inputs["features"]), inputs)}

    def evaluator(self, model: AudioVisualClassifier, clips: Sequence[Clip]) -> Evaluator:
        """Predictions for held-out clips that are in the file, too."""
        return FeatureEvaluator(model, self.features, clips)


def classification_task(config: ClassificationConfig) -> Classification:
    """The task that a configuration asks for: on clips, or on features of them."""
    return FeatureProbe(config) if config.features is not None else Classification(config)
