"""Some mixtures of an evaluation, as spectrograms and sound files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deepavfusion.drawing.separation import RANGE_DB, SeparatedMixture, separation_figure, write_sounds
from deepavfusion.evaluation.frame import Draw, Drawn, picture_drawing
from deepavfusion.evaluation.loop import Predictions
from deepavfusion.evaluation.record import PictureEntry
from deepavfusion.evaluation.separation.evaluator import MODEL, SeparationEvaluator
from deepavfusion.models.frames import reference_picture


def example_drawings(
    evaluator: SeparationEvaluator,
    found: Predictions,
    improvement: NDArray[np.float64],
    count: int,
    device: torch.device,
) -> dict[str, Draw]:
    """What draws spectrograms, and writes the sounds, of the best mixture, the worst and some evenly between.

    Args:
        evaluator: of the evaluation.
        found: its predictions.
        improvement: SDR improvement of each predicted mixture in dB, NaN where it has none.
        count: how many mixtures.
        device: of the model.
    """
    able = np.flatnonzero(~np.isnan(improvement))
    ranks = able[np.argsort(-improvement[able], kind="stable")]
    count = min(count, len(ranks))

    def draw(row: int, name: str, out: Path) -> Drawn:
        example = separated_mixture(evaluator, int(found.positions[row]), device)
        notes = [
            f"SDR {own:.1f} dB ({own - base:+.1f})"
            for own, base in zip(found.values["sdr/model"][row], found.values["sdr/mixture"][row], strict=True)
        ]
        headline = f"{name.replace('_', ' ')} of {len(ranks)}: {example.id}"
        alt = f"spectrograms of mixture, estimates and references of {example.id}"
        gain = f"mean SDR improvement {improvement[row]:+.1f} dB"
        entry = PictureEntry(f"{name}.png", alt, f"{headline}, {gain}; one colour scale of {RANGE_DB:g} dB.")
        drawn = picture_drawing(entry, partial(separation_figure, example, notes, headline))(out)
        sounds = {what: f"{name}/{file}" for what, file in write_sounds(out / name, example).items()}
        return Drawn(drawn.pictures, {example.id: sounds})

    drawings: dict[str, Draw] = {}
    for place in sorted({round(i * (len(ranks) - 1) / max(1, count - 1)) for i in range(count)}):
        name = "best" if place == 0 else "worst" if place == len(ranks) - 1 else f"rank_{place + 1}"
        drawings[name] = partial(draw, int(ranks[place]), name)
    return drawings


def separated_mixture(evaluator: SeparationEvaluator, position: int, device: torch.device) -> SeparatedMixture:
    """One mixture of an evaluator with all its sounds; zeros where it cannot be read."""
    mixture = evaluator.mixtures[position]
    count = len(mixture.parts)
    with evaluator.loader([position], 1, 0, device) as loader, torch.no_grad():
        batch = next(iter(loader))
        found = evaluator.separate(batch, device)
    return SeparatedMixture(
        id=mixture.id,
        mixture=found.mixture[0].cpu().numpy(),
        references=found.references[0].cpu().numpy(),
        estimates=found.estimates[MODEL][0].float().cpu().numpy(),
        pictures=reference_picture(batch.image[:count]).permute(0, 2, 3, 1).numpy(),
        names=tuple(part.label or part.clip.id for part in mixture.parts),
        sample_rate=evaluator.view.sample_rate,
    )
