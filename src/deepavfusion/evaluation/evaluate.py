"""`evaluate`: score a trained model of any task, in one process or under torchrun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deepavfusion.configuration import TrainingConfig
from deepavfusion.evaluation.classification.evaluate import ClassificationEvaluation
from deepavfusion.evaluation.config import EvaluateConfig, EvaluationConfig
from deepavfusion.evaluation.frame import Evaluated, TaskEvaluation
from deepavfusion.evaluation.localization.config import EvaluateLocalizationConfig
from deepavfusion.evaluation.localization.evaluate import LocalizationEvaluation
from deepavfusion.evaluation.loop import Progress
from deepavfusion.evaluation.segmentation.config import EvaluateSegmentationConfig
from deepavfusion.evaluation.segmentation.evaluate import SegmentationEvaluation
from deepavfusion.evaluation.separation.config import EvaluateSeparationConfig
from deepavfusion.evaluation.separation.evaluate import SeparationEvaluation
from deepavfusion.training.processes import Processes

EVALUATIONS: dict[type[EvaluationConfig], type[TaskEvaluation[Any]]] = {
    EvaluateConfig: ClassificationEvaluation,
    EvaluateLocalizationConfig: LocalizationEvaluation,
    EvaluateSeparationConfig: SeparationEvaluation,
    EvaluateSegmentationConfig: SegmentationEvaluation,
}


def evaluate(config: EvaluationConfig, progress: Progress | None = None) -> Evaluated | None:
    """Score a trained model.

    Args:
        config: which model on which clips; its type is the task.
        progress: is told how many items this process has done, for everything that is asked anew.

    Returns:
        The scores; None in every process but the first, which writes the files.

    Raises:
        ValueError: no such model or clips, baselines that do not fit, or not one item that can be scored.
        NoNumbersError: the model's answer is finite for not one item.
    """
    processes = Processes(TrainingConfig(device=config.device))
    evaluation = EVALUATIONS[type(config)](config, processes, progress)
    evaluation.predict()
    result = evaluation.findings().write(results_folder(config, evaluation)) if processes.first else None
    processes.close()
    return result


def results_folder(config: EvaluationConfig, evaluation: TaskEvaluation[Any]) -> Path:
    """The folder given by `out`, or one in the run named after the source and the protocol."""
    if config.out is not None:
        return Path(config.out)
    return Path(config.run) / "evaluation" / "-".join(evaluation.folder_name())
