"""Commands that measure or estimate costs: `bench`, `estimate`."""

from __future__ import annotations

from typing import Any

from deepavfusion.verbs.verb import Verb


def _estimate_config() -> type:
    from deepavfusion.bench.estimate_config import EstimateConfig

    return EstimateConfig


def _estimate(config: Any) -> int:
    from deepavfusion.bench.estimate import run

    run(config)
    return 0


def _bench_model_config() -> type:
    from deepavfusion.bench.config import ModelBenchConfig

    return ModelBenchConfig


def _bench_model(config: Any) -> int:
    from deepavfusion.bench.model import run

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


def _bench_media_config() -> type:
    from deepavfusion.bench.config import MediaBenchConfig

    return MediaBenchConfig


def _bench_media(config: Any) -> int:
    from deepavfusion.bench.media import run

    run(config)
    return 0


def _bench_step_config() -> type:
    from deepavfusion.bench.config import StepBenchConfig

    return StepBenchConfig


def _bench_step(config: Any) -> int:
    from deepavfusion.bench.step import run

    run(config)
    return 0


def _bench_profile_config() -> type:
    from deepavfusion.bench.config import ProfileBenchConfig

    return ProfileBenchConfig


def _bench_profile(config: Any) -> int:
    from deepavfusion.bench.step_profile import run

    run(config)
    return 0


def _bench_predict_config() -> type:
    from deepavfusion.bench.config import PredictBenchConfig

    return PredictBenchConfig


def _bench_predict(config: Any) -> int:
    from deepavfusion.bench.predict import run

    run(config)
    return 0


def _bench_all_config() -> type:
    from deepavfusion.bench.config import AllBenchConfig

    return AllBenchConfig


def _bench_all(config: Any) -> int:
    from deepavfusion.bench.everything import run

    run(config)
    return 0


COSTS: dict[str, Verb] = {
    "estimate": Verb("estimate memory, operations and days of a pre-training run", _estimate_config, _estimate),
    "bench model": Verb("measure operations, memory and time of every fusion form", _bench_model_config, _bench_model),
    "bench decoder": Verb("measure the cost of pre-training with each decoder", _bench_decoder_config, _bench_decoder),
    "bench curves": Verb(
        "measure the cost of every fusion form for larger images and longer sound", _bench_curves_config, _bench_curves
    ),
    "bench media": Verb("measure the speed of reading clips, from files and shards", _bench_media_config, _bench_media),
    "bench step": Verb("measure the speed of training steps on this machine", _bench_step_config, _bench_step),
    "bench profile": Verb("measure the operators of a training step", _bench_profile_config, _bench_profile),
    "bench predict": Verb("measure the cost of predictions on a long clip", _bench_predict_config, _bench_predict),
    "bench all": Verb("run every benchmark of docs/performance.md", _bench_all_config, _bench_all),
}
