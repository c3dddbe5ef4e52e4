"""A demo folder as the stages of a demo leave it: real clips and real pictures, numbers chosen to be found again."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.generation import generate
from deepavfusion.drawing.run import reconstruction_figure
from deepavfusion.training.run_folder import CsvTable, RunFolder

HOSTILE = "<script>throw Error('escaped?')</script>\"&'"
"""A name that would break a page that takes it as it is."""

METRICS = [
    {"step": 10, "epoch": 0.5, "lr": 0.0002, "loss": 2.4178545, "loss_image": 1.1217132, "loss_audio": 1.2961413},
    {"step": 20, "epoch": 1.0, "lr": 0.0004, "loss": 2.1634276, "loss_image": 1.0296825, "loss_audio": 1.1337451},
    {"step": 30, "epoch": 1.5, "lr": 2.5e-07, "loss": 1.9138542, "loss_image": 0.8910108, "loss_audio": 1.0228434},
]
PROBES = [
    {"step": 15, "top1_fusion": 0.35416667, "top1_audio": 0.77083333, "num_clips": 48},
    {"step": 30, "top1_fusion": 0.45833333, "top1_audio": 0.70833333, "num_clips": 48},
]
RESULTS = {
    "title": f"Probe {HOSTILE}",
    "protocol": "single label, centre window",
    "num_scored": 238,
    "left_out": {"missing": 2},
    "counted_as_wrong": {"prediction not finite": 3},
    "confidence": 0.95,
    "scores": {
        "top-1, fusion": {"value": 0.41234, "low": 0.35012, "high": 0.47561},
        "top-1, image": {"value": 0.22146, "low": 0.17133, "high": 0.27559},
    },
    "baselines": {
        "untrained": {
            "top-1, fusion": {
                "value": 0.13391,
                "low": 0.09241,
                "high": 0.17938,
                "difference": {"value": 0.27843, "low": 0.20623, "high": 0.35117},
            },
            "top-1, image": {"value": 0.2, "difference": {"value": 0.02146, "low": -0.01377, "high": 0.05632}},
        },
        HOSTILE: {"top-1, fusion": {"value": 0.04167}},
    },
}
TIMINGS = [
    {"stage": "environment", "seconds": 48.25, "command": f"pip install {HOSTILE}"},
    {"stage": "pretrain", "seconds": 71.2, "command": "deepavfusion pretrain --run_dir runs/demo/pretrain"},
    {"stage": "probe_linear", "seconds": 3.04, "command": None},
]


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished demo."""
    run = tmp_path_factory.mktemp("demo") / "run"
    splits = ("pretrain", "test", "localization")
    generate(
        BandstandConfig(
            str(run / "world"), clips=4, splits=splits, num_workers=0, sheets=False, stems=False, masks=False
        )
    )
    Image.effect_noise((300, 200), 60).convert("RGB").save(run / "world" / "classes.png")

    folder = RunFolder(run / "pretrain")
    folder.path.mkdir()
    CsvTable(folder.metrics).append(METRICS)
    CsvTable(folder.probes).append(PROBES)
    CsvTable(folder.failures).append([{"step": 12, "clip": HOSTILE, "cause": "no frame can be read"}])
    (folder.path / "config.yaml").write_text("model:\n  embed_dim: 96\nautoencoder:\n  norm_pix_loss: true\n")
    (folder.path / "environment.json").write_text(json.dumps([{"python": "3.11.7", "packages": {"torch": "2.13.0"}}]))
    pixels = np.random.default_rng(0).random((1, 32, 32, 3), dtype=np.float32)
    for step in (15, 30):
        folder.write_figure(f"reconstruction_{step:08d}", reconstruction_figure([HOSTILE], [pixels] * 3, None))

    (run / "probe_linear").mkdir()
    (run / "probe_linear" / "results.json").write_text(json.dumps(RESULTS))
    (run / "timings.json").write_text(json.dumps(TIMINGS))
    return run
