"""What cheaper decoders of pre-training cost in what is learned: attentive probes of encoders trained with each.

The encoder with the paper's decoder is that of the recipe `reconstruction`; the others differ from it in the decoder
alone and are trained as long. One pre-training seed; the seeds of this experiment are those of the probes. All three
streams are read, a head each, and their logits averaged.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from deepavfusion.atomic import write_text
from experiments.classification import LABELS, OPTIM, WARMUP
from experiments.encoders import SEEDS, Encoders
from experiments.paired import paired_rows
from experiments.steps import AnyStep, Step, options
from experiments.worlds import Worlds

ARMS: dict[str, dict[str, object]] = {
    "self": {},
    "cross": {"autoencoder.decoder_form": "cross"},
    "cross, a quarter predicted": {"autoencoder.decoder_form": "cross", "autoencoder.predicted_share": 0.25},
}
"""By arm: what its pre-training has that the recipe has not."""
REFERENCE = "self"
SCORES = ("top1 average",)


@dataclass(frozen=True)
class Decoder:
    """Where the runs lie, and the steps that make them."""

    root: Path
    worlds: Worlds
    encoders: Encoders

    def place(self, arm: str, what: str) -> Path:
        """Folder of an arm: its words joined."""
        return self.root / arm.replace(",", "").replace(" ", "_") / what

    def features(self, arm: str, part: str) -> Path:
        """File of all tokens of the solos' `train` or `test` split."""
        return self.place(arm, f"{part}.npz")

    def probe(self, arm: str, labels: str, seed: int) -> Path:
        return self.place(arm, f"{labels}-{seed}")

    def steps(self, seed: int) -> list[AnyStep]:
        steps: list[AnyStep] = []
        splits = {part: self.worlds.shards("band_solos", part) for part in ("train", "test")}
        made = splits["test"] / "shards.json"
        for arm, settings in ARMS.items():
            start, model = self.encoders.start("early")
            if settings:
                run = self.place(arm, "pretraining")
                start, model = str(run), run / "model"
                words = [*self.encoders.words("early", 0, run), *options(settings)]
                steps.append(Step(tuple(words), model, (self.worlds.made(self.worlds.corpus),)))
            files = {part: self.features(arm, part) for part in splits}
            for part, file in files.items():
                words = ["embed", "--from", start, "--data.source", str(splits[part]), "--data.split", "all"]
                words += ["--data.num_workers", "0", "--out", str(file), "--tokens", "all"]
                steps.append(Step(tuple(words), file, (model, made)))
            for labels in LABELS:
                run, train = self.probe(arm, labels, seed), self.worlds.train("solos", labels)
                optim = OPTIM["attentive", labels]
                warmup = WARMUP * float(str(optim["optim.epochs"]))
                words = ["train", "classification", "--recipe", "attentive", "--from", start, "--run_dir", str(run)]
                words += ["--data.source", str(train), "--data.num_workers", "0", "--training.seed", str(seed)]
                words += [*options(optim), "--optim.warmup_epochs", str(warmup), "--heads", "[image,audio,fusion]"]
                words += ["--training.batch_size", "32", "--features", str(files["train"])]
                words += ["--training.probe_every", "0", "--training.checkpoint_every", "200"]
                steps.append(Step(tuple(words), run / "model", (self.worlds.made(train), files["train"])))
                out = run / "evaluation" / "test"
                words = ["evaluate", "classification", str(run), "--data.source", str(splits["test"])]
                words += ["--data.num_workers", "0", "--features", str(files["test"]), "--out", str(out)]
                steps.append(Step(tuple(words), out / "results.json", (run / "model", files["test"])))
        return steps

    def summarize(self, out: Path) -> None:
        """Write the small result file of what is done."""
        rows = []
        for labels in LABELS:
            folders = {
                arm: {seed: self.probe(arm, labels, seed) / "evaluation" / "test" for seed in SEEDS} for arm in ARMS
            }
            rows += [{"set": f"solos, {labels} labels", **row} for row in paired_rows(folders, SCORES, REFERENCE)]
        if rows:
            write_text(out, json.dumps({"rows": rows}, indent=1) + "\n")
