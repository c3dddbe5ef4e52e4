"""The table from verb to configuration and function, and what each verb does with its configuration.

Nothing here imports torch: the function that does the work is imported when its verb runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

PREEMPTED = 75
"""Exit code of a run that was stopped on request and can be continued."""


@dataclass(frozen=True)
class Verb:
    """One command."""

    summary: str
    config: Callable[[], type]
    """Gives the configuration dataclass; a function, so that only the verb asked for is imported."""
    run: Callable[[Any], int]
    """Does the work and returns the exit code."""
    positional: tuple[str, ...] = ()
    """Fields that may be given without a flag, in this order."""
    as_options: Callable[[], Callable[[Sequence[str]], list[str]]] | None = None
    """Gives the function that makes options of the words, where positions are not enough."""


def _pretrain_config() -> type:
    from deepavfusion.configuration import PretrainConfig

    return PretrainConfig


def _pretrain(config: Any) -> int:
    from deepavfusion.tasks.pretraining import MaskedPretraining
    from deepavfusion.training.loop import fit

    result = fit(MaskedPretraining(config), config)
    return PREEMPTED if result.status == "preempted" else 0


def _classification_config() -> type:
    from deepavfusion.tasks.classification_config import ClassificationConfig

    return ClassificationConfig


def _train_classification(config: Any) -> int:
    from deepavfusion.tasks.feature_probe import classification_task
    from deepavfusion.training.loop import fit

    result = fit(classification_task(config), config)
    return PREEMPTED if result.status == "preempted" else 0


def _localization_config() -> type:
    from deepavfusion.tasks.localization_config import LocalizationConfig

    return LocalizationConfig


def _train_localization(config: Any) -> int:
    from deepavfusion.tasks.localization import Localization
    from deepavfusion.training.loop import fit

    return PREEMPTED if fit(Localization(config), config).status == "preempted" else 0


def _evaluate_localization_config() -> type:
    from deepavfusion.evaluation.localization.config import EvaluateLocalizationConfig

    return EvaluateLocalizationConfig


def _evaluate_localization(config: Any) -> int:
    from deepavfusion.counting import counting
    from deepavfusion.evaluation.localization.evaluate import evaluate_localization, show

    with counting("samples") as progress:
        result = evaluate_localization(config, progress)
    if result is not None:
        show(result)
    return 0


def _segmentation_config() -> type:
    from deepavfusion.tasks.segmentation_config import SegmentationConfig

    return SegmentationConfig


def _train_segmentation(config: Any) -> int:
    from deepavfusion.tasks.segmentation import Segmentation
    from deepavfusion.training.loop import fit

    return PREEMPTED if fit(Segmentation(config), config).status == "preempted" else 0


def _evaluate_segmentation_config() -> type:
    from deepavfusion.evaluation.segmentation.config import EvaluateSegmentationConfig

    return EvaluateSegmentationConfig


def _evaluate_segmentation(config: Any) -> int:
    from deepavfusion.counting import counting
    from deepavfusion.evaluation.segmentation.evaluate import evaluate_segmentation, show

    with counting("pictures") as progress:
        result = evaluate_segmentation(config, progress)
    if result is not None:
        show(result)
    return 0


def _separation_config() -> type:
    from deepavfusion.tasks.separation_config import SeparationConfig

    return SeparationConfig


def _train_separation(config: Any) -> int:
    from deepavfusion.tasks.separation import Separation
    from deepavfusion.training.loop import fit

    return PREEMPTED if fit(Separation(config), config).status == "preempted" else 0


def _evaluate_separation_config() -> type:
    from deepavfusion.evaluation.separation.config import EvaluateSeparationConfig

    return EvaluateSeparationConfig


def _evaluate_separation(config: Any) -> int:
    from deepavfusion.counting import counting
    from deepavfusion.evaluation.separation.evaluate import evaluate_separation, show

    with counting("mixtures") as progress:
        result = evaluate_separation(config, progress)
    if result is not None:
        show(result)
    return 0


def _evaluate_config() -> type:
    from deepavfusion.evaluation.config import EvaluateConfig

    return EvaluateConfig


def _evaluate(config: Any) -> int:
    from deepavfusion.counting import counting
    from deepavfusion.evaluation.classification.evaluate import evaluate, show

    with counting("clips") as progress:
        result = evaluate(config, progress)
    if result is not None:
        show(result)
    return 0


def _compare_config() -> type:
    from deepavfusion.evaluation.config import CompareConfig

    return CompareConfig


def _compare(config: Any) -> int:
    from deepavfusion.evaluation.comparison import compare

    print(compare(config).line())
    return 0


def _embed_config() -> type:
    from deepavfusion.evaluation.config import EmbedConfig

    return EmbedConfig


def _embed(config: Any) -> int:
    from deepavfusion.counting import counting, report
    from deepavfusion.evaluation.features.embedding import embed

    with counting("clips") as progress:
        summary = embed(config, progress)
    if summary is not None:
        report("features", summary)
    return 0


def _neighbours_config() -> type:
    from deepavfusion.evaluation.config import NeighboursConfig

    return NeighboursConfig


def _neighbours(config: Any) -> int:
    from deepavfusion.evaluation.classification.evaluate import show
    from deepavfusion.evaluation.features.neighbours import neighbours

    show(neighbours(config))
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


def _predict_config() -> type:
    from deepavfusion.inference.predict_config import PredictConfig

    return PredictConfig


def _predict_words() -> Callable[[Sequence[str]], list[str]]:
    from deepavfusion.inference.predict_config import with_files

    return with_files


def _predict(config: Any) -> int:
    from deepavfusion.inference.predict import predict

    return predict(config)


def _serve_config() -> type:
    from deepavfusion.page.serve_config import ServeConfig

    return ServeConfig


def _serve(config: Any) -> int:
    from deepavfusion.page.serve import serve

    return serve(config)


def _bundle_config() -> type:
    from deepavfusion.models.bundle_config import BundleConfig

    return BundleConfig


def _bundle(config: Any) -> int:
    from deepavfusion.models.bundle import bundle

    bundle(config)
    print(f"bundle of {', '.join(config.places) or 'an encoder'} in {config.out}")
    return 0


def _export_config() -> type:
    from deepavfusion.inference.export_config import ExportConfig

    return ExportConfig


def _export(config: Any) -> int:
    from deepavfusion.inference.export import export

    print(export(config))
    return 0


def _demo_config() -> type:
    from deepavfusion.demo import DemoConfig

    return DemoConfig


def _demo(config: Any) -> int:
    from deepavfusion.demo import demo

    return demo(config)


def _audit_config() -> type:
    from deepavfusion.data.audit import AuditConfig

    return AuditConfig


def _audit(config: Any) -> int:
    from deepavfusion.counting import counting, report
    from deepavfusion.data.audit import audit

    with counting("clips") as progress:
        summary = audit(config, progress)
    report("audit", summary)
    return 0


def _manifest_config() -> type:
    from deepavfusion.data.sets.manifest import ManifestConfig

    return ManifestConfig


def _manifest(config: Any) -> int:
    from deepavfusion.counting import counting
    from deepavfusion.data.sets.manifest import build_manifest

    with counting("clips") as progress:
        summary = build_manifest(config, progress)
    print("\n".join(summary.lines()))
    return 0


def _shard_config() -> type:
    from deepavfusion.data.shard_writing import ShardConfig

    return ShardConfig


def _shard(config: Any) -> int:
    from deepavfusion.counting import counting, report
    from deepavfusion.data.shard_writing import write_shards

    with counting("clips") as progress:
        summary = write_shards(config, progress)
    report("shards", summary)
    return 0


def _bandstand_config() -> type:
    from deepavfusion.bandstand.config import BandstandConfig

    return BandstandConfig


def _bandstand(config: Any) -> int:
    from deepavfusion.bandstand.generation import generate
    from deepavfusion.counting import counting, report

    with counting("clips") as progress:
        summary = generate(config, progress)
    report("bandstand", summary)
    return 0


def _inspect_config() -> type:
    from deepavfusion.inspection import InspectConfig

    return InspectConfig


def _inspect(config: Any) -> int:
    from deepavfusion.inspection import inspect

    inspect(config)
    return 0


def _bench_model_config() -> type:
    from deepavfusion.bench.config import ModelBenchConfig

    return ModelBenchConfig


def _bench_model(config: Any) -> int:
    from deepavfusion.bench.model import run

    run(config)
    return 0


def _bench_step_config() -> type:
    from deepavfusion.bench.config import StepBenchConfig

    return StepBenchConfig


def _bench_step(config: Any) -> int:
    from deepavfusion.bench.step import run

    run(config)
    return 0


def _bench_media_config() -> type:
    from deepavfusion.bench.config import MediaBenchConfig

    return MediaBenchConfig


def _bench_media(config: Any) -> int:
    from deepavfusion.bench.media import run

    run(config)
    return 0


def _bench_decoder_config() -> type:
    from deepavfusion.bench.config import DecoderBenchConfig

    return DecoderBenchConfig


def _bench_decoder(config: Any) -> int:
    from deepavfusion.bench.decoder import run

    run(config)
    return 0


def _bench_curves_config() -> type:
    from deepavfusion.bench.config import CurvesBenchConfig

    return CurvesBenchConfig


def _bench_curves(config: Any) -> int:
    from deepavfusion.bench.curves import run

    run(config)
    return 0


def _bench_all_config() -> type:
    from deepavfusion.bench.config import AllBenchConfig

    return AllBenchConfig


def _bench_all(config: Any) -> int:
    from deepavfusion.bench.everything import run

    run(config)
    return 0


def _estimate_config() -> type:
    from deepavfusion.bench.estimate_config import EstimateConfig

    return EstimateConfig


def _estimate(config: Any) -> int:
    from deepavfusion.bench.estimate import run

    run(config)
    return 0


VERBS: dict[str, Verb] = {
    "pretrain": Verb("pre-train the early-fusion model on clips without labels", _pretrain_config, _pretrain),
    "train classification": Verb(
        "probe or fine-tune an encoder on labelled clips", _classification_config, _train_classification
    ),
    "train localization": Verb(
        "learn where in the picture the sound comes from", _localization_config, _train_localization
    ),
    "train separation": Verb("learn to take sounds apart by pictures", _separation_config, _train_separation),
    "train segmentation": Verb("learn the pixels of what sounds", _segmentation_config, _train_segmentation),
    "evaluate classification": Verb("score a classifier on labelled clips", _evaluate_config, _evaluate, ("run",)),
    "evaluate localization": Verb(
        "score maps of where the sound comes from", _evaluate_localization_config, _evaluate_localization, ("run",)
    ),
    "evaluate separation": Verb(
        "score separated sounds against their stems", _evaluate_separation_config, _evaluate_separation, ("run",)
    ),
    "evaluate segmentation": Verb(
        "score masks of what sounds", _evaluate_segmentation_config, _evaluate_segmentation, ("run",)
    ),
    "compare": Verb("two evaluations on their common clips", _compare_config, _compare, ("a", "b")),
    "average": Verb("the mean of several evaluated classifiers", _average_config, _average),
    "vggsounder": Verb("score predictions by VGGSounder's labels", _vggsounder_config, _vggsounder, ("annotations",)),
    "predict": Verb(
        "use trained models on files", _predict_config, _predict, ("task", "files"), as_options=_predict_words
    ),
    "serve": Verb("a page in the browser to try trained models on", _serve_config, _serve, ("model",)),
    "bundle": Verb("put the models of several tasks into one folder", _bundle_config, _bundle, ("out",)),
    "export": Verb("write a model as ONNX or as torch's exported program", _export_config, _export, ("run",)),
    "embed": Verb("write an encoder's features of clips", _embed_config, _embed),
    "knn": Verb("classify features by their nearest neighbours", _neighbours_config, _neighbours),
    "demo": Verb("a short pre-training that ends with a table and a picture", _demo_config, _demo),
    "audit": Verb("look through a data set and write its manifest", _audit_config, _audit, ("source",)),
    "manifest": Verb("turn official annotations into a manifest", _manifest_config, _manifest, ("dataset",)),
    "shard": Verb("write a data set as shards for fast training", _shard_config, _shard, ("source", "out")),
    "bandstand": Verb("generate the embedded audio-visual world", _bandstand_config, _bandstand, ("out",)),
    "inspect": Verb("say what a checkpoint, run or weight file holds", _inspect_config, _inspect, ("checkpoint",)),
    "estimate": Verb("memory, operations and days of a pre-training, without running it", _estimate_config, _estimate),
    "bench model": Verb("operations, memory and time of every fusion form", _bench_model_config, _bench_model),
    "bench decoder": Verb("cost of pre-training with each decoder", _bench_decoder_config, _bench_decoder),
    "bench curves": Verb("cost of every fusion form as pictures and sound grow", _bench_curves_config, _bench_curves),
    "bench media": Verb("speed of reading clips, from files and shards", _bench_media_config, _bench_media),
    "bench step": Verb("speed of training steps on this machine", _bench_step_config, _bench_step),
    "bench all": Verb("every measurement of docs/performance.md", _bench_all_config, _bench_all),
}

TASK_OF_MODEL = {
    "AudioVisualClassifier": "classification",
    "Localizer": "localization",
    "Separator": "separation",
    "Segmenter": "segmentation",
}
"""Which task's evaluation scores a saved model, by the model's class."""
