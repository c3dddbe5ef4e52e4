"""Retrieval between images and sounds in the joint space: early fusion against two separate encoders.

A clip's image is encoded alone and has to find the clip's own sound among all of a set, and the reverse. Both arms were
aligned on the same clips for as many draws, the early-fusion encoder from two separate ones. In Bandstand look and
timbre are drawn apart, so an image tells of its sound no more than the size of the instruments: the larger, the lower.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from deepavfusion.atomic import write_text
from experiments.encoders import SEEDS, Encoders
from experiments.paired import paired_rows, whole_rows, with_kept
from experiments.steps import AnyStep, Step
from experiments.worlds import Worlds

ARMS = {"early": "fused", "separate": "longer_separate"}
SETS = {"solos": ("band_solos", "test"), "duets": ("band_scenes", "duets")}
"""By name, the world and the split that is the gallery."""
DIRECTIONS = ("image to sound", "sound to image")
SCORES = tuple(f"R@{k} {way}" for way in DIRECTIONS for k in (1, 5, 10)) + tuple(f"rank {way}" for way in DIRECTIONS)
MEDIANS = tuple(f"median rank {way}" for way in DIRECTIONS)


@dataclass(frozen=True)
class Retrieval:
    """Where the vectors and the scores lie, and the steps that make them."""

    root: Path
    worlds: Worlds
    encoders: Encoders

    def evaluation(self, name: str, arm: str, seed: int) -> Path:
        return self.root / f"{name}-{arm}-{seed}"

    def steps(self, seed: int) -> list[AnyStep]:
        steps: list[AnyStep] = []
        for arm, kind in ARMS.items():
            for name, (world, part) in SETS.items():
                out, clips = self.evaluation(name, arm, seed), self.worlds.shards(world, part)
                vectors = out.with_suffix(".npz")
                steps.append(self.encoders.embedding(kind, seed, clips, vectors, "--tokens", "joint"))
                words = ("evaluate", "retrieval", str(vectors), "--out", str(out))
                steps.append(Step(words, out / "results.json", (vectors,)))
        return steps

    def summarize(self, out: Path) -> None:
        """Write the small result file of what is done."""
        rows = []
        for name in SETS:
            folders = {arm: {seed: self.evaluation(name, arm, seed) for seed in SEEDS} for arm in ARMS}
            found = paired_rows(folders, SCORES, "early") + whole_rows(folders, MEDIANS, "early")
            rows += [{"set": name, **row} for row in found]
        rows = with_kept(rows, out, ("set",))
        if rows:
            write_text(out, json.dumps({"rows": rows}, indent=1) + "\n")
