"""Saving and loading our own models: a folder, or a Hugging Face hub repository, of three files.

- `config.json`: format version, model class, package version, model configuration;
- `model.safetensors`: the state dict, which never runs code on loading;
- `README.md`: a short model card.

`save_pretrained`, `from_pretrained` and `push_to_hub` come from huggingface_hub's mixin.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deepavfusion.atomic import replacing, write_text
from deepavfusion.models.config import ClassifierConfig, EarlyFusionConfig, MaskedAutoencoderConfig, config_record
from deepavfusion.models.localizer_config import LocalizerConfig
from deepavfusion.models.segmenter_config import SegmenterConfig
from deepavfusion.models.separator_config import SeparatorConfig
from deepavfusion.version import __version__

FORMAT_VERSION = 1
ModelConfig = EarlyFusionConfig | MaskedAutoencoderConfig | ClassifierConfig
"""Models that the published weights know."""
SavedConfig = ModelConfig | LocalizerConfig | SeparatorConfig | SegmenterConfig
"""All that this package saves."""
CONFIG_CLASSES: dict[str, type[SavedConfig]] = {
    "EarlyFusionEncoder": EarlyFusionConfig,
    "AudioVisualMAE": MaskedAutoencoderConfig,
    "AudioVisualClassifier": ClassifierConfig,
    "Localizer": LocalizerConfig,
    "Segmenter": SegmenterConfig,
    "Separator": SeparatorConfig,
}

CARD = """---
library_name: deepavfusion
license: apache-2.0
tags: [audio-visual, early-fusion, masked-autoencoder]
---
# {name}

Saved by deepavfusion {version}. Load it with

    from deepavfusion.models import {name}
    model = {name}.from_pretrained("THIS_FOLDER")
"""


class PretrainedModel(PyTorchModelHubMixin):
    """Mixin for models whose constructor takes one configuration dataclass, kept as `self.config`."""

    def _save_pretrained(self, save_directory: Path) -> None:
        assert isinstance(self, nn.Module)
        name = type(self).__name__
        record = {
            "format_version": FORMAT_VERSION,
            "model": name,
            "deepavfusion_version": __version__,
            "model_config": config_record(self.config),
        }
        tensors = {key: value.detach().contiguous().cpu() for key, value in self.state_dict().items()}
        with replacing(save_directory / "model.safetensors") as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
        write_text(save_directory / "config.json", json.dumps(record, indent=2) + "\n")
        write_text(save_directory / "README.md", CARD.format(name=name, version=__version__))

    @classmethod
    def _from_pretrained(  # type: ignore[no-untyped-def,override]
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str = "cpu",
        strict: bool = True,
        config: Any = None,  # the raw file as the mixin read it; it is read again here, with its checks
    ):
        def fetch(name: str) -> Path:
            if os.path.isdir(model_id):
                path = Path(model_id) / name
                if not path.is_file():
                    raise ValueError(f"{model_id}: no {name} in this model folder")
                return path
            return Path(
                hf_hub_download(
                    model_id,
                    name,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            )

        name, model_config = read_model_config(fetch("config.json"))
        state = load_file(fetch("model.safetensors"), device=map_location)
        if cls.__name__ == "EarlyFusionEncoder" and not isinstance(model_config, EarlyFusionConfig):
            name, model_config, state = cls.__name__, model_config.encoder, strip_prefix(state, "encoder.")
        if name != cls.__name__:
            raise ValueError(f"{model_id} holds an {name}, not an {cls.__name__}: load it with {name}.from_pretrained")
        model = cls(model_config)
        assert isinstance(model, nn.Module)
        model.load_state_dict(state, strict=strict)
        return model.eval()


def read_model_config(path: Path) -> tuple[str, SavedConfig]:
    """Model class name and configuration of a saved `config.json`.

    Raises:
        ValueError: not one of our files, or written by a newer format.
    """
    record = json.loads(path.read_text())
    if "format_version" not in record or record.get("model") not in CONFIG_CLASSES:
        raise ValueError(f"{path}: not a deepavfusion model configuration")
    if record["format_version"] > FORMAT_VERSION:
        raise ValueError(
            f"{path}: format version {record['format_version']} is newer than this package's {FORMAT_VERSION}; "
            f"update deepavfusion"
        )
    return record["model"], CONFIG_CLASSES[record["model"]].from_dict(record["model_config"])


def strip_prefix(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries under `prefix`, without it."""
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
