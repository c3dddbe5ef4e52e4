"""Settings of the embedded world's generator; field docstrings are the command line's help. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class BandstandConfig:
    """Generate the embedded audio-visual world: video files with sound, and the whole truth about them."""

    out: str
    """Folder to write to; a run that stopped there continues, a larger one adds to it."""
    clips: int = 1000
    """How many clips, over all chosen splits together."""
    seed: int = 0
    """Seed of the data set."""
    splits: tuple[str, ...] = ()
    """Which splits to write, such as [pretrain,train,test]; empty shares the clips out over all."""
    cast: Literal["band", "digits"] = "band"
    """Who plays: band (drawn instruments) or digits (handwritten and spoken ones, from local files)."""
    size: int = 160
    """Width and height of the picture in pixels, even."""
    frame_rate: float = 12.5
    """Frames per second."""
    seconds: float = 4.0
    """Length of a clip."""
    sample_rate: int = 16000
    """Sound samples per second."""
    annotate_every: int = 5
    """Frames from one annotated frame to the next; the first frame is annotated."""
    stems: bool = True
    """Write every source's own sound, and the room's, as FLAC."""
    masks: bool = True
    """Write a mask for every annotated frame as PNG."""
    sheets: bool = True
    """Write the contact sheets classes.png and scenes.png."""
    shards: float = 0.0
    """Also store every split as shards in OUT/shards/SPLIT, with so many frames per second; 0 stores none."""
    num_workers: int = 2
    """Processes that draw, play and encode; 0 works in the calling process."""
    digit_images: str | None = None
    """For the digits: folder or zip file with MNIST's idx files, images and labels, gzipped or not."""
    digit_recordings: str | None = None
    """For the digits: folder or zip file with recordings named DIGIT_SPEAKER_TAKE.flac or .wav (FSDD)."""
    held_out_speaker: str = "yweweler"
    """For the digits: the speaker who is heard in the test split and nowhere else."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "splits", tuple(self.splits))
        if self.clips < 1:
            raise ValueError(f"clips {self.clips} must be at least 1")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} must not be negative")
        if self.cast not in ("band", "digits"):
            raise ValueError(f"cast {self.cast!r} must be band or digits")
        if self.size < 32 or self.size % 2:
            raise ValueError(f"size {self.size} must be even and at least 32")
        if not 1 <= self.frame_rate <= 120:
            raise ValueError(f"frame_rate {self.frame_rate:g} must lie between 1 and 120")
        if not 2 <= self.seconds <= 60:
            raise ValueError(f"seconds {self.seconds:g} must lie between 2 and 60")
        if self.sample_rate not in (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000):
            raise ValueError(f"sample_rate {self.sample_rate} is none that AAC knows, such as 16000 or 48000")
        if self.annotate_every < 1:
            raise ValueError(f"annotate_every {self.annotate_every} must be at least 1")
        if not 0 <= self.shards <= self.frame_rate:
            raise ValueError(f"shards {self.shards:g} must lie between 0 and frame_rate {self.frame_rate:g}")
        if self.num_workers < 0:
            raise ValueError(f"num_workers {self.num_workers} must not be negative")
        needed = [name for name in ("digit_images", "digit_recordings") if getattr(self, name) is None]
        if self.cast == "digits" and needed:
            raise ValueError(f"cast digits needs {' and '.join('--' + name for name in needed)}")
        if self.cast == "band" and len(needed) < 2:
            raise ValueError("digit_images and digit_recordings belong to --cast digits")
