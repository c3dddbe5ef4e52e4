"""One prediction in a process of its own, timed, with this or another version of the package.

`bench predict` starts it:

    python predict_once.py '{"place": ..., "clip": ..., "out": ..., "tasks": [...], "film": true}'

It is run by its path and takes the package from PYTHONPATH. It prints one line of JSON: CPU seconds of all threads and
child processes, those of each stage, and the most memory of the process. A stage's seconds are those of the calls named
below without those of other stages inside them. A call that a version does not have counts for nothing.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

STAGES: dict[str, tuple[str, ...]] = {
    "decoding": (
        "deepavfusion.data.media.media_file:MediaFile.frames",
        "deepavfusion.inference.shared_film:SharedFilm.advance",
        "deepavfusion.data.media.media_file:MediaFile.sound",
    ),
    "log-mel": ("deepavfusion.inference.maps:log_mel", "deepavfusion.inference.timeline:log_mel"),
    "encoder": ("deepavfusion.models.encoder:EarlyFusionEncoder.forward",),
    "head": (
        "deepavfusion.models.classifier:AudioVisualClassifier.forward",
        "deepavfusion.models.classifier:AudioVisualClassifier.pool",
        "deepavfusion.models.classifier:AudioVisualClassifier.classify",
        "deepavfusion.models.localizer:Localizer.forward",
        "deepavfusion.models.localizer:Localizer.answer",
        "deepavfusion.models.segmenter:Segmenter.forward",
        "deepavfusion.models.segmenter:Segmenter.answer",
        "deepavfusion.models.separator:Separator.forward",
    ),
    "drawing": ("deepavfusion.inference.map_files:MapLook.draw",),
    "writing": (
        "deepavfusion.data.media.film_writer:FilmWriter.add_picture",
        "deepavfusion.data.media.film_writer:FilmWriter.add_sound",
        "deepavfusion.data.media.film_writer:FilmWriter.__exit__",
        "soundfile:SoundFile.write",
    ),
}
"""Calls by stage, as MODULE:PLACE."""


class StageClock:
    """CPU seconds by stage, of every thread."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._thread = threading.local()
        self._lock = threading.Lock()

    def watch(self, stages: dict[str, tuple[str, ...]]) -> list[str]:
        """Time these calls from here on; returns those that there are not."""
        lacking = []
        for stage, places in stages.items():
            for place in places:
                module, _, path = place.partition(":")
                *owners, name = path.split(".")
                try:
                    owner: Any = importlib.import_module(module)
                    for part in owners:
                        owner = getattr(owner, part)
                    setattr(owner, name, self._timed(stage, getattr(owner, name)))
                except (ImportError, AttributeError):
                    lacking.append(place)
        return lacking

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            inner = getattr(self._thread, "inner", 0.0)
            self._thread.inner, began = 0.0, time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.thread_time() - began
                with self._lock:
                    self.seconds[stage] += took - self._thread.inner
                self._thread.inner = inner + took

        return timed


def measure(place: str, clip: str, out: str, tasks: list[str], film: bool) -> dict[str, Any]:
    """Predict and say what it cost; models are loaded before the clock starts."""
    import torch

    from deepavfusion.bench import peak_memory
    from deepavfusion.inference.predictor import Predictor

    torch.set_num_threads(1)
    if peak_memory.can_measure("cpu"):
        peak_memory.give_back_at_once()
    clock = StageClock()
    clock.watch(STAGES)
    predictor = Predictor.from_pretrained(place, "cpu")
    for task in tasks:
        predictor.digest(task)  # type: ignore[arg-type]
    if peak_memory.can_measure("cpu"):
        peak_memory.reset_peak("cpu")
    began, wall = sum(os.times()[:4]), time.perf_counter()
    if len(tasks) > 1 and hasattr(predictor, "write_all"):
        predictor.write_all(tasks, clip, Path(out), film=film)  # type: ignore[arg-type]
    else:
        for task in tasks:
            predictor.write(task, clip, Path(out), film=film)  # type: ignore[arg-type]
    return {
        "cpu_seconds": sum(os.times()[:4]) - began,
        "wall_seconds": time.perf_counter() - wall,
        "peak_mib": peak_memory.peak("cpu") / 2**20 if peak_memory.can_measure("cpu") else None,
        "stages": dict(clock.seconds),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(**json.loads(sys.argv[1]))) + "\n")
