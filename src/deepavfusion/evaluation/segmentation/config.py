"""Settings of the evaluation of segmenters. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from deepavfusion.evaluation.config import EvaluationConfig, EvaluationData


@dataclass(frozen=True)
class EvaluateSegmentationConfig(EvaluationConfig):
    """Score a trained segmenter on frames with masks, and test whether it uses the sound."""

    data: EvaluationData
    """A table of frames with masks, or the clips of a Bandstand data set."""
    image_size: tuple[int, int] | None = None
    """Height and width of the images that the model gets, with its position embedding resampled; by default those of
    its training."""
    flips: bool = False
    """Average the logits of every image and of its mirror image."""
    videos_per_batch: int = 4
    """Videos per batch in the variant of the avsbench scores that first averages within batches of videos, as the
    public code does."""
    listening: bool = True
    """Also segment the same images with silence, noise and foreign sounds."""
    baselines: tuple[str, ...] = field(default=(), kw_only=True)
    """Models to compare with on the same frames, [NAME=RUN,...]: segmenters, or a localizer or encoder, whose map is
    used; or NAME=FOLDER, an earlier evaluation."""
    pictures: int = 3
    """Number of overlays drawn of the best, of the middle and of the worst frames each; 0 draws none."""
    videos: int = 0
    """Number of clips, spread over the split, for which an overlay video is written."""
    batch_size: int = field(default=32, kw_only=True)
    """Frames per forward pass of one process."""
    seed: int = 0
    """Seed of the noise and of the choice of foreign sounds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size is not None:
            object.__setattr__(self, "image_size", tuple(self.image_size))
        self.at_least(1, "videos_per_batch")
        self.at_least(0, "pictures", "videos", "seed")
