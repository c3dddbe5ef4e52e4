"""Models for use without this package: ONNX files and torch's exported programs, of the encoder and of every head.

An exported model takes float32 tensors, for any batch size, and gives plain tensors:

    encoder         image, audio               image_tokens, audio_tokens, fusion_tokens
    classification  image, audio               logits (average of the heads)
    localization    image, audio               maps, pooled (logits)
    segmentation    image, audio               logits
    separation      image, audio, log_power    mask, on the frames of the log-mel spectrogram

`image` is `(B, 3, H, W)`, ImageNet-normalised (`images.normalize`); `audio` is `(B, 1, M, T)`, the log-mel spectrogram
(`audio.log_mel`); `log_power` is `(B, 1, F, T)`, `log10(|STFT|^2 + 1e-7)` without the last frame. What turns
sound into spectra stays outside: it has no weights.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepavfusion.atomic import replacing
from deepavfusion.inference.export_config import ExportConfig
from deepavfusion.models import fusion
from deepavfusion.models.classifier import AudioVisualClassifier
from deepavfusion.models.encoder import EarlyFusionEncoder
from deepavfusion.models.localizer import Localizer
from deepavfusion.models.no_numbers import NoNumbersError, without_numbers
from deepavfusion.models.segmenter import Segmenter
from deepavfusion.models.separator import Separator
from deepavfusion.stft import N_FFT
from deepavfusion.storage.trained_models import open_models

MAX_ONNX_BYTES = 2**31 - 2**20
"""An ONNX file cannot be larger; it is one protocol buffer."""
EXAMPLE_BATCH = 2
"""A batch of one would be taken for a constant."""

ExportableModel = EarlyFusionEncoder | AudioVisualClassifier | Localizer | Segmenter | Separator


@dataclass(frozen=True)
class Exportable:
    """A model as it is exported."""

    module: nn.Module
    """Takes and gives plain tensors."""
    inputs: dict[str, Tensor]
    """Examples by name, in the order of its arguments."""
    outputs: tuple[str, ...]


class EncoderTokens(nn.Module):
    """Picture and sound to the three token streams."""

    def __init__(self, encoder: EarlyFusionEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor, audio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = self.encoder(image, audio)
        return out.image, out.audio, out.fusion


class ClassLogits(nn.Module):
    """Picture and sound to the average logits of the heads."""

    def __init__(self, model: AudioVisualClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, audio: Tensor) -> Tensor:
        return self.model(image, audio).average


class ScoreMaps(nn.Module):
    """Picture and sound to score maps and their pooled scores, as logits."""

    def __init__(self, model: Localizer) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        out = self.model(image, audio)
        return out.maps, out.pooled


class PixelLogits(nn.Module):
    """Picture and sound to the logits of every pixel."""

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, audio: Tensor) -> Tensor:
        return self.model(image, audio)


class SourceMask(nn.Module):
    """Picture, log-mel spectrogram and log power of the mixture to the mask of what the picture shows."""

    def __init__(self, model: Separator) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, audio: Tensor, log_power: Tensor) -> Tensor:
        return self.model.bounded(self.model.logits(image, audio, log_power).float())


def export(config: ExportConfig) -> str:
    """`deepavfusion export`: write the file; returns a line that says what it holds.

    Raises:
        ValueError: no such model or part, a package that is lacking, or a model too large for the format.
        NoNumbersError: the model's answer is not finite.
    """
    found = open_models(config.run)
    part = config.part
    if part == "auto":
        part = found.tasks[0] if len(found.tasks) == 1 else "encoder"  # type: ignore[assignment]
    model = found.load_encoder() if part == "encoder" else found.load(part)
    exported = exportable(model)
    with torch.no_grad():
        found_outputs = exported.module(*exported.inputs.values())
    if any(map(without_numbers, found_outputs if isinstance(found_outputs, tuple) else (found_outputs,))):
        raise NoNumbersError(f": {part} of {config.run}, which is not exported")
    out = Path(config.out)
    if out.suffix == ".onnx":
        write_onnx(exported, out)
    else:
        write_program(exported, out)
    shapes = {name: ", ".join(map(str, tensor.shape[1:])) for name, tensor in exported.inputs.items()}
    takes = ", ".join(f"{name} (B, {shape})" for name, shape in shapes.items())
    return f"{config.out}: {part} of {config.run}; takes {takes}; gives {', '.join(exported.outputs)}"


def exportable(model: ExportableModel) -> Exportable:
    """A model with plain tensors in and out, in evaluation mode, and example inputs for it."""
    config = model.config if isinstance(model, EarlyFusionEncoder) else model.config.encoder
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "image": torch.randn(EXAMPLE_BATCH, *config.image_shape, generator=generator),
        "audio": torch.randn(EXAMPLE_BATCH, 1, *config.audio_size, generator=generator),
    }
    wrapped: dict[type, tuple[Callable[[Any], nn.Module], tuple[str, ...]]] = {
        EarlyFusionEncoder: (EncoderTokens, ("image_tokens", "audio_tokens", "fusion_tokens")),
        AudioVisualClassifier: (ClassLogits, ("logits",)),
        Localizer: (ScoreMaps, ("maps", "pooled")),
        Segmenter: (PixelLogits, ("logits",)),
        Separator: (SourceMask, ("mask",)),
    }
    wrap, outputs = wrapped[type(model)]
    if isinstance(model, Separator):
        size = (EXAMPLE_BATCH, 1, N_FFT // 2 + 1, config.audio_size[1])
        inputs["log_power"] = torch.randn(size, generator=generator)
    return Exportable(wrap(model).eval().requires_grad_(False), inputs, outputs)


def write_program(exported: Exportable, path: Path) -> None:
    """Write torch's exported program (.pt2), to be read by `torch.export.load`, on any device."""
    with replacing(path) as temporary:
        torch.export.save(exported_program(exported), temporary)


