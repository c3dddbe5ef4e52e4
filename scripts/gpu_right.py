"""The stage `right` of `gpu_visit.py`: checks that the device computes correct results.

Every row is a check: the deviation of its outputs (or losses) and gradients, relative to the correct values, the
allowed deviation, and whether it holds. float32 is without TF32.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from gpu_stages import CORES, Stage
from torch.distributed.device_mesh import init_device_mesh

from deepavfusion.bench import plain
from deepavfusion.bench.model import steps_of
from deepavfusion.bench.noise import noise_batch
from deepavfusion.bench.step import SIZES, Kind, release
from deepavfusion.configuration import DataConfig, TrainingConfig
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.models.config import FUSION_NAMES
from deepavfusion.tasks.pretraining import MaskedPretraining
from deepavfusion.tasks.pretraining_config import PretrainConfig
from deepavfusion.training.optimizer import build_optimizer
from deepavfusion.training.processes import autocast_dtype
from deepavfusion.training.sharding import shard
from deepavfusion.training.state import LossModule

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.models.reference_cases import ARITHMETICS, CASES, deviation, log_mel_deviation

LOG_MEL_ALLOWED = 1e-4
WRITTEN_OUT_ALLOWED = {"float64": (1e-10, 1e-8), "float32": (1e-5, 1e-3), "bfloat16": (2e-2, 1e-1)}
"""Of the loss and of each parameter's gradient, ours against written out."""
SHARDED_ALLOWED = {"float32": 1e-5, "bfloat16": 2e-2}
"""Of the losses of a few steps, sharded against whole."""
SHARDED_STEPS = 5
EARLY_STOP = 240
"""A seed with which `resume_matrix` sends the signal soon after the first checkpoint: a GPU would be done otherwise."""


def run(stage: Stage) -> None:
    """All checks, the quick ones first; compiled ones in several processes, since compiling keeps one core busy."""
    exact()
    plain = [name for name in ARITHMETICS if "compiled" not in name]
    stage.row({"check": "reference", "case": "log-mel", "arithmetic": "float32"}, partial(log_mel, stage.device))
    for arithmetic in plain:
        for case in CASES:
            names = {"check": "reference", "case": case, "arithmetic": arithmetic}
            stage.row(names, partial(reference, case, arithmetic, stage.device))
    size = "tiny" if stage.quick else "vit_b"
    for fusion in FUSION_NAMES:
        for which in ("pre-training", "unmasked encoder"):
            for arithmetic in WRITTEN_OUT_ALLOWED:
                names = {"check": "written out", "case": f"{size} {fusion}, {which}", "arithmetic": arithmetic}
                stage.row(names, partial(written_out, size, fusion, which, arithmetic, stage.device))
    with one_process(stage.device):
        for arithmetic in SHARDED_ALLOWED:
            names = {"check": "FSDP in one process", "case": f"{size} factorized", "arithmetic": arithmetic}
            stage.row(names, partial(sharded, size, arithmetic, stage.device))
    names = {"check": "resumed after SIGTERM", "case": "36 steps", "arithmetic": "float32"}
    stage.row(names, partial(resumed, stage.device), 60.0)
    in_processes(stage, [name for name in ARITHMETICS if name not in plain])


