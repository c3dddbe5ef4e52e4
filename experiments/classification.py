"""Does pre-training pay, and does early fusion? Probes and fine-tuning on solos and digits, few labels and all.

Probes read features of centre views, written once per encoder; fine-tuning goes on from the attentive probe. What an
arm reads:

    early              fusion tokens of the pre-trained early-fusion encoder (probes alone)
    streams            its three streams, a head each, logits averaged
    untrained          as early, of its initialisation (probes alone)
    untrained_streams  as streams, of its initialisation
    image, audio       one stream of two separate pre-trained encoders
    separate           both streams of those, side by side
    averaged           the mean of the logits of `image` and `audio`, trained apart
    digits_streams     on digits, as streams, of an encoder that has seen digits alone (probes, first seed)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from experiments.classification_summary import Cell, summarize_cells
from experiments.encoders import KINDS, SEEDS, Encoders
from experiments.steps import AnyStep, Step, options
from experiments.worlds import SETS, Worlds

RECIPES = ("probe", "attentive", "finetune")
LABELS = ("few", "all")


@dataclass(frozen=True)
class Arm:
    """What a classifier stands on and reads."""

    encoder: str
    """`early` or `separate`."""
    heads: str
    modalities: str = "both"
    untrained: bool = False


ARMS = {
    "early": Arm("early", "[fusion]"),
    "streams": Arm("early", "[image,audio,fusion]"),
    "untrained": Arm("early", "[fusion]", untrained=True),
    "untrained_streams": Arm("early", "[image,audio,fusion]", untrained=True),
    "separate": Arm("separate", "[concat]"),
    "image": Arm("separate", "[image]", "image"),
    "audio": Arm("separate", "[audio]", "audio"),
    "digits_streams": Arm("digits", "[image,audio,fusion]"),
}

FINE_TUNED = ("streams", "untrained_streams", "separate", "image", "audio")
"""Arms that are fine-tuned: where all weights are trained there is no reason to read the fusion tokens alone."""

# Passes over the clips and the rate, of a set that has its own too; few clips need many passes.
OPTIM: dict[tuple[str, ...], dict[str, object]] = {
    ("probe", "few"): {"optim.optimizer": "adamw", "optim.blr": 2e-2, "optim.epochs": 100},
    ("probe", "all"): {"optim.optimizer": "adamw", "optim.blr": 2e-2, "optim.epochs": 40},
    ("attentive", "few"): {"optim.blr": 1e-2, "optim.epochs": 60},
    ("attentive", "all"): {"optim.blr": 1e-2, "optim.epochs": 20},
    ("finetune", "few"): {"optim.blr": 3.2e-2, "optim.epochs": 40},
    ("finetune", "all"): {"optim.blr": 3.2e-2, "optim.epochs": 18},
    ("finetune", "all", "digits"): {"optim.blr": 3.2e-2, "optim.epochs": 6},
}
FINE_TUNING: dict[str, object] = {
    "keep_heads": "true",
    "optim.layer_decay": 0.8,
    "augmentation.mixup": 0,
    "augmentation.drop_path": 0,
    "data.crop_area": "[0.7,1]",
    "training.batch_size": 8,
}
"""Pictures are not mixed nor cut by half, for instruments are small; small batches, for steps are what it takes."""
WARMUP = 0.1


@dataclass(frozen=True)
class Classification:
    """Where the runs lie, and the steps that make them."""

    root: Path
    worlds: Worlds
    encoders: Encoders

    def run(self, name: str, labels: str, recipe: str, arm: str, seed: int) -> Path:
        return self.root / f"{name}-{labels}" / f"{recipe}-{arm}-{seed}"

    def evaluation(self, name: str, labels: str, recipe: str, arm: str, seed: int) -> Path:
        """Folder of the evaluation on the test split."""
        return self.run(name, labels, recipe, arm, seed) / "evaluation" / "test"

    def steps(self, seed: int) -> list[AnyStep]:
        """All steps of one seed: probes first, which are cheap."""
        steps: list[AnyStep] = []
        for recipe in RECIPES:
            for name in self.worlds.sets:
                for labels in LABELS:
                    for arm in FINE_TUNED if recipe == "finetune" else _probed(name, seed):
                        steps += self._steps(name, labels, recipe, arm, seed)
                    steps.append(self._averaged(name, labels, recipe, seed))
        return steps

    def summarize(self, out: Path) -> None:
        """Write the small result file of what is done."""
        cells = {
            Cell(name, labels, recipe): {
                arm: {seed: self.evaluation(name, labels, recipe, arm, seed) for seed in SEEDS}
                for arm in (*ARMS, "averaged")
            }
            for name in self.worlds.sets
            for labels in LABELS
            for recipe in RECIPES
        }
        summarize_cells(cells, out)

    def _steps(self, name: str, labels: str, recipe: str, arm: str, seed: int) -> list[AnyStep]:
        own, run = ARMS[arm], self.run(name, labels, recipe, arm, seed)
        encoder, model = self.encoders.start(own.encoder, seed)
        train, test = self.worlds.train(name, labels), self.worlds.shards(SETS[name], "test")
        steps: list[AnyStep] = []
        probe = self.run(name, labels, "attentive", arm, seed)
        start = str(probe) if recipe == "finetune" else encoder
        words = ["train", "classification", "--recipe", recipe, "--from", start, "--run_dir", str(run)]
        words += ["--data.source", str(train), "--data.num_workers", "0", "--training.seed", str(seed)]
        optim = OPTIM.get((recipe, labels, name), OPTIM[recipe, labels])
        words += options({**optim, "optim.warmup_epochs": WARMUP * float(str(optim["optim.epochs"]))})
        words += ["--training.probe_every", "0", "--training.checkpoint_every", "200"]
        scoring = ["evaluate", "classification", str(run), "--data.source", str(test), "--data.num_workers", "0"]
        scoring += ["--out", str(self.evaluation(name, labels, recipe, arm, seed))]
        needs, scoring_needs = (
            [probe / "model" if recipe == "finetune" else model, self.worlds.made(train)],
            [run / "model"],
        )
        if recipe != "finetune":  # of encoders that do not fuse, one file has what either sense makes alone
            own = replace(own, modalities="both")
            files = {part: self._features(name, part, own, seed) for part in ("train", "test")}
            for part, file in files.items():
                steps.append(self._embed(file, self.worlds.shards(SETS[name], part), own, seed))
            words += ["--untrained", "true"] if own.untrained else []
            words += ["--heads", own.heads, "--training.batch_size", "32", "--features", str(files["train"])]
            scoring += ["--features", str(files["test"])]
            needs.append(files["train"])
            scoring_needs.append(files["test"])
        else:  # where a digit stands is its label: no mirroring
            words += ["--modalities", own.modalities, *options(FINE_TUNING)]
            words += ["--data.flip", "0"] if name == "digits" else []
        steps.append(Step(tuple(words), run / "model", tuple(needs)))
        steps.append(Step(tuple(scoring), scoring_out(scoring), tuple(scoring_needs)))
        return steps

    def _features(self, name: str, part: str, own: Arm, seed: int) -> Path:
        what = "untrained" if own.untrained else own.encoder
        return self.root / "features" / f"{name}-{part}-{what}-{seed}.npz"

    def _embed(self, out: Path, shards: Path, own: Arm, seed: int) -> AnyStep:
        more = ("--untrained", "true", "--seed", str(seed)) if own.untrained else ()
        return self.encoders.embedding(own.encoder, seed, shards, out, "--tokens", "all", *more)

    def _averaged(self, name: str, labels: str, recipe: str, seed: int) -> AnyStep:
        members = [self.evaluation(name, labels, recipe, arm, seed) for arm in ("image", "audio")]
        out = self.evaluation(name, labels, recipe, "averaged", seed)
        words = ("average", "--members", f"[{members[0]},{members[1]}]", "--out", str(out))
        return Step(words, out / "results.json", tuple(member / "results.json" for member in members))


def _probed(name: str, seed: int) -> list[str]:
    """Arms that are probed on a set."""
    kinds = {arm: KINDS[own.encoder] for arm, own in ARMS.items()}
    return [arm for arm, kind in kinds.items() if seed in kind.seeds and (name == "digits" or not kind.digits_alone)]


def scoring_out(words: list[str]) -> Path:
    """What an evaluation leaves behind."""
    return Path(words[words.index("--out") + 1]) / "results.json"
