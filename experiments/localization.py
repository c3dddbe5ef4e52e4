"""Localization without boxes, learned from what moves when it sounds (`--recipe synchrony`).

All arms learn from the same unlabelled clips with the same head and budget: pre-trained early fusion, the same from
scratch, two separate encoders. Pre-trained encoders stay as they are. The encoder reads the middle frame, the head
looks at nine. Baselines of every evaluation are the same model in silence and with a foreign sound, a centre prior and
the whole picture.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from deepavfusion.atomic import write_text
from experiments.encoders import SEEDS, Encoders
from experiments.paired import paired_rows, whole_rows, with_kept
from experiments.steps import AnyStep, Step, options
from experiments.worlds import Worlds

ARMS = {"early": ("alone", False), "untrained": ("alone", True), "separate": ("convolved_separate", False)}
"""By arm: the encoder, and whether it starts untrained."""
SETS = ("localization", "twins_test", "listening")
TRAINING = {
    "recipe": "synchrony",
    "num_frames": 9,
    "encode_frames": "reference",
    "head.dim": 128,
    "head.stride": 4,
    "contrast.mismatch_share": 0.25,
    "training.batch_size": 8,
    "optim.blr": 3.2e-2,
    "optim.epochs": 3,
    "optim.warmup_share": 0.05,
    "training.precision": "bfloat16",
    "data.crop_area": "[0.8,1]",
    "training.probe_every": 0,
    "training.picture_every": 0,
    "training.checkpoint_every": 100,
    "data.num_workers": 0,
}
BASELINES = ("image only (silence)", "foreign sound", "centre prior", "whole image")
SCORES = {
    "localization": (
        "source chosen",
        "source chosen, lookalikes",
        "AUC area",
        "AUC area, lookalikes",
        "cIoU@0.3 area",
        "cIoU@0.5 area",
        "cIoU@0.5 area, lookalikes",
    ),
    "twins_test": ("source chosen", "AUC area", "cIoU@0.3 area", "cIoU@0.5 area"),
    "listening": ("source chosen", "AUC area", "cIoU@0.3 area", "cIoU@0.5 area"),
}
WHOLE = {
    "localization": ("extended AP area", "false positives, off_screen", "false positives, silent"),
    "twins_test": (),
    "listening": (
        "false positives, listening_silence",
        "false positives, listening_noise",
        "false positives, listening_foreign",
    ),
}
"""Scores of all scenes together."""


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
        scenes, clips = self.worlds.root / "band_scenes", self.worlds.root / "band_few" / "pretrain.csv"
        source = self.worlds.shards("band_few", "pretrain") / "shards.json"
        made = self.worlds.shards("band_scenes", "twins_test") / "shards.json"
        steps: list[AnyStep] = []
        for arm, (kind, untrained) in ARMS.items():
            run, (start, model) = self.run(arm, seed), self.encoders.start(kind)
            words = ["train", "localization", "--from", start, "--run_dir", str(run)]
            words += ["--data.source", str(clips), "--training.seed", str(seed), *options(TRAINING)]
            words += ["--untrained", "true", "--optim.layer_decay", "1"] if untrained else ["--freeze_encoder", "true"]
            steps.append(Step(tuple(words), run / "model", (model, source)))
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
            found = paired_rows(folders, SCORES[part], "early", BASELINES)
            found += whole_rows(folders, WHOLE[part], "early", BASELINES)
            rows += [{"set": part, **row} for row in found]
        rows = with_kept(rows, out, ("set",))
        if rows:
            write_text(out, json.dumps({"rows": rows}, indent=1) + "\n")
