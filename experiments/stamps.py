"""The cast of stamps: heads on encoders pre-trained on all three casts, early fusion against two separate ones.

One encoder of each, three seeds of every head. What is asked:

    effects, names   which of the things: new scenes, held-out backgrounds, held-out languages (linear probes). Arms
                     `..._sound` hear and see nothing; `picture` sees and does not hear
    farm             the same of photographs and recordings of other people, nine animals (`farm_animals`)
    localization     where in the picture is what is heard: effects, names, names in held-out languages
    segmentation     which pixels are
    separation       two effects by their pictures; `hears` is never shown one

Probes read the encoders as they are. A localizer trains its encoder on; segmenters, which learn from the same masks,
and separators, which learn from solos of effects, stand on the localizer's encoder, frozen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deepavfusion.atomic import write_text
from deepavfusion.bandstand.things import read_things
from deepavfusion.data.clips import find_clips, write_manifest
from deepavfusion.data.scenes.annotation import annotation_of
from experiments import localization, separation, shipped
from experiments.classification import OPTIM
from experiments.encoders import SEEDS, Encoders
from experiments.farm_animals import RESOURCE, write_clips
from experiments.paired import paired_rows, whole_rows
from experiments.steps import AnyStep, Making, Step, options
from experiments.worlds import Worlds


@dataclass(frozen=True)
class Arm:
    """What a linear probe reads."""

    encoder: str
    heads: str
    modalities: str = "both"
    """What the encoder is given."""


ARMS = {
    "early": Arm("stage_fused", "[image,audio,fusion]"),
    "separate": Arm("stage_longer", "[image,audio]"),
    "early_sound": Arm("stage_fused", "[audio,fusion]", "audio"),
    "separate_sound": Arm("stage_longer", "[audio]"),
    "picture": Arm("stage_longer", "[image]"),
}
"""An encoder that does not fuse makes the same of one modality whether it has the other or not."""
READ = {
    "": {"early": "early", "separate": "separate", "picture alone": "picture"},
    ", sound alone": {"early": "early_sound", "separate": "separate_sound"},
}
"""Probes that are compared, by what they are given and by the name of their column."""
FARM = "farm"
SETS = {
    "effects": ("effects_test", "effects_backgrounds", FARM),
    "names": ("names_test", "names_backgrounds", "names_languages"),
}
"""Splits of the test by kind of sound."""
FARM_CLIPS = 10
"""Of each animal."""
LOOKING: dict[str, object] = {
    **shipped.COMMON,
    "recipe": "finetune",
    "modalities": "image",
    "optim.layer_decay": 0.8,
    "optim.epochs": 16,
    "augmentation.mixup": 0,
    "augmentation.drop_path": 0,
    "data.crop_area": "[0.7,1]",
}
"""The encoder first learns to tell the things with an effect by their pictures."""
LOCALIZING: dict[str, object] = {
    **shipped.COMMON,
    **shipped.LOCALIZING,
    **shipped.HEAD,
    "optim.layer_decay": 0.8,
    "optim.epochs": 6,
}
"""As the shipped localizer of one frame: its encoder trains on, half of the samples have a foreign sound."""
SEGMENTING: dict[str, object] = {
    **shipped.COMMON,
    **shipped.SEGMENTING,
    "decoder.form": "comparing",
    "decoder.dim": 64,
    "optim.epochs": 3,
}
SEPARATING: dict[str, object] = {
    **shipped.COMMON,
    **shipped.SEPARATING,
    "decoding.decoder_dim": 64,
    "optim.epochs": 4,
}
"""Both on the localizer's encoder, which stays as it is."""
HEADS = {"early": "stage_fused", "separate": "stage_longer"}
"""Encoders of the other tasks."""
SCENES = ("localization", "localization_languages", "listening")
LOCALIZED = ("source chosen", "AUC area", "cIoU@0.5 area")
KINDS = ("one_effect", "one_name")
"""Scene types that are scored by themselves too."""
FALSE = {
    "localization": ("false positives, silent_effect", "false positives, silent_name"),
    "localization_languages": ("false positives, silent_name",),
    "listening": tuple(f"false positives, listening_{sound}" for sound in ("silence", "noise", "foreign")),
}
SEGMENTED = ("avsbench miou", "avsbench f_score")
SILENT = ("the same, hearing silence", "whole picture")
"""Baselines of segmentation."""
AREAS = tuple(f"mask area, {sound}" for sound in ("own sound", "silence", "foreign"))
TOP1 = ("top1 average",)
SEPARATED = ("SDRi", "SDR", "SI-SDRi")


