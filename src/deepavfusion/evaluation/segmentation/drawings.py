"""Figures and videos of a segmenter's evaluation: which frames and clips are drawn, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepavfusion.data.clips import Clip
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.opening import open_clip
from deepavfusion.data.truth import Truth
from deepavfusion.data.views import CentreView
from deepavfusion.drawing.segmentation import Overlay, overlay_figure
from deepavfusion.evaluation.frame import Draw, film_drawing
from deepavfusion.evaluation.segmentation.evaluator import segment
from deepavfusion.evaluation.segmentation.overlay_video import predicted_masks, write_overlay_video
from deepavfusion.evaluation.segmentation.pictures import Picture, PictureBatch, PictureSet, Sound
from deepavfusion.metrics.segmentation import at_mask_size
from deepavfusion.models.segmenter import Segmenter

_NOTHING = np.zeros((8, 8), np.uint8)  # where a picture cannot be read


def draw_overlays(
    model: Segmenter,
    pictures: Sequence[Picture],
    truth: Truth,
    chosen: Mapping[int, str],
    with_silence: bool,
    title: str,
) -> Figure:
    """True and predicted masks over some pictures; one that cannot be read is named in its place.

    Args:
        model: in evaluation mode.
        pictures: all of the evaluation.
        truth: their masks.
        chosen: places of those to be drawn, with what to write beside each.
        with_silence: also the prediction beside silence.
        title: headline.
    """
    config = model.config.encoder
    view = CentreView.from_config(config, whole=True)
    sounds: list[tuple[str, Sound]] = [("predicted", "own")]
    if with_silence:
        sounds.append(("in silence", "silence"))
    rows = {place: {"truth": np.zeros((1, 1), np.uint8)} for place in chosen}
    shown: dict[int, NDArray[np.uint8]] = {}
    device = next(model.parameters()).device
    for heading, sound in sounds:
        batch = PictureBatch.join(
            [*map(PictureSet(pictures, list(chosen), view, truth, sound).__getitem__, range(len(chosen)))]
        )
        with torch.no_grad():
            logits = segment(
                model,
                batch.image.to(device),
                batch.waveform.to(device),
                batch.image_present.to(device),
                batch.audio_present.to(device),
            )
        for own, sample in zip(logits, batch.samples, strict=True):
            if sample.failure is not None:
                rows[sample.place] = {"truth": _NOTHING} | {name: _NOTHING for name, _ in sounds}
                continue
            size = (sample.mask.shape[0], sample.mask.shape[1])
            rows[sample.place]["truth"] = sample.mask
            rows[sample.place][heading] = predicted_masks(at_mask_size(own[None], size))[0]
            if sample.place not in shown:
                shown[sample.place] = _picture(pictures[sample.place].clip, truth, view, size)
    overlays = [
        Overlay(
            f"{text if place in shown else 'could not be read'}\n{pictures[place].clip.id[-32:]}",
            shown.get(place, np.repeat(_NOTHING[..., None], 3, axis=2)),
            rows[place],
        )
        for place, text in chosen.items()
    ]
    return overlay_figure(overlays, model.config.classes, title)


def film_drawings(
    model: Segmenter, pictures: Sequence[Picture], kept: Sequence[int], count: int, flips: bool
) -> dict[str, Draw]:
    """What draws overlay films `overlay_ID.mp4` of `count` videos, evenly over those kept, by clip."""
    first = {pictures[i].video: pictures[i].clip for i in reversed(kept)}  # the first picture of each
    clips = [first[video] for video in sorted(first)]
    chosen = clips if len(clips) <= count else [clips[i * len(clips) // count] for i in range(count)]

    def write(clip: Clip, path: Path) -> None:
        write_overlay_video(model, clip, path, next(model.parameters()).device, flips)

    names = {clip.id: "".join(c if c.isalnum() or c in "-_" else "_" for c in clip.id) for clip in chosen}
    return {clip.id: film_drawing(f"overlay_{names[clip.id]}.mp4", partial(write, clip)) for clip in chosen}


def _picture(clip: Clip, truth: Truth, view: CentreView, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The whole picture that is scored, at the size of its mask."""
    with open_clip(clip) as media:
        drawn = view.read(media, None, truth.times(clip))
        return media.frame(drawn.frame_seconds, FrameCrop.whole(size))
