"""The files that every evaluation writes, whatever the task: `results.json`, which the report reads, and `samples.npz`.

results.json   title, protocol, coverage, scores with intervals, baselines with paired differences, figures
samples.npz    ids, and by name one value per sample whose mean is the score; NaN where the sample is not scored. Those
               of a baseline are named `SCORE of BASELINE`. `compare` pairs two evaluations by it.

A score that is not a mean over samples (average precision, maximum F, pooled IoU) is only in results.json.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepavfusion.atomic import write_text
from deepavfusion.data.features import read_arrays, save_arrays
from deepavfusion.evaluation.coverage import Coverage
from deepavfusion.metrics.intervals import Interval, paired_interval

RESULTS, SAMPLES = "results.json", "samples.npz"
CONFIDENCE = 0.95
OF_BASELINE = " of "
"""Between a score and the baseline whose value it is, in samples.npz."""


@dataclass(frozen=True)
class Score:
    """One number of an evaluation."""

    value: float
    low: float | None = None
    """Interval over samples, where the score is a mean over them."""
    high: float | None = None


@dataclass(frozen=True)
class Baseline:
    """The same number of a baseline on the same samples."""

    score: Score
    difference: Interval | None = None
    """The model's minus the baseline's, paired by sample."""
    values: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)
    """One value per sample whose mean is the score."""


@dataclass(frozen=True)
class PictureEntry:
    """A picture beside results.json."""

    file: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Record:
    """All of results.json that is the same for every task."""

    title: str
    task: str
    protocol: str
    """Name of the protocol with everything that could be done otherwise."""
    coverage: Coverage
    num_scored: int
    scores: Mapping[str, Score]
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Samples that do not enter the scores, by cause."""
    counted_as_wrong: Mapping[str, int] = field(default_factory=dict)
    """Samples whose prediction was no prediction, by cause."""
    baselines: Mapping[str, Mapping[str, Baseline]] = field(default_factory=dict)
    """By baseline, then by score."""
    pictures: Sequence[PictureEntry] = ()
    sounds: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Sound files beside results.json by what they are, by example."""
    videos: Sequence[str] = ()
    """Films beside results.json."""
    undrawn: Mapping[str, str] = field(default_factory=dict)
    """What could not be drawn, with the cause."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What only this task knows: settings, tables; JSON-ready."""

    def write(self, out: Path, ids: Sequence[str], samples: Mapping[str, NDArray[np.float64]]) -> None:
        """Write the two files; those of an earlier evaluation are replaced.

        Args:
            out: their folder.
            ids: names of the samples.
            samples: by score, one value per sample.
        """
        out.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, NDArray[Any]] = {name: np.asarray(row, np.float64) for name, row in samples.items()}
        for baseline, own in self.baselines.items():
            rows = {name: entry.values for name, entry in own.items() if entry.values is not None}
            arrays |= {f"{name}{OF_BASELINE}{baseline}": np.asarray(row, np.float64) for name, row in rows.items()}
        save_arrays(out / SAMPLES, {"ids": np.array(ids), "protocol": np.array(self.protocol), **arrays})
        self.write_results(out)

    def write_results(self, out: Path) -> None:
        """Write `results.json` alone."""
        write_text(out / RESULTS, json.dumps(jsonable(self.to_dict()), indent=1) + "\n")

    def to_dict(self) -> dict[str, Any]:
        """In the form that `report.results` reads."""
        return {
            "title": self.title,
            "task": self.task,
            "protocol": self.protocol,
            "coverage": {"line": self.coverage.line(), **asdict(self.coverage)},
            "num_scored": self.num_scored,
            "left_out": dict(self.left_out),
            "counted_as_wrong": dict(self.counted_as_wrong),
            "confidence": CONFIDENCE,
            "scores": {name: asdict(score) for name, score in self.scores.items() if math.isfinite(score.value)},
            "baselines": {
                name: {key: _baseline(entry) for key, entry in own.items() if math.isfinite(entry.score.value)}
                for name, own in self.baselines.items()
            },
            "pictures": [asdict(picture) for picture in self.pictures],
            "sounds": self.sounds,
            "videos": self.videos,
            "drawings_failed": self.undrawn,
            **self.details,
        }


def mean_score(values: NDArray[np.float64]) -> Score:
    """The mean over samples with a value, and its bootstrap interval over samples; NaN without any."""
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return Score(float("nan"))
    found = paired_interval(values, np.zeros_like(values), confidence=CONFIDENCE)
    return Score(found.difference, found.low, found.high)


def mean_baseline(model: NDArray[np.float64], baseline: NDArray[np.float64]) -> Baseline:
    """A baseline's mean score, and the model's minus it on the samples that both have."""
    both = ~(np.isnan(model) | np.isnan(baseline))
    difference = paired_interval(model, baseline, confidence=CONFIDENCE) if both.any() else None
    return Baseline(mean_score(baseline), difference, np.asarray(baseline, np.float64))


def paired_baselines(
    ids: Sequence[str], samples: Mapping[str, NDArray[np.float64]], folders: Mapping[str, str]
) -> dict[str, dict[str, Baseline]]:
    """Compare with earlier evaluations, sample by sample, on the samples and scores that both have.

    Args:
        ids: names of this evaluation's samples.
        samples: by score, one value per sample.
        folders: by baseline, the folder of its evaluation.

    Returns:
        By baseline, then by score.

    Raises:
        ValueError: a folder holds no evaluation, or one of other samples or scores.
    """
    found = {}
    for name, folder in folders.items():
        try:
            other_ids, other, _ = read_samples(folder)
        except ValueError as error:
            raise ValueError(f"baseline {name}: {error}") from error
        places = {sample: place for place, sample in enumerate(other_ids)}
        rows = [places.get(sample, -1) for sample in ids]
        if max(rows, default=-1) < 0 or not set(samples) & set(other):
            raise ValueError(f"baseline {name}: {folder} has none of these samples, or none of these scores")
        aligned = {key: np.append(values, np.nan)[rows] for key, values in other.items() if key in samples}
        found[name] = {key: mean_baseline(samples[key], values) for key, values in aligned.items()}
    return found


def read_samples(folder: str) -> tuple[tuple[str, ...], dict[str, NDArray[np.float64]], str]:
    """Names, values by score, and protocol of an evaluation folder.

    Raises:
        ValueError: there is no samples.npz, or it is none.
    """
    path = Path(folder) / SAMPLES
    try:
        content = read_arrays(path)
        return tuple(content.pop("ids").tolist()), content, str(content.pop("protocol"))
    except (KeyError, ValueError) as error:
        raise ValueError(f"{folder}: has no values of an evaluation ({error})") from error


def jsonable(value: Any) -> Any:
    """JSON knows no NaN, and no tuples."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _baseline(entry: Baseline) -> dict[str, Any]:
    found: dict[str, Any] = asdict(entry.score)
    if entry.difference is not None:
        found["difference"] = {
            "value": entry.difference.difference,
            "low": entry.difference.low,
            "high": entry.difference.high,
        }
    return found
