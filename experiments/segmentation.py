"""The pixels of what sounds: pre-trained early fusion against an untrained start, no fusion, a deaf model, the release.

All arms learn from the same masks, scenes and twins together, with the same decoder and budget. Pre-trained encoders
stay as they are: at this rate, which an untrained one needs, training them too costs a good part of what they know.
`release` has the published decoder on the early-fusion encoder, at least 32 wide (at its own 128 it takes fourteen
times as long), and one seed. Some training samples are heard with silence or another clip's sound and have empty masks.
A localizer of the same encoder that has seen the same masks is the strongest map there is to compare with.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deepavfusion.atomic import write_text
from deepavfusion.data.locations import write_whole
from experiments.encoders import SEEDS, Encoders
from experiments.paired import paired_rows
from experiments.steps import AnyStep, Making, Step, options
from experiments.worlds import WORLDS, Worlds


@dataclass(frozen=True)
class Arm:
    """What a segmenter stands on."""

    encoder: str
    """`early` or `separate`."""
    settings: dict[str, object]
    """What differs from the other arms."""


LISTENING: dict[str, object] = {"listening.silent_share": 0.15, "listening.foreign_share": 0.1}
FROZEN: dict[str, object] = {"recipe": "frozen", "decoder.dim": 64}
ARMS = {
    "early": Arm("early", {**FROZEN, **LISTENING}),
    "untrained": Arm("early", {"recipe": "finetune", "decoder.dim": 64, **LISTENING, "untrained": "true"}),
    "separate": Arm("separate", {**FROZEN, **LISTENING}),
    "image": Arm("early", {**FROZEN, "modalities": "image"}),
    "release": Arm("early", {**FROZEN, **LISTENING, "decoder.form": "release", "decoder.dim": 32}),
}
LOCALIZER_SETTINGS: dict[str, object] = {"freeze_encoder": "true", "head.dim": 128}
ONE_SEED = ("release",)
"""Arms that are run with the first seed alone."""
SETS = ("segmentation_test", "twins_test")
TRAINING = {
    "training.batch_size": 4,
    "optim.blr": 3.2e-2,
    "optim.epochs": 3,
    "optim.warmup_epochs": 0.2,
    "data.crop_area": "[0.7,1]",
    "training.probe_every": 0,
    "training.picture_every": 0,
    "training.checkpoint_every": 800,
    "data.num_workers": 0,
}
LOCALIZER = "localizer"
MAP = f"{LOCALIZER} (map, best threshold)"
"""What evaluations call the map of a localizer among their baselines."""
SCORES = {
    "segmentation_test": (
        "avsbench miou",
        "avsbench f_score",
        "avsbench miou, silent lookalike",
        "avsbench f_score, silent lookalike",
        "mask area, own sound",
        "mask area, silence",
    ),
    "twins_test": ("avsbench miou", "avsbench f_score", "twins told apart"),
}


@dataclass(frozen=True)
class Segmentation:
    """Where the runs lie, and the steps that make them."""

    root: Path
    worlds: Worlds
    encoders: Encoders

    def run(self, arm: str, seed: int) -> Path:
        return self.root / f"{arm}-{seed}"

    def evaluation(self, arm: str, seed: int, part: str) -> Path:
        return self.run(arm, seed) / "evaluation" / part

    def steps(self, seed: int) -> list[AnyStep]:
        scenes = self.worlds.root / "band_scenes"
        made = self.worlds.shards("band_scenes", "twins_test") / "shards.json"
        masks = masks_step(self.worlds)
        clips = masks.product
        steps: list[AnyStep] = [masks]
        arms = {name: arm for name, arm in ARMS.items() if seed == SEEDS[0] or name not in ONE_SEED}
        for name, arm in arms.items():
            run, (start, model) = self.run(name, seed), self.encoders.start(arm.encoder)
            words = ["train", "segmentation", "--from", start]
            words += ["--run_dir", str(run), "--data.source", str(clips), "--training.seed", str(seed)]
            words += options({**TRAINING, **arm.settings})
            steps.append(Step(tuple(words), run / "model", (model, clips)))
        localizer, (start, model) = self.run(LOCALIZER, seed), self.encoders.start("early")
        words = ["train", "localization", "--recipe", "supervised", "--from", start, "--run_dir", str(localizer)]
        words += ["--data.source", str(clips), "--splits", "[segmentation_train]", "--training.seed", str(seed)]
        words += options({**TRAINING, **LOCALIZER_SETTINGS})
        steps.append(Step(tuple(words), localizer / "model", (model, clips)))
        for name in arms:
            for part in SETS:
                out, needs = self.evaluation(name, seed, part), [self.run(name, seed) / "model", made]
                words = ["evaluate", "segmentation", str(self.run(name, seed))]
                words += ["--data.source", str(scenes / f"{part}.csv"), "--data.split", "all"]
                words += ["--data.num_workers", "0", "--out", str(out)]
                if name == "early":
                    words += ["--baselines", f"[{LOCALIZER}={localizer}]"]
                    needs.append(localizer / "model")
                steps.append(Step(tuple(words), out / "results.json", tuple(needs)))
        return steps

    def summarize(self, out: Path) -> None:
        """Write the small result file of what is done."""
        rows = []
        for part in SETS:
            folders = {arm: {seed: self.evaluation(arm, seed, part) for seed in SEEDS} for arm in ARMS}
            rows += [{"set": part, **row} for row in paired_rows(folders, SCORES[part], "early", (MAP,))]
        if rows:
            write_text(out, json.dumps({"rows": rows}, indent=1) + "\n")


def masks_step(worlds: Worlds, solos: bool = False) -> Making:
    """The step that puts all clips of the world with masks into one manifest of one split; solos are of another."""
    clips = worlds.root / ("masks_and_solos.csv" if solos else "masks.csv")
    found = {name: worlds.root / name for name in ("band_masks", *(("band_solo_masks",) if solos else ()))}
    parts = [folder / f"{split}.csv" for name, folder in found.items() for split in WORLDS[name].splits]
    made = tuple(WORLDS[name].product(folder) for name, folder in found.items())
    return Making(partial(one_split, parts, "segmentation_train", clips), clips, made)


def one_split(manifests: list[Path], split: str, out: Path) -> None:
    """Write one manifest of the clips of several, all of them called of one split."""
    rows: list[dict[str, str]] = []
    columns: list[str] = []
    for manifest in manifests:
        with open(manifest, newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            columns = list(table.fieldnames or ())
            for row in table:
                path = (manifest.parent / row["path"]).relative_to(out.parent)
                rows.append({**row, "path": str(path), "split": split, "label": ""})
    with write_whole(str(out)) as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
