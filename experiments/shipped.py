"""The model that ships with the package: the early-fusion encoder of the first seed, in half precision."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from experiments.encoders import Encoders
from experiments.steps import Making

MAX_BYTES = 8 * 2**20


def shipping(encoders: Encoders, out: Path) -> Making:
    """The step that writes the shipped model."""
    model = encoders.model("early", 0)
    return Making(partial(ship, model, out), out / "model.safetensors", (model,))


def ship(model: Path, out: Path) -> None:
    """Save a run's encoder in float16.

    Raises:
        ValueError: it is too large to ship.
    """
    from deepavfusion.models import EarlyFusionEncoder

    EarlyFusionEncoder.from_pretrained(model).half().save_pretrained(out)
    size = (out / "model.safetensors").stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{out}: {size / 2**20:.1f} MiB are too much to ship, {MAX_BYTES / 2**20:.0f} is the most")
