"""`evaluate`: score a trained model on labelled clips, in one process or under torchrun."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deepavfusion.configuration import TrainingConfig
from deepavfusion.data.features import read_features
from deepavfusion.evaluation.classification.evaluator import ClassifierEvaluator, numbers_of, truth
from deepavfusion.evaluation.classification.feature_evaluator import FeatureEvaluator
from deepavfusion.evaluation.classification.results import ClassificationResult, write_results
from deepavfusion.evaluation.config import EvaluateConfig, named_places
from deepavfusion.evaluation.coverage import ClipSelection, select_clips
from deepavfusion.evaluation.loop import Progress, predict_all
from deepavfusion.models import AudioVisualClassifier
from deepavfusion.storage.trained_models import open_models
from deepavfusion.training.processes import Processes, autocast_dtype


def evaluate(config: EvaluateConfig, progress: Progress | None = None) -> ClassificationResult | None:
    """Score a classifier.

    Args:
        config: which model on which clips.
        progress: is told how many clips this process has done.

    Returns:
        The scores; None in every process but the first, which writes the files.

    Raises:
        ValueError: no such model or clips, or labels that the model does not know.
    """
    processes = Processes(TrainingConfig(device=config.device))
    result = _evaluate(config, processes, progress)
    processes.close()
    return result


def _evaluate(config: EvaluateConfig, processes: Processes, progress: Progress | None) -> ClassificationResult | None:
    model = open_models(config.run).load("classification").to(processes.device)
    assert isinstance(model, AudioVisualClassifier)
    selection = select_clips(config.data.source, config.data.split)
    cells = {clip.id: clip.label for clip in selection.clips}
    classes, multi_label = model.config.classes, model.config.multi_label
    truth(list(cells.values()), list(cells), classes, multi_label)  # a label it does not know shows before the work
    clips_per_batch = max(1, config.batch_size // config.windows)
    if config.features is not None:
        evaluator: FeatureEvaluator | ClassifierEvaluator = FeatureEvaluator(
            model, read_features(config.features), selection.clips
        )
    else:
        dtype = autocast_dtype(config.precision, processes.device.type)
        evaluator = ClassifierEvaluator(model, selection.clips, config.windows, config.modalities, dtype)
    predictions = predict_all(evaluator, processes, clips_per_batch, config.data.num_workers, progress)
    predictions.check_some(config.data.source)
    if not processes.first:
        return None
    labelled = truth([cells[name] for name in predictions.ids], predictions.ids, classes, multi_label)
    protocol = protocol_name(config, model)
    settings = {"settings": asdict(config)}
    out = _folder(config, selection)
    baselines = named_places(config.baselines)
    return write_results(out, predictions, labelled, selection, protocol, settings, baselines, config.title)


def protocol_name(config: EvaluateConfig, model: AudioVisualClassifier) -> str:
    """Everything about the clips' views that could be done otherwise."""
    if config.features is not None:
        return "centre window, features written before"
    views = "centre window" if config.windows == 1 else f"{config.windows} windows"
    own = model.config.modalities
    if config.modalities != "both" and own == "both":
        return f"{views}, {config.modalities} alone at test time"
    return views if own == "both" else f"{views}, {own} alone"


def show(result: ClassificationResult, console: Console | None = None) -> None:
    """Print the coverage line and a table with one row per head."""
    console = console or Console(markup=False, emoji=False)
    console.print(result.coverage.line(), soft_wrap=True)
    names = [name for name in result.numbers if not name.startswith("f1_")]
    table = Table(title=f"{result.protocol} ({result.out})", title_justify="left")
    for column in ("head", *names, "clips"):
        table.add_column(column.replace("_", " "), justify="left" if column == "head" else "right")
    for head, own in result.heads.items():
        numbers = numbers_of(own.scores)
        table.add_row(head, *(f"{100 * numbers[name]:.2f}" for name in names), str(own.scores.num_scored))
    console.print(table)
    for what, cause in result.not_drawn.items():
        console.print(f"no drawing of {what}: {cause}", soft_wrap=True, markup=False)


def _folder(config: EvaluateConfig, selection: ClipSelection) -> Path:
    if config.out is not None:
        return Path(config.out)
    name = [Path(config.data.source.rstrip("/")).stem, selection.split]
    name += [f"{config.windows}windows"] if config.windows > 1 else []
    name += [config.modalities] if config.modalities != "both" else []
    name += ["features"] if config.features is not None else []
    return Path(config.run) / "evaluation" / "-".join(name)
