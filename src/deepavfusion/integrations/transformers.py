"""Our models as models of transformers: importing this registers them with `AutoConfig`, `AutoModel`, `AutoProcessor`.

    import deepavfusion.integrations.transformers
    model = AutoModel.from_pretrained("runs/a/model")
    processor = AutoProcessor.from_pretrained("runs/a/model")
    out = model(**processor(videos=["clip.mp4"]))

A saved folder is the same either way: what `save_pretrained` of ours has written, `AutoModel` opens, and the reverse,
whichever of our models it is. Inputs and outputs are those of our models, bit by bit.

Shape legend: `B` windows, `I A F` image, audio and fusion tokens, `D` width, `E` joint space, `C` classes, `H W`
pixels, `M T` mel bands and frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoProcessor, BatchFeature, PreTrainedModel, ProcessorMixin
from transformers import PretrainedConfig as BaseConfig
from transformers.utils import ModelOutput

from deepavfusion import models
from deepavfusion.data.views import seconds
from deepavfusion.inference.arrays import Arrays
from deepavfusion.inference.inputs import Input, open_recording
from deepavfusion.inference.shared_film import SharedFilm
from deepavfusion.inference.timeline import Compute, window_batches, windows_of
from deepavfusion.inference.windows import Windows
from deepavfusion.models.config import EarlyFusionConfig
from deepavfusion.saved_model import FORMAT_VERSION
from deepavfusion.storage.model_configs import CONFIG_CLASSES, SavedConfig
from deepavfusion.version import __version__

MODEL_TYPE = "deepavfusion"


class DeepAVFusionConfig(BaseConfig):
    """The `config.json` of a saved model: which of our models it is, and its configuration."""

    model_type = MODEL_TYPE

    def __init__(
        self,
        model: str = "EarlyFusionEncoder",
        model_config: dict[str, Any] | None = None,
        format_version: int = FORMAT_VERSION,
        deepavfusion_version: str = __version__,
        **others: Any,
    ) -> None:
        """
        Args:
            model: class name of the model.
            model_config: its configuration, as it is saved; None is the default, ViT-B as in the paper.
            format_version: of the folder.
            deepavfusion_version: that wrote it.
            others: what transformers keeps beside.

        Raises:
            ValueError: a model or a format that this version does not know, or values that do not fit.
        """
        if model not in CONFIG_CLASSES:
            raise ValueError(f"model {model!r} must be one of {', '.join(CONFIG_CLASSES)}")
        if format_version > FORMAT_VERSION:
            raise ValueError(f"format version {format_version} is newer than this package's {FORMAT_VERSION}")
        self.model, self.format_version, self.deepavfusion_version = model, format_version, deepavfusion_version
        self.model_config = CONFIG_CLASSES[model].from_dict(model_config or {}).record()
        super().__init__(**{"architectures": ["DeepAVFusionModel"], **others})

    def build(self) -> SavedConfig:
        """The configuration of our model."""
        return CONFIG_CLASSES[self.model].from_dict(self.model_config)

    @property
    def encoder(self) -> EarlyFusionConfig:
        """That of its encoder, which tells the sizes of inputs."""
        config = self.build()
        return config if isinstance(config, EarlyFusionConfig) else config.encoder


@dataclass
class DeepAVFusionOutput(ModelOutput):
    """What the encoder, and a classifier on it, say of some windows."""

    image_hidden_state: Tensor | None = None
    """`(B, I, D)`, None without images; zero in the rows of absent ones."""
    audio_hidden_state: Tensor | None = None
    """`(B, A, D)`, None without sound; zero in the rows of absent ones."""
    fusion_hidden_state: Tensor | None = None
    """`(B, F, D)`."""
    logits: Tensor | None = None
    """`(B, C)`, averaged over the heads; only of a classifier."""


class DeepAVFusionModel(PreTrainedModel):
    """Any of our saved models; `.model` is ours."""

    config_class = DeepAVFusionConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"

    def __init__(self, config: DeepAVFusionConfig) -> None:
        super().__init__(config)
        self.model = getattr(models, config.model)(config.build())
        self.post_init()

    @property
    def encoder(self) -> models.EarlyFusionEncoder:
        """Its encoder."""
        own = self.model if isinstance(self.model, models.EarlyFusionEncoder) else self.model.encoder
        assert isinstance(own, models.EarlyFusionEncoder)
        return own

    def forward(
        self,
        pixel_values: Tensor | None = None,
        audio_values: Tensor | None = None,
        image_present: Tensor | None = None,
        audio_present: Tensor | None = None,
        return_dict: bool = True,
        **others: Any,
    ) -> DeepAVFusionOutput | tuple[Any, ...]:
        """Encode images and sound together, and classify them if this is a classifier.

        Args:
            pixel_values: `(B, 3, H, W)`, of several frames `(B, N, 3, H, W)`, ImageNet-normalised.
            audio_values: `(B, 1, M, T)` log-mel.
            image_present: `(B,)` bool, False where a window has no image; None is all.
            audio_present: the same of sound.
            return_dict: a tuple instead if False.
            others: what the processor tells besides; has no effect here.

        Raises:
            ValueError: neither input, or one of another size than the configuration's.
        """
        present = {"image_present": image_present, "audio_present": audio_present}
        tokens = self.encoder(pixel_values, audio_values, **present)
        logits = None
        if isinstance(self.model, models.AudioVisualClassifier):
            logits = self.model(pixel_values, audio_values, **present).average
        out = DeepAVFusionOutput(tokens.image, tokens.audio, tokens.fusion, logits)
        return out if return_dict else out.to_tuple()

    def get_image_features(self, pixel_values: Tensor, image_present: Tensor | None = None) -> Tensor:
        """Images, encoded alone, as unit vectors `(B, E)` of the joint space. Raises ValueError if there is none."""
        out = self.encoder(pixel_values, None, image_present=image_present)
        return self._alignment().embed(out)

    def get_audio_features(self, audio_values: Tensor, audio_present: Tensor | None = None) -> Tensor:
        """Sounds, encoded alone, as unit vectors `(B, E)` of the joint space. Raises ValueError if there is none."""
        out = self.encoder(None, audio_values, audio_present=audio_present)
        return self._alignment().embed(out)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As of transformers, which leaves what is computed and not saved undone: it is computed here."""
        loaded = super().from_pretrained(*args, **kwargs)
        wrapped = loaded[0] if isinstance(loaded, tuple) else loaded
        fresh = dict(getattr(models, wrapped.config.model)(wrapped.config.build()).named_buffers())
        saved = wrapped.model.state_dict()
        with torch.no_grad():
            for name, buffer in wrapped.model.named_buffers():
                if name not in saved:
                    buffer.copy_(fresh[name])
        return loaded

    def save_pretrained(self, save_directory: Any, *, state_dict: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """As of transformers, under the names of our weights."""
        state = self.state_dict() if state_dict is None else state_dict
        state = {name.removeprefix("model."): value for name, value in state.items()}
        super().save_pretrained(save_directory, state_dict=state, **kwargs)

    def _init_weights(self, module: Any) -> None:
        """Our models initialise themselves."""

    def _alignment(self) -> Any:
        alignment = getattr(self.model, "alignment", None)
        if alignment is None:
            raise ValueError(
                f"this {self.config.model} has no joint space; one comes from pretrain with --alignment.weight above 0"
            )
        return alignment


class DeepAVFusionProcessor(ProcessorMixin):
    """Inputs of a model from videos, photos and sounds: files, or arrays with their rates."""

    def __init__(self, sizes: dict[str, Any] | None = None) -> None:
        """
        Args:
            sizes: configuration of the encoder, as it is saved; None is the default.
        """
        super().__init__()
        self.sizes = EarlyFusionConfig.from_dict(sizes or {}).record()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> DeepAVFusionProcessor:
        """The processor of a saved model, from its `config.json`: a folder or a repository of the hub."""
        kwargs.pop("_from_auto", None)
        config = DeepAVFusionConfig.from_pretrained(pretrained_model_name_or_path, **kwargs)
        return cls(config.encoder.record())

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Nothing is written: all is in the `config.json` of the model, which must be there.

        Raises:
            ValueError: it is not; save the model there first.
        """
        if not (Path(save_directory) / "config.json").is_file():
            raise ValueError(f"{save_directory}: holds no model; save the model there, the processor is read from it")
        return []

    def __call__(
        self,
        videos: Any = None,
        images: Any = None,
        audio: Any = None,
        *,
        fps: float | None = None,
        sampling_rate: int | None = None,
        windows: Literal["centre", "all"] = "centre",
        hop_seconds: float | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Read windows.

        Args:
            videos: a path, or frames `(N, H, W, 3)` (torch `(N, 3, H, W)`) with `fps`; or a list of these.
            images: photos instead, as paths, Pillow images or arrays.
            audio: sounds, heard in place of the videos' own; paths, or waveforms `(n,)` with `sampling_rate`.
            fps: frames per second of arrays.
            sampling_rate: samples per second of waveforms.
            windows: `centre`, the window in the middle of each, as in evaluation; or `all`, which cover it.
            hop_seconds: largest distance from one window to the next; None is half a window.
            return_tensors: only `pt`.

        Returns:
            `pixel_values` and `audio_values` for the model, with `image_present` and `audio_present`; what no window
            has is left out. With `windows="all"` also `recording` `(B,)`, of which input a window is, and
            `start_seconds` `(B,)`.

        Raises:
            ValueError: nothing given, lists of different lengths, or arrays that make no sense.
            MediaError: a file that cannot be read.
        """
        if return_tensors != "pt":
            raise ValueError(f"return_tensors {return_tensors!r}: only tensors of torch, 'pt'")
        given = self._recordings(videos, images, audio, fps, sampling_rate)
        parts: dict[str, list[Tensor]] = {}
        for number, each in enumerate(given):
            for name, value in self._windows(number, each, windows, hop_seconds).items():
                parts.setdefault(name, []).append(value)
        data = {name: torch.cat(values) for name, values in parts.items()}
        for name, flag in (("pixel_values", "image_present"), ("audio_values", "audio_present")):
            if not data[flag].any():
                del data[name], data[flag]
        if windows == "centre":
            del data["recording"], data["start_seconds"]
        return BatchFeature(data)

    @property
    def model_input_names(self) -> list[str]:
        """What the model takes."""
        return ["pixel_values", "audio_values", "image_present", "audio_present"]

    def _windows(self, number: int, given: Input, which: str, hop_seconds: float | None) -> dict[str, Tensor]:
        config = EarlyFusionConfig.from_dict(self.sizes)
        with open_recording(given) as recording:
            if which == "centre":
                length = min(recording.info.duration_seconds, seconds(config))
                chosen = Windows(np.array([(recording.info.duration_seconds - length) / 2]), length)
            elif which == "all":
                chosen = windows_of(recording, config, hop_seconds)
            else:
                raise ValueError(f"windows {which!r} must be centre or all")
            film, compute = SharedFilm(recording), Compute(torch.device("cpu"))
            batches = list(window_batches(recording, film, config, chosen, compute))
        return {
            "pixel_values": torch.cat([batch.image for batch in batches]),
            "audio_values": torch.cat([batch.audio for batch in batches]),
            "image_present": torch.cat([batch.image_present for batch in batches]),
            "audio_present": torch.cat([batch.audio_present for batch in batches]),
            "recording": torch.full((len(chosen.start_seconds),), number),
            "start_seconds": torch.from_numpy(chosen.start_seconds),
        }

    def _recordings(self, videos: Any, images: Any, audio: Any, fps: float | None, rate: int | None) -> list[Input]:
        """What is to be opened, one for each window in the middle."""
        if videos is not None and images is not None:
            raise ValueError("give videos or images, not both")
        seen, heard = _listed(images if videos is None else videos, fps is not None), _listed(audio, rate is not None)
        if seen and heard and len(seen) != len(heard):
            raise ValueError(f"{len(seen)} videos or images and {len(heard)} sounds: give as many")
        if not seen and not heard:
            raise ValueError("give videos, images or audio")
        pictures: list[Any] = [x if _is_path(x) or x is None else Arrays(x, fps, name="videos") for x in seen]
        sounds: list[Any] = [x if _is_path(x) or x is None else Arrays(sound=x, rate=rate, name="audio") for x in heard]
        if not pictures or not sounds:
            return pictures or sounds
        return list(zip(pictures, sounds, strict=True))


def _is_path(given: Any) -> bool:
    return isinstance(given, (str, Path))


def _listed(given: Any, as_arrays: bool) -> Sequence[Any]:
    """A list of inputs, of one or several; a list of numbers is a waveform."""
    if given is None:
        return []
    if isinstance(given, (list, tuple)) and given and not isinstance(given[0], (int, float)):
        return given
    if isinstance(given, (list, tuple)):
        return [np.asarray(given, dtype=np.float32)] if as_arrays else given
    return [given]


AutoConfig.register(MODEL_TYPE, DeepAVFusionConfig, exist_ok=True)
AutoModel.register(DeepAVFusionConfig, DeepAVFusionModel, exist_ok=True)
AutoProcessor.register(DeepAVFusionConfig, DeepAVFusionProcessor, exist_ok=True)
