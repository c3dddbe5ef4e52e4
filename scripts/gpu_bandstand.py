"""The stage `bandstand` of a visit to a GPU machine: a pre-training that takes what is left of the time.

The world is generated on all cores, a short run tells how fast it is learned from, and the long one gets the epochs
that fit. What comes home is `gpu_bandstand.tar`: the encoder in float16 and the run's curves.
"""

from __future__ import annotations

import csv
import os
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from gpu_stages import CORES, Stage

from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.generation import generate
from deepavfusion.models import AudioVisualMAE, EarlyFusionEncoder, MaskedAutoencoderConfig
from deepavfusion.training import checkpoints

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from experiments.worlds import WORLDS, join

CLIP_SECONDS = 0.25
"""Of one core, to draw, play, encode and store a clip."""
WORLD_SHARE = 0.3
"""Of the time, that the world may take."""
START_SECONDS = 20.0
"""Until a run does its first step, and after its last one."""
MAX_BYTES = 16 * 2**20
"""Of the file that comes home."""
CURVE_POINTS = 50
KEPT = ("metrics.csv", "probes.csv", "config.yaml", "pictures/learning_curve.png")


def run(stage: Stage) -> None:
    """World, trial, run."""
    with tempfile.TemporaryDirectory(prefix="gpu_visit_") as folder:
        work, casts = Path(folder), ["band", "digits"] if stage.digits else ["band"]
        for cast in casts:
            room = WORLD_SHARE / len(casts) * stage.left * CORES / CLIP_SECONDS
            clips = 24 if stage.quick else max(256, min(WORLDS[cast].clips, int(room)))
            if "problem" in stage.row({"what": "world", "cast": cast}, partial(world, work, cast, clips, stage.digits)):
                return
        corpus = work / "band" / "shards" / "pretrain"
        if stage.digits:
            corpus = work / "joint.csv"
            join({cast: work / cast / "shards" / "pretrain" for cast in casts}, corpus)
        num_clips = sum(row["clips"] for row in stage.rows)
        trial = stage.row(
            {"what": "trial"}, partial(train, stage, corpus, work / "trial", num_clips, 8 if stage.quick else 200)
        )
        if "problem" in trial:
            return
        steps = int(trial["steps_per_second"] * (stage.left - START_SECONDS) * 0.9)
        steps = 12 if stage.quick else max(steps, 200)
        out = stage.path.with_suffix(".tar")
        stage.row({"what": "run"}, partial(train, stage, corpus, work / "run", num_clips, steps, out))


def world(work: Path, cast: Any, clips: int, digits: Path | None) -> dict[str, Any]:
    """Generate clips and store them as shards."""
    more: dict[str, Any] = {}
    if cast == "digits":
        assert digits is not None
        more = {"digit_images": str(digits), "digit_recordings": str(digits / "fsdd_flac.zip")}
    settings: dict[str, Any] = {"splits": ("pretrain",), "stems": False, "masks": False, "sheets": False, "shards": 5.0}
    summary = generate(BandstandConfig(str(work / cast), clips, cast=cast, num_workers=CORES, **settings, **more))
    return {"clips": clips, "seconds": summary.seconds}


def train(
    stage: Stage, corpus: Path, run_dir: Path, num_clips: int, steps: int, out: Path | None = None
) -> dict[str, Any]:
    """Pre-train for so many steps, or until the time is over; `out` gets the encoder and the curves."""
    batch_size = 4 if stage.quick else 64
    flags = {
        "config": "bandstand",
        "data.source": corpus,
        "data.num_workers": 1 if stage.quick else max(1, CORES - 2),
        "run_dir": run_dir,
        "optim.epochs": steps * batch_size / num_clips,
        "training.batch_size": batch_size,
        "training.device": stage.device,
        "training.log_every": 2 if stage.quick else 10,
        "training.picture_every": 1e9 if out else 0,
        "training.probe_every": 1e9 if out else 0,
    }
    words = [sys.executable, "-m", "deepavfusion", "pretrain", *(f"--{name}={value}" for name, value in flags.items())]
    process, ending = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"}), "finished"
    try:
        code = process.wait(max(1.0, stage.left - START_SECONDS / 2))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # it saves, and the encoder is taken from its checkpoint
        ending, code = "stopped as the time was over", process.wait(START_SECONDS)
    if ending == "finished" and code:
        raise RuntimeError(f"pretrain ended with exit code {code}")
    with open(run_dir / "metrics.csv", newline="") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    thinned = rows[:: max(1, len(rows) // CURVE_POINTS)]
    rate = statistics.median(row["samples_per_second"] for row in rows)
    found = {
        "ending": ending,
        "steps": int(rows[-1]["step"]),
        "epochs": rows[-1]["epoch"],
        "batch_size": batch_size,
        "samples_per_second": rate,
        "steps_per_second": rate / batch_size,
        "data_wait_share": statistics.mean(row["data_wait_share"] for row in rows),
        "loss": [rows[0]["loss"], rows[-1]["loss"]],
    }
    if out is not None:
        pack(run_dir, out)
        found |= {"curve": thinned, "file": out.name, "bytes": out.stat().st_size}
    return found


def pack(run_dir: Path, out: Path) -> None:
    """The encoder in float16 and the curves of a run, finished or not."""
    if (run_dir / "model").is_dir():
        encoder = EarlyFusionEncoder.from_pretrained(run_dir / "model")
    else:
        newest = checkpoints.latest(run_dir / "checkpoints")
        if newest is None:
            raise RuntimeError("the run ended before its first checkpoint")
        content = checkpoints.load(newest)
        model = AudioVisualMAE(MaskedAutoencoderConfig.from_dict(content["model_config"]))
        model.load_state_dict(content["model"])
        encoder = model.encoder
    encoder.half().save_pretrained(run_dir / "encoder")
    temporary = out.with_suffix(".tmp")
    with tarfile.open(temporary, "w") as archive:
        archive.add(run_dir / "encoder", "encoder")
        for name in KEPT:
            if (run_dir / name).is_file():
                archive.add(run_dir / name, Path(name).name)
    if (size := temporary.stat().st_size) > MAX_BYTES:
        temporary.unlink()
        raise ValueError(f"{out.name} would have {size / 2**20:.1f} MiB, {MAX_BYTES / 2**20:.0f} are the most")
    temporary.replace(out)
