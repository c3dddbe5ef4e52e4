"""Commands that use trained models: `predict`, `serve`, `bundle`, `export`, `inspect`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from deepavfusion.verbs.verb import Verb


def _predict_config() -> type:
    from deepavfusion.inference.predict_config import PredictConfig

    return PredictConfig


def _predict(config: Any) -> int:
    from deepavfusion.inference.predict import predict

    return predict(config)


def _predict_tasks() -> Callable[[Sequence[str]], list[str]]:
    from deepavfusion.inference.predict_config import with_tasks

    return with_tasks


def _serve_config() -> type:
    from deepavfusion.page.serve_config import ServeConfig

    return ServeConfig


def _serve(config: Any) -> int:
    from deepavfusion.page.serve import serve

    return serve(config)


def _bundle_config() -> type:
    from deepavfusion.storage.bundle_config import BundleConfig

    return BundleConfig


def _bundle(config: Any) -> int:
    from deepavfusion.storage.bundle import bundle

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


def _inspect_config() -> type:
    from deepavfusion.inspection import InspectConfig

    return InspectConfig


def _inspect(config: Any) -> int:
    from deepavfusion.inspection import inspect

    inspect(config)
    return 0


INFERENCE: dict[str, Verb] = {
    "predict": Verb(
        "apply trained models to files",
        _predict_config,
        _predict,
        ("task", "files"),
        several=True,
        as_options=_predict_tasks,
    ),
    "serve": Verb("open a web page to try trained models", _serve_config, _serve, ("model",)),
    "bundle": Verb("put the models of several tasks into one folder", _bundle_config, _bundle, ("out",)),
    "export": Verb("write a model as ONNX or PyTorch exported program", _export_config, _export, ("run",)),
    "inspect": Verb(
        "show what a run, checkpoint, model or weight file contains", _inspect_config, _inspect, ("checkpoint",)
    ),
}
