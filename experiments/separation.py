"""Separation by the picture: what pre-training and early fusion buy, and what looking at the picture buys at all.

Every arm learns from the same mixtures with the same budget. Pre-trained encoders stay as they are, an untrained one is
trained too. Wrong and swapped pictures, the mixture itself and the
oracle mask are baselines of each evaluation. What an arm is:

    early      our decoder on the pre-trained early-fusion encoder
    untrained  the same from scratch
    separate   the same on two separate pre-trained encoders
    hears      the same, never shown a picture
    release    the published decoder on the early-fusion encoder
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from deepavfusion.atomic import write_text
from experiments.encoders import SEEDS, TAUGHT, Encoders
from experiments.paired import paired_rows, with_kept
from experiments.steps import AnyStep, Step, options
from experiments.worlds import Worlds

FROZEN: dict[str, object] = {"freeze_encoder": "true", "decoding.decoder_dim": 64}
RELEASE: dict[str, object] = {"decoding.decoder": "release"}
ARMS: dict[str, tuple[str, dict[str, object]]] = {
    "early": ("early", FROZEN),
    "untrained": ("early", {"untrained": "true", "decoding.decoder_dim": 64}),
    "separate": ("separate", FROZEN),
    "hears": ("early", {**FROZEN, "decoding.condition": "none"}),
    "release": ("early", {"freeze_encoder": "true", **RELEASE}),
}
"""By arm: its encoder, and what differs from the others."""


@dataclass(frozen=True)
class MixtureSet:
    """What separators learn from, and what they are scored on."""

    world: str
    """Trained on."""
    scored: str
    split: str
    how: dict[str, object]
    """How mixtures are made of the scored split."""
    arms: tuple[str, ...]
    training: dict[str, object] = field(default_factory=dict)
    """What differs from `TRAINING`."""
    early: str = "early"
    """The early-fusion encoder that the arms stand on."""
    separate: str = "separate"
    """The two separate encoders."""


SETS = {
    "band": MixtureSet(
        "band",
        "band_scenes",
        "duets",
        {"mixtures": "duets"},
        arms=("early", "untrained", "separate", "hears", "release"),
    ),
    "digits": MixtureSet(
        "digits",
        "digits_scenes",
        "test",
        {"pictures": "box"},
        arms=("early", "hears"),
        training={"mixing.pictures": "box", "data.flip": 0, "optim.epochs": 5},
        early=TAUGHT,
    ),
    "band, aligned": MixtureSet(
        "band_few",
        "band_scenes",
        "duets",
        {"mixtures": "duets"},
        arms=("early", "separate"),
        training={
            "mixing.single": 0.2,
            "optim.epochs": 4,
            "optim.warmup_epochs": 0.4,
            "training.precision": "bfloat16",
        },
        early="fused",
        separate="longer_separate",
    ),
}
"""Duets are recordings with stems. The digits' mixtures are sums of clips of a speaker who is nowhere in training.
Their early-fusion encoder was taught which digits it sees and hears; a mirrored digit is none.
`band, aligned` has encoders that were pre-trained by alignment, the early-fusion one started from two separate ones."""
TRAINING: dict[str, object] = {
    "mixing.pictures": "source",
    "mixing.single": 0.4,
    "data.crop_area": "[0.75,0.78]",
    "data.crop_ratio": "[1,1]",
    "loss": "bce",
    "training.batch_size": 8,
    "optim.blr": 3.2e-2,
    "optim.epochs": 3,
    "optim.warmup_epochs": 0.2,
    "training.probe_every": 0,
    "training.picture_every": 0,
    "training.checkpoint_every": 200,
    "data.num_workers": 0,
}
BASELINES = ("mixture", "wrong picture", "swapped pictures", "oracle mask")
SCORES = (
    "SDRi",
    "SDRi different classes",
    "SDRi same class",
    "SDR",
    "SI-SDRi",
    "clean source lost dB",
    "clean sources within 1 dB",
)


@dataclass(frozen=True)
class Separation:
    """Where the runs lie, and the steps that make them."""

    root: Path
    worlds: Worlds
    encoders: Encoders

    def run(self, name: str, arm: str, seed: int) -> Path:
        return self.root / name.replace(", ", "_") / f"{arm}-{seed}"

    def evaluation(self, name: str, arm: str, seed: int) -> Path:
        return self.run(name, arm, seed) / "evaluation" / "duets"

    def steps(self, seed: int) -> list[AnyStep]:
        steps: list[AnyStep] = []
        for name in self._sets():
            own = SETS[name]
            clips, made = self.worlds.root / own.world / "pretrain.csv", self.worlds.shards(own.world, "pretrain")
            there = self.worlds.made(self.worlds.root / own.scored)
            for arm in own.arms:
                kind, settings = ARMS[arm]
                run, out = self.run(name, arm, seed), self.evaluation(name, arm, seed)
                start, model = self.encoders.start({"early": own.early, "separate": own.separate}[kind])
                words = ["train", "separation", "--from", start, "--run_dir", str(run), "--data.source", str(clips)]
                words += ["--training.seed", str(seed), *options({**TRAINING, **own.training, **settings})]
                steps.append(Step(tuple(words), run / "model", (model, made / "shards.json")))
                words = ["evaluate", "separation", str(run), *options(own.how), "--data.split", "all"]
                words += ["--data.source", str(self.worlds.root / own.scored / f"{own.split}.csv")]
                words += ["--data.num_workers", "0", "--out", str(out)]
                steps.append(Step(tuple(words), out / "results.json", (run / "model", there)))
        return steps

    def summarize(self, out: Path) -> None:
        """Write the small result file of what is done."""
        rows = []
        for name in self._sets():
            folders = {arm: {seed: self.evaluation(name, arm, seed) for seed in SEEDS} for arm in SETS[name].arms}
            rows += [{"set": name, **row} for row in paired_rows(folders, SCORES, "early", BASELINES)]
        rows = with_kept(rows, out, ("set",))
        if rows:
            write_text(out, json.dumps({"rows": rows}, indent=1) + "\n")

    def _sets(self) -> list[str]:
        return [name for name in SETS if name != "digits" or self.worlds.digits is not None]
