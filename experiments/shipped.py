"""The bundle that ships: the pre-trained encoder of the first seed with a head for every task, the encoder frozen.

Heads on a frozen encoder share it, so that all four tasks fit into a few MiB and every command has something real to
run. Those of localization, separation and segmentation are runs of the experiments, first seed; localization is the one
that has learned from masks (`--recipe supervised`): the best map that a small head can give.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from experiments.encoders import MAX_BYTES, SEEDS, Encoders
from experiments.segmentation import LOCALIZER, Segmentation
from experiments.separation import Separation
from experiments.steps import AnyStep, Making, Step, options
from experiments.worlds import Worlds

CLASSIFICATION: dict[str, object] = {
    "recipe": "attentive",
    "classes": "bandstand",
    "optim.blr": 1e-2,
    "optim.epochs": 20,
    "optim.warmup_epochs": 2,
    "training.batch_size": 32,
    "training.probe_every": 0,
    "training.picture_every": 0,
    "training.checkpoint_every": 200,
    "data.num_workers": 0,
}


@dataclass(frozen=True)
class Shipped:
    """Where the heads' runs lie, and the steps that make the bundle."""

    root: Path
    worlds: Worlds
    encoders: Encoders
    segmentation: Segmentation
    separation: Separation

    def steps(self, seed: int) -> list[AnyStep]:
        """Heads of one seed ship."""
        if seed != SEEDS[0]:
            return []
        classifier, localizer = self.root / "classification", self.segmentation.run(LOCALIZER, seed)
        runs = {
            "classification": classifier,
            "localization": localizer,
            "separation": self.separation.run("band", "early", seed),
            "segmentation": self.segmentation.run("early", seed),
        }
        start, model = self.encoders.start("early")
        source, scored = self.worlds.train("solos", "all"), self.worlds.shards("band_solos", "test")
        words = ["train", "classification", "--from", start, "--run_dir", str(classifier)]
        words += ["--data.source", str(source), *options(CLASSIFICATION)]
        needs = (model, self.worlds.made(source))
        steps: list[AnyStep] = [Step(tuple(words), classifier / "model", needs)]
        results = [
            self.root / "classification" / "evaluation" / "test",
            self.root / "localization" / "evaluation" / "localization",
            self.separation.evaluation("band", "early", seed),
            self.segmentation.evaluation("early", seed, "segmentation_test"),
        ]
        # The experiments score the other two.
        solos, scenes = self.worlds.root / "band_solos" / "test.csv", self.worlds.root / "band_scenes"
        twins = self.worlds.shards("band_scenes", "twins_test")
        for task, out, clips, made in (
            ("classification", results[0], solos, scored),
            ("localization", results[1], scenes / "localization.csv", twins),
        ):
            words = ["evaluate", task, str(runs[task]), "--data.source", str(clips), "--data.split", "all"]
            words += ["--data.num_workers", "0", "--out", str(out)]
            steps.append(Step(tuple(words), out / "results.json", (runs[task] / "model", made / "shards.json")))
        bundling = ["bundle", "--encoder", start, "--float16", "true", "--name", "Bandstand", "--data", DATA]
        bundling += [word for task, run in runs.items() for word in (f"--{task}", str(run))]
        bundling += ["--results", f"[{','.join(map(str, results))}]", "--summary", SUMMARY]
        bundle, out = self.root / "bundle", self.encoders.shipped
        scores = tuple(folder / "results.json" for folder in results)
        steps.append(Step((*bundling, "--out", str(bundle)), bundle / "bundle.json", scores))
        steps.append(Making(partial(ship, bundle, out), out / "bundle.json", (bundle / "bundle.json",)))
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
