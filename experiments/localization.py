"""Localization without boxes: pre-trained early fusion against an untrained start and against two separate encoders."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from deepavfusion.atomic import write_text
from experiments.encoders import SEEDS, Encoders
from experiments.paired import paired_rows
from experiments.steps import AnyStep, Step, options
from experiments.worlds import Worlds

ARMS = {"early": ("early", False), "untrained": ("early", True), "separate": ("separate", False)}
"""By arm: the encoder, and whether it starts untrained."""
SETS = ("localization", "twins_test", "listening")
TRAINING = {
    "training.batch_size": 16,
    "optim.blr": 1.6e-2,
    "optim.epochs": 1.5,
    "optim.warmup_epochs": 0.1,
    "training.probe_every": 0,
    "training.picture_every": 0,
    "training.checkpoint_every": 100,
    "data.num_workers": 0,
}
BASELINES = ("image only (silence)", "foreign sound", "centre prior", "whole image")
SCORES = {
    "localization": ("cIoU@0.5 area", "AUC area", "source chosen", "cIoU@0.5 area, lookalikes", "AUC area, lookalikes"),
    "twins_test": ("cIoU@0.5 area", "AUC area", "source chosen"),
    "listening": ("cIoU@0.5 area", "AUC area", "source chosen"),
}


@dataclass(frozen=True)
class Localization:
    """Where the runs lie, and the steps that make them."""

    root: Path
    worlds: Worlds
    encoders: Encoders

    def run(self, arm: str, seed: int) -> Path:
        return self.root / f"{arm}-{seed}"

    def evaluation(self, arm: str, seed: int, part: str) -> Path:
        return self.run(arm, seed) / "evaluation" / part

    def steps(self, seed: int) -> list[AnyStep]:
        steps: list[AnyStep] = []
        clips, scenes = self.worlds.shards("band", "pretrain"), self.worlds.root / "band_scenes"
        made = self.worlds.shards("band_scenes", "twins_test") / "shards.json"
        for arm, (kind, untrained) in ARMS.items():
            run, (start, model) = self.run(arm, seed), self.encoders.start(kind)
            words = ["train", "localization", "--from", start, "--run_dir", str(run)]
            words += ["--data.source", str(clips), "--training.seed", str(seed), *options(TRAINING)]
            words += ["--untrained", "true"] if untrained else []
            steps.append(Step(tuple(words), run / "model", (model, clips / "shards.json")))
            for part in SETS:
                out = self.evaluation(arm, seed, part)
                words = ["evaluate", "localization", str(run), "--data.source", str(scenes / f"{part}.csv")]
                words += ["--data.split", "all", "--data.num_workers", "0", "--out", str(out)]
                steps.append(Step(tuple(words), out / "results.json", (run / "model", made)))
        return steps

    def summarize(self, out: Path) -> None:
        """Write the small result file of what is done."""
        rows = []
        for part in SETS:
            folders = {arm: {seed: self.evaluation(arm, seed, part) for seed in SEEDS} for arm in ARMS}
            rows += [{"set": part, **row} for row in paired_rows(folders, SCORES[part], "early", BASELINES)]
        if rows:
            write_text(out, json.dumps({"rows": rows}, indent=1) + "\n")