def write_onnx(exported: Exportable, path: Path) -> None:
    """Write an ONNX file whose weights are inside it.

    Raises:
        ValueError: onnx or onnxscript is not installed, or the model is too large.
    """
    lacking = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if lacking:
        raise ValueError(f"out {path}: ONNX needs {' and '.join(lacking)}: pip install 'deepavfusion[export]'")
    size = sum(t.numel() * t.element_size() for t in exported.module.state_dict().values())
    if size > MAX_ONNX_BYTES:
        raise ValueError(
            f"out {path}: the weights take {size / 2**30:.1f} GiB, an ONNX file holds less than 2; take .pt2"
        )
    program = torch.onnx.export(
        exported_program(exported),
        dynamo=True,
        input_names=list(exported.inputs),
        output_names=list(exported.outputs),
        verbose=False,
    )
    assert program is not None
    with replacing(path) as temporary:
        program.save(str(temporary), external_data=False)


def exported_program(exported: Exportable) -> torch.export.ExportedProgram:
    """The model as torch exports it, for any batch size.

    Strict, that is through the bytecode: `len(tensor)`, which the models use, is a constant otherwise, and tables that
    they keep (`stft.mel_mapping`) would be kept with tensors of the export that hold no numbers.
    """
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings(), _without_recomputation():
        warnings.filterwarnings("ignore", message=".*lru_cache.*", category=UserWarning)
        return torch.export.export(
            exported.module,
            tuple(exported.inputs.values()),
            dynamic_shapes=tuple({0: batch} for _ in exported.inputs),
            strict=True,
        )


@contextmanager
def _without_recomputation() -> Iterator[None]:
    """Bilinear fusion computes its logits anew in the backward pass; an exported program has none."""
    kept = fusion.checkpoint

    def plainly(function: Callable[..., Tensor], *inputs: Any, **settings: Any) -> Tensor:
        return function(*inputs)

    fusion.checkpoint = plainly
    try:
        yield
    finally:
        fusion.checkpoint = kept
