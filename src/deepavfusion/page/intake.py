"""Checks of uploaded files, and the one-line message about a file that is refused, without the server's paths."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from deepavfusion.inference.inputs import RecordingInfo, open_recording
from deepavfusion.inference.listing import safe_name, shown
from deepavfusion.inference.steps import FAILURES
from deepavfusion.report.scales import duration

MAX_SHOWN_NAME = 60
"""Characters of a file's name on the page."""


@dataclass(frozen=True)
class Limits:
    """How large and how long a recording may be."""

    max_bytes: int
    max_seconds: float


@dataclass(frozen=True)
class Given:
    """What a visitor uploaded: a recording, or a photo and the sound that belongs to it."""

    paths: tuple[str, ...]
    """One file, or picture and sound."""

    @property
    def input(self) -> str | tuple[str, str]:
        """As the predictor takes it."""
        return self.paths[0] if len(self.paths) == 1 else (self.paths[0], self.paths[1])

    @property
    def name(self) -> str:
        """What the page and the records call it."""
        return " + ".join(map(display_name, self.paths))

    @property
    def folder(self) -> str:
        """What the folder of its results is called."""
        return safe_name(Path(self.paths[0]).stem)

    def line_of(self, error: BaseException) -> str:
        """Why it failed, in one line in which the files have the names that the visitor knows."""
        text = "needs more memory than there is" if isinstance(error, MemoryError) else str(error)
        for path in sorted(self.paths, key=len, reverse=True):
            text = text.replace(repr(path), display_name(path)).replace(path, display_name(path))
            text = text.replace(os.path.dirname(path) + os.sep, "")
        text = shown(" ".join(text.split()))
        return (text if len(text) <= 400 else f"{text[:400]} ...") or type(error).__name__


def display_name(path: str) -> str:
    """A file's name for people, without line breaks and not endless. It is no HTML: escape it."""
    name = shown(os.path.basename(path))
    if len(name) <= MAX_SHOWN_NAME:
        return name
    stem, suffix = os.path.splitext(name)
    return f"{stem[: MAX_SHOWN_NAME - 8]}...{suffix[-5:]}"


def length(seconds: float) -> str:
    """A time as a person would say it: `4.0 s`, `2 min`, `1 h 05 min`."""
    return duration(seconds).replace(" 00 s", "").replace(" h 00 min", " h")


def look_at(given: Given, limits: Limits) -> RecordingInfo:
    """Open what was given, and see that it is within the limits.

    Raises:
        ValueError: it is not, or cannot be read; one line for the visitor.
    """
    for path in given.paths:
        try:
            size = os.stat(path).st_size
        except (OSError, ValueError):
            raise ValueError(f"{display_name(path)}: no longer exists; upload it again") from None
        if size > limits.max_bytes:
            raise ValueError(
                f"{display_name(path)}: has {size / 2**20:.1f} MiB, more than the {limits.max_bytes / 2**20:g} MiB "
                f"that this page accepts"
            )
    try:
        with open_recording(given.input) as recording:
            info = recording.info
    except FAILURES as error:
        raise ValueError(given.line_of(error)) from error
    if info.duration_seconds > limits.max_seconds:
        raise ValueError(
            f"{given.name}: is {length(info.duration_seconds)} long; this page accepts at most "
            f"{length(limits.max_seconds)}"
        )
    return info


def describe(info: RecordingInfo) -> str:
    """What was given, in a few words: `4.0 s, 160 x 160 pixels, with sound`."""
    words = []
    if info.duration_seconds > 0:
        words.append(length(info.duration_seconds))
    if info.has_picture:
        words.append(f"{'photo' if info.is_photo else 'video'} of {info.width} \N{MULTIPLICATION SIGN} {info.height}")
    words.append("with sound" if info.has_sound else "no sound")
    return ", ".join(words)
