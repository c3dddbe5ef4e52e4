"""The measurements (stages) of `gpu_visit.py`, each run in a process of its own.

python scripts/gpu_stages.py STAGE --json FILE [--seconds S] [--quick] [--device cuda]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from deepavfusion.atomic import write_text
from deepavfusion.bench import step
from deepavfusion.bench.config import StepBenchConfig
from deepavfusion.bench.curves import encoder_steps, release_gradients
from deepavfusion.bench.media import write_clip
from deepavfusion.bench.model import Step, device_name, time_step
from deepavfusion.configuration import DataConfig
from deepavfusion.data.jpeg import installed_decoders
from deepavfusion.data.loading import StepSampler
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.data.shard_writing import ShardConfig, write_shards
from deepavfusion.data.workers import START_METHOD
from deepavfusion.models.config import EarlyFusionConfig
from deepavfusion.tasks.pretraining import MaskedPretraining
from deepavfusion.tasks.pretraining_config import PretrainConfig

NO_TIME = "no time left"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Stage:
    """Rows of one stage, in a file that is whole after every row."""

    path: Path
    seconds: float
    """What it has."""
    device: str
    quick: bool = False
    digits: Path | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.seconds - (time.monotonic() - self.began)

    def row(self, names: dict[str, Any], measure: Callable[[], dict[str, Any]], needs: float = 0.0) -> dict[str, Any]:
        """Measure a row and write the file; where it fails or `needs` more seconds than are left, the row says so."""
        label, began = " ".join(map(str, names.values())), time.monotonic()
        sys.stderr.write(f"{label}: {self.left:.0f} s left\n")
        try:
            row = {**names, "problem": NO_TIME} if self.left < needs and not self.quick else {**names, **measure()}
        except Exception as error:  # noqa: BLE001  whatever it is, it is written down and the other rows go on
            traceback.print_exc()
            first = (str(error).strip().splitlines() or [""])[0][:300]
            row = {**names, "problem": f"{type(error).__name__}: {first}"}
        step.release(self.device)
        self.add({**row, "took_seconds": round(time.monotonic() - began, 1)})
        return row

    def add(self, row: dict[str, Any]) -> None:
        """Add a row and write the file."""
        self.rows.append(row)
        self.write()

    def write(self) -> None:
        """Write the file whole."""
        record = {
            "stage": self.path.stem.removeprefix("gpu_"),
            "quick": self.quick,
            "device": device_name(self.device),
            "cores": CORES,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "rows": self.rows,
        }
        write_text(self.path, json.dumps(record, indent=2) + "\n")


@contextmanager
def clips_in(num_clips: int = 4) -> Iterator[str]:
    """A folder with a few small clips, which the models' tasks want to see even where noise is stepped on."""
    with tempfile.TemporaryDirectory(prefix="gpu_visit_") as folder:
        write_sample_clips(f"{folder}/clips", num_clips, duration_seconds=1.0, size=32)
        yield f"{folder}/clips"


def step_config(stage: Stage, source: str) -> StepBenchConfig:
    """Steps under bfloat16 on noise."""
    config = StepBenchConfig(precisions=("bfloat16",), made_up=True, source=source, device=stage.device, num_workers=0)  # type: ignore[arg-type]
    if stage.quick:
        return replace(config, sizes=("tiny",), min_batch_size=2, max_batch_size=4, steps=2)
    return replace(config, sizes=("vit_b", "vit_l"), min_batch_size=64, max_batch_size=1024, steps=10)


# ---- fast: the training step, on noise, so that nothing waits

FAST = [
    *[("vit_b", "factorized", "eager"), ("vit_b", "factorized", "compiled"), ("vit_b", "dense", "eager")],
    *[("vit_l", "factorized", "eager"), ("vit_l", "dense", "eager"), ("vit_b", "dense", "compiled")],
    *[("vit_b", "token", "eager"), ("vit_b", "bilinear", "eager"), ("vit_l", "token", "eager")],
    *[("vit_l", "bilinear", "eager"), ("vit_l", "factorized", "compiled"), ("vit_l", "dense", "compiled")],
    *[("vit_b", "token", "compiled"), ("vit_b", "bilinear", "compiled")],
    *[("vit_l", "token", "compiled"), ("vit_l", "bilinear", "compiled")],
]
"""Model, fusion form and mode, in the order of their worth."""
NEEDS = {("vit_b", "eager"): 12.0, ("vit_l", "eager"): 25.0, ("vit_b", "compiled"): 45.0, ("vit_l", "compiled"): 80.0}
"""Seconds that a row must have left to be begun."""


def fast(stage: Stage) -> None:
    """Samples per second of every model, fusion form and mode, at the batch that is best eager."""
    rows = FAST if not stage.quick else [("tiny", "factorized", "eager"), ("tiny", "dense", "compiled")]
    best: dict[tuple[str, str], int] = {}
    with clips_in() as clips:
        config = step_config(stage, clips)
        for size, fusion, mode in rows:
            names = {"size": size, "fusion": fusion, "mode": mode}
            stage.row(names, partial(speed, config, best, **names), NEEDS.get((size, mode), 0.0))


