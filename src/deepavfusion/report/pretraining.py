"""The section on pre-training: learning curves, nearest-neighbour probe, reconstructions, settings."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepavfusion.report.embedding import embed_picture
from deepavfusion.report.scales import number
from deepavfusion.report.sections import (
    Curve,
    Facts,
    KeyFigure,
    Missing,
    Part,
    PictureStrip,
    Series,
    tone_of,
)
from deepavfusion.training.run_folder import CsvTable, RunFolder, flatten

MAX_RECONSTRUCTIONS = 6
STREAM_NAMES = {"image": "image", "audio": "audio", "fusion": "fusion", "all": "all streams"}
_SMALL = {
    "lr": "Learning rate",
    "gradient_norm": "Gradient norm",
    "samples_per_second": "Clips per second",
    "data_wait_share": "Share of time waiting for data",
}
"""Columns of metrics.csv shown as small curves."""


def pretraining_parts(path: Path) -> list[Part]:
    """What a run folder holds of a pre-training; what is missing is said."""
    if not path.is_dir():
        return [Missing("This run has no pre-training.", f"{path.name}/")]
    folder = RunFolder(path)
    rows = CsvTable(folder.metrics).rows()
    parts: list[Part] = _curves(folder.metrics, rows, _target_note(path))
    parts.append(_probe(folder.probes))
    parts.append(_reconstructions(folder.pictures))
    parts += _small_curves(folder.metrics, rows)
    failures = CsvTable(folder.failures).rows()
    if failures:
        named = tuple((row["clip"], row["cause"]) for row in failures)
        parts.append(Facts("Clips that could not be read", named, folded=len(named) > 5))
    parts += _settings(path)
    return parts


def pretraining_figures(path: Path) -> list[KeyFigure]:
    """First and last loss of each stream, for the head of the page."""
    rows = CsvTable(RunFolder(path).metrics).rows()
    if not rows:
        return []
    figures = []
    for name in _losses(rows):
        first, last = (number(_value(row, name, RunFolder(path).metrics)) for row in (rows[0], rows[-1]))
        stream = STREAM_NAMES.get(name.removeprefix("loss_"), name)
        note = f"step {rows[0]['step']} to step {rows[-1]['step']}"
        figures.append(KeyFigure(f"loss, {stream}", f"{first} \N{RIGHTWARDS ARROW} {last}", note))
    return figures


def pretraining_lead(path: Path) -> str:
    """What was trained on what, in a sentence or two, as far as the run folder knows."""
    sentences = [
        "Most patches of image and audio are hidden; the model reconstructs them from the visible patches of both."
    ]
    if (path / "config.yaml").is_file():
        settings = flatten(RunFolder(path).read_config())
        words = {
            "width {}": "model.embed_dim",
            "{} layers": "model.depth",
            "{} fusion": "model.fusion",
            "batches of {}": "training.batch_size",
        }
        known = [word.format(settings[key]) for word, key in words.items() if key in settings]
        sentences.append(", ".join(known).capitalize() + ".")
    return " ".join(sentences)


def _losses(rows: Sequence[dict[str, str]]) -> list[str]:
    return [name for name in rows[0] if name.startswith("loss_")] or ["loss"]


def _target_note(path: Path) -> str:
    """How the targets were normalised, for the reader of a loss."""
    if not (path / "config.yaml").is_file():
        return ""
    settings = flatten(RunFolder(path).read_config())
    if settings.get("autoencoder.norm_pix_loss") is not True:
        return ""
    if any(settings.get(f"autoencoder.{name}_variance_floor") for name in ("image", "audio")):
        return " Each target patch is normalised with a variance floor, so predicting its mean gives a loss below 1."
    return " Each target patch is normalised to variance 1, so predicting its mean gives a loss of 1."


def _curves(path: Path, rows: Sequence[dict[str, str]], note: str) -> list[Part]:
    if not rows:
        return [Missing("No step was logged, so there is no learning curve.", path.name)]
    series = [
        Series(STREAM_NAMES.get(name.removeprefix("loss_"), name), _column(rows, name, path), tone_of(name))
        for name in _losses(rows)
    ]
    return [
        Curve(
            "Loss", "step", _column(rows, "step", path), tuple(series), "Mean squared error over hidden patches." + note
        )
    ]


def _small_curves(path: Path, rows: Sequence[dict[str, str]]) -> list[Part]:
    curves: list[Part] = []
    for name, title in _SMALL.items():
        if rows and name in rows[0]:
            series = Series(title.lower(), _column(rows, name, path))
            curves.append(Curve(title, "step", _column(rows, "step", path), (series,), from_zero=True, small=True))
    return curves


def _probe(path: Path) -> Part:
    rows = CsvTable(path).rows()
    names = [name for name in rows[0] if name.startswith("top1_")] if rows else []
    rows = [row for row in rows if any(row[name] for name in names)]
    if not rows:
        return Missing("The nearest-neighbour probe did not run: it needs labelled clips.", path.name)
    series = [
        Series(STREAM_NAMES.get(name.removeprefix("top1_"), name), _column(rows, name, path), tone_of(name))
        for name in names
    ]
    note = (
        f"Leave-one-out nearest-neighbour accuracy on {rows[-1].get('num_clips', 'the')} labelled clips, with the mean "
        f"tokens of each stream. Nothing is trained."
    )
    return Curve("Nearest neighbour", "step", _column(rows, "step", path), tuple(series), note, from_zero=True)


def _reconstructions(folder: Path) -> Part:
    found = sorted(folder.glob("reconstruction_*.png"))
    if not found:
        return Missing("No reconstruction was drawn.", f"{folder.name}/reconstruction_*.png")
    kept = [found[round(k * (len(found) - 1) / max(1, MAX_RECONSTRUCTIONS - 1))] for k in range(MAX_RECONSTRUCTIONS)]
    pictures = []
    for path in dict.fromkeys(kept):
        match = re.fullmatch(r"reconstruction_(\d+)", path.stem)
        label = f"step {int(match[1])}" if match else path.stem
        caption = f"At {label}. Each row is a clip; grey patches are hidden from the model."
        alt = f"Masked input, reconstruction and target of images and spectrograms at {label}"
        pictures.append(embed_picture(path, alt, caption, label))
    note = "Masked input, reconstruction, target: of the image on the left, of the log-mel spectrogram on the right."
    return PictureStrip("Reconstructions", tuple(pictures), note)


def _settings(path: Path) -> list[Part]:
    parts: list[Part] = []
    if (path / "config.yaml").is_file():
        settings = flatten(RunFolder(path).read_config())
        parts.append(Facts("Settings", tuple((key, str(value)) for key, value in settings.items()), folded=True))
    else:
        parts.append(Missing("The settings were not recorded.", "config.yaml"))
    environment = path / "environment.json"
    if environment.is_file():
        try:
            starts: list[dict[str, Any]] = json.loads(environment.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{environment}: not JSON: {error}") from None
        rows = [("starts of this run", str(len(starts)))]
        rows += [(key, str(value)) for key, value in flatten(starts[-1]).items()]
        parts.append(Facts("Machine and packages", tuple(rows), folded=True))
    else:
        parts.append(Missing("Machine and packages were not recorded.", environment.name))
    return parts


def _column(rows: Sequence[dict[str, str]], name: str, path: Path) -> tuple[float, ...]:
    return tuple(_value(row, name, path) for row in rows)


def _value(row: dict[str, str], name: str, path: Path) -> float:
    try:
        return float(row[name])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path}: step {row.get('step')} has no number in column {name}: {row.get(name)!r}") from None
