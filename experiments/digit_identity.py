"""Do an encoder's tokens know which digit is spoken, and which one stands where?

The label of a digits scene (is the spoken digit on the left, on the right, or absent?) needs both, and their
comparison. Where classifiers of it are at chance, this says what is lacking: logistic regression on frozen features,
the mean sound token for the spoken digit, the mean of the patches about a shown digit for that one.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepavfusion.atomic import write_text
from deepavfusion.data.scenes.annotation import read_annotation
from experiments.encoders import KINDS, SEEDS
from experiments.steps import AnyStep, Making
from experiments.worlds import Worlds

ENCODERS = ("early", "untrained", "separate", "digits")
"""Features of classification; `untrained` is of any seed, the others of those of their pre-training."""
SEEN = 224 / 256
"""Share of a picture's sides that the centre view shows, in the middle."""
Examples = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True)
class DigitIdentity:
    """Where the features lie that `Classification` wrote, and where the numbers go."""

    root: Path
    worlds: Worlds

    def features(self, encoder: str, part: str, seed: int) -> Path:
        return self.root / "features" / f"digits-{part}-{encoder}-{seed}.npz"

    def numbers(self, encoder: str, seed: int) -> Path:
        return self.root / "digit_identity" / f"{encoder}-{seed}.json"

    def steps(self, seed: int) -> list[AnyStep]:
        if "digits" not in self.worlds.sets:
            return []
        steps: list[AnyStep] = []
        for encoder in (name for name in ENCODERS if name not in KINDS or seed in KINDS[name].seeds):
            files = {part: self.features(encoder, part, seed) for part in ("train", "test")}
            out = self.numbers(encoder, seed)
            made = partial(identify, files, self.worlds.root / "digits_scenes", out)
            steps.append(Making(made, out, tuple(files.values())))
        return steps

    def summarize(self, out: Path) -> None:
        """Write the means over the seeds that are done."""
        rows = []
        for encoder in ENCODERS:
            files = [self.numbers(encoder, seed) for seed in SEEDS if self.numbers(encoder, seed).is_file()]
            found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
            for sense in ("spoken", "shown") if found else ():
                row = {key: float(np.mean([own[sense][key] for own in found])) for key in ("train", "test")}
                num_test = found[0][sense]["num_test"]
                rows.append({"arm": encoder, "digit": sense, **row, "num_test": num_test, "num_seeds": len(found)})
        if rows:
            write_text(out, json.dumps({"rows": rows}, indent=1) + "\n")


def identify(files: dict[str, Path], world: Path, out: Path) -> None:
    """Fit on the training scenes' features, score on the test scenes'."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = (_examples(file, world / part) for part, file in files.items())
    numbers: dict[str, Any] = {}
    for sense in ("spoken", "shown"):
        (x, y), (x_test, y_test) = train[sense], test[sense]
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, C=0.05)).fit(x, y)
        scores = {"train": float(model.score(x, y)), "test": float(model.score(x_test, y_test))}
        numbers[sense] = {**scores, "num_test": len(y_test)}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps(numbers) + "\n")


def _examples(file: Path, clips: Path) -> dict[str, Examples]:
    """Features and digits of what is spoken, and of what is shown inside the centre view."""
    with np.load(file, allow_pickle=False) as stored:
        ids, patches, sounds = stored["ids"], stored["image"].astype(np.float32), stored["audio"].astype(np.float32)
    side = round(patches.shape[1] ** 0.5)
    spoken, around, shown = [], [], []
    for name, tokens in zip(ids, patches.reshape(len(ids), side, side, -1), strict=True):
        truth = read_annotation(str(clips / f"{name}.mp4"))
        spoken += [source.details["digit"] for source in truth.sources if source.audible][:1]
        for source in truth.sources:
            if source.boxes is None or source.boxes[0] is None:
                continue
            x0, y0, x1, y1 = source.boxes[0]
            centres = (((low + high) / 2 / truth.size - 0.5) / SEEN + 0.5 for low, high in ((x0, x1), (y0, y1)))
            column, row = (math.floor(side * centre) for centre in centres)
            if 0 <= row < side and 0 <= column < side:
                near = tokens[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
                around.append(near.mean(axis=(0, 1)))
                shown.append(source.details["digit"])
    return {"spoken": (sounds.mean(axis=1), np.array(spoken)), "shown": (np.stack(around), np.array(shown))}
