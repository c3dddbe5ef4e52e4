"""The bundle that ships: encoders pre-trained by alignment and trained on with two of the tasks, and four heads.

A localizer learns from masks which of the instruments seen is heard: first from one frame, with its encoder, then,
frozen, from nine frames, in which the strokes are seen. Separation and segmentation stand on the same encoder, so that
the bundle is smaller and heads share a forward pass. Classification trains the pre-trained encoder on for itself (an
attentive probe of the localizer's had 88 % of the solos). Weights are kept in float16. The scores on the bundle's card
are those of its models.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from deepavfusion.atomic import write_text
from experiments.encoders import SEEDS, SHIPPED, Encoders
from experiments.paired import paired_rows, whole_rows, with_kept
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
LISTENER = "one_frame"
"""The stage on whose encoder heads stand."""
APART = "_separate"
"""Ending of a stage that does the same with two separate encoders; what ships is compared with it."""
WATCHING: dict[str, object] = {"freeze_encoder": "true", "num_frames": 9, "encode_frames": "reference"}
"""The encoder reads the middle frame, the head looks at nine."""
LOCALIZING: dict[str, object] = {
    "recipe": "supervised",
    "splits": "[segmentation_train]",
    "contrast.silence_share": 0.25,
    "optim.warmup_share": 0.05,
    "data.crop_area": "[0.8,1]",
}
HEAD: dict[str, object] = {"head.dim": 128, "head.stride": 4, "contrast.mismatch_share": 0.5}


@dataclass(frozen=True)
class Stage:
    """A training, and what its model is scored on if it ships."""

    task: str
    settings: dict[str, object]
    """What differs from `COMMON`."""
    trains_on: Callable[[Worlds], tuple[Path, Path]]
    """The clips, and what is there when they are."""
    start: str = LISTENER
    """A pre-trained encoder (`encoders.KINDS`), or another stage."""
    scored: str | None = None
    """Manifest of the world, without the ending."""
    how: tuple[str, ...] = ()
    """Further words of the evaluation."""
    ships: bool = True
    """Whether its model goes into the bundle."""


def _masks(worlds: Worlds) -> tuple[Path, Path]:
    clips = masks_step(worlds).product
    return clips, clips


def _masks_and_solos(worlds: Worlds) -> tuple[Path, Path]:
    clips = masks_step(worlds, solos=True).product
    return clips, clips


def _solos(worlds: Worlds) -> tuple[Path, Path]:
    source = worlds.train("solos", "all")
    return source, worlds.made(source)


def _scenes(worlds: Worlds) -> tuple[Path, Path]:
    return worlds.root / "band_few" / "pretrain.csv", worlds.shards("band_few", "pretrain") / "shards.json"


SCENES = "band_scenes/localization"
CONTINUED: dict[str, object] = {"freeze_encoder": "true", "keep_heads": "true", "optim.blr": 2.4e-2}
SEPARATING: dict[str, object] = {
    "freeze_encoder": "true",
    "mixing.pictures": "source",
    "mixing.single": 0.2,
    "loss": "bce",
    "data.crop_area": "[0.75,0.78]",
    "data.crop_ratio": "[1,1]",
}
CLEAN: dict[str, object] = {"mixing.single": 0.5, "optim.blr": 1.6e-2, "optim.epochs": 3}
"""Half of the sources alone, so that a clean one comes through."""
SEGMENTING: dict[str, object] = {
    "recipe": "frozen",
    "listening.silent_share": 0.1,
    "listening.noise_share": 0.05,
    "listening.foreign_share": 0.2,
    "data.still": 0.1,
    "data.crop_area": "[0.8,1]",
}
STAGES = {
    "classification": Stage(
        "classification",
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
        start="convolved",
        scored="band_solos/test",
    ),
    LISTENER: Stage(
        "localization",
        {**LOCALIZING, **HEAD, "optim.layer_decay": 0.8, "optim.epochs": 16},
        _masks,
        start="alone",
        scored=SCENES,
        ships=False,
    ),
    "watching": Stage(
        "localization",
        {**LOCALIZING, **HEAD, **WATCHING, "optim.epochs": 6},
        _masks_and_solos,
        scored=SCENES,
        ships=False,
    ),
    "localization": Stage(
        "localization",
        {**LOCALIZING, **CONTINUED, "contrast.mismatch_share": 0.75, "data.still": 0.15, "optim.epochs": 4},
        _masks_and_solos,
        start="watching",
        scored=SCENES,
    ),
    "separating": Stage(
        "separation", {**SEPARATING, "decoding.decoder_dim": 64, "optim.epochs": 8}, _scenes, ships=False
    ),
    "separating_longer": Stage(
        "separation", {**SEPARATING, **CONTINUED, "optim.epochs": 6}, _scenes, start="separating", ships=False
    ),
    "separating_clean": Stage(
        "separation", {**SEPARATING, **CONTINUED, **CLEAN}, _scenes, start="separating_longer", ships=False
    ),
    "separation": Stage(
        "separation",
        {**SEPARATING, **CONTINUED, **CLEAN},
        _scenes,
        start="separating_clean",
        scored="band_scenes/duets",
        how=("--mixtures", "duets"),
    ),
    "segmenting": Stage(
        "segmentation",
        {**SEGMENTING, **WATCHING, "decoder.form": "comparing", "decoder.dim": 64, "optim.epochs": 6},
        _masks_and_solos,
        ships=False,
    ),
    "segmentation": Stage(
        "segmentation",
        {**SEGMENTING, **CONTINUED, "optim.epochs": 3},
        _masks_and_solos,
        start="segmenting",
        scored="band_scenes/segmentation_test",
    ),
}
STAGES |= {
    LISTENER + APART: replace(STAGES[LISTENER], start="convolved_separate"),
    "watching" + APART: replace(STAGES["watching"], start=LISTENER + APART),
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
        steps: list[AnyStep] = [masks_step(self.worlds), masks_step(self.worlds, solos=True)]
        results: list[Path] = []
        for name, stage in STAGES.items():
            run, (source, made) = self.root / name, stage.trains_on(self.worlds)
            before = self.root / stage.start
            start, model = (
                (str(before), before / "model") if stage.start in STAGES else self.encoders.start(stage.start)
            )
            words = ["train", stage.task, "--from", start, "--run_dir", str(run), "--data.source", str(source)]
            steps.append(Step((*words, *options({**COMMON, **stage.settings})), run / "model", (model, made)))
            if stage.scored is None:
                continue
            world, part = stage.scored.split("/")
            out, clips = run / "evaluation" / part, self.worlds.root / world / f"{part}.csv"
            words = ["evaluate", stage.task, str(run), "--data.source", str(clips), "--data.split", "all", *stage.how]
            words += ["--data.num_workers", "0", "--out", str(out)]
            needs = (run / "model", self.worlds.made(self.worlds.root / world))
            steps.append(Step(tuple(words), out / "results.json", needs))
            results += [out] if stage.ships else []
        bundling = ["bundle", "--float16", "true", "--name", "Bandstand", "--data", DATA]
        ship_these = {name: stage.task for name, stage in STAGES.items() if stage.ships}
        bundling += [word for name, task in ship_these.items() for word in (f"--{task}", str(self.root / name))]
        bundling += ["--results", f"[{','.join(map(str, results))}]", "--summary", SUMMARY]
        bundle = self.root / "bundle"
        scores = tuple(folder / "results.json" for folder in results)
        steps.append(Step((*bundling, "--out", str(bundle)), bundle / "bundle.json", scores))
        steps.append(Making(partial(ship, bundle, self.out), self.out / "bundle.json", (bundle / "bundle.json",)))
        return steps

    def summarize(self, out: Path) -> None:
        """Write what the stages of the localizer score, and beside it how they compare with separate encoders; the
        scores of what ships stand on the bundle's card too."""
        part = SCENES.partition("/")[2]
        self._compare({part: FRAMES}, SHIPS, out)
        pairs = {
            f"{part}, {seen}": {"early": FRAMES[seen], "separate": FRAMES[seen] + APART}
            for seen in ("one frame", "nine frames")
        }
        self._compare(pairs, "early", out.with_name(f"{out.stem}{APART}.json"))

    def _compare(self, sets: dict[str, dict[str, str]], reference: str, out: Path) -> None:
        """Write the scores of stages by the name of a set and of an arm."""
        part, rows = SCENES.partition("/")[2], []
        for name, stages in sets.items():
            folders = {arm: {SEEDS[0]: self.root / stage / "evaluation" / part} for arm, stage in stages.items()}
            found = paired_rows(folders, SCORES, reference) + whole_rows(folders, FALSE_POSITIVES, reference)
            rows += [{"set": name, **row} for row in found]
        rows = with_kept(rows, out, ("set",))
        if rows:
            write_text(out, json.dumps({"rows": rows}, indent=1) + "\n")


SHIPS = "nine frames, photos too"
FRAMES = {SHIPS: "localization", "nine frames": "watching", "one frame": LISTENER}
"""Stages of the localizer by what they have seen."""
SCORES = ("cIoU@0.5 area", "AUC area", "source chosen", "source chosen, lookalikes")
FALSE_POSITIVES = tuple(f"false positives, {kind}" for kind in ("silence", "noise", "foreign", "off_screen"))
DATA = (
    "The generated world Bandstand of drawn instruments: 4,150 unlabelled clips of pre-training, then training clips "
    "of each task."
)
SUMMARY = (
    "Small early-fusion models for classification, localization, separation and segmentation. The base encoder was "
    "pre-trained by alignment of two moments, then trained on with a localizer; localization, separation and "
    "segmentation stand on it, frozen, and localization and segmentation look at nine frames. They have seen nothing "
    "but drawn instruments: they are there to try every command."
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
