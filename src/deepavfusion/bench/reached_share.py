"""The share of a GPU's peak speed that training steps reach: as measured by scripts/gpu_visit.py, else assumed."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepavfusion.bench.estimate_config import GPUS, EstimateConfig

ASSUMED = 0.4
MEASURED = Path(__file__).resolve().parents[3] / "docs" / "results" / "gpu_fast.json"
"""Where a checkout keeps what `scripts/gpu_visit.py` measured; an installed package has no such file."""


@dataclass(frozen=True)
class ReachedShare:
    """A share and where it is from."""

    value: float
    """0 to 1."""
    source: str


def reached_share(config: EstimateConfig, flop_per_sample: float, file: Path = MEASURED) -> ReachedShare:
    """The share that `mfu` gives, else that of the measured step nearest to the configuration, else the assumed one.

    Nearest is the same fusion form first, then the same mode (eager or compiled), then the number of operations. With
    `tflops`, which is what a large matrix product reaches, it is the share of the measured rate of one; with `gpu` that
    of the data sheet of the card it was measured on, if that card is known.
    """
    if config.mfu is not None:
        return ReachedShare(config.mfu, "as given")
    rows = _rows(file)
    if not rows:
        return ReachedShare(ASSUMED, "assumed")
    mode = "compiled" if config.training.compile else "eager"

    def distance(row: dict[str, Any]) -> tuple[bool, bool, float]:
        apart = abs(math.log(1e9 * row["gflop_per_sample"] / flop_per_sample))
        return row["fusion"] != config.model.fusion, row["mode"] != mode, apart

    row = min(rows, key=distance)
    value, card = row["matmul_share"], row["device"].lower()
    sheets = [speed for name, (speed, _) in GPUS.items() if all(part in card for part in name.split("-"))]
    if config.tflops is None and sheets:
        value = row["gflop_per_sample"] * row["step_samples_per_second"] / 1e3 / sheets[0]
    return ReachedShare(value, f"measured: {row['size']} {row['fusion']} {row['mode']} on {row['device']}")


def _rows(file: Path) -> list[dict[str, Any]]:
    """Measured steps of a visit's file, each with its card; none if there is no file, or only one of a trial."""
    if not file.is_file():
        return []
    record = json.loads(file.read_text(encoding="utf-8"))
    return [] if record["quick"] else [{**r, "device": record["device"]} for r in record["rows"] if "problem" not in r]
