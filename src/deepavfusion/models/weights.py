"""Keeps the import path `deepavfusion.models.weights`; published weights are read in `storage.weights`."""

from deepavfusion.storage.weights import convert_release, load_audiomae, load_mae, load_release

__all__ = ["convert_release", "load_audiomae", "load_mae", "load_release"]
