"""Settings of `export`. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deepavfusion.models.tasks import TaskName


@dataclass(frozen=True)
class ExportConfig:
    """Write a model for use without this package, as ONNX or as PyTorch's exported program."""

    run: str
    """A finished run, a model folder, a bundle, shipped:NAME, or hf:OWNER/NAME."""
    out: str
    """The file to write: .onnx (needs the packages onnx and onnxscript), or .pt2 for torch.export."""
    part: Literal["auto", "encoder", TaskName] = "auto"
    """Which model of a bundle: encoder, or a task; auto is the only head there is, else the encoder."""

    def __post_init__(self) -> None:
        if not self.out.endswith((".onnx", ".pt2")):
            raise ValueError(f"out {self.out} must end in .onnx or .pt2")
