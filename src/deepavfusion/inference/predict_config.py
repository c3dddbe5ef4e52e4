"""Settings of `predict`, and how its words become them. Never imports torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deepavfusion.models.tasks import TASK_MODELS, TaskName

Task = Literal[TaskName, "embedding"]
TASKS: tuple[Task, ...] = (*TASK_MODELS, "embedding")
"""What can be found out about a recording."""
SWITCHES = ("--json", "--arrays", "--consistent", "--overwrite")
"""Options that may stand without a value."""


@dataclass(frozen=True)
class PredictConfig:
    """Use trained models on files: classes, places, sources, masks, features."""

    task: Task
    """What to find out: classification, localization, separation, segmentation or embedding."""
    files: tuple[str, ...]
    """Videos, sounds, photos, and folders of these, searched recursively."""
    out: str | None = None
    """Folder of the results, one folder per file in it; without it there must be --json."""
    model: str = "shipped:bandstand"
    """A bundle, a finished run, a model folder, shipped:NAME, or hf:OWNER/NAME."""
    json: bool = False
    """Print one line of JSON per file to standard output."""
    sound: str | None = None
    """A sound file that is heard with every file given: a photo and a wav make a recording."""
    pictures: tuple[str, ...] = ()
    """Separation: photos of the sources, [A,B,...]; default: what the recording's own picture shows."""
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    """Separation: parts of the picture, one per source, [[left,top,right,bottom],...] in fractions from 0 to 1."""
    consistent: bool = False
    """Separation: make the sources add up to the recording."""
    hop_seconds: float | None = None
    """Classification, embedding: from one window to the next at most; default: half a window."""
    step_seconds: float = 0.1
    """Localization, segmentation: from one moment to the next."""
    film: bool = True
    """Localization, segmentation: write the film with maps over its pictures."""
    arrays: bool = False
    """Localization, segmentation: write all maps as a numpy file too."""
    overwrite: bool = False
    """Predict again what an earlier run has done with the same settings."""
    batch_size: int = 16
    """Windows or frames per forward pass."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward pass; auto is bfloat16 on CUDA and float32 elsewhere."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes CUDA if there is one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", tuple(map(_unquoted, self.files)))
        object.__setattr__(self, "pictures", tuple(self.pictures))
        object.__setattr__(self, "boxes", tuple(tuple(box) for box in self.boxes))
        if not self.files:
            raise ValueError("files are lacking: name at least one video, sound, photo or folder")
        if self.out is None and not self.json:
            raise ValueError("out is lacking: give --out DIR, or --json for lines on standard output")
        if self.out is None and self.task == "separation":
            raise ValueError("out is lacking: separated sounds need a folder, give --out DIR")
        if self.task != "separation" and (self.pictures or self.boxes or self.consistent):
            raise ValueError(f"pictures, boxes and consistent are settings of separation, not of {self.task}")
        if self.pictures and self.boxes:
            raise ValueError("boxes are parts of the recording's own picture: give --pictures or --boxes")
        for name in ("step_seconds", "hop_seconds"):
            value = getattr(self, name)
            if value is not None and not 0.01 <= value <= 3600:
                raise ValueError(f"{name} {value} must be from 0.01 to 3600")
        if self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} must be at least 1")


def with_files(words: Sequence[str]) -> list[str]:
    """Words of the command line as options: `TASK FILE... --out DIR` into `--task TASK --files [...] --out DIR`.

    The first word is the task; what follows up to the first option are files, whatever characters their names have (a
    name that begins with two dashes is written `./--name`). Switches may stand without a value.
    """
    words = list(words)
    count = next((i for i, word in enumerate(words) if word.startswith("--") or word == "-h"), len(words))
    named = []
    if count:
        named += ["--task", words[0]]
    if count > 1:
        named.append(f"--files=[{', '.join(map(_quoted, words[1:count]))}]")
    rest = []
    for i, word in enumerate(words[count:], count):
        bare = word in SWITCHES and (i + 1 == len(words) or words[i + 1].startswith("--"))
        rest.append(f"{word}=true" if bare else word)
    return named + rest


def _quoted(word: str) -> str:
    """A YAML string in double quotes, in which nothing is taken for syntax.

    A byte of a file's name that is no UTF-8, in Python a lone surrogate, cannot be told in YAML: it is written as a
    NUL, which no name has, and its code.
    """
    word = "".join(f"\0{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c for c in word)
    return '"' + "".join(c if " " <= c <= "~" and c not in '"\\' else f"\\U{ord(c):08x}" for c in word) + '"'


def _unquoted(word: str) -> str:
    return re.sub("\0(d[89a-f][0-9a-f]{2})", lambda match: chr(int(match[1], 16)), word)
