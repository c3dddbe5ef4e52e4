"""`evaluate retrieval`: retrieval of a clip's own sound by its image among all clips, and the reverse.

Both directions search all clips of the file that have image and sound, by cosine similarity. Shapes: `N` clips.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deepavfusion.data.features import Features, read_features
from deepavfusion.drawing.retrieval import recall_figure
from deepavfusion.evaluation.config import RetrievalConfig
from deepavfusion.evaluation.coverage import ClipSelection, coverage
from deepavfusion.evaluation.frame import Evaluated, Findings, Printed, picture_drawing
from deepavfusion.evaluation.record import PictureEntry, Record, Score, mean_score
from deepavfusion.metrics.retrieval import own_ranks

RECALLS = (1, 5, 10)
DIRECTIONS = {"image to sound": ("image", "audio"), "sound to image": ("audio", "image")}
"""By name, the stream of the queries and that of the gallery."""


def retrieval(config: RetrievalConfig) -> Evaluated:
    """Score a file of features.

    Raises:
        ValueError: the file lacks pooled features or vectors of one of the two, or fewer than two clips have both.
    """
    features = read_features(config.features)
    rows = _complete(features)
    kept = [features.ids[n] for n in rows]
    ranks = {
        name: own_ranks(*(torch.from_numpy(features.streams[stream][rows]) for stream in streams)).numpy()
        for name, streams in DIRECTIONS.items()
    }
    samples: dict[str, NDArray[np.float64]] = {
        f"R@{k} {name}": (own <= k).astype(np.float64) for name, own in ranks.items() for k in RECALLS
    }
    medians = {f"median rank {name}": Score(float(np.median(own))) for name, own in ranks.items()}
    lacking = {features.ids[n]: "no image or no sound" for n in range(len(features.ids)) if n not in set(rows)}
    official = (*features.ids, *features.failed, *features.meta["quarantined"], *features.meta["missing"])
    selection = ClipSelection(
        features.meta["source"],
        features.meta["split"],
        clips=(),
        official=official,
        missing=tuple(features.meta["missing"]),
        quarantined=features.meta["quarantined"],
        unlabelled=(),
    )
    space = "joint space" if features.meta["tokens"] == "joint" else "mean tokens, no joint space"
    chance = ", ".join(f"R@{k} {100 * min(1, k / len(rows)):.2f}" for k in RECALLS)
    record = Record(
        title="Retrieval",
        task="retrieval",
        protocol=f"own clip among {len(rows)}, centre window, {space}",
        coverage=coverage(selection, kept, {**features.failed, **lacking}),
        num_scored=len(rows),
        scores={**{name: mean_score(values) for name, values in samples.items()}, **medians},
        details={"settings": asdict(config), "features": features.meta},
    )
    figure = partial(recall_figure, ranks, record.protocol)
    caption = "Share of queries that find their own clip within a number of results."
    printed = Printed(tuple(samples), (), lines=(f"chance: {chance}", *(_median(n, s) for n, s in medians.items())))
    drawings = {"recall": picture_drawing(PictureEntry("recall.png", "recall curve", caption), figure)}
    shown = {**samples, **{f"rank {name}": own.astype(np.float64) for name, own in ranks.items()}}
    return Findings(record, kept, shown, printed, drawings=drawings).write(Path(config.out))


def _complete(features: Features) -> NDArray[np.int64]:
    """Rows of clips that have image and sound."""
    lacking = [name for name in ("image", "audio") if name not in features.streams]
    if lacking or features.meta["tokens"] == "all":
        raise ValueError(
            f"features {features.place}: retrieval compares vectors of image and sound; write them with "
            f"embed --tokens joint (or pooled) and --modalities both"
        )
    rows = np.flatnonzero(features.image_present & features.audio_present)
    if len(rows) < 2:
        raise ValueError(f"features {features.place}: {len(rows)} clips have image and sound; retrieval needs two")
    return rows


def _median(name: str, score: Score) -> str:
    return f"{name}: {score.value:g}"