def speed(config: StepBenchConfig, best: dict[tuple[str, str], int], size: Any, fusion: Any, mode: Any) -> dict:
    """A row of `bench step`; the best batch is looked for once."""
    if (size, fusion) not in best:
        kind = step.Kind(size, fusion, "bfloat16", "eager")
        with tempfile.TemporaryDirectory() as folder:
            best[size, fusion] = step.best_batch(config, kind, folder, config.device)
    own = replace(config, sizes=(size,), fusions=(fusion,), modes=(mode,), batch_size=best[size, fusion])
    (found,) = step.measure(own)
    return asdict(found)


# ---- published: against the method as its formulas stand

PUBLISHED = [
    *[("vit_b", "dense", "eager"), ("vit_b", "factorized", "eager"), ("vit_l", "dense", "eager")],
    *[("vit_l", "factorized", "eager"), ("vit_b", "token", "eager"), ("vit_b", "bilinear", "eager")],
    *[("vit_b", "dense", "compiled"), ("vit_b", "factorized", "compiled")],
]
PASSES = [("dense", 3.0), ("dense", 10.0), ("factorized", 3.0), ("bilinear", 3.0)]
"""Fusion form and seconds of sound of the passes over all patches, which fine-tuning does."""
FIRST_BATCH = {"tiny": 2, "vit_b": 256, "vit_l": 128}
PASS_BATCH = 32


def published(stage: Stage) -> None:
    """Ours against the written-out forms, in turn at one batch, halved until both fit; compiled ones last."""
    rows = PUBLISHED if not stage.quick else [("tiny", "dense", "eager")]
    with clips_in() as clips:
        config = replace(step_config(stage, clips), arrangements=("ours", "written_out"))
        for size, fusion, mode in rows:
            if mode == "eager":
                ratio_row(stage, config, size, fusion, mode)
        model_size = "tiny" if stage.quick else "vit_b"
        for fusion, seconds in PASSES if not stage.quick else PASSES[:1]:
            model = replace(step.SIZES[model_size][0], fusion=fusion)  # type: ignore[arg-type]
            model = model if stage.quick else replace(model, audio_size=(model.audio_size[0], round(64 * seconds)))
            names = {"step": f"all patches, {seconds:g} s of sound", "size": model_size, "fusion": fusion}
            measure = partial(pass_ratio, model, 2 if stage.quick else PASS_BATCH, stage.device)
            stage.row({**names, "mode": "eager"}, measure, 10.0)
        for size, fusion, mode in rows:
            if mode == "compiled":
                ratio_row(stage, config, size, fusion, mode)


def ratio_row(stage: Stage, config: StepBenchConfig, size: Any, fusion: Any, mode: Any) -> None:
    """Training steps of the two; two models are compiled, each with its own code."""
    names = {"step": "pre-training", "size": size, "fusion": fusion, "mode": mode}
    own = replace(config, sizes=(size,), fusions=(fusion,), modes=(mode,))
    needs = (1 if mode == "eager" else 2) * NEEDS.get((size, mode), 0.0)
    stage.row(names, partial(step_ratio, own, FIRST_BATCH[size]), needs)


