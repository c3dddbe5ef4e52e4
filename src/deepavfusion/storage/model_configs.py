"""The configuration classes of all models that this package saves, and reading of a saved configuration."""

from __future__ import annotations

from pathlib import Path

from deepavfusion.models.config import ClassifierConfig, EarlyFusionConfig, MaskedAutoencoderConfig
from deepavfusion.models.localizer_config import LocalizerConfig
from deepavfusion.models.segmenter_config import SegmenterConfig
from deepavfusion.models.separator_config import SeparatorConfig
from deepavfusion.saved_model import read_record

ReleasedConfig = EarlyFusionConfig | MaskedAutoencoderConfig | ClassifierConfig
"""Models that the published weights know."""
SavedConfig = ReleasedConfig | LocalizerConfig | SeparatorConfig | SegmenterConfig
"""All that this package saves."""
CONFIG_CLASSES: dict[str, type[SavedConfig]] = {
    "EarlyFusionEncoder": EarlyFusionConfig,
    "AudioVisualMAE": MaskedAutoencoderConfig,
    "AudioVisualClassifier": ClassifierConfig,
    "Localizer": LocalizerConfig,
    "Segmenter": SegmenterConfig,
    "Separator": SeparatorConfig,
}


def read_model_config(path: Path) -> tuple[str, SavedConfig]:
    """Model class name and configuration of a saved `config.json`.

    Raises:
        ValueError: not one of our files, damaged, or written by a newer format; names the file.
    """
    name, values = read_record(path)
    if name not in CONFIG_CLASSES:
        raise ValueError(f"{path}: this version does not know the model {name}; it has {', '.join(CONFIG_CLASSES)}")
    try:
        return name, CONFIG_CLASSES[name].from_dict(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
