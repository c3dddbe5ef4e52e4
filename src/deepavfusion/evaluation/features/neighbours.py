"""`knn`: nearest-neighbour classification of clips, without training.

Similarity is the mean cosine similarity over the streams (section 4 of the method uses the sum, which gives the same
ranking); a stream that either clip lacks adds 0. Every stream is also scored alone.

Shapes: `N` clips to classify, `M` labelled clips, `D` width, `C` classes.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deepavfusion.data.features import STREAMS, Features, read_features
from deepavfusion.data.sets.listing import split_labels
from deepavfusion.data.sets.vocabularies import vocabulary
from deepavfusion.evaluation.classification.evaluator import AVERAGE, truth
from deepavfusion.evaluation.classification.results import classification_findings
from deepavfusion.evaluation.config import NeighboursConfig
from deepavfusion.evaluation.coverage import ClipSelection
from deepavfusion.evaluation.frame import Evaluated
from deepavfusion.evaluation.loop import Predictions

_ROWS = 1024
"""Rows of the similarity matrix computed at a time."""


def neighbours(config: NeighboursConfig) -> Evaluated:
    """Score the labelled clips of the test features.

    Raises:
        ValueError: features that are not pooled or of two encoders, clips without labels, labels that the labelled
            clips lack, or more neighbours than labelled clips.
    """
    train, test = read_features(config.train), read_features(config.test)
    for features in (test, train):
        features.check(train.meta["encoder_digest"], train.meta["modalities"], pooled=True, joint=True)
    if test.meta["tokens"] != train.meta["tokens"]:
        raise ValueError(
            f"{test.place}: was written with --tokens {test.meta['tokens']}, {train.place} with "
            f"--tokens {train.meta['tokens']}; embed both alike"
        )
    known, asked = _labelled(train), _labelled(test)
    if config.k > len(known):
        raise ValueError(f"k {config.k}: {train.place} has {len(known)} labelled clips")
    multi_label, names = config.labels == "multi", [test.ids[i] for i in asked]
    cells = [train.labels[i] for i in known]
    classes = vocabulary(label for cell in cells for label in split_labels(cell))
    targets = truth(cells, [train.ids[i] for i in known], classes, multi_label).targets
    labelled = truth([test.labels[i] for i in asked], names, classes, multi_label)
    streams = [name for name in STREAMS if name in train.streams]
    values: dict[str, np.ndarray] = {}
    for head, own in ((AVERAGE, streams), *((stream, [stream]) for stream in streams)):
        here = [(_units(test, asked, name), _units(train, known, name)) for name in own]
        values[head] = vote(here, torch.from_numpy(targets), config.k, config.temperature).numpy()
        lengths = torch.stack([units.norm(dim=1) for units, _ in here])
        values[f"{head}_present"] = (lengths > 0).any(dim=0).numpy()
    predictions = Predictions(np.arange(len(asked)), tuple(names), values, test.failed)
    official = (*test.ids, *test.failed, *test.meta["quarantined"], *test.meta["missing"])
    selection = ClipSelection(
        source=test.meta["source"],
        split=test.meta["split"],
        clips=(),
        official=official,
        missing=tuple(test.meta["missing"]),
        quarantined=test.meta["quarantined"],
        unlabelled=tuple(name for name, label in zip(test.ids, test.labels, strict=True) if not label),
    )
    protocol = f"{config.k} nearest of {len(known)} clips, centre window"
    details = {"settings": asdict(config), "train": train.meta}
    return classification_findings(predictions, labelled, selection, protocol, details).write(Path(config.out))


def vote(streams: list[tuple[Tensor, Tensor]], targets: Tensor, k: int, temperature: float) -> Tensor:
    """Class scores from the k nearest labelled clips.

    Args:
        streams: unit features of the clips `(N, D)` and of the labelled ones `(M, D)`, by stream; zeros where absent.
        targets: bool `(M, C)`.
        k: how many vote, at most `M`; of equally near ones any.
        temperature: a vote is exp(similarity / temperature), scaled by the nearest's.

    Returns:
        float32 `(N, C)`: votes for each class, the nearest clip's being 1.
    """
    scores = []
    for first in range(0, len(streams[0][0]), _ROWS):
        similarity = torch.stack([a[first : first + _ROWS] @ b.T for a, b in streams]).mean(dim=0)
        near, places = similarity.topk(k, dim=1)
        votes = ((near - near[:, :1]) / temperature).exp()
        scores.append(torch.einsum("nk,nkc->nc", votes, targets[places].float()))
    return torch.cat(scores)


def _units(features: Features, rows: list[int], stream: str) -> Tensor:
    """Features of length 1, 0 where the stream is absent."""
    present = {"image": features.image_present, "audio": features.audio_present}.get(stream)
    units = F.normalize(torch.from_numpy(features.streams[stream][rows]).float(), dim=1)
    return units if present is None else units * torch.from_numpy(present[rows])[:, None]


def _labelled(features: Features) -> list[int]:
    rows = [i for i, label in enumerate(features.labels) if label]
    if not rows:
        raise ValueError(f"{features.place}: no clip in it has a label")
    return rows
