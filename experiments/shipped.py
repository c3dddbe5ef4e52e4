"""The bundle that ships: the pre-trained encoder of the first seed with a head for every task, the encoder frozen.

Heads on a frozen encoder share it, so that all four tasks fit into a few MiB and every command has something real to
run. Localization learns from masks here (`--recipe supervised`): the best map that a small head can give.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from experiments.encoders import MAX_BYTES, Encoders
from experiments.segmentation import masks_step
from experiments.steps import AnyStep, Making, Step, options
from experiments.worlds import Worlds

SHARED: dict[str, object] = {
    "training.probe_every": 0,
    "training.picture_every": 0,
    "training.checkpoint_every": 200,
    "data.num_workers": 0,
}
HEADS: dict[str, dict[str, object]] = {
    "classification": {
        "recipe": "attentive",
        "classes": "bandstand",
        "optim.blr": 1e-2,
        "optim.epochs": 20,
        "optim.warmup_epochs": 2,
        "training.batch_size": 32,
    },
    "localization": {
        "recipe": "supervised",
        "splits": "[segmentation_train]",
        "tune_encoder": "false",
        "head.dim": 128,
        "optim.blr": 3.2e-2,
        "optim.epochs": 3,
        "optim.warmup_epochs": 0.2,
        "data.crop_area": "[0.7,1]",
        "training.batch_size": 4,
    },
    "separation": {
        "freeze_encoder": "true",
        "mixing.pictures": "source",
        "decoding.decoder_dim": 64,
        "loss": "bce",
        "data.crop_area": "[0.75,0.78]",
        "data.crop_ratio": "[1,1]",
        "optim.blr": 3.2e-2,
        "optim.epochs": 3,
        "optim.warmup_epochs": 0.2,
        "training.batch_size": 8,
    },
    "segmentation": {
        "recipe": "frozen",
        "decoder.dim": 64,
        "listening.silent_share": 0.15,
        "listening.foreign_share": 0.1,
        "optim.blr": 3.2e-2,
        "optim.epochs": 3,
        "optim.warmup_epochs": 0.2,
        "data.crop_area": "[0.7,1]",
        "training.batch_size": 4,
    },
}
SCORED = {
    "classification": ("band_solos", "test"),
    "localization": ("band_scenes", "localization"),
    "separation": ("band_scenes", "duets"),
    "segmentation": ("band_scenes", "segmentation_test"),
}
"""World and split that each head is scored on, for the model card."""


@dataclass(frozen=True)
class Shipped:
    """Where the heads' runs lie, and the steps that make the bundle."""

    root: Path
    worlds: Worlds
    encoders: Encoders

    def steps(self, seed: int) -> list[AnyStep]:
        """Heads of one seed ship."""
        if seed:
            return []
        start, model = self.encoders.start("early")
        masks = masks_step(self.worlds)
        sources = {
            "classification": (self.worlds.train("solos", "all"), self.worlds.shards("band_solos", "test")),
            "separation": (self.worlds.root / "band" / "pretrain.csv", self.worlds.shards("band", "pretrain")),
        }
        steps: list[AnyStep] = [masks]
        bundling = ["bundle", "--encoder", start, "--float16", "true", "--name", "Bandstand", "--data", DATA]
        for task, settings in HEADS.items():
            run, out = self.root / task, self.root / task / "evaluation" / "test"
            source, made = sources.get(task, (masks.product, masks.product))
            words = ["train", task, "--from", start, "--run_dir", str(run), "--data.source", str(source)]
            needs = (model, self.worlds.made(made))
            steps.append(Step((*words, *options({**settings, **SHARED})), run / "model", needs))
            world, split = SCORED[task]
            scored = self.worlds.root / world / f"{split}.csv"
            words = ["evaluate", task, str(run), "--data.source", str(scored), "--data.split", "all"]
            words += ["--data.num_workers", "0", "--out", str(out)]
            words += ["--mixtures", "duets"] if task == "separation" else []
            made = self.worlds.shards(world, "test" if task == "classification" else "twins_test")
            steps.append(Step(tuple(words), out / "results.json", (run / "model", made / "shards.json")))
            bundling += [f"--{task}", str(run)]
        results = [self.root / task / "evaluation" / "test" for task in HEADS]
        bundling += ["--results", f"[{','.join(map(str, results))}]", "--summary", SUMMARY]
        made = self.root / "bundle"
        steps.append(
            Step((*bundling, "--out", str(made)), made / "bundle.json", tuple(r / "results.json" for r in results))
        )
        out = self.encoders.shipped
        steps.append(Making(partial(ship, made, out), out / "bundle.json", (made / "bundle.json",)))
        return steps

    def summarize(self, out: Path) -> None:
        """The scores stand on the model card of the bundle."""


DATA = (
    "The embedded world Bandstand (drawn instruments) and handwritten and spoken digits, all of it generated: "
    "10,800 unlabelled clips of pre-training, then training clips of each task."
)
SUMMARY = (
    "A small early-fusion encoder with heads for classification, localization, separation and segmentation on it, "
    "frozen. It has seen nothing but drawn instruments and digits: it is there to try every command."
)


def ship(made: Path, out: Path) -> None:
    """Copy the bundle into the package.

    Raises:
        ValueError: it is too large to ship.
    """
    size = sum(file.stat().st_size for file in made.iterdir())
    if size > MAX_BYTES:
        raise ValueError(f"{made}: {size / 2**20:.1f} MiB are too much to ship, {MAX_BYTES / 2**20:.0f} is the most")
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(made.iterdir(), key=lambda file: file.name == "bundle.json"):
        shutil.copy(file, out / file.name)
