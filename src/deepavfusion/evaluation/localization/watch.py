"""Scores and figures of a localizer during training: held-out clips, and maps of a few fixed clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from deepavfusion.audio import log_mel
from deepavfusion.data.clips import Clip
from deepavfusion.data.dataset import ClipSet, collate
from deepavfusion.data.splits import spread
from deepavfusion.data.views import CentreView
from deepavfusion.drawing.localization import SoundingPicture, ranking_figure
from deepavfusion.evaluation.localization.evaluator import LocalizationEvaluator
from deepavfusion.evaluation.localization.items import annotated_items, with_foreign_sounds
from deepavfusion.evaluation.localization.scores import as_scores, score_table
from deepavfusion.evaluation.localization.sound_mapper import of_localizer
from deepavfusion.evaluation.loop import OneProcess, predict_all
from deepavfusion.images import normalize
from deepavfusion.models import Localizer
from deepavfusion.models.frames import reference_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_PROBE_CLIPS = 200
"""Held-out clips scored while training, so that watching stays cheaper than training."""
PROBE_BATCH = 16
NUM_PICTURES = 6
PROBED = ("cIoU@0.5 area", "AUC area", "source chosen", "extended AP area", "false positives, foreign")
"""Scores that are told while training."""


def probe_localization(
    model: Localizer, clips: Sequence[Clip], device: torch.device, num_workers: int
) -> dict[str, float]:
    """Scores on at most `MAX_PROBE_CLIPS` clips, evenly over the list; empty if none has an annotation beside it."""
    items, _ = annotated_items(spread(clips, MAX_PROBE_CLIPS))
    if not items:
        return {}
    evaluator = LocalizationEvaluator(of_localizer(model), with_foreign_sounds(items, 0))
    found = predict_all(evaluator, OneProcess(device), PROBE_BATCH, num_workers)
    if not found.ids:
        return {}
    table = score_table(found.values, [items[i].scene for i in found.positions], "area")
    scores = as_scores(table)
    named = {name: scores[name].value for name in PROBED if name in scores}
    words = {"cIoU@0.5": "ciou50", "false positives,": "false_positives", " area": ""}
    for old, new in words.items():
        named = {name.replace(old, new): value for name, value in named.items()}
    return {**{name.lower().replace(" ", "_"): v for name, v in named.items()}, "num_clips": len(found.ids)}


def training_pictures(model: Localizer, clips: Sequence[Clip], device: torch.device) -> dict[str, Figure]:
    """Maps of a few clips, evenly over the list, with their own sound and with silence."""
    chosen = spread(clips, NUM_PICTURES)
    view = CentreView.from_config(model.config.encoder)
    batch = collate([ClipSet(chosen, view)[i] for i in range(len(chosen))])
    mapper, mels = of_localizer(model), model.config.encoder.audio_size[0]
    image = normalize(batch.image.to(device))
    heat, silent = (
        mapper(image, log_mel(wave.to(device), mels)).amax(dim=1).cpu().numpy()
        for wave in (batch.waveform, torch.zeros_like(batch.waveform))
    )
    samples = [
        SoundingPicture(name, picture, own, still, None, f"own sound, peak {own.max():.2f}")
        for name, picture, own, still in zip(
            batch.ids, reference_picture(batch.image).permute(0, 2, 3, 1).numpy(), heat, silent, strict=True
        )
    ]
    half = -(-len(samples) // 2)
    groups = [("clip", part) for part in (samples[:half], samples[half:]) if part]
    return {"localization": ranking_figure(groups, "score maps with the clip's own sound and with silence")}