def exact() -> None:
    """float32 as it stands."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def in_processes(stage: Stage, arithmetics: list[str]) -> None:
    """The reference cases that are compiled."""
    cases = [(case, arithmetic) for arithmetic in arithmetics for case in CASES]
    cases = cases[:1] if stage.quick else cases
    with ProcessPoolExecutor(min(len(cases), max(1, CORES // 3)), get_context("spawn"), exact) as pool:
        results = {pair: pool.submit(reference, *pair, stage.device) for pair in cases}
        for (case, arithmetic), result in results.items():
            names = {"check": "reference", "case": case, "arithmetic": arithmetic}
            stage.row(names, partial(waited_for, result, max(1.0, stage.left)))


def waited_for(result: Future[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """What another process found."""
    return result.result(seconds)


def verdict(outputs: float, gradients: float | None, allowed: tuple[float, float | None]) -> dict[str, Any]:
    """A row of this stage."""
    held = outputs <= allowed[0] and (gradients is None or allowed[1] is None or gradients <= allowed[1])
    return {"outputs": outputs, "gradients": gradients, "allowed": allowed, "held": held}


def log_mel(device: str) -> dict[str, Any]:
    """The spectrogram."""
    return verdict(log_mel_deviation(device), None, (LOG_MEL_ALLOWED, None))


def reference(case: str, arithmetic: str, device: str) -> dict[str, Any]:
    """A case of tests/reference."""
    seen, (_, allowed) = deviation(case, arithmetic, device), ARITHMETICS[arithmetic]
    return verdict(seen.outputs, seen.gradients, (allowed.outputs, allowed.gradients))


def written_out(size: str, fusion: Any, which: str, arithmetic: str, device: str) -> dict[str, Any]:
    """Losses or tokens, and gradients, of ours against those of the formulas as they stand, on the same device."""
    found: dict[str, tuple[list[torch.Tensor], dict[str, torch.Tensor]]] = {}
    torch.set_default_dtype(torch.float64 if arithmetic == "float64" else torch.float32)
    try:
        model, steps = steps_of(Kind(size, fusion, arithmetic, "eager").autoencoder, 2, device)
        if arithmetic == "float64":
            model.double()  # positions are float32 whatever the default
        with torch.device(device):
            config = model.config.encoder
            inputs = torch.randn(2, *config.image_shape), torch.randn(2, 1, *config.audio_size)
        for form in ("ours", "written out"):
            with torch.autocast(device, dtype=torch.bfloat16, enabled=arithmetic == "bfloat16"):
                if which == "pre-training":
                    outputs = [steps[which, form]()]
                else:
                    out = model.encoder(*inputs) if form == "ours" else plain.encode(model.encoder, *inputs)
                    outputs = [out.image, out.audio, out.fusion] if form == "ours" else list(out)
            # Cubes: the sum of a token's values after LayerNorm is no function of the token.
            torch.stack([(x.double() ** 3).mean() for x in outputs]).sum().backward()
            gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
            found[form] = [x.detach().double() for x in outputs], gradients
            model.zero_grad(set_to_none=True)
    finally:
        torch.set_default_dtype(torch.float32)
    (outputs, gradients), (expected, right) = found["ours"], found["written out"]
    norms = {name: g.norm().item() for name, g in right.items()}
    least = 1e-3 * max(norms.values())  # key biases of pair attention have no gradient but round-off
    apart = {n: (gradients[n] - g).norm().item() if n in gradients else norms[n] for n, g in right.items()}
    worst = max(apart, key=lambda name: apart[name] / max(norms[name], least))
    off = max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(outputs, expected, strict=True))
    found_off = verdict(off, apart[worst] / max(norms[worst], least), WRITTEN_OUT_ALLOWED[arithmetic])
    return found_off | {"worst_gradient": worst}


@contextmanager
def one_process(device: str) -> Iterator[None]:
    """A process group of this process alone."""
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def sharded(size: str, arithmetic: str, device: str) -> dict[str, Any]:
    """Losses of a few steps, sharded over the one process there is, against those of the model as it is."""
    encoder, decoding = SIZES[size]
    with tempfile.TemporaryDirectory() as folder:
        write_sample_clips(folder, 1, duration_seconds=1.0, size=32)
        training = TrainingConfig(batch_size=4, precision=arithmetic, device=device)  # type: ignore[arg-type]
        data = DataConfig(source=folder)
        config = PretrainConfig(run_dir="", data=data, model=encoder, autoencoder=decoding, training=training)
        task = MaskedPretraining(config)
    whole, divided = (_losses(task, config, device, divide) for divide in (False, True))
    apart = max(abs(a - b) / abs(a) for a, b in zip(whole, divided, strict=True))
    return verdict(apart, None, (SHARDED_ALLOWED[arithmetic], None))


def _losses(task: MaskedPretraining, config: PretrainConfig, device: str, divide: bool) -> list[float]:
    torch.manual_seed(0)
    model = task.build_model().train().to(device)
    module, dtype = LossModule(task, model), autocast_dtype(config.training.precision, device)
    if divide:
        shard(module, init_device_mesh(device, (1,)), dtype)
    optimizer = build_optimizer(model, config.optim, task.layer_ids(model), set())
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    inputs, losses = task.inputs(noise_batch(config, 4, 0).to(device)), []
    for _ in range(SHARDED_STEPS):
        with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
            terms = module(inputs)
        loss = torch.stack(list(terms.values())).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    del module, model, optimizer
    release(device)
    return losses


def resumed(device: str) -> dict[str, Any]:
    """A run stopped by SIGTERM and continued, against one never stopped; and that one against its like.

    Held if it is the same bit by bit, or, where two runs never stopped are not, about as near as they are.
    """
    import resume_matrix as matrix

    matrix.SETTINGS["training.device"] = device
    with tempfile.TemporaryDirectory(prefix="gpu_visit_") as folder:
        work, clips = Path(folder), Path(folder) / "clips"
        write_sample_clips(clips, 24, duration_seconds=2.0, size=96)
        for name in ("whole", "like"):
            matrix.whole_run(clips, work / name, 1, 2, 0.1)
        rng = random.Random(EARLY_STOP)
        row = matrix.interrupted_run(clips, work / "stopped", work / "whole", signal.SIGTERM, 1, 0, rng)
        states = {name: matrix.final(work / name)["model"] for name in ("whole", "like", "stopped")}
    likes, apart = (_apart(states["whole"], states[name]) for name in ("like", "stopped"))
    held = not row.problem and (row.bit_equal or 0 < apart <= 10 * likes)
    return verdict(apart, None, (10 * likes, None)) | {
        "held": held,
        "bit_equal": row.bit_equal,
        "whole_runs_differ_by": likes,
        "stopped_at": row.stopped_at,
        "continued_from": row.continued_from,
        "stopping": row.problem or "as it should",
    }


def _apart(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest difference of a weight, relative to the largest of its tensor."""
    differences: Callable[[str], float] = lambda key: float((a[key] - b[key]).abs().max() / a[key].abs().max())  # noqa: E731
    return max(differences(key) for key, value in a.items() if value.is_floating_point() and value.abs().max() > 0)
