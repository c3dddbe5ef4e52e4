"""Which objective makes early fusion pay? Pilots on two-digit scenes, a linear probe of the spoken digit.

Every arm trains the same model from the same seed on the same scenes; `OBJECTIVES` is the table of arms. Results count
scenes drawn, not time: an arm that encodes a scene several times costs more per draw, and `core_seconds` says how much.

Shape legend: `B` scenes, `D` width of features.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepavfusion.atomic import write_text
from deepavfusion.images import normalize
from experiments.encoders import SEEDS
from experiments.objective_probe import TESTED, probe
from experiments.objective_terms import Arm, Pilot
from experiments.objective_views import changed
from experiments.steps import AnyStep, Making
from experiments.two_digits import PARTS, TRAINING, Scenes, write_part

OBJECTIVES = {
    "told": Arm(labels=1.0, reconstruction=0.0, augmented=True),
    "told, apart": Arm(fuses=False, labels=1.0, reconstruction=0.0, augmented=True),
    "reconstruction": Arm(),
    "reconstruction, apart": Arm(fuses=False),
    "4,000 scenes": Arm(parts=1),
    "4,000 scenes, apart": Arm(fuses=False, parts=1),
    "coupled masks": Arm(coupled=0.8),
    "views": Arm(views=1.0),
    "views, apart": Arm(fuses=False, views=1.0),
    "halves": Arm(views=1.0, halves=True),
    "halves, apart": Arm(fuses=False, views=1.0, halves=True),
    "sound's halves": Arm(views=4.0, halves=True, targets=("audio",)),
    "sound's halves, apart": Arm(fuses=False, views=4.0, halves=True, targets=("audio",)),
    "sound's halves alone": Arm(
        views=4.0, halves=True, targets=("audio",), reconstruction=0.0, draws=128_000, probes=4
    ),
    "sound's halves alone, apart": Arm(
        fuses=False, views=4.0, halves=True, targets=("audio",), reconstruction=0.0, draws=128_000, probes=4
    ),
    "pairs, apart": Arm(fuses=False, pairs=0.3, augmented=True),
}
"""By name; `apart` is without fusion."""
BATCH = 64
RATE, WARMUP, BETAS, WEIGHT_DECAY, LARGEST_NORM = 1e-3, 0.06, (0.9, 0.95), 0.05, 1.0


@dataclass(frozen=True)
class Objectives:
    """Where the scenes and the numbers lie."""

    root: Path
    digits: Path | None
    """Folder of the digits' files; without it there is nothing to run."""
    quick: bool = False
    """Cut to the least, to see that it runs."""

    def scenes(self, part: str) -> Path:
        return self.root / "scenes" / part

    def numbers(self, name: str, seed: int) -> Path:
        return self.root / f"{re.sub(r'[^a-z0-9]+', '_', name)}-{seed}.json"

    def steps(self, seed: int) -> list[AnyStep]:
        if self.digits is None:
            return []
        steps: list[AnyStep] = []
        for part, what in PARTS.items():
            what = replace(what, scenes=2 * BATCH) if self.quick else what
            steps.append(Making(partial(write_part, self.digits, what, self.scenes(part)), self.scenes(part)))
        needs = tuple(self.scenes(part) for part in PARTS)
        for name, arm in OBJECTIVES.items():
            out = self.numbers(name, seed)
            draws = arm.probes * BATCH if self.quick else arm.draws
            made = partial(train, arm, draws, seed, self.root / "scenes", out)
            steps.append(Making(made, out, needs))
        return steps

    def summarize(self, out: Path) -> None:
        """Write the probes of what is done, arm by arm, seed by seed."""
        rows = []
        for name in OBJECTIVES:
            found = {seed: self.numbers(name, seed) for seed in SEEDS}
            runs = {
                seed: json.loads(file.read_text(encoding="utf-8"))["probes"]
                for seed, file in found.items()
                if file.is_file()
            }
            for seed, probes in runs.items():
                numbers = [{key: round(value, 4) for key, value in probe.items()} for probe in probes]
                rows += [{"arm": name, "seed": seed, **own} for own in numbers]
        if rows:
            write_text(out, json.dumps({"tested": TESTED, "rows": rows}, indent=1) + "\n")


def train(arm: Arm, draws: int, seed: int, scenes: Path, out: Path) -> None:
    """Train one arm and write what its probes measured on the way.

    A run that was stopped goes on from its last probe.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = Pilot(arm)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, RATE, betas=BETAS, fused=True)
    parts = [Scenes.read(scenes / part) for part in TRAINING[: arm.parts]]
    count, steps = sum(len(part.digit) for part in parts), draws // BATCH
    rng, sums, probes = torch.Generator(), {}, []
    stored, began, spent = out.with_suffix(".pt"), time.process_time(), 0.0
    first = 0
    if stored.is_file():
        state = torch.load(stored, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, probes, spent = state["step"], state["probes"], state["probes"][-1]["core_seconds"]
    for step in range(first, steps):
        rng.manual_seed(1_000_003 * seed + step)  # of this step alone, so that a continued run draws the same
        image, audio, digit = batch(parts, order(seed, step, count))
        again = (image, audio)
        if arm.views:
            again = changed(image, audio, rng, turns=not arm.halves)
        if arm.views or arm.augmented:
            image, audio = changed(image, audio, rng, turns=not arm.halves)
            again = again if arm.views else (image, audio)
        for group in optimizer.param_groups:
            group["lr"] = RATE * rate_factor(step, steps)
        with torch.autocast("cpu", torch.bfloat16):
            terms = model(image, audio, again, digit, rng)
        torch.stack(list(terms.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_NORM)
        optimizer.step()
        optimizer.zero_grad()
        sums = {name: sums.get(name, 0.0) + float(value.detach()) for name, value in terms.items()}
        if (step + 1) % (steps // arm.probes) == 0:
            seconds = time.process_time() - began + spent
            means = {f"loss_{name}": value / (steps // arm.probes) for name, value in sums.items()}
            found = {
                "draws": (step + 1) * BATCH,
                "core_seconds": round(seconds),
                **means,
                **probe(model, scenes, alone=step + 1 == steps),
            }
            probes, sums = [*probes, found], {}
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
                "probes": probes,
            }
            out.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, stored.with_suffix(".tmp"))
            stored.with_suffix(".tmp").rename(stored)
            sys.stdout.write(f"{json.dumps(found)}\n")
            sys.stdout.flush()
    write_text(out, json.dumps({"probes": probes}, indent=1) + "\n")


def order(seed: int, step: int, count: int) -> np.ndarray:
    """The numbers of a step's scenes: every scene once in each pass."""
    places = np.arange(step * BATCH, (step + 1) * BATCH)
    passes = {n: np.random.default_rng((seed, n)).permutation(count) for n in np.unique(places // count)}
    return np.array([passes[place // count][place % count] for place in places])


def batch(parts: list[Scenes], numbers: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised pictures, log-mel spectrograms and spoken digits of scenes, counted through all parts."""
    size = len(parts[0].digit)
    rows = [(parts[n // size], n % size) for n in numbers]
    image, audio, digit = (np.stack([getattr(part, k)[n] for part, n in rows]) for k in ("image", "log_mel", "digit"))
    return normalize(torch.from_numpy(image)), torch.from_numpy(audio).float(), torch.from_numpy(digit)


def rate_factor(step: int, steps: int) -> float:
    """Linear warm-up, then cosine to 0."""
    warmup = WARMUP * steps
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * max(0.0, step - warmup) / (steps - warmup)))
