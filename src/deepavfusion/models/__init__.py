"""Models: the early-fusion encoder, what is built on it, and their configurations.

Names are resolved on first use, so that configurations can be read without importing torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepavfusion.models.classifier import AudioVisualClassifier, ClassifierOutput
    from deepavfusion.models.config import ClassifierConfig, EarlyFusionConfig, MaskedAutoencoderConfig
    from deepavfusion.models.encoder import EarlyFusionEncoder, EncoderOutput
    from deepavfusion.models.masked_autoencoder import AudioVisualMAE, AutoencoderOutput

__all__ = [
    "AudioVisualClassifier",
    "AudioVisualMAE",
    "AutoencoderOutput",
    "ClassifierConfig",
    "ClassifierOutput",
    "EarlyFusionConfig",
    "EarlyFusionEncoder",
    "EncoderOutput",
    "MaskedAutoencoderConfig",
]

_HOME = {
    "AudioVisualClassifier": "classifier",
    "ClassifierOutput": "classifier",
    "ClassifierConfig": "config",
    "EarlyFusionConfig": "config",
    "MaskedAutoencoderConfig": "config",
    "EarlyFusionEncoder": "encoder",
    "EncoderOutput": "encoder",
    "AudioVisualMAE": "masked_autoencoder",
    "AutoencoderOutput": "masked_autoencoder",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
