"""`python -m experiments`: run what is not done, then write the result files that the docs quote."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Protocol

from experiments.classification import Classification
from experiments.decoder import Decoder
from experiments.digit_identity import DigitIdentity
from experiments.encoders import SEEDS, SHIPPED, Encoders
from experiments.localization import Localization
from experiments.matching import Matching
from experiments.motion import Motion
from experiments.objectives import Objectives
from experiments.patch_embedding import PatchEmbedding
from experiments.retrieval import Retrieval
from experiments.segmentation import Segmentation
from experiments.senses import Senses
from experiments.separation import Separation
from experiments.shipped import Shipped
from experiments.stamps import Stamps
from experiments.steps import AnyStep, needed, quickened, run
from experiments.worlds import Worlds

CHECKOUT = Path(__file__).resolve().parents[1]
DOCS = CHECKOUT / "docs" / "results"
PARTS = (
    "classification",
    "digit_identity",
    "segmentation",
    "localization",
    "separation",
    "motion",
    "decoder",
    "matching",
    "objectives",
    "senses",
    "retrieval",
    "patch_embedding",
    "shipped",
    "stamps",
)
"""The experiments; each has a result file of its name, which is written anew only when it is among those asked for."""
DIGITS = CHECKOUT.parent / "shared" / "data" / "digits"
STAMPS = Path("/usr/share/tuxpaint/stamps")
PHOTOS = Path("/usr/share/backgrounds/mate/nature")
"""Where the Debian packages put their files."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    parser.add_argument("--results", type=Path, default=CHECKOUT.parent / "results", help="folder of all runs")
    parser.add_argument("--digits", type=Path, default=DIGITS, help="folder with the digits' files, if there is one")
    parser.add_argument(
        "--stamps", type=Path, default=STAMPS, help="folder of tuxpaint-stamps-default, if there is one"
    )
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="photographs behind the stamps, if there are any")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, help="which experiments")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="which seeds to run")
    parser.add_argument("--only", nargs="+", default=[""], help="only steps with one of these in their product")
    parser.add_argument("--jobs", type=int, default=2, help="steps at a time, each with one thread")
    parser.add_argument("--quick", action="store_true", help="all steps cut to the least, to see that they run")
    parser.add_argument("--list", action="store_true", help="say what is done and what is not, and run nothing")
    parser.add_argument("--summarize", action="store_true", help="write the result files of what is done, run nothing")
    words = parser.parse_args()
    results = words.results.resolve() / "quick" if words.quick else words.results.resolve()
    docs = results / "docs" if words.quick else DOCS
    digits, stamps, photos = (
        place.resolve() if place.is_dir() else None for place in (words.digits, words.stamps, words.photos)
    )
    worlds = Worlds(results / "worlds", digits, stamps, photos)
    encoders = Encoders(results / "encoders", worlds)
    parts = experiments(results, worlds, encoders, words.quick)
    every = [step for seed in SEEDS for part in parts.values() for step in part.steps(seed)]
    goals = [step for seed in words.seeds for name in words.parts for step in parts[name].steps(seed)]
    goals = [step for step in goals if any(text in str(step.product) for text in words.only)]
    steps = needed(goals, [*worlds.steps(), *encoders.steps(), *every])
    if words.quick:
        steps = [quickened(step) for step in steps]
    if words.list:
        for step in steps:
            sys.stdout.write(f"{'done   ' if step.is_done else 'missing'} {step.product}\n")
        return 0
    code = 0 if words.summarize else run(steps, results / "logs", words.jobs, _say)
    for name in words.parts:
        parts[name].summarize(docs / f"{name}.json")
    return code


class Experiment(Protocol):
    """Steps by seed, and a small result file of what is done."""

    def steps(self, seed: int) -> list[AnyStep]: ...
    def summarize(self, out: Path) -> None: ...


def experiments(results: Path, worlds: Worlds, encoders: Encoders, quick: bool = False) -> dict[str, Experiment]:
    """All experiments by name, in the order of `PARTS`."""
    decoders = Decoder(results / "decoder", worlds, encoders)
    found: tuple[Experiment, ...] = (
        Classification(results / "classification", worlds, encoders),
        DigitIdentity(results / "classification", worlds),
        Segmentation(results / "segmentation", worlds, encoders),
        Localization(results / "localization", worlds, encoders),
        Separation(results / "separation", worlds, encoders),
        Motion(results / "motion", worlds, encoders),
        decoders,
        Matching(results / "matching", {part: decoders.features("self", part) for part in ("train", "test")}, worlds),
        Objectives(results / "objectives", worlds.digits, quick),
        Senses(results / "senses", worlds, encoders),
        Retrieval(results / "retrieval", worlds, encoders),
        PatchEmbedding(results / "patch_embedding", worlds, encoders),
        Shipped(results / "shipped", worlds, encoders, results / "shipped_bundle" if quick else SHIPPED),
        Stamps(results / "stamps", worlds, encoders),
    )
    return dict(zip(PARTS, found, strict=True))


def _say(line: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
