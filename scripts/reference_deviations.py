"""Write docs/results/reference_deviations.json: how far the numeric cases are off under torch.compile and bfloat16.

    python scripts/reference_deviations.py [--json FILE]

The cases are those of an independent implementation in tests/reference; the tests hold the same tolerances. Needs a C++
compiler. Exits with 1 if a tolerance is not held.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from deepavfusion.atomic import write_text

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from tests.models.reference_cases import ARITHMETICS, CASES, deviation  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "reference_deviations.json")
    path, rows, held = parser.parse_args().json, [], True
    with Console(stderr=True).status("computing") as status:
        for arithmetic, (_, allowed) in ARITHMETICS.items():
            for case in CASES:
                status.update(f"{case} in {arithmetic}")
                seen = deviation(case, arithmetic)
                held &= seen.outputs <= allowed.outputs and seen.gradients <= allowed.gradients
                rows.append({"arithmetic": arithmetic, "case": case, "seen": asdict(seen), "allowed": asdict(allowed)})
    write_text(path, json.dumps({"torch": torch.__version__, "rows": rows}, indent=2) + "\n")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
