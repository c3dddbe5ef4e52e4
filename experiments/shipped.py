"""The bundle that ships: encoders pre-trained by alignment and trained on with two of the tasks, and four heads.

A localizer learns from masks which of the instruments seen is heard. Its encoder knows what separation and segmentation
need too; their heads stand on it, frozen, so that the bundle is smaller and heads share a forward pass. Classification
trains the pre-trained encoder on for itself (an attentive probe of the localizer's had 88 % of the solos). Weights are
kept in float16. The scores on the bundle's card are those of its models.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from experiments.encoders import SEEDS, SHIPPED, Encoders
from experiments.segmentation import masks_step
from experiments.steps import AnyStep, Making, Step, options
from experiments.worlds import Worlds

MAX_BYTES = 24 * 2**20
"""The most that may ship."""
COMMON: dict[str, object] = {
    "training.batch_size": 8,
    "optim.blr": 3.2e-2,
    "optim.warmup_share": 0.1,
    "training.precision": "bfloat16",
    "training.probe_every": 0,
    "training.picture_every": 0,
    "training.checkpoint_every": 200,
    "data.num_workers": 0,
}
"""A peak rate of 1e-3 at the head."""
LOCALIZER = "localization"
"""The head on whose encoder others stand."""


@dataclass(frozen=True)
class Head:
    """How a task is trained, and what it is scored on."""

    settings: dict[str, object]
    """What differs from `COMMON`."""
    trains_on: Callable[[Worlds], tuple[Path, Path]]
    """The clips, and what is there when they are."""
    scored: str
    """Manifest of the world, without the ending."""
    how: tuple[str, ...] = ()
    """Further words of the evaluation."""
    start: str = LOCALIZER
    """A pre-trained encoder (`encoders.KINDS`), or the localizer, on whose encoder it stands."""


def _masks(worlds: Worlds) -> tuple[Path, Path]:
    clips = masks_step(worlds).product
    return clips, clips


def _solos(worlds: Worlds) -> tuple[Path, Path]:
    source = worlds.train("solos", "all")
    return source, worlds.made(source)


def _scenes(worlds: Worlds) -> tuple[Path, Path]:
    return worlds.root / "band_few" / "pretrain.csv", worlds.shards("band_few", "pretrain") / "shards.json"


HEADS = {
    "classification": Head(
        {
            "recipe": "finetune",
            "classes": "bandstand",
            "optim.layer_decay": 0.8,
            "optim.epochs": 18,
            "augmentation.mixup": 0,
            "augmentation.drop_path": 0,
            "data.crop_area": "[0.7,1]",
        },
        _solos,
        "band_solos/test",
        start="convolved",
    ),
    "localization": Head(
        {
            "recipe": "supervised",
            "optim.layer_decay": 0.8,
            "splits": "[segmentation_train]",
            "head.dim": 128,
            "head.stride": 4,
            "contrast.mismatch_share": 0.5,
            "contrast.silence_share": 0.25,
            "optim.epochs": 16,
            "optim.warmup_share": 0.05,
            "data.crop_area": "[0.8,1]",
        },
        _masks,
        "band_scenes/localization",
        start="alone",
    ),
    "separation": Head(
        {
            "freeze_encoder": "true",
            "decoding.decoder_dim": 64,
            "mixing.pictures": "source",
            "mixing.single": 0.2,
            "loss": "bce",
            "optim.epochs": 8,
            "data.crop_area": "[0.75,0.78]",
            "data.crop_ratio": "[1,1]",
        },
        _scenes,
        "band_scenes/duets",
        ("--mixtures", "duets"),
    ),
    "segmentation": Head(
        {
            "recipe": "frozen",
            "decoder.dim": 64,
            "listening.silent_share": 0.1,
            "listening.noise_share": 0.05,
            "listening.foreign_share": 0.1,
            "optim.epochs": 6,
            "data.crop_area": "[0.8,1]",
        },
        _masks,
        "band_scenes/segmentation_test",
    ),
}


@dataclass(frozen=True)
class Shipped:
    """Where the runs lie, and the steps that make the bundle."""

    root: Path
    worlds: Worlds
    encoders: Encoders
    out: Path = SHIPPED
    """The folder in the package."""

    def steps(self, seed: int) -> list[AnyStep]:
        """Models of one seed ship."""
        if seed != SEEDS[0]:
            return []
        steps: list[AnyStep] = [masks_step(self.worlds)]
        results: list[Path] = []
        for task, head in HEADS.items():
            run, (source, made) = self.root / task, head.trains_on(self.worlds)
            localizer = self.root / LOCALIZER
            on_localizer = (str(localizer), localizer / "model")
            start, model = on_localizer if head.start == LOCALIZER else self.encoders.start(head.start)
            words = ["train", task, "--from", start, "--run_dir", str(run), "--data.source", str(source)]
            steps.append(Step((*words, *options({**COMMON, **head.settings})), run / "model", (model, made)))
            world, part = head.scored.split("/")
            out, clips = run / "evaluation" / part, self.worlds.root / world / f"{part}.csv"
            words = ["evaluate", task, str(run), "--data.source", str(clips), "--data.split", "all", *head.how]
            words += ["--data.num_workers", "0", "--out", str(out)]
            needs = (run / "model", self.worlds.made(self.worlds.root / world))
            steps.append(Step(tuple(words), out / "results.json", needs))
            results.append(out)
        bundling = ["bundle", "--float16", "true", "--name", "Bandstand", "--data", DATA]
        bundling += [word for task in HEADS for word in (f"--{task}", str(self.root / task))]
        bundling += ["--results", f"[{','.join(map(str, results))}]", "--summary", SUMMARY]
        bundle = self.root / "bundle"
        scores = tuple(folder / "results.json" for folder in results)
        steps.append(Step((*bundling, "--out", str(bundle)), bundle / "bundle.json", scores))
        steps.append(Making(partial(ship, bundle, self.out), self.out / "bundle.json", (bundle / "bundle.json",)))
        return steps

    def summarize(self, out: Path) -> None:
        """The scores stand on the model card of the bundle."""


DATA = (
    "The generated world Bandstand of drawn instruments: 4,150 unlabelled clips of pre-training, then training clips "
    "of each task."
)
SUMMARY = (
    "Small early-fusion models for classification, localization, separation and segmentation. The base encoder was "
    "pre-trained by alignment of two moments, then trained on with the localizer; separation and segmentation stand on "
    "it, frozen. They have seen nothing but drawn instruments: they are there to try every command."
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