@dataclass(frozen=True)
class Stamps:
    """Where the runs lie, and the steps that make them; none without the stamps' folder."""

    root: Path
    worlds: Worlds
    encoders: Encoders
    farm: Path = RESOURCE
    """The resource of the farm animals; without it that set is left out."""

    def run(self, task: str, arm: str, seed: int) -> Path:
        return self.root / task / f"{arm}-{seed}"

    def evaluation(self, task: str, arm: str, seed: int, part: str) -> Path:
        return self.run(task, arm, seed) / "evaluation" / part

    def steps(self, seed: int) -> list[AnyStep]:
        if self.worlds.stamps is None:
            return []
        steps: list[AnyStep] = []
        for name in SETS:
            for arm in ARMS:
                steps += self._probe(name, arm, seed)
        for arm, kind in HEADS.items():
            steps += self._looking(arm, kind, seed) + self._localizer(arm, seed)
        for arm in HEADS:
            steps += self._segmenter(arm, seed)
        for arm in (*HEADS, "hears"):
            steps += self._separator(arm, seed)
        return steps

    def summarize(self, out: Path) -> None:
        """Write the small result file of what is done."""
        rows = []
        for name, parts in SETS.items():
            for part in parts:
                for given, columns in READ.items():
                    folders = {column: self._folders(name, arm, part) for column, arm in columns.items()}
                    found = paired_rows(folders, TOP1, "early")
                    rows += [{"set": f"{part}{given}", **row} for row in found]
        for part in SETS["effects"]:
            folders = {arm: self._folders("looking", arm, part) for arm in HEADS}
            rows += [{"set": f"{part}, fine-tuned, no sound", **row} for row in paired_rows(folders, TOP1, "early")]
        tasks = (
            *(("localization", part, tuple(HEADS), localization.BASELINES) for part in SCENES),
            ("segmentation", "segmentation_test", tuple(HEADS), ()),
            ("separation", "two_effects", (*HEADS, "hears"), separation.BASELINES),
        )
        for task, part, arms, baselines in tasks:
            folders = {arm: self._folders(task, arm, part) for arm in arms}
            found = paired_rows(folders, _scores(task), "early", baselines)
            if task == "localization":
                found += whole_rows(folders, FALSE[part], "early", baselines)
            if task == "segmentation":  # its baselines have scores of all samples alone
                found += [row for row in whole_rows(folders, SEGMENTED, "early", SILENT) if row["arm"] in SILENT]
            rows += [{"set": part, **row} for row in found]
        if rows:
            write_text(out, json.dumps({"rows": rows}, indent=1) + "\n")

    def _folders(self, task: str, arm: str, part: str) -> dict[int, Path]:
        return {seed: self.evaluation(task, arm, seed, part) for seed in SEEDS}

    def _probe(self, name: str, arm: str, seed: int) -> list[AnyStep]:
        own, run = ARMS[arm], self.run(name, arm, seed)
        assert self.worlds.stamps is not None
        classes = self.root / f"{name}.txt"
        steps: list[AnyStep] = [Making(partial(list_classes, str(self.worlds.stamps), name, classes), classes)]
        tests = self._tests(name)
        files = {part: self._features(own, part) for part in (f"{name}_train", *tests)}
        if FARM in files:
            clips = self._clips(FARM)
            steps.append(Making(partial(write_clips, self.farm, clips.parent, FARM_CLIPS), clips))
        steps += [self._embed(own, part) for part in files]
        train = files[f"{name}_train"]
        words = ["train", "classification", "--recipe", "probe", "--from", self.encoders.start(own.encoder)[0]]
        words += ["--run_dir", str(run), "--data.source", str(self.worlds.shards("stamps_solos", f"{name}_train"))]
        words += ["--features", str(train), "--heads", own.heads, "--modalities", own.modalities]
        words += ["--classes", str(classes)]
        words += ["--training.seed", str(seed), "--training.batch_size", "32", "--training.probe_every", "0"]
        words += ["--data.num_workers", "0", *options(OPTIM["probe", "all"])]
        steps.append(Step(tuple(words), run / "model", (train, classes)))
        for part in tests:
            out = self.evaluation(name, arm, seed, part)
            words = ["evaluate", "classification", str(run), "--features", str(files[part]), "--out", str(out)]
            words += ["--data.source", str(self._clips(part)), "--data.split", "all", "--data.num_workers", "0"]
            steps.append(Step(tuple(words), out / "results.json", (run / "model", files[part])))
        return steps

    def _tests(self, name: str) -> list[str]:
        return [part for part in SETS[name] if part != FARM or self.farm.is_file()]

    def _clips(self, part: str) -> Path:
        return self.root / FARM / "clips.csv" if part == FARM else self.worlds.shards("stamps_solos", part)

    def _features(self, own: Arm, part: str) -> Path:
        return self.root / "features" / f"{part}-{own.encoder}-{own.modalities}.npz"

    def _embed(self, own: Arm, part: str) -> Step:
        out, more = self._features(own, part), ("--modalities", own.modalities)
        return self.encoders.embedding(own.encoder, SEEDS[0], self._clips(part), out, *more)

    def _looking(self, arm: str, kind: str, seed: int) -> list[AnyStep]:
        (start, model), train = self.encoders.start(kind), self.worlds.shards("stamps_solos", "effects_train")
        run, classes = self.run("looking", arm, seed), self.root / "effects.txt"
        words = ["train", "classification", "--from", start, "--run_dir", str(run), "--data.source", str(train)]
        words += ["--classes", str(classes), "--training.seed", str(seed), *options(LOOKING)]
        steps: list[AnyStep] = [Step(tuple(words), run / "model", (model, classes, self.worlds.made(train)))]
        for part in self._tests("effects"):
            out, clips = self.evaluation("looking", arm, seed, part), self._clips(part)
            words = ["evaluate", "classification", str(run), "--data.source", str(clips), "--data.split", "all"]
            words += ["--data.num_workers", "0", "--out", str(out)]
            steps.append(Step(tuple(words), out / "results.json", (run / "model", self.worlds.made(clips))))
        return steps

    def _localizer(self, arm: str, seed: int) -> list[AnyStep]:
        start = self._trained("looking", arm, seed)
        steps = [self._train("localization", arm, start, seed, LOCALIZING, "stamps_masks", "segmentation_train")]
        return [*steps, *(self._evaluate("localization", arm, seed, part, part) for part in SCENES)]

    def _segmenter(self, arm: str, seed: int) -> list[AnyStep]:
        start = self._trained("localization", arm, seed)
        steps = [self._train("segmentation", arm, start, seed, SEGMENTING, "stamps_masks", "segmentation_train")]
        return [*steps, self._evaluate("segmentation", arm, seed, "segmentation_test", "segmentation_test")]

    def _separator(self, arm: str, seed: int) -> list[AnyStep]:
        hears = {"decoding.condition": "none"} if arm == "hears" else {}
        start = self._trained("localization", "early" if hears else arm, seed)
        trained = self._train("separation", arm, start, seed, SEPARATING | hears, "stamps_solos", "effects_train")
        scenes = self.worlds.root / "stamps_scenes"
        duets = scenes / "two_effects.csv"
        made = self.worlds.made(scenes)
        chosen = Making(partial(of_scene_type, scenes / "duets.csv", "two_effects", duets), duets, (made,))
        scored = self._evaluate("separation", arm, seed, "two_effects", "two_effects", ["--mixtures", "duets"])
        return [trained, chosen, Step(scored.words, scored.product, (*scored.needs, duets))]

    def _trained(self, task: str, arm: str, seed: int) -> tuple[str, Path]:
        """A run to start from: what `--from` is given, and what it needs."""
        run = self.run(task, arm, seed)
        return str(run), run / "model"

    def _train(
        self,
        task: str,
        arm: str,
        start: tuple[str, Path],
        seed: int,
        settings: dict[str, object],
        world: str,
        split: str,
    ) -> Step:
        run, clips = self.run(task, arm, seed), self.worlds.root / world / f"{split}.csv"
        words = ["train", task, "--from", start[0], "--run_dir", str(run), "--data.source", str(clips)]
        words += ["--training.seed", str(seed), *options(settings)]
        return Step(tuple(words), run / "model", (start[1], self.worlds.made(clips)))

    def _evaluate(
        self, task: str, arm: str, seed: int, part: str, manifest: str, more: list[str] | None = None
    ) -> Step:
        run, out = self.run(task, arm, seed), self.evaluation(task, arm, seed, part)
        clips = self.worlds.root / "stamps_scenes" / f"{manifest}.csv"
        words = ["evaluate", task, str(run), "--data.source", str(clips), "--data.split", "all"]
        words += ["--data.num_workers", "0", "--out", str(out), *(more or [])]
        return Step(tuple(words), out / "results.json", (run / "model", self.worlds.made(clips)))


def _scores(task: str) -> tuple[str, ...]:
    """Scores that samples have, and those of one effect or one name by themselves."""
    if task == "separation":
        return SEPARATED
    scores = LOCALIZED if task == "localization" else SEGMENTED
    alone = tuple(f"{score}, {kind}" for kind in KINDS for score in scores)
    return scores + alone + (AREAS if task == "segmentation" else ())


def list_classes(stamps: str, name: str, out: Path) -> None:
    """Write the classes of solos, one a line: all things that have an effect, or a name."""
    things = read_things(stamps).things
    chosen = [thing.name for thing in things if (thing.effects if name == "effects" else thing.names)]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, "\n".join(chosen) + "\n")


def of_scene_type(manifest: Path, scene_type: str, out: Path) -> None:
    """Write a manifest of the clips of one type of scene."""
    clips = [clip for clip in find_clips(str(manifest)) if annotation_of(clip).scene_type == scene_type]
    write_manifest(str(out), clips)
