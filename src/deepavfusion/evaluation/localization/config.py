"""Settings of the evaluation of visual sound localization. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from deepavfusion.data.sounding_truth import BoxFormat
from deepavfusion.evaluation.config import EvaluationConfig

MapMethod = Literal["auto", "head", "audio_cosine", "fusion_cosine", "attention", "rise"]


@dataclass(frozen=True)
class EvaluateLocalizationConfig(EvaluationConfig):
    """Score where a model sees the sound come from, against masks or boxes."""

    run: str
    """A finished run, a model folder, a bundle, shipped:NAME, or hf:OWNER/NAME; without a trained head a method that
    needs none is taken."""
    method: MapMethod = "auto"
    """Where maps come from: head (trained), audio_cosine, fusion_cosine, attention or rise; auto is head where there is
    one, else rise, and audio_cosine for an encoder without fusion."""
    layers: tuple[int, ...] = ()
    """For methods without a head: zero-based layers to average; empty takes the last (of attention, that fuses)."""
    untrained: bool = False
    """For methods without a head: take the configuration of RUN without its weights."""
    shifts: int = 1
    """Finer maps: encode N x N copies of the picture shifted by fractions of a patch, and put their maps together."""
    boxes: str | None = None
    """Boxes of the clips; default: the annotations that lie beside Bandstand's clips."""
    boxes_format: BoxFormat = "csv"
    """Form of --boxes: csv (id,label,x1,y1,x2,y2), or the official file of vggss, flickr or music."""
    boxes_folder: str | None = None
    """For --boxes_format flickr: the folder of XML files."""
    pairs: str | None = None
    """Pictures with silent or off-screen sound beside the boxes: a csv with the header video,audio,label."""
    truth: bool = True
    """Whether there is truth to score against; false makes pictures and videos alone."""
    baselines: tuple[str, ...] = field(default=(), kw_only=True)
    """Other runs on the same samples, [NAME=RUN,...]; NAME=untrained:RUN takes random weights."""
    upsampling: Literal["bilinear", "bicubic"] = "bilinear"
    """How patch maps come to 224 x 224: bilinear (EZ-VSL) or bicubic (SLAVC)."""
    overlay: int = 0
    """So many clips become videos with the map over every frame and the sound."""
    seed: int = 0
    """Of foreign sounds, noise and untrained weights."""
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
                raise ValueError(f"pairs {self.pairs}: they stand beside clips with boxes, give --boxes too")
        if not self.truth and (self.boxes is not None or self.baselines):
            raise ValueError("truth false: without truth nothing is scored, leave out --boxes and --baselines")
