"""Results of predictions: one dataclass per task, with arrays, times in seconds, and `save`.

`save(folder)` writes the record `TASK.json` and the files that it names beside it; `record()` is the content of the
record. In records `<`, `>` and `&` are escaped, so that names of files and classes are safe where a record is put into
a page.

Shape legend: `T` windows or moments, `C` classes, `D` width, `K` maps, `R C` rows and columns, `H W` pixels, `N`
sources, `S` samples.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import soundfile
from numpy.typing import NDArray

from deepavfusion.atomic import replacing, write_text
from deepavfusion.audio import SAMPLE_RATE
from deepavfusion.data.features import save_arrays
from deepavfusion.drawing.prediction import level_figure, timeline_figure
from deepavfusion.inference.inputs import Input, open_recording
from deepavfusion.inference.map_files import MapLook, MapTask, write_maps
from deepavfusion.inference.maps import MapBatch
from deepavfusion.inference.separation import RESIDUAL
from deepavfusion.inference.shared_film import SharedFilm
from deepavfusion.inference.steps import finish
from deepavfusion.inference.windows import mean_over_windows

TOP_CLASSES = 5
"""Classes that a record names for each window."""
CLIP_CLASSES = 20
"""Classes that a record names for the whole recording."""


@dataclass(frozen=True)
class Classification:
    """Classes over time and of the whole recording."""

    name: str
    """What was classified."""
    duration_seconds: float
    classes: tuple[str, ...]
    multi_label: bool
    """Whether a recording may have several classes: scores are then probabilities of each, else shares of one."""
    start_seconds: NDArray[np.float64]
    """`(T,)` where each window starts."""
    window_seconds: float
    """Length of the recording in a window."""
    logits: NDArray[np.float32]
    """`(T, C)`, averaged over the model's heads."""
    present: NDArray[np.bool_]
    """`(T,)` whether the window had anything that the model looks at; the logits of others are 0."""

    task = "classification"

    @property
    def centre_seconds(self) -> NDArray[np.float64]:
        """`(T,)` the middle of each window, whose frame was looked at."""
        return self.start_seconds + self.window_seconds / 2

    @property
    def scores(self) -> NDArray[np.float32]:
        """`(T, C)` in [0, 1]."""
        return _probabilities(self.logits, self.multi_label)

    @property
    def clip_logits(self) -> NDArray[np.float32]:
        """`(C,)`: the mean over the windows, as evaluation has it."""
        return mean_over_windows(self.logits, self.present)

    @property
    def clip_scores(self) -> NDArray[np.float32]:
        """`(C,)` in [0, 1]."""
        return _probabilities(self.clip_logits[None], self.multi_label)[0]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The best classes of the whole recording with their scores."""
        return self._best(self.clip_scores, count)

    def record(self) -> dict[str, Any]:
        """What classification.json says."""
        scores, length = self.scores, self.window_seconds
        return {
            "task": self.task,
            "name": self.name,
            "duration_seconds": round(self.duration_seconds, 4),
            "multi_label": self.multi_label,
            "num_classes": len(self.classes),
            "classes": _named(self.top(CLIP_CLASSES)),
            "windows": [
                {
                    "start_seconds": round(float(start), 4),
                    "end_seconds": round(float(start) + length, 4),
                    "classes": _named(self._best(row, TOP_CLASSES)) if present else [],
                }
                for start, row, present in zip(self.start_seconds, scores, self.present, strict=True)
            ],
            "files": {"scores": "classification.npz", "timeline": "classification.png"},
        }

    def save(self, folder: str | Path, about: Mapping[str, Any] = {}) -> dict[str, Any]:
        """Write classification.json, .npz (all scores) and .png (timeline); returns the record.

        Args:
            folder: is made.
            about: what else the record says.
        """
        place = Path(folder)
        save_arrays(
            place / "classification.npz",
            {
                "classes": np.array(self.classes),
                "start_seconds": self.start_seconds,
                "window_seconds": np.array(self.window_seconds),
                "logits": self.logits,
                "present": self.present,
                "clip_scores": self.clip_scores,
            },
        )
        best = [self.classes.index(name) for name, _ in self.top()]
        figure = timeline_figure(
            self.centre_seconds, self.scores[:, best], [self.classes[i] for i in best], self.duration_seconds
        )
        _write_figure(place / "classification.png", figure)
        return write_record(place, {**self.record(), **about})

    def _best(self, scores: NDArray[np.float32], count: int) -> list[tuple[str, float]]:
        order = np.argsort(-scores, kind="stable")[:count]
        return [(self.classes[i], float(scores[i])) for i in order]


@dataclass(frozen=True)
class Embedding:
    """Features over time."""

    name: str
    duration_seconds: float
    start_seconds: NDArray[np.float64]
    """`(T,)` where each window starts."""
    window_seconds: float
    """Length of the recording in a window."""
    features: Mapping[str, NDArray[np.float32]]
    """By stream (image, audio, fusion) the mean token, `(T, D)`; zeros where a window has no such stream."""
    present: Mapping[str, NDArray[np.bool_]]
    """By stream, `(T,)`."""

    task = "embedding"

    @property
    def centre_seconds(self) -> NDArray[np.float64]:
        """`(T,)` the middle of each window, whose frame was looked at."""
        return self.start_seconds + self.window_seconds / 2

    @property
    def clip_features(self) -> dict[str, NDArray[np.float32]]:
        """By stream `(D,)`: the mean over the windows that have it."""
        return {name: mean_over_windows(rows, self.present[name]) for name, rows in self.features.items()}

    def record(self) -> dict[str, Any]:
        """What embedding.json says."""
        return {
            "task": self.task,
            "name": self.name,
            "duration_seconds": round(self.duration_seconds, 4),
            "num_windows": len(self.start_seconds),
            "window_seconds": round(self.window_seconds, 4),
            "streams": {
                name: {"width": rows.shape[1], "num_windows": int(self.present[name].sum())}
                for name, rows in self.features.items()
            },
            "files": {"features": "embedding.npz"},
        }

    def save(self, folder: str | Path, about: Mapping[str, Any] = {}) -> dict[str, Any]:
        """Write embedding.json and embedding.npz; returns the record. Arguments as of `Classification.save`."""
        arrays = {"start_seconds": self.start_seconds, "window_seconds": np.array(self.window_seconds)}
        for stream, rows in self.features.items():
            arrays |= {stream: rows, f"{stream}_present": self.present[stream]}
        save_arrays(Path(folder) / "embedding.npz", arrays)
        return write_record(Path(folder), {**self.record(), **about})


@dataclass(frozen=True)
class MapsOverTime:
    """What localization and segmentation have in common: something for every place of the picture, at moments."""

    name: str
    duration_seconds: float
    classes: tuple[str, ...]
    """Of localization one map each, empty for a single map of all that sounds. Of segmentation by number, background
    first; empty where masks are 0 and 1, what sounds."""
    step_seconds: float
    times_seconds: NDArray[np.float64]
    """`(T,)` the moments."""

    task: ClassVar[MapTask]

    def save(self, folder: str | Path, about: Mapping[str, Any] = {}, film: bool = True) -> dict[str, Any]:
        """Write TASK.json, .npy (the maps or masks), .png (the moment of most confidence, or of the largest mask) and
        .mp4.

        Args:
            folder: is made.
            about: what else the record says.
            film: whether to write the mp4.

        Raises:
            MediaError: the recording cannot be read any more.
        """
        source, maps, scores = self._found()
        look = MapLook(self.task, self.name, self.classes, self.step_seconds)
        batches, times = _batches(self.times_seconds, maps, scores), self.times_seconds
        with open_recording(source) as recording:
            shared = SharedFilm(recording)
            steps = write_maps(Path(folder), recording, shared, look, times, batches, with_film=film, with_arrays=True)
            return write_record(Path(folder), {**finish(steps), **about})

    def _found(self) -> tuple[Input, NDArray[Any], NDArray[np.float32]]:
        """What was looked at, and what was found at every moment."""
        raise NotImplementedError


@dataclass(frozen=True)
class Localization(MapsOverTime):
    """Where it sounds: score maps over time. Rows and columns divide the whole picture evenly."""

    maps: NDArray[np.float32]
    """`(T, K, R, C)` in [0, 1]."""
    confidence: NDArray[np.float32]
    """`(T, K)` each map's pooled score, in [0, 1]."""
    source: Input = field(repr=False, compare=False)
    """What was given: it is read again for the film."""

    task = "localization"

    def _found(self) -> tuple[Input, NDArray[Any], NDArray[np.float32]]:
        return self.source, self.maps, self.confidence


