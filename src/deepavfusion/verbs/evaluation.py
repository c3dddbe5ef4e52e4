"""Verbs that score trained models, and that write features."""

from __future__ import annotations

from typing import Any

from deepavfusion.verbs.verb import Verb


def _exit_code(num_without_numbers: int) -> int:
    """0, or 1 and a line if the model's answer was not finite somewhere."""
    import sys

    from deepavfusion.models.no_numbers import NO_NUMBERS

    if num_without_numbers:
        print(f"error: {NO_NUMBERS} for {num_without_numbers} of what was asked", file=sys.stderr)
    return int(num_without_numbers > 0)


def _evaluate_config() -> type:
    from deepavfusion.evaluation.config import EvaluateConfig

    return EvaluateConfig


def _evaluate(config: Any) -> int:
    from deepavfusion.counting import counting
    from deepavfusion.evaluation.classification.evaluate import evaluate, show

    with counting("clips") as progress:
        result = evaluate(config, progress)
    if result is None:
        return 0
    show(result)
    return _exit_code(result.num_without_numbers)


def _evaluate_localization_config() -> type:
    from deepavfusion.evaluation.localization.config import EvaluateLocalizationConfig

    return EvaluateLocalizationConfig


def _evaluate_localization(config: Any) -> int:
    from deepavfusion.counting import counting
    from deepavfusion.evaluation.localization.evaluate import evaluate_localization, show

    with counting("samples") as progress:
        result = evaluate_localization(config, progress)
    if result is None:
        return 0
    show(result)
    return _exit_code(result.num_without_numbers)


def _evaluate_separation_config() -> type:
    from deepavfusion.evaluation.separation.config import EvaluateSeparationConfig

    return EvaluateSeparationConfig


def _evaluate_separation(config: Any) -> int:
    from deepavfusion.counting import counting
    from deepavfusion.evaluation.separation.evaluate import evaluate_separation, show

    with counting("mixtures") as progress:
        result = evaluate_separation(config, progress)
    if result is None:
        return 0
    show(result)
    return _exit_code(result.num_without_numbers)


def _evaluate_segmentation_config() -> type:
    from deepavfusion.evaluation.segmentation.config import EvaluateSegmentationConfig

    return EvaluateSegmentationConfig


def _evaluate_segmentation(config: Any) -> int:
    from deepavfusion.counting import counting
    from deepavfusion.evaluation.segmentation.evaluate import evaluate_segmentation, show

    with counting("pictures") as progress:
        result = evaluate_segmentation(config, progress)
    if result is None:
        return 0
    show(result)
    return _exit_code(result.num_without_numbers)


def _compare_config() -> type:
    from deepavfusion.evaluation.config import CompareConfig

    return CompareConfig


def _compare(config: Any) -> int:
    from deepavfusion.evaluation.comparison import compare

    print(compare(config).line())
    return 0


def _average_config() -> type:
    from deepavfusion.evaluation.config import AverageConfig

    return AverageConfig


def _average(config: Any) -> int:
    from deepavfusion.evaluation.classification.ensemble import average
    from deepavfusion.evaluation.classification.evaluate import show

    show(average(config))
    return 0


def _vggsounder_config() -> type:
    from deepavfusion.evaluation.config import VggsounderConfig

    return VggsounderConfig


def _vggsounder(config: Any) -> int:
    from deepavfusion.evaluation.classification.vggsounder import score_vggsounder, show

    show(score_vggsounder(config))
    return 0


def _embed_config() -> type:
    from deepavfusion.evaluation.config import EmbedConfig

    return EmbedConfig


def _embed(config: Any) -> int:
    from deepavfusion.counting import counting, report
    from deepavfusion.evaluation.features.embedding import embed

    with counting("clips") as progress:
        summary = embed(config, progress)
    if summary is None:
        return 0
    report("features", summary)
    return _exit_code(summary.num_without_numbers)


def _neighbours_config() -> type:
    from deepavfusion.evaluation.config import NeighboursConfig

    return NeighboursConfig


def _neighbours(config: Any) -> int:
    from deepavfusion.evaluation.classification.evaluate import show
    from deepavfusion.evaluation.features.neighbours import neighbours

    show(neighbours(config))
    return 0


EVALUATION: dict[str, Verb] = {
    "evaluate classification": Verb(
        "score a classifier on labelled clips", _evaluate_config, _evaluate, ("run",), sole_writer=True
    ),
    "evaluate localization": Verb(
        "score maps of where the sound comes from",
        _evaluate_localization_config,
        _evaluate_localization,
        ("run",),
        sole_writer=True,
    ),
    "evaluate separation": Verb(
        "score separated sounds against their stems",
        _evaluate_separation_config,
        _evaluate_separation,
        ("run",),
        sole_writer=True,
    ),
    "evaluate segmentation": Verb(
        "score masks of what sounds", _evaluate_segmentation_config, _evaluate_segmentation, ("run",), sole_writer=True
    ),
    "compare": Verb("two evaluations on their common clips", _compare_config, _compare, ("a", "b")),
    "average": Verb("the mean of several evaluated classifiers", _average_config, _average),
    "vggsounder": Verb("score predictions by VGGSounder's labels", _vggsounder_config, _vggsounder, ("annotations",)),
    "embed": Verb("write an encoder's features of clips", _embed_config, _embed, sole_writer=True),
    "knn": Verb("classify features by their nearest neighbours", _neighbours_config, _neighbours),
}
