"""Commands that score trained models: `evaluate`, `compare`, `average`, `vggsounder`, `embed`, `knn`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from deepavfusion.verbs.verb import Verb


def _config() -> ModuleType:
    """The settings that no task has for itself; imported when asked for, as all settings are."""
    from deepavfusion.evaluation import config

    return config


def _localization_config() -> type:
    from deepavfusion.evaluation.localization.config import EvaluateLocalizationConfig

    return EvaluateLocalizationConfig


def _separation_config() -> type:
    from deepavfusion.evaluation.separation.config import EvaluateSeparationConfig

    return EvaluateSeparationConfig


def _segmentation_config() -> type:
    from deepavfusion.evaluation.segmentation.config import EvaluateSegmentationConfig

    return EvaluateSegmentationConfig


def _exit_code(num_without_numbers: int) -> int:
    """0, or 1 and a line if the model's answer was not finite somewhere."""
    import sys

    from deepavfusion.models.no_numbers import NO_NUMBERS

    if num_without_numbers:
        print(f"error: {NO_NUMBERS} for {num_without_numbers} of what was asked", file=sys.stderr)
    return int(num_without_numbers > 0)


def _evaluate(counted: str, config: Any) -> int:
    """Score a model; `counted` is what the bar counts."""
    from deepavfusion.counting import counting
    from deepavfusion.evaluation.evaluate import evaluate
    from deepavfusion.evaluation.frame import show

    with counting(counted) as progress:
        result = evaluate(config, progress)
    if result is None:
        return 0
    show(result)
    return _exit_code(result.num_without_numbers)


def _compare(config: Any) -> int:
    from deepavfusion.evaluation.comparison import compare

    print(compare(config).line())
    return 0


def _average(config: Any) -> int:
    from deepavfusion.evaluation.classification.ensemble import average
    from deepavfusion.evaluation.frame import show

    show(average(config))
    return 0


def _vggsounder(config: Any) -> int:
    from deepavfusion.evaluation.classification.vggsounder import score_vggsounder, show

    show(score_vggsounder(config))
    return 0


def _embed(config: Any) -> int:
    from deepavfusion.counting import counting, report
    from deepavfusion.evaluation.features.embedding import embed

    with counting("clips") as progress:
        summary = embed(config, progress)
    if summary is None:
        return 0
    report("features", summary)
    return _exit_code(summary.num_without_numbers)


def _neighbours(config: Any) -> int:
    from deepavfusion.evaluation.features.neighbours import neighbours
    from deepavfusion.evaluation.frame import show

    show(neighbours(config))
    return 0


def _retrieval(config: Any) -> int:
    from deepavfusion.evaluation.features.retrieval import retrieval
    from deepavfusion.evaluation.frame import show

    show(retrieval(config))
    return 0


def _evaluation(summary: str, config: Callable[[], type], counted: str) -> Verb:
    return Verb(summary, config, partial(_evaluate, counted), ("run",), sole_writer=True)


EVALUATION: dict[str, Verb] = {
    "evaluate classification": _evaluation(
        "score a classifier on labelled clips", lambda: _config().EvaluateConfig, "clips"
    ),
    "evaluate localization": _evaluation(
        "score maps of where the sound comes from, against boxes or masks", _localization_config, "samples"
    ),
    "evaluate separation": _evaluation(
        "score separated sounds against the true sources", _separation_config, "mixtures"
    ),
    "evaluate segmentation": _evaluation("score masks of what sounds", _segmentation_config, "frames"),
    "evaluate retrieval": Verb(
        "score retrieval between images and sounds, on features from embed",
        lambda: _config().RetrievalConfig,
        _retrieval,
        ("features",),
    ),
    "compare": Verb(
        "compare two evaluations on their common clips", lambda: _config().CompareConfig, _compare, ("a", "b")
    ),
    "average": Verb("average the logits of several evaluated classifiers", lambda: _config().AverageConfig, _average),
    "vggsounder": Verb(
        "score predictions by VGGSounder's labels", lambda: _config().VggsounderConfig, _vggsounder, ("annotations",)
    ),
    "embed": Verb(
        "write an encoder's features of clips to a file", lambda: _config().EmbedConfig, _embed, sole_writer=True
    ),
    "knn": Verb("nearest-neighbour classification of features", lambda: _config().NeighboursConfig, _neighbours),
}
