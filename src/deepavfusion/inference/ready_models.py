"""Models on their device, loaded when first needed, and the encoders that several of them share."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from deepavfusion.inference.predict_config import Task
from deepavfusion.models.classifier import AudioVisualClassifier
from deepavfusion.models.encoder import EarlyFusionEncoder
from deepavfusion.models.localizer import Localizer
from deepavfusion.models.segmenter import Segmenter
from deepavfusion.models.separator import Separator
from deepavfusion.storage.trained_models import TrainedModels


class ReadyModels:
    """What a place of trained models offers, ready to compute."""

    def __init__(self, models: TrainedModels, device: torch.device) -> None:
        self._models, self._device = models, device
        self._ready: dict[str, nn.Module] = {}
        self._encoders: list[EarlyFusionEncoder] = []

    def classifier(self) -> AudioVisualClassifier:
        """Raises ValueError, as those below, if there is no such head."""
        model = self._model("classification")
        assert isinstance(model, AudioVisualClassifier)
        return model

    def localizer(self) -> Localizer:
        model = self._model("localization")
        assert isinstance(model, Localizer)
        return model

    def segmenter(self) -> Segmenter:
        model = self._model("segmentation")
        assert isinstance(model, Segmenter)
        return model

    def separator(self) -> Separator:
        model = self._model("separation")
        assert isinstance(model, Separator)
        return model

    def encoder(self) -> EarlyFusionEncoder:
        """The one whose features are told."""
        if "embedding" not in self._ready:
            self._ready["embedding"] = self._models.load_encoder().to(self._device).eval()
        encoder = self._ready["embedding"]
        assert isinstance(encoder, EarlyFusionEncoder)
        return encoder

    def shared(self, encoder: EarlyFusionEncoder) -> EarlyFusionEncoder:
        """The first encoder asked for that has the same weights: one and the same for all heads that stand on it."""
        for known in self._encoders:
            if known is encoder or _same(known, encoder):
                return known
        self._encoders.append(encoder)
        return encoder

    def digest(self, task: Task) -> str:
        """A hash of all weights that a task's predictions come from: BLAKE2b of 8 bytes, hexadecimal."""
        model = self.encoder() if task == "embedding" else self._model(task)
        digest = hashlib.blake2b(digest_size=8)
        for name, value in sorted(model.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _model(self, task: str) -> nn.Module:
        if task not in self._ready:
            self._ready[task] = self._models.load(task).to(self._device).eval()
        return self._ready[task]


def _same(one: EarlyFusionEncoder, other: EarlyFusionEncoder) -> bool:
    if one.config != other.config:
        return False
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())