@dataclass(frozen=True)
class Segmentation(MapsOverTime):
    """What sounds, pixel by pixel, over time. Masks cover the whole picture, squeezed to the model's size."""

    masks: NDArray[np.uint8]
    """`(T, H, W)` class numbers."""
    shares: NDArray[np.float32]
    """`(T, C)` the share of the picture that each class has, background first."""
    source: Input = field(repr=False, compare=False)
    """What was given: it is read again for the film."""

    task = "segmentation"

    def _found(self) -> tuple[Input, NDArray[Any], NDArray[np.float32]]:
        return self.source, self.masks, self.shares


@dataclass(frozen=True)
class Separation:
    """The sound of what each picture shows, and what remains: mono, 16 kHz."""

    name: str
    duration_seconds: float
    names: tuple[str, ...]
    """Of the sources."""
    sources: NDArray[np.float32]
    """`(N, S)`."""
    residual: NDArray[np.float32]
    """`(S,)`: the recording minus all sources."""
    sample_rate: int = SAMPLE_RATE

    task = "separation"

    @property
    def mixture(self) -> NDArray[np.float32]:
        """`(S,)`: sources and residual together."""
        return self.residual + self.sources.sum(axis=0)

    def save(self, folder: str | Path, about: Mapping[str, Any] = {}) -> dict[str, Any]:
        """Write separation.json, a wav file (32-bit float) per source and of the residual, and separation.png.

        Arguments as of `Classification.save`.
        """
        place, levels = Path(folder), Levels((*self.names, RESIDUAL))
        place.mkdir(parents=True, exist_ok=True)
        rows = [*self.sources, self.residual]
        levels.add(rows)
        for name, row in zip(levels.names, rows, strict=True):
            with replacing(place / f"{name}.wav") as temporary:
                soundfile.write(temporary, row, self.sample_rate, "FLOAT", format="WAV")
        return levels.save(place, self.name, about)


