"""What a convolutional patch embedding buys: classifiers of solos, from scratch and on aligned encoders.

Arms have the encoder of the recipe `reconstruction`, the same clips, views, rate and passes, and differ in
`patch_embed` alone. Encoders that are not trained from scratch are those of `senses`, pre-trained by alignment of two
moments.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from deepavfusion.atomic import write_text
from experiments.encoders import SEEDS, SHIPPED, Encoders
from experiments.paired import paired_rows
from experiments.steps import AnyStep, Making, Step, options
from experiments.worlds import SETS, Worlds

FORMS = {"convolutional": "convolved", "linear": "aligned"}
"""By form of the embedding: the pre-trained encoder that has it."""
REFERENCE = "convolutional"
SET = "solos"
SCORE = "top1 average"
WHOLE: dict[str, object] = {
    "training.batch_size": 8,
    "optim.blr": 3.2e-2,
    "optim.epochs": 18,
    "optim.layer_decay": 0.8,
    "augmentation.mixup": 0,
    "augmentation.drop_path": 0,
    "data.crop_area": "[0.7,1]",
}
"""The peak rate is 1e-3."""
PROBE: dict[str, object] = {"training.batch_size": 32, "optim.blr": 1e-2, "data.crop_area": "[0.7,1]"}


@dataclass(frozen=True)
class Training:
    """How a classifier is trained."""

    recipe: str
    pretrained: bool
    """On the form's encoder of `senses`, else from scratch."""
    settings: dict[str, object] = field(default_factory=dict)
    labels: str = "all"
    """`few` or `all`."""


TRAININGS = {
    "from scratch, batches of 8": Training("finetune", False, WHOLE),
    "aligned, attentive probe": Training("attentive", True, {**PROBE, "optim.epochs": 20}),
    "aligned, attentive probe, 100 labels": Training("attentive", True, {**PROBE, "optim.epochs": 60}, "few"),
    "aligned, fine-tuned": Training("finetune", True, WHOLE),
}
COMMON: dict[str, object] = {
    "optim.warmup_share": 0.1,
    "training.precision": "bfloat16",
    "data.num_workers": 0,
    "training.probe_every": 0,
    "training.checkpoint_every": 100,
}


@dataclass(frozen=True)
class PatchEmbedding:
    """Where the runs lie, and the steps that make them."""

    root: Path
    worlds: Worlds
    encoders: Encoders

    def run(self, name: str, form: str, seed: int) -> Path:
        return self.root / name.replace(",", "").replace(" ", "_") / f"{form}-{seed}"

    def evaluation(self, name: str, form: str, seed: int) -> Path:
        return self.run(name, form, seed) / "evaluation" / "test"

    def steps(self, seed: int) -> list[AnyStep]:
        steps: list[AnyStep] = []
        test = self.worlds.shards(SETS[SET], "test")
        for form, kind in FORMS.items():
            config = self.root / form / "config.json"
            steps.append(Making(partial(configure, form, config.parent), config, (SHIPPED / "config.json",)))
            for name, training in TRAININGS.items():
                run, out = self.run(name, form, seed), self.evaluation(name, form, seed)
                start, need = self.encoders.start(kind, seed) if training.pretrained else (str(config.parent), config)
                train = self.worlds.train(SET, training.labels)
                words = ["train", "classification", "--recipe", training.recipe, "--from", start]
                words += [] if training.pretrained else ["--untrained", "true"]
                words += ["--run_dir", str(run), "--data.source", str(train), "--training.seed", str(seed)]
                words += options({**COMMON, **training.settings})
                steps.append(Step(tuple(words), run / "model", (need, self.worlds.made(train))))
                words = ["evaluate", "classification", str(run), "--data.source", str(test), "--out", str(out)]
                words += ["--data.num_workers", "0"]
                steps.append(Step(tuple(words), out / "results.json", (run / "model",)))
        return steps

    def summarize(self, out: Path) -> None:
        """Write the small result file of what is done."""
        rows = []
        for name in TRAININGS:
            folders = {form: {seed: self.evaluation(name, form, seed) for seed in SEEDS} for form in FORMS}
            rows += [{"set": f"{SET}, {name}", **row} for row in paired_rows(folders, (SCORE,), REFERENCE)]
        if rows:
            write_text(out, json.dumps({"rows": rows}, indent=1) + "\n")


def configure(form: str, out: Path) -> None:
    """Save the configuration of the shipped encoder, with a patch embedding."""
    from deepavfusion.models import EarlyFusionEncoder

    config = replace(EarlyFusionEncoder.from_pretrained(SHIPPED).config, patch_embed=form)
    EarlyFusionEncoder(config).save_pretrained(out)