def halving(batch_size: int, measure: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    """What is measured at the first batch that fits, halved until it does; the row says which did not."""
    tried: list[int] = []
    while True:
        try:
            return {**measure(batch_size), "out_of_memory_at": tried}
        except torch.OutOfMemoryError:
            tried.append(batch_size)
        step.release("cuda")
        if batch_size == 1:
            raise ValueError("not even one clip fits into the memory")
        batch_size //= 2


def step_ratio(config: StepBenchConfig, batch_size: int) -> dict[str, Any]:
    """Training steps of the two."""

    def measure(clips: int) -> dict[str, Any]:
        ours, other = step.measure(replace(config, batch_size=clips))
        seconds, peaks = (ours.seconds, other.seconds), (ours.peak_gib, other.peak_gib)
        return ratio(clips, seconds, peaks) | {"gflop_ratio": other.gflop_per_sample / ours.gflop_per_sample}

    return halving(batch_size, measure)


def pass_ratio(model: EarlyFusionConfig, batch_size: int, device: str) -> dict[str, Any]:
    """Forward and backward passes of the two over all patches, under bfloat16."""

    def measure(clips: int) -> dict[str, Any]:
        encoder, steps, _ = encoder_steps(model, clips, device)
        seconds: dict[str, list[float]] = {form: [] for form in steps}
        for _, (form, one) in itertools.product(range(5), steps.items()):
            seconds[form].append(time_step(under_bfloat16(one, device), device))
            release_gradients(encoder)
        ours, other = (statistics.median(seconds[form][1:]) for form in ("ours", "written out"))
        return ratio(clips, (ours, other), (None, None))

    return halving(batch_size, measure)


def under_bfloat16(one: Step, device: str) -> Step:
    """A forward pass under autocast."""

    def call() -> torch.Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            return one()

    return call


def ratio(batch_size: int, seconds: tuple[float, float], peaks: tuple[float | None, float | None]) -> dict[str, Any]:
    """A row of this stage; ours first."""
    return {
        "batch_size": batch_size,
        "samples_per_second": [batch_size / value for value in seconds],
        "peak_gib": peaks,
        "times_faster": seconds[1] / seconds[0],
    }


# ---- fed: whether clips come as fast as they are learned from


def fed(stage: Stage) -> None:
    """Clips per second that all cores read from shards, and steps that learn from them."""
    size, batch_size, num_clips = ("tiny", 2, 2) if stage.quick else ("vit_b", 256, 2 * CORES)
    with tempfile.TemporaryDirectory(prefix="gpu_visit_") as folder:
        shards = f"{folder}/shards"
        names = {"what": "write shards", "decoders": installed_decoders()}
        stage.row(names, partial(shards_in, Path(folder), num_clips, stage.quick))
        counts = (1,) if stage.quick else dict.fromkeys((CORES, max(1, CORES - 2), max(1, CORES // 2), 1))
        for num_workers in counts:
            names = {"what": "read", "num_workers": num_workers}
            stage.row(names, partial(reading_speed, stage, shards, size, num_workers))
        config = step_config(stage, shards)
        config = replace(config, sizes=(size,), made_up=False, modes=("eager",), batch_size=batch_size)
        config = replace(config, num_workers=max(1, CORES - 2), steps=4 if stage.quick else 30)
        stage.row({"what": "step"}, lambda: asdict(next(iter(step.measure(config)))))


def shards_in(folder: Path, num_clips: int, quick: bool) -> dict[str, Any]:
    """Write clips of 640 x 360 and store them as shards."""
    began, seconds = time.monotonic(), 4 if quick else 10
    (folder / "clips").mkdir()
    with ProcessPoolExecutor(min(CORES, num_clips), get_context(START_METHOD)) as pool:
        paths = [folder / "clips" / f"{i}.mp4" for i in range(num_clips)]
        list(pool.map(partial(write_clip, num_seconds=seconds), paths, range(num_clips)))
    write_shards(ShardConfig(str(folder / "clips"), str(folder / "shards"), num_workers=min(CORES, num_clips)))
    return {"num_clips": num_clips, "clip_seconds": seconds, "seconds": time.monotonic() - began}


def reading_speed(stage: Stage, shards: str, size: str, num_workers: int) -> dict[str, Any]:
    """Clips per second out of the loader of pre-training, nothing done with them."""
    model, autoencoder = step.SIZES[size]
    config = PretrainConfig(run_dir="", data=DataConfig(source=shards), model=model, autoencoder=autoencoder)
    batch_size, seconds = (2, 0.5) if stage.quick else (64, 4.0)
    sampler, count = StepSampler(batch_size, 1, 1, 0, 0, 10**6), 0
    with MaskedPretraining(config).loader(sampler, num_workers, torch.device(stage.device)) as loader:
        batches = iter(loader)
        for _ in range(3 * num_workers):  # what was read ahead, and one more of each
            next(batches)
        began = time.perf_counter()
        while (taken := time.perf_counter() - began) < seconds:
            count += len(next(batches))
    return {"clips_per_second": count / taken}


# ---- estimate: what it says against what the allocator saw


def estimate(stage: Stage) -> None:
    """Peaks of whole steps, which torch's allocator tells on CUDA."""
    from measure_peaks import Case, estimated, measure

    b, l = ("tiny", "tiny") if stage.quick else ("vit_b", "vit_l")  # noqa: E741  as the models are called
    n = 2 if stage.quick else 64
    half = {"precision": "bfloat16", "device": stage.device}
    cases = [
        Case(b, n, **half),
        Case(b, n, device=stage.device),
        Case(b, n, gradient_checkpointing=True, **half),
        Case(b, n, accumulation=2, **half),
        Case(l, n, **half),
        Case(l, n, gradient_checkpointing=True, **half),
    ]

    def one(case: Case) -> dict[str, Any]:
        with clips_in() as clips:
            mib = measure(case, str(Path(clips).parent)) / 2**20
        return {"estimated_mib": estimated(case) / 2**20, "measured_mib": mib}

    for case in cases if not stage.quick else cases[:2]:
        stage.row(asdict(case), partial(one, case), 10.0)


def right(stage: Stage) -> None:
    """Numbers against references and written-out forms, runs against their likes."""
    import gpu_right

    gpu_right.run(stage)


def bandstand(stage: Stage) -> None:
    """A long pre-training of the recipe `bandstand`."""
    import gpu_bandstand

    gpu_bandstand.run(stage)


STAGES = {f.__name__: f for f in (right, fast, published, fed, estimate, bandstand)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--digits", type=Path)
    arguments = parser.parse_args()
    stage = Stage(arguments.json, arguments.seconds, arguments.device, arguments.quick, arguments.digits)
    stage.write()
    STAGES[arguments.stage](stage)
    return 0


if __name__ == "__main__":
    sys.exit(main())
