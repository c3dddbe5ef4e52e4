"""`average`: the mean of the logits of several classifiers, on the clips that all of them have scored."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from deepavfusion.evaluation.classification.evaluator import AVERAGE
from deepavfusion.evaluation.classification.results import classification_findings, heads_of_saved, read_predictions
from deepavfusion.evaluation.config import AverageConfig
from deepavfusion.evaluation.coverage import ClipSelection
from deepavfusion.evaluation.frame import Evaluated
from deepavfusion.evaluation.loop import Predictions


def average(config: AverageConfig) -> Evaluated:
    """Average the logits of evaluations and write the evaluation of the result.

    Raises:
        ValueError: folders without predictions, of other classes or labels, without the head, or no common clip.
    """
    members = [read_predictions(folder) for folder in config.members]
    first = members[0]
    for own in members:
        if own.labelled.classes != first.labelled.classes or own.labelled.multi_label != first.labelled.multi_label:
            raise ValueError(f"{own.folder}: was scored on other classes than {first.folder}")
        if config.head not in heads_of_saved(own):
            raise ValueError(f"head {config.head}: {own.folder} has {', '.join(heads_of_saved(own))}")
    scored = [{name: row for row, name in enumerate(own.ids)} for own in members]
    names = [name for name in first.ids if all(name in rows for rows in scored)]
    if not names:
        raise ValueError(f"{', '.join(config.members)} have no clip in common")
    places = [[rows[name] for name in names] for rows in scored]
    targets = first.labelled.targets[places[0]]
    for own, rows in zip(members, places, strict=True):
        differing = (own.labelled.targets[rows] != targets).any(axis=1)
        if differing.any():
            clip = names[int(differing.argmax())]
            raise ValueError(f"{clip} has other labels in {own.folder} than in {first.folder}")
    present = np.stack([own.values[f"{config.head}_present"][rows] for own, rows in zip(members, places, strict=True)])
    logits = np.stack([own.values[config.head][rows] for own, rows in zip(members, places, strict=True)])
    total = np.where(present[..., None], logits, 0.0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)[:, None]
    everything = tuple(dict.fromkeys(name for own in members for name in own.ids))
    missing = tuple(name for name in everything if name not in set(names))
    findings = classification_findings(
        Predictions(
            np.arange(len(names)),
            tuple(names),
            {AVERAGE: total.astype(np.float32), f"{AVERAGE}_present": np.asarray(present.any(axis=0))},
            {},
        ),
        type(first.labelled)(first.labelled.classes, targets, first.labelled.multi_label),
        ClipSelection(", ".join(config.members), "common", (), everything, missing, {}, ()),
        f"mean of the logits of {len(members)} models, {first.protocol}",
        {"settings": asdict(config)},
    )
    return findings.write(Path(config.out))
