"""Settings of the evaluation of visual sound localization. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from deepavfusion.data.sounding_truth import BoxFormat
from deepavfusion.evaluation.config import EvaluationConfig

MapMethod = Literal["auto", "head", "audio_cosine", "fusion_cosine", "attention", "rise"]


@dataclass(frozen=True)
class EvaluateLocalizationConfig(EvaluationConfig):
    """Score a model's maps of where the sound comes from, against masks or boxes."""

    run: str
    """A finished run, a model folder, a bundle, shipped:NAME, or hf:OWNER/NAME. A model without a trained head is
    evaluated by a method that needs none."""
    method: MapMethod = "auto"
    """How maps are made: head (trained), audio_cosine, fusion_cosine, attention or rise; auto is head where there is
    one, else rise, and audio_cosine for an encoder without fusion."""
    layers: tuple[int, ...] = ()
    """For methods without a head: zero-based layers whose maps are averaged; empty is the last layer (with attention,
    the last layer that fuses)."""
    untrained: bool = False
    """For methods without a head: use the configuration of RUN without its weights."""
    shifts: int = 1
    """Finer maps: N x N copies of the image, shifted by fractions of a patch, are encoded and their maps combined."""
    boxes: str | None = None
    """Box annotations of the clips; by default the annotations beside Bandstand's clips."""
    boxes_format: BoxFormat = "csv"
    """Format of --boxes: csv (id,label,x1,y1,x2,y2), or the official file of vggss, flickr or music."""
    boxes_folder: str | None = None
    """With --boxes_format flickr: the folder of XML files."""
    pairs: str | None = None
    """Image-sound pairs with silent or off-screen sound, in addition to the boxes: a csv file with the header
    video,audio,label."""
    truth: bool = True
    """Whether there is ground truth; false only draws figures and videos."""
    baselines: tuple[str, ...] = field(default=(), kw_only=True)
    """Other models to compare with on the same samples, [NAME=RUN,...]; NAME=untrained:RUN uses random weights."""
    upsampling: Literal["bilinear", "bicubic"] = "bilinear"
    """How patch maps are scaled to 224 x 224: bilinear (EZ-VSL) or bicubic (SLAVC)."""
    overlay: int = 0
    """Number of clips for which a video with the map over every frame and the sound is written."""
    seed: int = 0
    """Seed of foreign sounds, noise and untrained weights."""
    batch_size: int = field(default=16, kw_only=True)
    """Clips per forward pass of one process."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "layers", tuple(int(i) for i in self.layers))
        self.at_least(1, "shifts")
        self.at_least(0, "overlay", "seed")
        if self.boxes is None:
            if self.boxes_format != "csv":
                raise ValueError(f"boxes_format {self.boxes_format} needs --boxes")
            if self.pairs is not None:
                raise ValueError(
                    f"pairs {self.pairs}: they are scored together with clips that have boxes; give --boxes too"
                )
        if not self.truth and (self.boxes is not None or self.baselines):
            raise ValueError("truth false: nothing is scored without ground truth; leave out --boxes and --baselines")
