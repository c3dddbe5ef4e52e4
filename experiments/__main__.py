"""`python -m experiments`: run what is not done, then write the result files that the docs quote."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from experiments.classification import Classification
from experiments.classification_summary import summarize_classification
from experiments.digit_identity import DigitIdentity
from experiments.encoders import SEEDS, Encoders
from experiments.localization import Localization
from experiments.segmentation import Segmentation
from experiments.shipped import shipping
from experiments.steps import AnyStep, run
from experiments.worlds import Worlds

CHECKOUT = Path(__file__).resolve().parents[1]
DOCS = CHECKOUT / "docs" / "results"
SHIPPED = CHECKOUT / "src" / "deepavfusion" / "shipped" / "bandstand"
DIGITS = CHECKOUT.parent / "shared" / "data" / "digits"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    parser.add_argument("--results", type=Path, default=CHECKOUT.parent / "results", help="folder of all runs")
    parser.add_argument("--digits", type=Path, default=DIGITS, help="folder with the digits' files, if there is one")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="which seeds to run")
    parser.add_argument("--only", nargs="+", default=[], help="parts of product paths: other steps are left out")
    parser.add_argument("--jobs", type=int, default=2, help="steps at a time, each with one thread")
    parser.add_argument("--list", action="store_true", help="say what is done and what is not, and run nothing")
    parser.add_argument("--summarize", action="store_true", help="write the result files of what is done, run nothing")
    words = parser.parse_args()
    results = words.results.resolve()
    worlds = Worlds(results / "worlds", words.digits.resolve() if words.digits.is_dir() else None)
    encoders = Encoders(results / "encoders", worlds)
    classification = Classification(results / "classification", worlds, encoders)
    identity = DigitIdentity(results / "classification", worlds)
    localization = Localization(results / "localization", worlds, encoders)
    segmentation = Segmentation(results / "segmentation", worlds, encoders)
    steps: list[AnyStep] = worlds.steps()
    if 0 in words.seeds:
        steps += [encoders.step("early", 0), shipping(encoders, SHIPPED)]
    for seed in words.seeds:
        steps += [encoders.step(kind, seed) for kind in ("early", "separate")]
        steps += [
            *classification.steps(seed),
            *identity.steps(seed),
            *localization.steps(seed),
            *segmentation.steps(seed),
        ]
    if words.only:
        steps = [step for step in steps if any(part in str(step.product) for part in words.only)]
    if words.list:
        for step in steps:
            sys.stdout.write(f"{'done   ' if step.is_done else 'missing'} {step.product}\n")
        return 0
    code = 0 if words.summarize else run(steps, results / "logs", words.jobs, _say)
    summarize_classification(classification, DOCS / "classification.json")
    identity.summarize(DOCS / "digit_identity.json")
    localization.summarize(DOCS / "localization.json")
    segmentation.summarize(DOCS / "segmentation.json")
    return code


def _say(line: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
