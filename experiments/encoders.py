"""The pre-trained encoders, kept by configuration and seed and reused by every task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.steps import AnyStep, Step
from experiments.worlds import Worlds

SEEDS = (0, 1, 2)
FUSION = {"early": "all", "separate": "none"}
"""Encoders by the layers that fuse: in every layer, or two separate encoders."""


@dataclass(frozen=True)
class Encoders:
    """Where the encoders lie, and the steps that make them."""

    root: Path
    worlds: Worlds

    def place(self, kind: str, seed: int) -> Path:
        """Run folder of an encoder: `early` or `separate`."""
        return self.root / f"{FUSION[kind]}-{seed}"

    def model(self, kind: str, seed: int) -> Path:
        return self.place(kind, seed) / "model"

    def step(self, kind: str, seed: int) -> AnyStep:
        words = ["pretrain", "--config", "bandstand", "--data.source", str(self.worlds.corpus)]
        words += ["--model.fusion_layers", FUSION[kind], "--run_dir", str(self.place(kind, seed))]
        words += ["--training.seed", str(seed), "--data.num_workers", "1"]
        return Step(tuple(words), self.model(kind, seed), (self.worlds.corpus,))

    def steps(self) -> list[AnyStep]:
        """Seed by seed, so that every experiment can begin with the first."""
        return [self.step(kind, seed) for seed in SEEDS for kind in FUSION]
