"""Settings of the evaluation of segmenters. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from deepavfusion.evaluation.config import EvaluationConfig, EvaluationData


@dataclass(frozen=True)
class EvaluateSegmentationConfig(EvaluationConfig):
    """Score a trained segmenter on labelled pictures, and look whether it listens."""

    data: EvaluationData
    """A table of pictures with masks, or the clips of a Bandstand world."""
    image_size: tuple[int, int] | None = None
    """Height and width of the pictures the model gets, its positions resampled; none is the size it was trained on."""
    flips: bool = False
    """Average the logits of every picture and its mirror image."""
    videos_per_batch: int = 4
    """For the variant of avsbench that averages inside batches of videos first, as the public code does."""
    listening: bool = True
    """Also segment the same pictures beside silence, noise and foreign sounds."""
    baselines: tuple[str, ...] = field(default=(), kw_only=True)
    """Models to compare with on the same pictures, [NAME=RUN,...] of segmenters, or of a localizer or encoder for its
    map; or NAME=FOLDER of an earlier evaluation."""
    pictures: int = 3
    """Overlays drawn of the best, the middle and the worst pictures each; 0 draws none."""
    videos: int = 0
    """Overlay videos of so many clips, spread over the split."""
    batch_size: int = field(default=32, kw_only=True)
    """Pictures per forward pass of one process."""
    seed: int = 0
    """Of the noise and of who hears whose sound."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size is not None:
            object.__setattr__(self, "image_size", tuple(self.image_size))
        self.at_least(1, "videos_per_batch")
        self.at_least(0, "pictures", "videos", "seed")