_SHOWN_SAMPLES = 60 * SAMPLE_RATE


class Levels:
    """What the record of a separation tells, gathered from the sounds as they come."""

    def __init__(self, names: tuple[str, ...]) -> None:
        """`names` of the sounds, the residual last."""
        self.names = names
        self.num_samples = 0
        self._energy = np.zeros(len(names))
        self._shown: list[NDArray[np.float32]] = []

    def add(self, rows: list[NDArray[np.float32]]) -> None:
        """The next samples `(n,)` of every sound."""
        if self.num_samples < _SHOWN_SAMPLES:
            self._shown.append(np.stack([row[: _SHOWN_SAMPLES - self.num_samples] for row in rows]))
        self.num_samples += len(rows[0])
        self._energy += [float(np.square(row, dtype=np.float64).sum()) for row in rows]

    def save(self, folder: Path, name: str, about: Mapping[str, Any]) -> dict[str, Any]:
        """Write separation.png (the first minute) and separation.json."""
        if self._shown:
            _write_figure(folder / "separation.png", level_figure(self.names, np.concatenate(self._shown, axis=1)))
        rms = np.sqrt(self._energy / max(1, self.num_samples))
        record = {
            "task": "separation",
            "name": name,
            "duration_seconds": round(self.num_samples / SAMPLE_RATE, 4),
            "sample_rate": SAMPLE_RATE,
            "num_samples": self.num_samples,
            "sources": [
                {"name": own, "file": f"{own}.wav", "level_db": round(float(20 * np.log10(max(value, 1e-6))), 2)}
                for own, value in zip(self.names, rms, strict=True)
            ],
            "files": {"picture": "separation.png", **{own: f"{own}.wav" for own in self.names}},
        }
        return write_record(folder, {**record, **about})


def write_record(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write `TASK.json`, which says that all it names is there, and return it."""
    write_text(folder / f"{record['task']}.json", json_line(record, indent=1) + "\n")
    return dict(record)


def json_line(record: Mapping[str, Any], indent: int | None = None) -> str:
    """A record as JSON in which nothing can be taken for markup, or for the end of a line."""
    text = json.dumps(record, indent=indent, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _named(found: list[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"class": name, "score": round(score, 5)} for name, score in found]


def _probabilities(logits: NDArray[np.float32], multi_label: bool) -> NDArray[np.float32]:
    rows = logits.astype(np.float64)
    if multi_label:
        return (1 / (1 + np.exp(-np.clip(rows, -500, 500)))).astype(np.float32)
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def _batches(
    times: NDArray[np.float64], maps: NDArray[Any], scores: NDArray[np.float32], size: int = 64
) -> Iterator[MapBatch]:
    for first in range(0, len(times), size):
        part = slice(first, first + size)
        yield MapBatch(times[part], maps[part], scores[part])


def _write_figure(path: Path, figure: Any) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
