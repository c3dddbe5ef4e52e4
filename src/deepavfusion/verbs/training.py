"""Commands that train: `pretrain` and `train TASK`."""

from __future__ import annotations

from typing import Any

from deepavfusion.verbs.verb import Verb


def _pretrain_config() -> type:
    from deepavfusion.tasks.pretraining_config import PretrainConfig

    return PretrainConfig


def _pretrain(config: Any) -> int:
    from deepavfusion.tasks.pretraining import MaskedPretraining
    from deepavfusion.training.loop import fit

    return fit(MaskedPretraining(config), config).exit_code


def _classification_config() -> type:
    from deepavfusion.tasks.classification_config import ClassificationConfig

    return ClassificationConfig


def _train_classification(config: Any) -> int:
    from deepavfusion.tasks.feature_probe import classification_task
    from deepavfusion.training.loop import fit

    return fit(classification_task(config), config).exit_code


def _localization_config() -> type:
    from deepavfusion.tasks.localization_config import LocalizationConfig

    return LocalizationConfig


def _train_localization(config: Any) -> int:
    from deepavfusion.tasks.localization import Localization
    from deepavfusion.training.loop import fit

    return fit(Localization(config), config).exit_code


def _separation_config() -> type:
    from deepavfusion.tasks.separation_config import SeparationConfig

    return SeparationConfig


def _train_separation(config: Any) -> int:
    from deepavfusion.tasks.separation import Separation
    from deepavfusion.training.loop import fit

    return fit(Separation(config), config).exit_code


def _segmentation_config() -> type:
    from deepavfusion.tasks.segmentation_config import SegmentationConfig

    return SegmentationConfig


def _train_segmentation(config: Any) -> int:
    from deepavfusion.tasks.segmentation import Segmentation
    from deepavfusion.training.loop import fit

    return fit(Segmentation(config), config).exit_code


TRAINING: dict[str, Verb] = {
    "pretrain": Verb(
        "pre-train the encoder on clips without labels (masked reconstruction)", _pretrain_config, _pretrain
    ),
    "train classification": Verb(
        "linear or attentive probe, or fine-tuning, on labelled clips", _classification_config, _train_classification
    ),
    "train localization": Verb(
        "train to find where in the image the sound comes from", _localization_config, _train_localization
    ),
    "train separation": Verb(
        "train to separate sounds by images of their sources", _separation_config, _train_separation
    ),
    "train segmentation": Verb("train to mark the pixels of what sounds", _segmentation_config, _train_segmentation),
}
