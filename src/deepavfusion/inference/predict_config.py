"""Settings of `predict`. Never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deepavfusion.models.tasks import TASK_MODELS, TaskName

Task = Literal[TaskName, "embedding"]
TASKS: tuple[Task, ...] = (*TASK_MODELS, "embedding")
"""What can be found out about a recording."""


@dataclass(frozen=True)
class PredictConfig:
    """Apply trained models to files: classes, maps of the sound's source, separated sounds, masks, features."""

    task: Task | tuple[Task, ...]
    """classification, localization, separation, segmentation or embedding; or several of them in one pass over each
    file: [localization,segmentation]."""
    files: tuple[str, ...]
    """Videos, sounds, photos, and folders of these, which are searched recursively."""
    out: str | None = None
    """Folder of the results, with one folder per file; may be left out with --json."""
    model: str = "shipped:bandstand"
    """A bundle, a finished run, a model folder, shipped:NAME, or hf:OWNER/NAME."""
    json: bool = False
    """Print one line of JSON per file to standard output."""
    sound: str | None = None
    """A sound file that replaces the sound of every given file; with a photo the two make a recording."""
    pictures: tuple[str, ...] = ()
    """Separation: photos of the sources, [A,B,...]; by default the recording's own frames."""
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    """Separation: the sources' parts of the frame, [[left,top,right,bottom],...] in fractions from 0 to 1."""
    consistent: bool = False
    """Separation: make the sources add up to the recording."""
    hop_seconds: float | None = None
    """Classification, embedding: largest distance from one window to the next; by default half a window."""
    step_seconds: float = 0.1
    """Localization, segmentation: time from one map to the next."""
    film: bool = True
    """Localization, segmentation: write a video with the maps over its frames."""
    arrays: bool = False
    """Localization, segmentation: also write all maps as a numpy file."""
    overwrite: bool = False
    """Repeat predictions that exist with the same settings."""
    batch_size: int = 16
    """Windows or frames per forward pass."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the forward pass; auto is bfloat16 on CUDA, else float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto is CUDA where there is a GPU, else the CPU."""

    def __post_init__(self) -> None:
        if not isinstance(self.task, str):
            object.__setattr__(self, "task", tuple(self.task))
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"task {list(self.tasks)} must name at least one, and each once")
        object.__setattr__(self, "files", tuple(self.files))
        object.__setattr__(self, "pictures", tuple(self.pictures))
        object.__setattr__(self, "boxes", tuple(tuple(box) for box in self.boxes))
        if not self.files:
            raise ValueError("files are missing: name at least one video, sound, photo or folder")
        if self.out is None and not self.json:
            raise ValueError("out is missing: give --out DIR, or --json for lines on standard output")
        if self.out is None and "separation" in self.tasks:
            raise ValueError("out is missing: separated sounds need a folder, give --out DIR")
        if "separation" not in self.tasks and (self.pictures or self.boxes or self.consistent):
            told = ", ".join(self.tasks)
            raise ValueError(f"pictures, boxes and consistent are settings of separation, not of {told}")
        if self.pictures and self.boxes:
            raise ValueError("boxes are parts of the recording's own frames: give either --pictures or --boxes")
        check_pace(self.step_seconds, self.hop_seconds, self.batch_size)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What to find out."""
        return (self.task,) if isinstance(self.task, str) else self.task


def check_pace(step_seconds: float, hop_seconds: float | None, batch_size: int) -> None:
    """Raise ValueError, naming the setting, if moments or windows lie too close or far, or nothing is in a batch."""
    for name, value in (("step_seconds", step_seconds), ("hop_seconds", hop_seconds)):
        if value is not None and not 0.01 <= value <= 3600:
            raise ValueError(f"{name} {value} must be from 0.01 to 3600")
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size} must be at least 1")


def with_tasks(words: Sequence[str]) -> list[str]:
    """Words of the command line in which several tasks with commas between, the first word, are a list."""
    first = [f"[{word}]" if "," in word and not word.startswith("-") else word for word in words[:1]]
    return [*first, *words[1:]]
