"""Settings of `bandstand`; field docstrings are the help texts of the command line. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HELD_OUT_LANGUAGES: tuple[str, ...] = ("da", "el")


@dataclass(frozen=True)
class BandstandConfig:
    """Generate Bandstand, a synthetic data set: video files with sound, and their exact ground truth."""

    out: str
    """Folder to write to. A run that was stopped continues; a run with more clips adds to the clips that are there."""
    clips: int = 1000
    """Number of clips of all chosen splits together."""
    seed: int = 0
    """Seed of the data set."""
    splits: tuple[str, ...] = ()
    """Splits to write, such as [pretrain,train,test]; empty writes all of them, in the default proportions."""
    cast: Literal["band", "digits", "stamps"] = "band"
    """Sources of sound: band (drawn instruments), digits (handwritten and spoken digits, from local files) or stamps
    (cut-out pictures of things, with what they sound like and their names in several languages, from local files)."""
    size: int = 160
    """Width and height of the frames in pixels; an even number."""
    frame_rate: float = 12.5
    """Frames per second."""
    seconds: float = 4.0
    """Length of a clip in seconds."""
    sample_rate: int = 16000
    """Sound samples per second."""
    annotate_every: int = 5
    """Every N-th frame is annotated, beginning with the first."""
    stems: bool = True
    """Write the separate sound of every source (its stem), and the room's noise, as FLAC."""
    masks: bool = True
    """Write a mask for every annotated frame as PNG."""
    sheets: bool = True
    """Write the contact sheets classes.png and scenes.png."""
    shards: float = 0.0
    """Also store every split as shards in OUT/shards/SPLIT, with this many frames per second; 0 stores none."""
    num_workers: int = 2
    """Processes that generate clips; 0 works in the calling process."""
    digit_images: str | None = None
    """With --cast digits: folder or zip file with MNIST's idx files (images and labels, gzipped or not)."""
    digit_recordings: str | None = None
    """With --cast digits: folder or zip file with recordings named DIGIT_SPEAKER_TAKE.flac or .wav (FSDD)."""
    held_out_speaker: str = "yweweler"
    """With --cast digits: the speaker who is heard only in the test split."""
    stamps: str | None = None
    """With --cast stamps: folder of pictures and sounds as the Debian package tuxpaint-stamps-default lays them out; it
    lies at /usr/share/tuxpaint/stamps after `apt-get install tuxpaint-stamps-default`."""
    backgrounds: str | None = None
    """With --cast stamps: folder of photographs that serve as backgrounds, besides drawn ones; the Debian package
    mate-backgrounds has some in /usr/share/backgrounds/mate/nature. None draws all backgrounds."""
    held_out_languages: tuple[str, ...] = HELD_OUT_LANGUAGES
    """With --cast stamps: languages whose names only the splits names_languages and localization_languages have."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "splits", tuple(self.splits))
        object.__setattr__(self, "held_out_languages", tuple(self.held_out_languages))
        if self.clips < 1:
            raise ValueError(f"clips {self.clips} must be at least 1")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} must not be negative")
        if self.cast not in ("band", "digits", "stamps"):
            raise ValueError(f"cast {self.cast!r} must be band, digits or stamps")
        if self.size < 32 or self.size % 2:
            raise ValueError(f"size {self.size} must be even and at least 32")
        if not 1 <= self.frame_rate <= 120:
            raise ValueError(f"frame_rate {self.frame_rate:g} must lie between 1 and 120")
        if not 2 <= self.seconds <= 60:
            raise ValueError(f"seconds {self.seconds:g} must lie between 2 and 60")
        if self.sample_rate not in (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000):
            raise ValueError(
                f"sample_rate {self.sample_rate} is not supported by AAC; choose one such as 16000 or 48000"
            )
        if self.annotate_every < 1:
            raise ValueError(f"annotate_every {self.annotate_every} must be at least 1")
        if not 0 <= self.shards <= self.frame_rate:
            raise ValueError(f"shards {self.shards:g} must lie between 0 and frame_rate {self.frame_rate:g}")
        if self.num_workers < 0:
            raise ValueError(f"num_workers {self.num_workers} must not be negative")
        needed = [name for name in ("digit_images", "digit_recordings") if getattr(self, name) is None]
        if self.cast == "digits" and needed:
            raise ValueError(f"cast digits needs {' and '.join('--' + name for name in needed)}")
        if self.cast != "digits" and len(needed) < 2:
            raise ValueError("digit_images and digit_recordings belong to --cast digits")
        if self.cast == "stamps" and self.stamps is None:
            raise ValueError(
                "cast stamps needs --stamps: `apt-get install tuxpaint-stamps-default` puts its folder at "
                "/usr/share/tuxpaint/stamps"
            )
        if self.cast != "stamps" and (self.stamps is not None or self.backgrounds is not None):
            raise ValueError("stamps and backgrounds belong to --cast stamps")
        if self.cast != "stamps" and self.held_out_languages != HELD_OUT_LANGUAGES:
            raise ValueError("held_out_languages belong to --cast stamps")
