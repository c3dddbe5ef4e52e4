"""Published weights under the name that the README gives; they are read in `storage.weights`."""

from deepavfusion.storage.weights import convert_release, load_audiomae, load_mae, load_release

__all__ = ["convert_release", "load_audiomae", "load_mae", "load_release"]
