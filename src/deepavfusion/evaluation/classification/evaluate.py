"""Evaluation of a classifier: its clips and labels, protocol, scores and figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from deepavfusion.data.features import read_features
from deepavfusion.evaluation.classification.evaluator import ClassifierEvaluator, Labelled, truth
from deepavfusion.evaluation.classification.feature_evaluator import FeatureEvaluator
from deepavfusion.evaluation.classification.results import classification_findings
from deepavfusion.evaluation.config import EvaluateConfig
from deepavfusion.evaluation.coverage import select_clips
from deepavfusion.evaluation.frame import Findings, TaskEvaluation
from deepavfusion.evaluation.loop import Exchange, Progress
from deepavfusion.models import AudioVisualClassifier
from deepavfusion.storage.trained_models import open_models


class ClassificationEvaluation(TaskEvaluation[EvaluateConfig]):
    """A classifier on labelled clips, or on features of them."""

    def __init__(self, config: EvaluateConfig, exchange: Exchange, progress: Progress | None = None) -> None:
        super().__init__(config, exchange, progress)
        model = open_models(config.run).load("classification").to(self.device)
        assert isinstance(model, AudioVisualClassifier)
        self.model, self.selection = model, select_clips(config.data.source, config.data.split)
        clips = self.selection.clips
        self.truth([clip.id for clip in clips])  # a label it does not know shows before the work
        self.evaluator: FeatureEvaluator | ClassifierEvaluator
        if config.features is not None:
            self.evaluator = FeatureEvaluator(model, read_features(config.features), clips)
        else:
            self.evaluator = ClassifierEvaluator(model, clips, config.windows, config.modalities, self.dtype)

    def truth(self, ids: Sequence[str]) -> Labelled:
        """Targets of clips. Raises ValueError on a label that the model does not know."""
        cells, own = {clip.id: clip.label for clip in self.selection.clips}, self.model.config
        return truth([cells[name] for name in ids], ids, own.classes, own.multi_label)

    def predict(self) -> None:
        self.predictions = self.ask(self.evaluator, max(1, self.config.batch_size // self.config.windows))
        self.predictions.check_some(self.config.data.source)

    def findings(self) -> Findings:
        config, found = self.config, self.predictions
        return classification_findings(
            found,
            self.truth(found.ids),
            self.selection,
            protocol_name(config, self.model),
            {"settings": asdict(config)},
            config.places,
            config.title,
        )

    def folder_name(self) -> list[str]:
        config = self.config
        name = [self.source_name, self.selection.split]
        name += [f"{config.windows}windows"] if config.windows > 1 else []
        name += [config.modalities] if config.modalities != "both" else []
        name += ["features"] if config.features is not None else []
        return name


def protocol_name(config: EvaluateConfig, model: AudioVisualClassifier) -> str:
    """Everything about the clips' views that could be done otherwise."""
    if config.features is not None:
        return "centre window, features written before"
    views = "centre window" if config.windows == 1 else f"{config.windows} windows"
    own = model.config.modalities
    if config.modalities != "both" and own == "both":
        return f"{views}, {config.modalities} alone at test time"
    return views if own == "both" else f"{views}, {own} alone"
