"""The parts of a report: typed dataclasses with values and images, without HTML.

Times are seconds; a `uri` is a `data:` URI, so that the page is self-contained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Tone = Literal["image", "audio", "fusion", "plain"]
"""Colour of what belongs to a stream, the same on the whole page."""


def tone_of(name: str) -> Tone:
    """The tone of a column or score by the stream in its name: `loss_image` has that of the picture."""
    tones: tuple[Tone, ...] = ("image", "audio", "fusion")
    return next((tone for tone in tones if tone in name.lower()), "plain")


@dataclass(frozen=True)
class Series:
    """One line of a curve."""

    name: str
    values: tuple[float, ...]
    """One per x; one that is not finite leaves a gap."""
    tone: Tone = "plain"


@dataclass(frozen=True)
class Curve:
    """Values over steps, drawn as lines."""

    title: str
    x_name: str
    x: tuple[float, ...]
    """Ascending."""
    series: tuple[Series, ...]
    note: str = ""
    from_zero: bool = False
    """Whether the axis must reach 0."""
    small: bool = False
    """One of several small ones in a row."""

    def __post_init__(self) -> None:
        if not self.x or not self.series:
            raise ValueError(f"curve {self.title!r} has no points")
        if list(self.x) != sorted(self.x) or not all(map(math.isfinite, self.x)):
            raise ValueError(f"curve {self.title!r}: x must be finite and ascending")
        for series in self.series:
            if len(series.values) != len(self.x):
                raise ValueError(
                    f"curve {self.title!r}: {series.name} has {len(series.values)} of {len(self.x)} values"
                )


@dataclass(frozen=True)
class Picture:
    """A picture with its text."""

    uri: str
    alt: str
    caption: str
    width: int
    height: int
    label: str = ""
    """Short name on the button that shows it."""


@dataclass(frozen=True)
class PictureStrip:
    """Pictures of one thing at several moments, one shown at a time; the last first."""

    title: str
    pictures: tuple[Picture, ...]
    note: str = ""


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, where there is one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"an interval needs both ends, got low {self.low} and high {self.high}")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")

    @property
    def excludes_zero(self) -> bool:
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class ScoreRow:
    """One line of a score table."""

    name: str
    score: Estimate
    difference: Estimate | None = None
    """The model's score minus this one, on the same clips."""
    is_baseline: bool = True


@dataclass(frozen=True)
class ScoreGroup:
    """One score: the model's own, and the baselines' beside it."""

    name: str
    rows: tuple[ScoreRow, ...]
    tone: Tone = "plain"


@dataclass(frozen=True)
class ScoreTable:
    """Scores under one protocol."""

    protocol: str
    num_scored: int
    groups: tuple[ScoreGroup, ...]
    """The most important first."""
    confidence: float | None = None
    """Coverage of the intervals, such as 0.95."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Clips that do not enter the scores, by cause."""
    counted_as_wrong: Mapping[str, int] = field(default_factory=dict)
    """Clips that enter as failures, by cause."""
    num_shown: int = 6
    """Groups that are shown at once; the others are folded away."""


@dataclass(frozen=True)
class SoundLine:
    """When one source of a clip is heard."""

    name: str
    sounding: tuple[tuple[float, float], ...]
    """Stretches (start, end); empty for a silent source."""


@dataclass(frozen=True)
class ClipPlayer:
    """A clip that plays in the page, with the truth about its sources if that is known."""

    title: str
    description: str
    """What is seen and heard, for those who do not see or hear it."""
    uri: str
    duration_seconds: float
    kind: Literal["video", "audio"] = "video"
    poster: str | None = None
    """Picture shown before it plays."""
    sources: tuple[SoundLine, ...] = ()


@dataclass(frozen=True)
class ClipRow:
    """Clips side by side."""

    clips: tuple[ClipPlayer, ...]
    note: str = ""


@dataclass(frozen=True)
class Stage:
    """One step of a run."""

    name: str
    seconds: float
    command: str | None = None
    anchor: str | None = None
    """The section about it, which shows its command."""


@dataclass(frozen=True)
class Timing:
    """How long each step took."""

    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class CommandBlock:
    """A command line to repeat a step with."""

    command: str


@dataclass(frozen=True)
class Facts:
    """Names and values, such as settings; folded away if there are many."""

    title: str
    rows: tuple[tuple[str, str], ...]
    folded: bool = False


@dataclass(frozen=True)
class Missing:
    """Something the run does not have; said, never left out in silence."""

    what: str
    looked_for: str
    """The file or folder that would hold it."""


Part = Curve | PictureStrip | ScoreTable | ClipRow | Timing | CommandBlock | Facts | Missing


@dataclass(frozen=True)
class KeyFigure:
    """A number at the head of the page."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """Parts under a headline."""

    anchor: str
    """Identifier in the page."""
    title: str
    lead: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    lead: str
    figures: tuple[KeyFigure, ...]
    sections: tuple[Section, ...]
