"""Predictions of a classifier for features that `embed` wrote."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from deepavfusion.data.clips import Clip
from deepavfusion.data.dataset import Batch
from deepavfusion.data.features import FeatureBatch, Features, FeatureSet, whole_batch
from deepavfusion.data.loading import ClipLoader, ShareSampler
from deepavfusion.evaluation.classification.evaluator import outcome
from deepavfusion.evaluation.loop import Outcome
from deepavfusion.models import AudioVisualClassifier, ClassifierOutput
from deepavfusion.storage.starting_point import digest_weights


class FeatureEvaluator:
    """What the evaluation loop asks, for a classifier on features; clips that `embed` could not read have failed."""

    def __init__(self, model: AudioVisualClassifier, features: Features, clips: Sequence[Clip]) -> None:
        """Raises ValueError if the features are of another encoder, or of other clips."""
        check_features(model, features)
        features.rows([clip.id for clip in clips])  # a clip without features shows before the work
        self.model, self.features, self.clips = model, features, clips

    @property
    def ids(self) -> Sequence[str]:
        return [clip.id for clip in self.clips]

    def loader(self, positions: Sequence[int], batch_size: int, num_workers: int, device: torch.device) -> ClipLoader:
        """Batches of features, read in this process."""
        features = FeatureSet(self.features, [self.clips[i] for i in positions])
        return ClipLoader(features, batch_sampler=ShareSampler(len(features), batch_size), collate_fn=whole_batch)

    def predict(self, batch: Batch, device: torch.device) -> Outcome:
        """Logits as `ClassifierEvaluator` gives them."""
        assert isinstance(batch, FeatureBatch)
        causes = {failure.clip_id: failure.cause for failure in batch.failures}
        moved = batch.to(device)
        assert isinstance(moved, FeatureBatch)
        out = classify_features(self.model, moved)
        return outcome(out, 1, {i: causes[name] for i, name in enumerate(batch.ids) if name in causes})


def check_features(model: AudioVisualClassifier, features: Features) -> None:
    """Raise ValueError unless these are features that the model's encoder makes and its heads can read.

    All tokens serve any head; pooled ones serve heads that read the mean token.
    """
    features.check(digest_weights(model.encoder), model.config.modalities, pooled=model.config.pooling == "mean")


def classify_features(model: AudioVisualClassifier, batch: FeatureBatch) -> ClassifierOutput:
    """Logits from features; the encoder is not run."""
    streams = batch.by_stream()
    is_pooled = all(x.dim() == 2 for x in streams.values())
    return model.classify(streams if is_pooled else model.pool(streams), batch.image_present, batch.audio_present)
