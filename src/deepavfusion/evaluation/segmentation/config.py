"""Settings of the evaluation of segmenters. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deepavfusion.evaluation.config import EvaluationData, check_out, named_places


@dataclass(frozen=True)
class EvaluateSegmentationConfig:
    """Score a trained segmenter on labelled pictures, and look whether it listens."""

    run: str
    """A finished run, a model folder, a bundle, shipped:NAME, or hf:OWNER/NAME."""
    data: EvaluationData
    """A table of pictures with masks, or the clips of a Bandstand world."""
    out: str | None = None
    """Folder of the results; default: evaluation/ in the run, one folder per source and protocol."""
    image_size: tuple[int, int] | None = None
    """Height and width of the pictures the model gets, its positions resampled; none is the size it was trained on."""
    flips: bool = False
    """Average the logits of every picture and its mirror image."""
    videos_per_batch: int = 4
    """For the variant of avsbench that averages inside batches of videos first, as the public code does."""
    listening: bool = True
    """Also segment the same pictures beside silence, noise and foreign sounds."""
    baselines: tuple[str, ...] = ()
    """Models to compare with on the same pictures, [NAME=RUN,...] of segmenters, or of a localizer or encoder for its
    map; or NAME=FOLDER of an earlier evaluation."""
    pictures: int = 3
    """Overlays drawn of the best, the middle and the worst pictures each; 0 draws none."""
    videos: int = 0
    """Overlay videos of so many clips, spread over the split."""
    batch_size: int = 32
    """Pictures per forward pass of one process."""
    seed: int = 0
    """Of the noise and of who hears whose sound."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward pass; auto is bfloat16 on CUDA and float32 elsewhere."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes CUDA if there is one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "baselines", tuple(self.baselines))
        check_out(self.run, self.out)
        named_places(self.baselines)
        if self.image_size is not None:
            object.__setattr__(self, "image_size", tuple(self.image_size))
        for name in ("batch_size", "videos_per_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        for name in ("pictures", "videos", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} must not be negative")
