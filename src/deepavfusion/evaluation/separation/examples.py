"""Some mixtures of an evaluation to look at and to listen to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deepavfusion.atomic import replacing
from deepavfusion.drawing.separation import RANGE_DB, SeparatedMixture, separation_figure, write_sounds
from deepavfusion.evaluation.loop import Predictions
from deepavfusion.evaluation.record import PictureEntry, try_to_draw
from deepavfusion.evaluation.separation.evaluator import MODEL, SeparationEvaluator
from deepavfusion.models.frames import reference_picture


@dataclass(frozen=True)
class Example:
    """A mixture of which files were written."""

    picture: PictureEntry
    mixture: str
    """Its name."""
    sounds: dict[str, str]
    """Wav files beside results.json, by what they are."""


def write_examples(
    evaluator: SeparationEvaluator,
    found: Predictions,
    improvement: NDArray[np.float64],
    count: int,
    folder: Path,
    device: torch.device,
    failed: dict[str, str],
) -> list[Example]:
    """Write sounds and spectrograms of the best mixture, the worst and some evenly between.

    Args:
        evaluator: of the evaluation.
        found: its predictions.
        improvement: SDR improvement of each predicted mixture in dB, NaN where it has none.
        count: how many mixtures.
        folder: where to write.
        device: of the model.
        failed: gets what could not be written, by name, with the cause.
    """
    able = np.flatnonzero(~np.isnan(improvement))
    ranks = able[np.argsort(-improvement[able], kind="stable")]
    count = min(count, len(ranks))
    examples: list[Example] = []
    for place in sorted({round(i * (len(ranks) - 1) / max(1, count - 1)) for i in range(count)}):
        row = int(ranks[place])
        name = "best" if place == 0 else "worst" if place == len(ranks) - 1 else f"rank_{place + 1}"

        def write(row: int = row, name: str = name) -> Example:
            example = separated_mixture(evaluator, int(found.positions[row]), device)
            notes = [
                f"SDR {own:.1f} dB ({own - base:+.1f})"
                for own, base in zip(found.values["sdr/model"][row], found.values["sdr/mixture"][row], strict=True)
            ]
            headline = f"{name.replace('_', ' ')} of {len(ranks)}: {example.id}"
            with replacing(folder / f"{name}.png") as temporary:
                separation_figure(example, notes, headline).savefig(temporary, format="png")
            sounds = {what: f"{name}/{file}" for what, file in write_sounds(folder / name, example).items()}
            alt = f"spectrograms of mixture, estimates and references of {example.id}"
            gain = f"mean SDR improvement {improvement[row]:+.1f} dB"
            caption = f"{headline}, {gain}; one colour scale of {RANGE_DB:g} dB."
            return Example(PictureEntry(f"{name}.png", alt, caption), example.id, sounds)

        written = try_to_draw(name, write, failed)
        examples += [written] if written is not None else []
    return examples


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
