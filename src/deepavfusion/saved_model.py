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
from typing import Any, ClassVar, cast

from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.errors import HFValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from deepavfusion.atomic import replacing, write_text
from deepavfusion.version import __version__
from deepavfusion.weight_files import fill, one_line, read_json_object, read_safetensors

FORMAT_VERSION = 1

CARD = """---
library_name: deepavfusion
license: apache-2.0
tags: [audio-visual, early-fusion, masked-autoencoder]
---
# {name}

Saved by deepavfusion {version}. Load it with

        model = {name}.from_pretrained("THIS_FOLDER")
"""


class PretrainedModel(PyTorchModelHubMixin):
    """Mixin for models whose constructor takes one configuration dataclass, kept as `self.config`."""

    config_class: ClassVar[type[Any]]
    """The dataclass; it has `from_dict` and `record`."""

    def _save_pretrained(self, save_directory: Path) -> None:
        assert isinstance(self, nn.Module)
        name, config = type(self).__name__, cast(Any, self.config)
        record = {
            "model_type": "deepavfusion",  # by which other libraries tell whose it is (integrations.transformers)
            "format_version": FORMAT_VERSION,
            "model": name,
            "deepavfusion_version": __version__,
            "model_config": config.record(),
        }
        tensors = {key: value.detach().contiguous().cpu() for key, value in self.state_dict().items()}
        with replacing(save_directory / "model.safetensors") as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
        write_text(save_directory / "config.json", json.dumps(record, indent=2) + "\n")
        write_text(save_directory / "README.md", CARD.format(name=name, version=__version__))

    @classmethod
    def from_pretrained(  # type: ignore[no-untyped-def,override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        map_location: str = "cpu",
        strict: bool = True,
    ):
        """The model of a folder, or of a repository of the hub, in evaluation mode.

        In place of the mixin's own way, which reads the configuration without a check.

        Raises:
            ValueError: a file is not there, damaged, or of another model; names it.
        """
        model_id = str(pretrained_model_name_or_path)

        def fetch(name: str) -> Path:
            if os.path.isdir(model_id):
                path = Path(model_id) / name
                if not path.is_file():
                    raise ValueError(f"{model_id}: no {name} in this model folder")
                return path
            try:
                file = hf_hub_download(
                    model_id,
                    name,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            except HFValidationError as error:
                raise ValueError(f"{model_id}: no such folder, and not the OWNER/NAME of a repository") from error
            return Path(file)

        place = fetch("config.json")
        name, values = read_record(place)
        weights = fetch("model.safetensors")
        state = read_safetensors(weights, map_location)
        if name != cls.__name__:
            own = cls.own_part(values, state)
            if own is None:
                message = f"{model_id} holds an {name}, not an {cls.__name__}: load it with {name}.from_pretrained"
                raise ValueError(message)
            values, state = own
        try:
            config = cls.config_class.from_dict(values)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
        try:
            model = cls(config)
        except (ValueError, TypeError, RuntimeError, MemoryError) as error:  # sizes that fit no memory, for one
            raise ValueError(f"{place}: a model of this configuration cannot be built ({one_line(error)})") from error
        assert isinstance(model, nn.Module)
        if strict:
            fill(model, state, weights)
        else:
            model.load_state_dict(state, strict=False)
        return model.eval()

    @classmethod
    def own_part(
        cls, values: dict[str, Any], state: dict[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """The configuration and the weights of this model within those of another class; None if it has no part of it.

        Args:
            values: the other's configuration, as saved.
            state: its weights.
        """
        return None


def read_record(path: Path) -> tuple[str, dict[str, Any]]:
    """Model class name and configuration of a saved `config.json`, as they stand there.

    Raises:
        ValueError: not one of our files, damaged, or written by a newer format; names the file.
    """
    record = read_json_object(path)
    name, version, values = (record.get(key) for key in ("model", "format_version", "model_config"))
    if not isinstance(name, str) or not isinstance(version, int) or not isinstance(values, dict):
        raise ValueError(f"{path}: not a deepavfusion model configuration")
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path}: format version {version} is newer than this package's {FORMAT_VERSION}; update deepavfusion"
        )
    return name, values


def strip_prefix(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries under `prefix`, without it."""
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
