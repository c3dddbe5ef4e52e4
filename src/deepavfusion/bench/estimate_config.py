"""Settings of `estimate`. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from deepavfusion.configuration import DataConfig
from deepavfusion.tasks.pretraining_config import PretrainConfig

GPUS = {
    "a100-40gb": (312.0, 40.0),
    "a100-80gb": (312.0, 80.0),
    "l40s": (362.0, 48.0),
    "h100": (989.0, 80.0),
    "h200": (989.0, 141.0),
    "b200": (2250.0, 180.0),
}
"""Dense bfloat16 TFLOP/s and memory in GB of a GPU as its maker's data sheet says."""


@dataclass(frozen=True)
class EstimateConfig(PretrainConfig):
    """Memory per GPU, operations and days of a pre-training run, computed from its configuration without running it.

    Takes all settings and recipes of pretrain.
    """

    run_dir: str = ""
    """Ignored."""
    data: DataConfig = field(default_factory=lambda: DataConfig(source=""))
    """Only data.source is used: its clips are counted, unless --clips gives their number."""
    clips: int | None = None
    """Clips per epoch, for the number of steps and days."""
    gpus: int = 1
    """Number of GPUs, with one process each."""
    gpu: Literal["a100-40gb", "a100-80gb", "l40s", "h100", "h200", "b200"] | None = None
    """Use the speed and memory of this GPU's data sheet."""
    tflops: float | None = None
    """Peak speed of one GPU in TFLOP/s, measured (bench step) or from a data sheet; replaces that of --gpu."""
    mfu: float | None = None
    """Share of the peak speed that training steps reach, 0 to 1; by default the share that scripts/gpu_visit.py
    measured in this checkout, else an assumed 0.4."""
    samples_per_second: float | None = None
    """Measured training speed of one GPU in clips per second; replaces tflops and mfu."""
    json: str | None = None
    """Also write the results to this JSON file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gpus < 1:
            raise ValueError(f"gpus {self.gpus} must be at least 1")
        if self.clips is not None and self.clips < 1:
            raise ValueError(f"clips {self.clips} must be at least 1")
        if self.mfu is not None and not 0 < self.mfu <= 1:
            raise ValueError(f"mfu {self.mfu} must be in (0, 1]")
        for name in ("tflops", "samples_per_second"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"{name} {value} must be positive")
        parts = self.gpus * self.training.accumulation
        if self.training.batch_size % parts:
            raise ValueError(
                f"gpus {self.gpus} with --training.accumulation {self.training.accumulation} does not divide "
                f"--training.batch_size {self.training.batch_size}: choose a multiple of {parts}"
            )

    @property
    def micro_batch(self) -> int:
        """Clips of one forward pass on one GPU."""
        return self.training.batch_size // (self.gpus * self.training.accumulation)
