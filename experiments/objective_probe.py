"""What a pilot's encoder knows: linear probes of the spoken digit, what the other sense is worth, rank of features.

Shape legend: `N` scenes, `D` width of features.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepavfusion.images import normalize
from deepavfusion.models.other_sense import other_sense_worth
from experiments.linear_probe import accuracy
from experiments.objective_terms import Pilot, patches
from experiments.two_digits import Scenes

LABELLED, TESTED, WORTH = 4000, 2000, 512
"""Scenes: with a label for the probe, of the test, and of those for what the other sense is worth."""
BATCH = 100


@torch.no_grad()
def probe(model: Pilot, scenes: Path, alone: bool = True) -> dict[str, float]:
    """Accuracies by stream and of all, if asked for also of either sense encoded alone; worth and effective ranks."""
    model.eval()
    train, test = Scenes.read(scenes / "train00"), Scenes.read(scenes / "test")
    values: dict[str, float] = {}
    for kind, senses in (("", (True, True)), ("_alone", (True, False)), ("_alone", (False, True))):
        known, x = features(model, train, LABELLED, senses), features(model, test, TESTED, senses)
        labels = [torch.from_numpy(part.digit[: len(f["fusion"])].copy()) for part, f in ((train, known), (test, x))]
        for name in model.streams:
            if name in x and not (kind and name == "fusion"):
                values[f"{name}{kind}"] = accuracy(known[name], labels[0], x[name], labels[1])
                values[f"rank_{name}{kind}"] = effective_rank(x[name])
        if not kind:
            together = [torch.cat([f[name] for name in model.streams], dim=1) for f in (known, x)]
            values["all"] = accuracy(together[0], labels[0], together[1], labels[1])
        if not (alone and model.arm.fuses):
            break  # without fusion a sense alone is what it is in company
    for kind, part in (("", test), ("_seen", train)):
        image, audio = inputs(part, slice(WORTH))
        rng = torch.Generator().manual_seed(0)
        noise = [torch.rand(len(image), n, generator=rng) for n in patches(model.autoencoder.config.encoder)]
        with torch.autocast("cpu", torch.bfloat16):
            worth = other_sense_worth(model.autoencoder, image, audio, *noise)
        values |= {f"worth_{name}{kind}": float(value) for name, value in worth.items()}
    model.train()
    return values


def features(model: Pilot, part: Scenes, count: int, senses: tuple[bool, bool]) -> dict[str, Tensor]:
    """Mean tokens `(N, D)` of each stream of whole scenes."""
    found: dict[str, list[Tensor]] = {}
    count = min(count, len(part.digit))
    for start in range(0, count, BATCH):
        image, audio = inputs(part, slice(start, min(start + BATCH, count)))
        with torch.autocast("cpu", torch.bfloat16):
            out = model.autoencoder.encoder(image if senses[0] else None, audio if senses[1] else None)
        for name in ("image", "audio", "fusion"):
            if (tokens := getattr(out, name)) is not None:
                found.setdefault(name, []).append(tokens.float().mean(1))
    return {name: torch.cat(rows) for name, rows in found.items()}


def inputs(part: Scenes, rows: slice) -> tuple[Tensor, Tensor]:
    """Pictures and sounds as the encoder takes them."""
    return normalize(torch.from_numpy(part.image[rows].copy())), torch.from_numpy(part.log_mel[rows].astype(np.float32))


def effective_rank(x: Tensor) -> float:
    """Exponential of the entropy of the centred features' singular values, 1 to `D`."""
    shares = torch.linalg.svdvals(x - x.mean(0))
    shares = shares / shares.sum()
    return float((-(shares * (shares + 1e-12).log()).sum()).exp())
