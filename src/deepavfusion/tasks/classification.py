"""Audio-event classification on a pre-trained encoder: linear probe, attentive probe, fine-tuning (section 5 of the
method).

The loss is the cross-entropy (for several labels the binary cross-entropy) of the average of the heads' logits.

Shape legend: `B` batch, `C` classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepavfusion.data.clips import Clip, clips_where, column_of, find_clips, quarantined
from deepavfusion.data.dataset import Batch, ClipStream
from deepavfusion.data.loading import ClipLoader, StepSampler, training_loader
from deepavfusion.data.sampling import BalancedStream, balancing_weights
from deepavfusion.data.sets.listing import LABEL_SEPARATOR, split_labels
from deepavfusion.data.sets.vocabularies import SHIPPED, shipped_classes, vocabulary
from deepavfusion.data.splits import held_out, spread, trained_on
from deepavfusion.data.views import TrainingView
from deepavfusion.evaluation.classification.evaluator import ClassifierEvaluator, numbers_of, score_heads, truth
from deepavfusion.evaluation.loop import Evaluator, OneProcess, predict_all
from deepavfusion.models import AudioVisualClassifier, ClassifierOutput
from deepavfusion.models.config import ClassifierConfig, Head, possible_heads
from deepavfusion.tasks.class_balance import class_counts, class_weights, classification_loss, log_odds, multi_hot
from deepavfusion.tasks.classification_config import ClassificationConfig
from deepavfusion.tasks.encoder_task import EncoderTask, kept_config, starting_config
from deepavfusion.tasks.mixing import LabelledInputs, draw_mixing, drop_modalities, mix, smooth
from deepavfusion.tasks.senses import seen_and_heard, told
from deepavfusion.training.intake import Need

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_PROBE_CLIPS = 2000
"""Held-out clips scored while training, so that watching stays cheaper than training."""
PROBE_BATCH = 32
"""Clips scored at a time."""
AUTO_HEADS: tuple[Head, ...] = ("image", "audio", "fusion")


class Classification(EncoderTask[AudioVisualClassifier]):
    """Train a classifier on clips."""

    kind = "classification"

    def __init__(self, config: ClassificationConfig) -> None:
        """Lists clips and classes.

        Raises:
            ValueError: no labelled clips to train on, labels that do not fit, or no encoder where `from_` points.
        """
        self.config: ClassificationConfig = config
        found = find_clips(config.data.source)
        labelled = clips_where(found, "label", bool)
        self.clips: Sequence[Clip] = trained_on(labelled)
        to_score = held_out(labelled)
        if not self.clips:
            raise ValueError(
                f"{config.data.source}: none of {len(found)} clips has a label and is outside the held-out splits; "
                f"give a manifest with labels (`deepavfusion manifest`, or `audit --labels`)"
            )
        ids, cells = (column_of(self.clips, name) for name in ("id", "label"))
        self.label_sets = dict(zip(ids, map(split_labels, cells), strict=True))
        self._check_labels()
        every = [label for own in self.label_sets.values() for label in own]
        classes = read_classes(config.classes) if config.classes else vocabulary(every)
        strangers = sorted(set(every) - set(classes))
        if strangers:
            raise ValueError(f"classes {config.classes}: does not name the training labels {', '.join(strangers[:5])}")
        self.model_config = self._model_config(classes)
        labels = list(self.label_sets.values())
        weights = balancing_weights(labels) if config.balance == "sampling" else np.ones(len(labels))
        self.sampling: NDArray[np.float64] = weights / weights.sum()
        """Probability of each clip at every draw."""
        self._class_weights: Tensor | None = None
        if config.balance == "loss":
            counts = class_counts(labels, classes, np.ones(len(labels)))
            self._class_weights = class_weights(counts, config.labels == "multi")
        known = set(classes)
        known_alone = clips_where(to_score, "label", lambda label: known.issuperset(split_labels(label)))
        self._held_out = spread(known_alone, MAX_PROBE_CLIPS)
        left_out = {
            "held out": len(to_score),
            "without label": len(found) - len(labelled),
            "quarantined": len(quarantined(config.data.source)),
        }
        notes = ", ".join([f"{len(classes)} classes", *told(left_out)])
        self.summary = (
            f"{len(self.clips)} clips of {config.data.source} ({notes}), heads {', '.join(self.model_config.heads)}"
        )

    @property
    def needs(self) -> Mapping[Need, str]:
        """What the classifier is to see and to hear."""
        needs: dict[Need, str] = {"picture": "take --modalities audio", "sound": "take --modalities image"}
        if self.config.modalities == "both":
            return needs
        only: Need = "picture" if self.config.modalities == "image" else "sound"
        return {only: f"--modalities {self.config.modalities} needs it"}

    def build_model(self) -> AudioVisualClassifier:
        """The classifier, from torch's global generator; heads to be fine-tuned start at the classes' log-odds."""
        model = AudioVisualClassifier(self.model_config)
        if self.config.recipe == "finetune":
            count = len(self.clips)
            drawn = class_counts(list(self.label_sets.values()), self.model_config.classes, self.sampling * count)
            if not self.config.keep_heads:
                model.set_biases(log_odds(drawn, count))
        return self.set_up(model, keep_unused=self.config.freeze_encoder)

    def loader(self, sampler: StepSampler, num_workers: int, device: torch.device) -> ClipLoader:
        """Random views of the clips."""
        view, seed = TrainingView.from_config(self.config.data, self.model_config.encoder), self.config.training.seed
        if self.config.balance == "sampling":
            stream: ClipStream = BalancedStream(self.clips, view, seed, self.sampling)
        else:
            stream = ClipStream(self.clips, view, seed)
        return training_loader(stream, sampler, num_workers, device)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Clips of which the model can see or hear something."""
        return {"class": int(self._usable(batch.image_present, batch.audio_present).sum())}

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Normalised pictures, log-mel spectrograms and targets, mixed and dropped as the settings say."""
        device, settings = batch.image.device, self.config.augmentation
        targets = self.targets(batch.ids).to(device, non_blocking=True)
        senses = seen_and_heard(batch, self.model_config.encoder.audio_size[0])
        inputs = LabelledInputs(**senses, targets=smooth(targets, settings.label_smoothing))
        if settings.mixup:
            inputs = mix(inputs, draw_mixing(settings.mixup, len(batch)).to(device, non_blocking=True))
        image_present, audio_present = self._drop(inputs.image_present, inputs.audio_present)
        return {
            "image": inputs.image,
            "audio": inputs.audio,
            "image_present": image_present,
            "audio_present": audio_present,
            "targets": inputs.targets,
        }

    def targets(self, ids: Sequence[str]) -> Tensor:
        """Float32 `(B, C)`, 1 at each clip's labels."""
        return multi_hot([self.label_sets[name] for name in ids], self.model_config.classes)

    def _drop(self, image_present: Tensor, audio_present: Tensor) -> tuple[Tensor, Tensor]:
        rate = self.config.augmentation.modality_dropout
        if not rate or self.config.modalities != "both":
            return image_present, audio_present
        draws = torch.rand(len(image_present)).to(image_present.device, non_blocking=True)
        return drop_modalities(image_present, audio_present, draws, rate)

    def loss_terms(self, model: AudioVisualClassifier, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """The mean loss over clips of which there is something to see or hear."""
        out = model(inputs["image"], inputs["audio"], inputs["image_present"], inputs["audio_present"])
        return {"class": self.loss(out, inputs)}

    def loss(self, out: ClassifierOutput, inputs: dict[str, Any]) -> Tensor:
        """Scalar loss of a model's output for `inputs`."""
        weights = self._class_weights
        weights = None if weights is None else weights.to(out.average.device, non_blocking=True)
        losses = classification_loss(out.average, inputs["targets"], self.config.labels == "multi", weights)
        usable = self._usable(inputs["image_present"], inputs["audio_present"])
        return torch.where(usable, losses, 0.0).sum() / usable.sum().clamp_min(1)

    def _usable(self, image_present: Tensor, audio_present: Tensor) -> Tensor:
        flags = {"both": image_present | audio_present, "image": image_present, "audio": audio_present}
        return flags[self.config.modalities]

    def evaluator(self, model: AudioVisualClassifier, clips: Sequence[Clip]) -> Evaluator:
        """Predictions for held-out clips."""
        return ClassifierEvaluator(model, clips)

    def probe(self, model: AudioVisualClassifier, device: torch.device) -> dict[str, float]:
        """Scores on at most `MAX_PROBE_CLIPS` held-out clips of the source; empty if it holds none."""
        if not self._held_out:
            return {}
        evaluator = self.evaluator(model, self._held_out)
        found = predict_all(evaluator, OneProcess(device), PROBE_BATCH, self.config.data.num_workers)
        if not found.ids:
            return {}
        cells = [self._held_out[i].label for i in found.positions]
        scores = score_heads(found, truth(cells, found.ids, self.model_config.classes, self.config.labels == "multi"))
        name = "top1" if self.config.labels == "single" else "mean_ap"
        values = {f"{name}_{head}": numbers_of(own.scores)[name] for head, own in scores.items()}
        return {**values, "num_clips": len(found.ids)}

    def pictures(self, model: AudioVisualClassifier, device: torch.device) -> dict[str, Figure]:
        """None while training; the confusion picture is made by evaluation."""
        return {}

    def _model_config(self, classes: Sequence[str]) -> ClassifierConfig:
        config = self.config
        drop_path = 0.0 if config.freeze_encoder else config.augmentation.drop_path
        if config.keep_heads:
            kept = kept_config(config.from_, ClassifierConfig, self.kind, classes)
            if kept.multi_label != (config.labels == "multi"):
                raise ValueError(
                    f"keep_heads true: the classifier in --from {config.from_} knows another kind of labels"
                )
            encoder = replace(starting_config(config, kept=kept.encoder), drop_path=drop_path)
            return replace(kept, encoder=encoder, modalities=config.modalities)
        encoder = starting_config(config)
        heads = config.heads
        if isinstance(heads, str):
            possible = possible_heads(encoder, config.modalities)
            heads = tuple(head for head in AUTO_HEADS if head in possible)
        return ClassifierConfig(
            encoder=replace(encoder, drop_path=drop_path),
            classes=tuple(classes),
            heads=heads,
            modalities=config.modalities,
            pooling=config.head_pooling,
            batch_norm=config.recipe != "finetune" or config.head_pooling == "attentive",
            multi_label=config.labels == "multi",
        )

    def _check_labels(self) -> None:
        if self.config.labels == "single":
            for name, own in self.label_sets.items():
                if len(own) > 1:
                    raise ValueError(
                        f"{name} has {len(own)} labels, {LABEL_SEPARATOR.join(own)!r}; train with --labels multi"
                    )


def read_classes(place: str) -> tuple[str, ...]:
    """Class names of a list that ships, or of a file with one per line.

    Raises:
        ValueError: neither, or an empty file.
    """
    if place in SHIPPED:
        return shipped_classes(place)
    if not Path(place).is_file():
        raise ValueError(f"classes {place}: neither a file nor a shipped list ({', '.join(SHIPPED)})")
    lines = tuple(line.strip() for line in Path(place).read_text(encoding="utf-8").splitlines() if line.strip())
    if not lines:
        raise ValueError(f"classes {place}: names no classes")
    return lines
