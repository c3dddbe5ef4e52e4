"""Verbs that train."""

from __future__ import annotations

from typing import Any

from deepavfusion.verbs.verb import PREEMPTED, Verb


def _pretrain_config() -> type:
    from deepavfusion.configuration import PretrainConfig

    return PretrainConfig


def _pretrain(config: Any) -> int:
    from deepavfusion.tasks.pretraining import MaskedPretraining
    from deepavfusion.training.loop import fit

    result = fit(MaskedPretraining(config), config)
    return PREEMPTED if result.status == "preempted" else 0


def _classification_config() -> type:
    from deepavfusion.tasks.classification_config import ClassificationConfig

    return ClassificationConfig


def _train_classification(config: Any) -> int:
    from deepavfusion.tasks.feature_probe import classification_task
    from deepavfusion.training.loop import fit

    result = fit(classification_task(config), config)
    return PREEMPTED if result.status == "preempted" else 0


def _localization_config() -> type:
    from deepavfusion.tasks.localization_config import LocalizationConfig

    return LocalizationConfig


def _train_localization(config: Any) -> int:
    from deepavfusion.tasks.localization import Localization
    from deepavfusion.training.loop import fit

    return PREEMPTED if fit(Localization(config), config).status == "preempted" else 0


def _separation_config() -> type:
    from deepavfusion.tasks.separation_config import SeparationConfig

    return SeparationConfig


def _train_separation(config: Any) -> int:
    from deepavfusion.tasks.separation import Separation
    from deepavfusion.training.loop import fit

    return PREEMPTED if fit(Separation(config), config).status == "preempted" else 0


def _segmentation_config() -> type:
    from deepavfusion.tasks.segmentation_config import SegmentationConfig

    return SegmentationConfig


def _train_segmentation(config: Any) -> int:
    from deepavfusion.tasks.segmentation import Segmentation
    from deepavfusion.training.loop import fit

    return PREEMPTED if fit(Segmentation(config), config).status == "preempted" else 0


def _demo_config() -> type:
    from deepavfusion.demo import DemoConfig

    return DemoConfig


def _demo(config: Any) -> int:
    from deepavfusion.demo import demo

    return demo(config)


TRAINING: dict[str, Verb] = {
    "pretrain": Verb("pre-train the early-fusion model on clips without labels", _pretrain_config, _pretrain),
    "train classification": Verb(
        "probe or fine-tune an encoder on labelled clips", _classification_config, _train_classification
    ),
    "train localization": Verb(
        "learn where in the picture the sound comes from", _localization_config, _train_localization
    ),
    "train separation": Verb("learn to take sounds apart by pictures", _separation_config, _train_separation),
    "train segmentation": Verb("learn the pixels of what sounds", _segmentation_config, _train_segmentation),
    "demo": Verb("a short pre-training that ends with a table and a picture", _demo_config, _demo),
}
