"""The model card: training data and recipe, scores with their protocol, licence.

Scores are copied from the `results.json` of evaluations, with their protocol, coverage and intervals. Nothing is
computed here and nothing is rounded; what an evaluation left out is listed beside its scores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from deepavfusion.configuration import in_todays_words

RECIPE_SETTINGS = (
    "recipe",
    "untrained",
    "freeze_encoder",
    "keep_heads",
    "num_frames",
    "lora.rank",
    "optim.optimizer",
    "optim.blr",
    "optim.epochs",
    "optim.warmup_epochs",
    "optim.weight_decay",
    "optim.layer_decay",
    "training.batch_size",
    "training.seed",
)
"""What a card tells of a run's configuration, where the run has it. Paths are left out: they mean nothing elsewhere."""
MAX_SCORES = 12
"""Scores of an evaluation that a card lists; the rest is in results.json."""


@dataclass(frozen=True)
class ModelCard:
    """What only its maker knows of a model."""

    name: str = "deepavfusion bundle"
    """Headline."""
    summary: str = ""
    """A sentence or two under the headline."""
    data: str = ""
    """What it was trained on: data sets, versions, splits, number of clips."""
    licence: str = "apache-2.0"
    """Of the weights, by its SPDX name in lower case."""
    results: tuple[str, ...] = ()
    """Evaluation folders, or their results.json, whose scores the card shows."""


@dataclass(frozen=True)
class CardPart:
    """One head of a bundle, as the card tells of it."""

    task: str
    model: str
    """Class name."""
    encoder: str
    """Digest of its encoder."""
    num_parameters: int
    """Encoder included."""
    classes: tuple[str, ...]
    recipe: Mapping[str, Any]
    """Settings of the run that it comes from; empty where it comes from no run."""


def write_card(card: ModelCard, parts: Sequence[CardPart], version: str) -> str:
    """The card in Markdown, with the header that the Hugging Face hub reads.

    Raises:
        ValueError: results that are no evaluation's.
    """
    lines = [
        "---",
        "library_name: deepavfusion",
        f"license: {_line(card.licence)}",
        "tags: [audio-visual, early-fusion, masked-autoencoder]",
        "---",
        f"# {_line(card.name)}",
        "",
    ]
    lines += [_line(card.summary), ""] if card.summary else []
    lines += [
        f"Saved by deepavfusion {version}. One folder for all tasks:",
        "",
        "    from deepavfusion.inference import Predictor",
        '    predictor = Predictor.from_pretrained("THIS_FOLDER")',
        "",
        "    deepavfusion predict TASK FILE... --model THIS_FOLDER --out DIR",
        "",
        "The base encoder starts further training: `deepavfusion train TASK --from THIS_FOLDER`.",
        "",
        "## Heads",
        "",
        "| task | model | parameters | encoder | classes |",
        "|---|---|---|---|---|",
    ]
    for part in parts:
        classes = str(len(part.classes)) if part.classes else ""
        lines.append(f"| {part.task} | {part.model} | {part.num_parameters:,} | `{part.encoder}` | {classes} |")
    for part in parts:
        if part.classes:
            lines += ["", f"Classes of {part.task}: {_line(', '.join(part.classes))}."]
    lines += ["", "## Data", "", _line(card.data) or "Not stated.", "", "## Recipe", ""]
    for part in parts:
        told = ", ".join(f"{name} {_line(str(value))}" for name, value in part.recipe.items()) or "not recorded"
        lines.append(f"- {part.task}: {told}")
    lines += ["", "## Scores", ""]
    for place in card.results:
        lines += [*_scores(Path(place)), ""]
    if not card.results:
        lines += ["Not evaluated.", ""]
    lines += [
        "## Licence",
        "",
        f"{_line(card.licence)}. The data that it was trained on have licences of their own.",
        "",
    ]
    return "\n".join(lines)


def recipe_of(run: Path) -> dict[str, Any]:
    """The settings of a run that a card tells, by flag, but switches that are off; empty if the folder is no run."""
    try:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{run}: its config.yaml cannot be read ({error})") from error
    config = in_todays_words(config) if isinstance(config, dict) else config
    found = {}
    for name in RECIPE_SETTINGS:
        value: Any = config
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None and value is not False and (name, value) != ("lora.rank", 0):
            found[name] = value
    return found


def _scores(place: Path) -> list[str]:
    path = place / "results.json" if place.is_dir() else place
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        title, protocol, scores = (found[key] for key in ("title", "protocol", "scores"))
        baselines, coverage = found.get("baselines", {}), found.get("coverage", {}).get("line")
        rows = [(name, _number(score), _against(baselines, name)) for name, score in scores.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: no results.json of an evaluation ({type(error).__name__}: {error})") from error
    left_out = ", ".join(f"{count} {cause}" for cause, count in found.get("left_out", {}).items() if count)
    lines = [f"### {_line(str(title))}", "", f"Protocol: {_line(str(protocol))}."]
    lines.append(
        f"Coverage: {_line(coverage) if coverage else str(found.get('num_scored', 'not stated')) + ' scored'}."
    )
    lines += [f"Left out of the scores: {_line(left_out)}."] if left_out else []
    lines += ["", "| score | value | baselines |", "|---|---|---|"]
    lines += [f"| {_line(name)} | {value} | {other} |" for name, value, other in rows[:MAX_SCORES]]
    if len(rows) > MAX_SCORES:
        lines += ["", f"{len(rows) - MAX_SCORES} more scores are in the evaluation's results.json."]
    return lines


def _number(score: Mapping[str, Any]) -> str:
    low, high = score.get("low"), score.get("high")
    return f"{score['value']:.4g}" + (f" [{low:.4g}, {high:.4g}]" if low is not None and high is not None else "")


def _against(baselines: Mapping[str, Mapping[str, Any]], name: str) -> str:
    return ", ".join(f"{_line(who)} {_number(own[name])}" for who, own in baselines.items() if name in own)


def _line(text: str) -> str:
    """Text that stays in its line and its table cell, and is no markup."""
    text = " ".join(text.split()).replace("|", "/")
    return text.replace("<", "&lt;").replace(">", "&gt;")
