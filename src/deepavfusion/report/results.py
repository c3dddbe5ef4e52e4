"""The two JSON files a report reads: the result of an evaluation, and how long the stages of a run took.

`results.json` of an evaluation; keys marked * are required, others it may hold are not read:

    {"title": "Linear probe",
     "protocol": "single label, centre window",                     *  two numbers compare only under one name
     "num_scored": 240,                                             *  clips that enter the scores
     "left_out": {"missing": 2}, "counted_as_wrong": {},               clips by cause
     "confidence": 0.95,                                               coverage of all intervals in the file
     "scores": {"top1 fusion": {"value": 0.61, "low": 0.55, "high": 0.67}},        *  low and high both or neither
     "baselines": {"untrained": {"top1 fusion": {"value": 0.30, "low": 0.24, "high": 0.36,
                                                 "difference": {"value": 0.31, "low": 0.24, "high": 0.38}}},
                   "chance": {"top1 fusion": {"value": 0.042}}},
     "pictures": [{"file": "confusion.png", "alt": "...", "caption": "..."}],      beside the file
     "sounds": {"duets_000018": {"mixture": "best/mixture.wav"}}}      by example and what it is, beside the file

`difference` is the model's score minus the baseline's on the same clips. `timings.json`, in the order of the run:

    [{"stage": "pretrain", "seconds": 71.2, "command": "deepavfusion pretrain ..."}]

A stage is named after the folder it fills, several for one folder as `NAME: what`; `command` may be null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepavfusion.report.sections import Estimate, Stage


@dataclass(frozen=True)
class BaselineScore:
    """A score of a baseline, and the model's minus it if both were scored clip by clip."""

    score: Estimate
    difference: Estimate | None


@dataclass(frozen=True)
class PictureFile:
    """A picture that belongs to an evaluation."""

    path: Path
    alt: str
    caption: str


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    title: str
    protocol: str
    num_scored: int
    scores: Mapping[str, Estimate]
    baselines: Mapping[str, Mapping[str, BaselineScore]]
    """By baseline, then by score."""
    left_out: Mapping[str, int]
    counted_as_wrong: Mapping[str, int]
    confidence: float | None
    pictures: tuple[PictureFile, ...]
    sounds: Mapping[str, Mapping[str, Path]]
    """By example, then by what is heard."""


def read_evaluation(path: Path) -> Evaluation:
    """Read a `results.json`. Raises ValueError naming the file and what is wrong in it."""
    values = _object(_load(path), path, "the file")
    for key in ("protocol", "num_scored", "scores"):
        if key not in values:
            raise ValueError(f"{path}: {key} is missing")
    scores = {name: _estimate(score, path, f"scores.{name}") for name, score in _part(values, "scores", path, "scores")}
    if not scores:
        raise ValueError(f"{path}: scores is empty")
    baselines = {}
    for name, found in _part(values, "baselines", path, "baselines"):
        where = f"baselines.{name}"
        baselines[name] = {
            score: _baseline(value, path, f"{where}.{score}") for score, value in _object(found, path, where).items()
        }
        unknown = sorted(set(baselines[name]) - set(scores))
        if unknown:
            raise ValueError(f"{path}: {where} has the scores {unknown}, which the model does not have")
    confidence = values.get("confidence")
    if confidence is not None and not 0 < _number(confidence, path, "confidence") < 1:
        raise ValueError(f"{path}: confidence {confidence} is not between 0 and 1")
    pictures = []
    for place, picture in enumerate(_list(values.get("pictures", []), path, "pictures")):
        where = f"pictures[{place}]"
        fields = _object(picture, path, where)
        file, alt, caption = (_text(fields.get(key), path, f"{where}.{key}") for key in ("file", "alt", "caption"))
        pictures.append(PictureFile(path.parent / file, alt, caption))
    return Evaluation(
        title=_text(values.get("title", path.parent.name), path, "title"),
        protocol=_text(values["protocol"], path, "protocol"),
        num_scored=_count(values["num_scored"], path, "num_scored"),
        scores=scores,
        baselines=baselines,
        left_out=_counts(values, "left_out", path),
        counted_as_wrong=_counts(values, "counted_as_wrong", path),
        confidence=confidence,
        pictures=tuple(pictures),
        sounds={
            example: {
                what: path.parent / _text(file, path, f"sounds.{example}.{what}")
                for what, file in _object(files, path, f"sounds.{example}").items()
            }
            for example, files in _part(values, "sounds", path, "sounds")
        },
    )


def read_timings(path: Path) -> tuple[Stage, ...]:
    """Read a `timings.json`. Raises ValueError naming the file and what is wrong in it."""
    stages = []
    for place, entry in enumerate(_list(_load(path), path, "the file")):
        where = f"entry {place}"
        values = _object(entry, path, where)
        seconds = _number(values.get("seconds"), path, f"{where}, seconds")
        if seconds < 0:
            raise ValueError(f"{path}: {where}, seconds is {seconds}")
        command = values.get("command")
        stages.append(
            Stage(
                name=_text(values.get("stage"), path, f"{where}, stage"),
                seconds=seconds,
                command=None if command is None else _text(command, path, f"{where}, command"),
            )
        )
    return tuple(stages)


def _baseline(value: Any, path: Path, where: str) -> BaselineScore:
    difference = _object(value, path, where).get("difference")
    return BaselineScore(
        score=_estimate(value, path, where),
        difference=None if difference is None else _estimate(difference, path, f"{where}.difference"),
    )


def _estimate(value: Any, path: Path, where: str) -> Estimate:
    values = _object(value, path, where)
    low, high = (
        None if values.get(key) is None else _number(values[key], path, f"{where}.{key}") for key in ("low", "high")
    )
    number = _number(values.get("value"), path, f"{where}.value")
    try:
        return Estimate(number, low, high)
    except ValueError as error:
        raise ValueError(f"{path}: {where}: {error}") from None


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from None


def _part(values: dict[str, Any], key: str, path: Path, where: str) -> list[tuple[str, Any]]:
    return list(_object(values.get(key, {}), path, where).items())


def _counts(values: dict[str, Any], key: str, path: Path) -> dict[str, int]:
    return {cause: _count(count, path, f"{key}.{cause}") for cause, count in _part(values, key, path, key)}


def _object(value: Any, path: Path, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{path}: {where} is not an object: {value!r}")
    return value


def _list(value: Any, path: Path, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{path}: {where} is not a list: {value!r}")
    return value


def _text(value: Any, path: Path, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{path}: {where} is not a text: {value!r}")
    return value


def _number(value: Any, path: Path, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{path}: {where} is not a finite number: {value!r}")
    return float(value)


def _count(value: Any, path: Path, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{path}: {where} is not a count: {value!r}")
    return value
