"""The worlds that all experiments share: Bandstand, digits and stamps, as shards, and cuts of them."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deepavfusion.data.locations import write_whole
from deepavfusion.data.scenes.annotation import read_annotation
from deepavfusion.data.sets.listing import LABEL_SEPARATOR
from experiments.steps import AnyStep, Making, Step


@dataclass(frozen=True)
class World:
    """What is written into one folder."""

    clips: int
    splits: tuple[str, ...]
    cast: str = "band"
    seed: int = 0
    stems: bool = False
    masks: bool = False
    shards: bool = True
    """Whether the clips are stored as shards too."""

    def product(self, folder: Path) -> Path:
        """What is there when all of it is."""
        last = self.splits[-1]
        return folder / "shards" / last / "shards.json" if self.shards else folder / f"{last}.csv"


SCENES = ("localization", "duets", "segmentation_train", "segmentation_test", "listening", "twins_train", "twins_test")
STAMP_SOLOS = (
    "effects_train",
    "effects_test",
    "effects_backgrounds",
    "names_train",
    "names_test",
    "names_backgrounds",
    "names_languages",
)
STAMP_SCENES = ("localization", "localization_languages", "segmentation_test", "duets", "listening")
WORLDS = {
    "band": World(7200, ("pretrain",)),
    "band_few": World(4150, ("pretrain",)),
    "band_solos": World(2400, ("train", "val", "test")),
    "band_scenes": World(2400, SCENES, stems=True, masks=True),
    "band_masks": World(4800, ("localization", "segmentation_train", "twins_train"), seed=1, masks=True, shards=False),
    "band_solo_masks": World(720, ("train",), seed=1, masks=True, shards=False),
    "digits": World(3600, ("pretrain",), cast="digits"),
    "digits_scenes": World(2400, ("train", "val", "test"), cast="digits"),
    "stamps": World(7200, ("pretrain",), cast="stamps"),
    "stamps_solos": World(8000, STAMP_SOLOS, cast="stamps"),
    "stamps_scenes": World(2600, STAMP_SCENES, cast="stamps", stems=True, masks=True, shards=False),
    "stamps_masks": World(3000, ("segmentation_train",), cast="stamps", seed=1, masks=True, shards=False),
}
"""By folder. `band_few` has the first clips of `band`. All of `band_masks` is trained on: it is of another seed than
the worlds that are tested on, so that its scenes of the split `localization`, in which a silent instrument often looks
like the sounding one, are new ones. `band_solo_masks` has instruments that are alone, as none is in those scenes."""
SETS = {"solos": "band_solos", "digits": "digits_scenes"}
"""Labelled sets for classification, by the world they lie in."""
NUM_WORKERS = max(1, (os.cpu_count() or 1) // 2)
"""Processes that write a world; two are written at a time."""
FEW = 100
"""Labels of the few-label experiments."""


class Worlds:
    """Where the worlds lie, and the steps that make them."""

    def __init__(self, root: Path, digits: Path | None, stamps: Path | None = None, photos: Path | None = None) -> None:
        """
        Args:
            root: folder of all worlds.
            digits: folder with MNIST's and FSDD's files; None leaves the digits out.
            stamps: folder of the package tuxpaint-stamps-default; None leaves the stamps out.
            photos: folder of photographs behind the stamps; None: all backgrounds are drawn.
        """
        self.root, self.digits, self.stamps, self.photos = root, digits, stamps, photos

    @property
    def corpus(self) -> Path:
        """The unlabelled clips of pre-training."""
        return self.root / "joint.csv" if self.digits else self.shards("band", "pretrain")

    @property
    def stage(self) -> Path:
        """The unlabelled clips of all casts there are."""
        return self.root / "stage.csv"

    @property
    def sets(self) -> dict[str, str]:
        """The labelled sets there are."""
        return {name: world for name, world in SETS.items() if self.digits or not world.startswith("digits")}

    def shards(self, world: str, split: str) -> Path:
        return self.root / world / "shards" / split

    def made(self, source: Path) -> Path:
        """What is there when clips to train or score on are: the last part of their world, else they themselves."""
        world = source.relative_to(self.root).parts[0] if source.is_relative_to(self.root) else ""
        return WORLDS[world].product(self.root / world) if world in WORLDS else source

    def train(self, name: str, labels: str) -> Path:
        """Training clips of a labelled set: `few` or `all` of them."""
        shards = self.shards(SETS[name], "train")
        return shards if labels == "all" else self.root / f"{name}_few.csv"

    @property
    def named_digits(self) -> Path:
        """The digits clips of pre-training, labelled with the digits seen and heard."""
        return self.root / "named_digits.csv"

    def steps(self) -> list[AnyStep]:
        steps: list[AnyStep] = []
        for folder, own in WORLDS.items():
            if (own.cast == "digits" and self.digits is None) or (own.cast == "stamps" and self.stamps is None):
                continue
            words = ["bandstand", str(self.root / folder), "--cast", own.cast, "--clips", str(own.clips)]
            words += ["--splits", f"[{','.join(own.splits)}]", "--seed", str(own.seed), "--sheets", "false"]
            words += ["--stems", str(own.stems).lower(), "--masks", str(own.masks).lower()]
            words += ["--shards", "5" if own.shards else "0", "--num_workers", str(NUM_WORKERS)]
            if own.cast == "digits" and self.digits:
                words += ["--digit_images", str(self.digits)]
                words += ["--digit_recordings", str(self.digits / "fsdd_flac.zip")]
            if own.cast == "stamps":
                words += ["--stamps", str(self.stamps)]
                words += ["--backgrounds", str(self.photos)] if self.photos else []
            steps.append(Step(tuple(words), own.product(self.root / folder)))
        if self.stamps:
            casts = ("band_few", "digits", "stamps") if self.digits else ("band_few", "stamps")
            parts = {name: self.shards(name, "pretrain") for name in casts}
            needs = tuple(part / "shards.json" for part in parts.values())
            steps.append(Making(partial(join, parts, self.stage), self.stage, needs))
        if self.digits:
            parts = {name: self.shards(name, "pretrain") for name in ("band", "digits")}
            needs = tuple(part / "shards.json" for part in parts.values())
            steps.append(Making(partial(join, parts, self.corpus), self.corpus, needs))
            named = partial(name_digits, parts["digits"], self.root / "digits", self.named_digits)
            steps.append(Making(named, self.named_digits, needs[1:]))
        for name, world in self.sets.items():
            shards = self.shards(world, "train")
            # The last split's shards are the world's product; those of the others were written before.
            needs = (self.shards(world, "test") / "shards.json",)
            steps.append(Making(partial(cut, shards, FEW, self.train(name, "few")), self.train(name, "few"), needs))
        return steps


def join(parts: dict[str, Path], out: Path) -> None:
    """Write one manifest of several sets of shards; ids get the part's name before them."""
    rows, columns = [], []
    for name, shards in parts.items():
        with open(shards / "clips.csv", newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            columns = list(table.fieldnames or ())
            for row in table:
                path = (shards / row["path"]).relative_to(out.parent)
                rows.append({**row, "id": f"{name}/{row['id']}", "path": str(path)})
    _write(rows, columns, out)


def cut(shards: Path, count: int, out: Path) -> None:
    """Write a manifest of the first clips of a set of shards; classes alternate there, so the cut is balanced."""
    with open(shards / "clips.csv", newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        rows = [{**row, "path": str((shards / row["path"]).relative_to(out.parent))} for row in table][:count]
        columns = list(table.fieldnames or ())
    _write(rows, columns, out)


def name_digits(shards: Path, world: Path, out: Path) -> None:
    """Write a manifest of digits clips whose labels say which digits are seen and which are heard."""
    with open(shards / "clips.csv", newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        rows, columns = list(table), list(table.fieldnames or ())
    for row in rows:
        sources = read_annotation(str(world / row["split"] / f"{row['id']}.mp4")).sources
        seen = {f"seen {source.details['digit']}" for source in sources if source.visible}
        heard = {f"heard {source.details['digit']}" for source in sources if source.audible}
        path = (shards / row["path"]).relative_to(out.parent)
        row.update(path=str(path), label=LABEL_SEPARATOR.join(sorted(seen | heard)))
    _write(rows, columns, out)


def _write(rows: list[dict[str, str]], columns: list[str], out: Path) -> None:
    with write_whole(str(out)) as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
