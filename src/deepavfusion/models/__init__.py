"""Models: the early-fusion encoder, the masked autoencoder and the tasks' models, and their configurations.

Names are resolved on first use, so that configurations can be read without importing torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepavfusion.models.classifier import AudioVisualClassifier, ClassifierOutput
    from deepavfusion.models.config import ClassifierConfig, EarlyFusionConfig, MaskedAutoencoderConfig
    from deepavfusion.models.encoder import EarlyFusionEncoder, EncoderOutput
    from deepavfusion.models.localizer import Localizer, LocalizerOutput
    from deepavfusion.models.localizer_config import LocalizerConfig
    from deepavfusion.models.masked_autoencoder import AudioVisualMAE, AutoencoderOutput
    from deepavfusion.models.segmenter import Segmenter
    from deepavfusion.models.segmenter_config import SegmenterConfig
    from deepavfusion.models.separator import Separator, SeparatorOutput
    from deepavfusion.models.separator_config import SeparatorConfig

__all__ = [
    "AudioVisualClassifier",
    "AudioVisualMAE",
    "AutoencoderOutput",
    "ClassifierConfig",
    "ClassifierOutput",
    "EarlyFusionConfig",
    "EarlyFusionEncoder",
    "EncoderOutput",
    "Localizer",
    "LocalizerConfig",
    "LocalizerOutput",
    "MaskedAutoencoderConfig",
    "Segmenter",
    "SegmenterConfig",
    "Separator",
    "SeparatorConfig",
    "SeparatorOutput",
]

_HOME = {
    "AudioVisualClassifier": "classifier",
    "ClassifierOutput": "classifier",
    "ClassifierConfig": "config",
    "EarlyFusionConfig": "config",
    "MaskedAutoencoderConfig": "config",
    "EarlyFusionEncoder": "encoder",
    "EncoderOutput": "encoder",
    "Localizer": "localizer",
    "LocalizerConfig": "localizer_config",
    "LocalizerOutput": "localizer",
    "AudioVisualMAE": "masked_autoencoder",
    "AutoencoderOutput": "masked_autoencoder",
    "Segmenter": "segmenter",
    "SegmenterConfig": "segmenter_config",
    "Separator": "separator",
    "SeparatorConfig": "separator_config",
    "SeparatorOutput": "separator",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
