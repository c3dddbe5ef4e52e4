"""Which samples of an evaluation are drawn: best, median and worst, and a contact sheet of all kinds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from deepavfusion.data.clips import Clip
from deepavfusion.data.views import CentreView
from deepavfusion.drawing.localization import (
    SHEET_COLUMNS,
    SoundingPicture,
    contact_sheet,
    ranking_figure,
)
from deepavfusion.evaluation.frame import Draw, film_drawing, picture_drawing
from deepavfusion.evaluation.localization.evaluator import truth_map
from deepavfusion.evaluation.localization.items import Item, ItemSet
from deepavfusion.evaluation.localization.overlay_video import write_overlay
from deepavfusion.evaluation.localization.sound_mapper import SoundMapper
from deepavfusion.evaluation.loop import Predictions
from deepavfusion.evaluation.record import PictureEntry
from deepavfusion.metrics.localization import Binarisation
from deepavfusion.models.config import reference_frame

SHEET_SAMPLES = 5 * SHEET_COLUMNS
PER_GROUP = 2
"""Samples in each group of the ranking."""


def picture_drawings(
    items: Sequence[Item], found: Predictions, mapper: SoundMapper, headline: Binarisation
) -> dict[str, Draw]:
    """What draws `ranking.png` and `sheet.png`.

    Args:
        items: all of the evaluation.
        found: their predictions.
        mapper: whose view of a clip is shown.
        headline: the rule whose cIoU ranks samples.
    """
    ciou = np.asarray(found.values[f"ciou_{headline}_own"], np.float64)
    ranked = [int(i) for i in np.argsort(-ciou, kind="stable") if not np.isnan(ciou[i])]
    middle = max(0, len(ranked) // 2 - PER_GROUP // 2)
    count = min(SHEET_SAMPLES, len(found.ids))

    def shown(rows: Sequence[int]) -> list[SoundingPicture]:
        return [_picture(items[found.positions[row]], found, row, mapper, headline) for row in rows]

    def ranking() -> Figure:
        title = f"best, median and worst of {len(ranked)} sounding pictures by cIoU {headline} ({mapper.name})"
        median = ranked[middle : middle + PER_GROUP]
        groups = {"best": ranked[:PER_GROUP], "median": median, "worst": ranked[-PER_GROUP:]}
        return ranking_figure([(name, shown(rows)) for name, rows in groups.items()], title)

    def sheet() -> Figure:
        title = f"{count} of {len(found.ids)} clips with their own sound ({mapper.name})"
        return contact_sheet(shown([i * len(found.ids) // count for i in range(count)]), title)

    drawings = {}
    if ranked:
        entry = PictureEntry(
            "ranking.png",
            "Frames with the outline of what sounds, heat maps with the own sound and with silence",
            f"Best, median and worst by cIoU ({headline}); the green outline is what sounds",
        )
        drawings[entry.file] = picture_drawing(entry, ranking)
    entry = PictureEntry(
        "sheet.png",
        "Heat maps over the frames of many clips",
        "Clips evenly over the list; each map from its own smallest to its own largest score",
    )
    return {**drawings, entry.file: picture_drawing(entry, sheet)}


def film_drawings(items: Sequence[Item], count: int, mapper: SoundMapper, device: torch.device) -> dict[str, Draw]:
    """What draws overlay films of `count` clips spread over the list, by clip."""
    clips = list({item.picture.id: item.picture for item in items}.values())
    count = min(count, len(clips))

    def write(clip: Clip, path: Path) -> None:
        write_overlay(mapper, clip, path, device)

    chosen = [clips[i * len(clips) // count] for i in range(count)]
    return {clip.id: film_drawing(f"videos/{clip.id.replace('/', '_')}.mp4", partial(write, clip)) for clip in chosen}


def _picture(item: Item, found: Predictions, row: int, mapper: SoundMapper, headline: str) -> SoundingPicture:
    sample = ItemSet([item], CentreView.from_config(mapper.encoder))[0]
    assert sample.truth is not None
    shown = sample.image if sample.image.ndim == 3 else sample.image[reference_frame(len(sample.image))]
    heat, value = found.values["map"][row], float(found.values[f"ciou_{headline}_own"][row])
    score = item.scene if np.isnan(value) else f"cIoU {value:.2f}"
    return SoundingPicture(
        name=item.id,
        picture=shown,
        heat=heat,
        silent=found.values["map_silence"][row],
        truth=truth_map(item, torch.from_numpy(sample.truth)).numpy(),
        note=f"{score}, peak {float(np.nanmax(heat)):.2f}" if np.isfinite(heat).any() else f"{score}, not finite",
    )
