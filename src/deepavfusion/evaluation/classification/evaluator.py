"""Predictions of a classifier for whole clips, and their scores.

The logits of a head for a clip are the mean over the windows in which the head has an input. A clip fails if any of its
windows cannot be read, or if it lacks the modality that is evaluated.

Shape legend: `N` clips, `W` windows per clip, `C` classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepavfusion.audio import log_mel
from deepavfusion.data.clips import Clip
from deepavfusion.data.dataset import Batch
from deepavfusion.data.loading import ClipLoader, evaluation_loader
from deepavfusion.data.sets.listing import LABEL_SEPARATOR, split_labels
from deepavfusion.data.views import CentreView
from deepavfusion.data.windows import WindowSet
from deepavfusion.evaluation.loop import Outcome, Predictions
from deepavfusion.images import normalize
from deepavfusion.metrics.classification import (
    MultiLabelScores,
    SingleLabelScores,
    multi_label_scores,
    single_label_scores,
)
from deepavfusion.models import AudioVisualClassifier, ClassifierOutput
from deepavfusion.models.config import Modalities
from deepavfusion.models.no_numbers import without_numbers

Scores = SingleLabelScores | MultiLabelScores
AVERAGE = "average"
"""Name of the average of the heads, among the heads."""
_LACKING = {"image": "no picture", "audio": "no sound", "fusion": "nothing", "concat": "nothing"}


class ClassifierEvaluator:
    """What the evaluation loop asks, for a classifier."""

    def __init__(
        self,
        model: AudioVisualClassifier,
        clips: Sequence[Clip],
        windows: int = 1,
        modalities: Modalities = "both",
        dtype: torch.dtype | None = None,
    ) -> None:
        """
        Args:
            model: in evaluation mode, on its device.
            clips: what to classify.
            windows: per clip.
            modalities: drop an input, as if no clip had it.
            dtype: of the forward pass under autocast; None is plain float32.

        Raises:
            ValueError: the model does not look at the modality that would be left.
        """
        own = model.config.modalities
        if modalities != "both" and own not in ("both", modalities):
            raise ValueError(f"modalities {modalities}: the model was trained only on {own}")
        self.model, self.clips, self.windows, self.modalities, self.dtype = model, clips, windows, modalities, dtype

    @property
    def ids(self) -> Sequence[str]:
        return [clip.id for clip in self.clips]

    def loader(self, positions: Sequence[int], batch_size: int, num_workers: int, device: torch.device) -> ClipLoader:
        """Batches of all windows of `batch_size` clips."""
        view = CentreView.from_config(self.model.config.encoder)
        windows = WindowSet([self.clips[i] for i in positions], view, self.windows)
        return evaluation_loader(windows, batch_size * self.windows, num_workers, device)

    def predict(self, batch: Batch, device: torch.device) -> Outcome:
        """Logits of each head, `(n, C)`, whether it is present, `(n,)`, and the average of the heads."""
        views = batch.to(device)
        image = None if self.modalities == "audio" else normalize(views.image)
        mels = self.model.config.encoder.audio_size[0]
        audio = None if self.modalities == "image" else log_mel(views.waveform, mels)
        with torch.autocast(device.type, dtype=self.dtype, enabled=self.dtype is not None):
            out = self.model(image, audio, views.image_present, views.audio_present)
        failed: dict[int, list[str]] = {}
        places = {name: i // self.windows for i, name in enumerate(batch.ids)}
        for failure in batch.failures:
            failed.setdefault(places[failure.clip_id], []).append(failure.cause)
        causes = {
            place: own[0] if self.windows == 1 else f"{len(own)} of {self.windows} windows: {own[0]}"
            for place, own in failed.items()
        }
        return outcome(out, self.windows, causes)


def outcome(out: ClassifierOutput, windows: int, failed: Mapping[int, str]) -> Outcome:
    """Predictions of clips from those of their windows, `windows` consecutive rows for each clip."""
    values: dict[str, Tensor] = {}
    anything = torch.stack(list(out.present.values())).any(dim=0)
    for head, logits, present in (
        (AVERAGE, out.average, anything),
        *((head, out.logits[head], out.present[head]) for head in out.logits),
    ):
        weight = present.view(-1, windows, 1).double()  # (n, W, 1)
        rows = logits.view(len(weight), windows, -1).double()
        total = torch.where(weight > 0, rows, 0.0).sum(dim=1)
        values[head] = (total / weight.sum(dim=1).clamp_min(1)).float()
        values[f"{head}_present"] = weight[..., 0].any(dim=1)
    lacking = " or ".join(sorted({_LACKING[head] for head in out.present} - {"nothing"})) or "nothing to look at"
    empty = (~values[f"{AVERAGE}_present"]).nonzero()[:, 0].tolist()
    silent = without_numbers(values[AVERAGE], values[f"{AVERAGE}_present"])
    return Outcome(values, {**dict.fromkeys(empty, lacking), **failed}, silent - failed.keys())


@dataclass(frozen=True)
class Labelled:
    """Truth of clips, as the metrics want it."""

    classes: tuple[str, ...]
    targets: NDArray[np.bool_]
    """`(N, C)`; exactly one per row unless several labels are allowed."""
    multi_label: bool

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Class numbers `(N,)` of clips with one label each."""
        assert not self.multi_label
        return self.targets.argmax(axis=1)


