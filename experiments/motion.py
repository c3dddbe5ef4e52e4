"""What several frames buy: one frame against several in scenes where only strokes tell which instrument plays.

Both arms are supervised localizers on the encoder of the recipe `reconstruction`, whose weights stay, with the same
clips, steps and head; they differ in `--num_frames` alone. So that frames are dense in time and the runs short, the
encoder is taken to small pictures and half the window first, with the positions of the smaller grids.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from deepavfusion.atomic import write_text
from experiments.encoders import SEEDS, Encoders
from experiments.paired import paired_rows
from experiments.steps import AnyStep, Making, Step, options
from experiments.worlds import NUM_WORKERS, Worlds

ARMS = {"several": (9, "all"), "watched": (9, "reference"), "one": (1, "all")}
"""Frames of each arm, and which of them are encoded; an odd number has its middle frame where the only one is."""
REFERENCE = "several"
CLIPS = 1440
"""Of motion_train and motion_test together, which get two and one thirds."""
IMAGE_SIZE, AUDIO_FRAMES = (64, 64), 96
"""Pixels, and log-mel frames: 1.5 s."""
PART = "motion_test"
TRAINING = {
    "training.batch_size": 16,
    "optim.blr": 3.2e-2,
    "optim.epochs": 16,
    "optim.warmup_epochs": 1,
    "freeze_encoder": "true",
    "contrast.mismatch_weight": 0,
    "data.crop_area": "[0.8,1]",
    "training.probe_every": 0,
    "training.picture_every": 0,
    "training.checkpoint_every": 200,
    "data.num_workers": 0,
}
SCORES = ("source chosen", "cIoU@0.5 area", "AUC area")
BASELINES = ("image only (silence)",)


@dataclass(frozen=True)
class Motion:
    """Where the runs lie, and the steps that make them."""

    root: Path
    worlds: Worlds
    encoders: Encoders

    @property
    def world(self) -> Path:
        return self.worlds.root / "band_motion"

    @property
    def encoder(self) -> Path:
        return self.root / "encoder"

    def run(self, arm: str, seed: int) -> Path:
        return self.root / f"{arm}-{seed}"

    def evaluation(self, arm: str, seed: int) -> Path:
        return self.run(arm, seed) / "evaluation" / PART

    def steps(self, seed: int) -> list[AnyStep]:
        clips = self.world / f"{PART}.csv"  # written after that of motion_train
        words = ["bandstand", str(self.world), "--clips", str(CLIPS), "--splits", "[motion_train,motion_test]"]
        words += ["--stems", "false", "--sheets", "false", "--num_workers", str(NUM_WORKERS)]
        start, (_, model) = self.encoder / "model.safetensors", self.encoders.start("early")
        steps: list[AnyStep] = [Step(tuple(words), clips), Making(partial(small, model, self.encoder), start, (model,))]
        for arm, (num_frames, encoded) in ARMS.items():
            run, out = self.run(arm, seed), self.evaluation(arm, seed)
            words = ["train", "localization", "--recipe", "supervised", "--from", str(self.encoder)]
            words += [
                "--num_frames",
                str(num_frames),
                "--encode_frames",
                encoded,
                "--run_dir",
                str(run),
                "--splits",
                "[motion_train]",
            ]
            words += ["--data.source", str(self.world / "motion_train.csv"), "--training.seed", str(seed)]
            steps.append(Step((*words, *options(TRAINING)), run / "model", (start, clips)))
            words = ["evaluate", "localization", str(run), "--data.source", str(clips), "--data.split", "all"]
            words += ["--data.num_workers", "0", "--out", str(out)]
            steps.append(Step(tuple(words), out / "results.json", (run / "model",)))
        return steps

    def summarize(self, out: Path) -> None:
        """Write the small result file of what is done."""
        folders = {arm: {seed: self.evaluation(arm, seed) for seed in SEEDS} for arm in ARMS}
        rows = [{"set": PART, **row} for row in paired_rows(folders, SCORES, REFERENCE, BASELINES)]
        if rows:
            write_text(out, json.dumps({"rows": rows}, indent=1) + "\n")


def small(model: Path, out: Path) -> None:
    """Save an encoder for small pictures and short windows."""
    from deepavfusion.models import EarlyFusionEncoder

    source = EarlyFusionEncoder.from_pretrained(model)
    bands = source.config.audio_size[0]
    encoder = EarlyFusionEncoder(replace(source.config, image_size=IMAGE_SIZE, audio_size=(bands, AUDIO_FRAMES)))
    own = {name: value for name, value in encoder.state_dict().items() if name.endswith("pos_embed")}
    encoder.load_state_dict({**source.state_dict(), **own})
    encoder.save_pretrained(out)
