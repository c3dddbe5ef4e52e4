"""Prediction: trained models on recordings of any length.

Names are resolved on first use, so that settings can be read without importing torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepavfusion.inference.arrays import Arrays
    from deepavfusion.inference.predictions import Classification, Embedding, Localization, Segmentation, Separation
    from deepavfusion.inference.predictor import Predictor

__all__ = ["Arrays", "Classification", "Embedding", "Localization", "Predictor", "Segmentation", "Separation"]

_HOME = {"Arrays": "arrays", "Predictor": "predictor"}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f"{__name__}.{_HOME.get(name, 'predictions')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