def truth(labels: Sequence[str | None], ids: Sequence[str], classes: Sequence[str], multi_label: bool) -> Labelled:
    """Turn the cells of a manifest into targets.

    Raises:
        ValueError: labels that are none of the classes, or several where there should be one; names clips.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    targets = np.zeros((len(labels), len(classes)), dtype=bool)
    strangers: dict[str, str] = {}
    for row, (name, cell) in enumerate(zip(ids, labels, strict=True)):
        own = split_labels(cell)
        if not multi_label and len(own) != 1:
            raise ValueError(f"{name} has the labels {cell!r}: one is needed (several are joined by {LABEL_SEPARATOR})")
        for label in own:
            if label in numbers:
                targets[row, numbers[label]] = True
            else:
                strangers.setdefault(label, name)
    if strangers:
        shown = ", ".join(f"{label!r} ({name})" for label, name in list(strangers.items())[:5])
        raise ValueError(
            f"{len(strangers)} labels are not among the model's {len(classes)} classes: {shown}; "
            f"train with --classes naming all of them"
        )
    return Labelled(tuple(classes), targets, multi_label)


@dataclass(frozen=True)
class HeadScores:
    """Scores of one head over the clips it had something to read in."""

    scores: Scores
    num_absent: int
    """Clips left out because the head had nothing to read."""


def score_heads(predictions: Predictions, labelled: Labelled) -> dict[str, HeadScores]:
    """Scores of the average and of every head. `labelled` rows belong to the predictions' rows.

    A head without a single clip is left out.
    """
    results = {}
    for head in heads_of(predictions.values):
        present = predictions.values[f"{head}_present"]
        if present.any():
            logits = torch.from_numpy(predictions.values[head][present])
            if labelled.multi_label:
                scores: Scores = multi_label_scores(logits, torch.from_numpy(labelled.targets[present]))
            else:
                scores = single_label_scores(logits, torch.from_numpy(labelled.numbers[present]))
            results[head] = HeadScores(scores, int((~present).sum()))
    return results


def heads_of(values: Mapping[str, Any]) -> list[str]:
    """Names of the heads among saved values, the average first."""
    return [name for name in values if f"{name}_present" in values]


def numbers_of(scores: Scores) -> dict[str, float]:
    """The scores that are single numbers, by name."""
    if isinstance(scores, SingleLabelScores):
        numbers = {"top1": scores.top1, "top5": scores.top5, "mean_ap": scores.mean_ap}
        return {name: value for name, value in numbers.items() if value is not None}
    found = {"mean_ap": scores.mean_ap, **{f"hit_at_{k}": value for k, value in scores.hit.items()}}
    for k, f1 in scores.f1.items():
        found |= {f"f1_micro_at_{k}": f1.micro, f"f1_macro_at_{k}": f1.macro}
    return found
