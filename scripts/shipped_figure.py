"""Draws what the shipped models find in clips of Bandstand that they have not seen: the figure of the README.

    deepavfusion bandstand world --clips 24 --splits [localization,duets] --seed 2026
    python scripts/shipped_figure.py world --out docs/figures/shipped.jpg

The first clips of the world are shown, whatever comes out: of the split `localization` those in which something that is
seen sounds, of the split `duets` the first of two classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from deepavfusion.data.clips import find_clips
from deepavfusion.data.media import MediaFile
from deepavfusion.data.scenes.annotation import ClipTruth, read_annotation, read_mask
from deepavfusion.drawing.localization import heat_overlay
from deepavfusion.drawing.segmentation import overlay
from deepavfusion.drawing.separation import level_db
from deepavfusion.inference.predictor import Predictor

SCENES = 7
"""Columns of the upper part."""
DYNAMIC_DB = 60.0
"""Of the spectrograms."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", type=Path, help="folder of the world, with masks")
    parser.add_argument("--model", default="shipped:bandstand", help="bundle of the models")
    parser.add_argument("--out", type=Path, required=True, help="JPEG to write")
    words = parser.parse_args()
    predictor = Predictor.from_pretrained(words.model)
    figure = Figure(figsize=(11, 8.6), dpi=100, layout="constrained")
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=[6, 2.6])
    draw_scenes(parts[0, 0], predictor, words.world)
    draw_duet(parts[1, 0], predictor, words.world)
    words.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(words.out, pil_kwargs={"quality": 82})
    return 0


def draw_scenes(figure: SubFigure, predictor: Predictor, world: Path) -> None:
    """A column for each scene: its picture, what sounds, heat map, and mask."""
    paths = [clip.path for clip in find_clips(str(world / "localization.csv"))]
    scenes = [(path, read_annotation(path)) for path in paths]
    scenes = [(path, truth) for path, truth in scenes if heard_and_seen(truth)][:SCENES]
    axes = figure.subplots(4, len(scenes), squeeze=False)
    for column, (path, truth) in enumerate(scenes):
        second, numbers = middle(path, truth)
        with MediaFile(path) as media:
            picture = media.frame(second)
        sounding = np.isin(numbers, [1 + n for n in heard_and_seen(truth)]).astype(np.uint8)
        localized, segmented = predictor.localize(path, 0.1), predictor.segment(path, 0.1)
        heat = localized.maps[nearest(localized.times_seconds, second)][0]
        mask = segmented.masks[nearest(segmented.times_seconds, second)]
        masks = [overlay(picture, own) for own in (sounding, at_size(mask, picture))]
        images = (picture, masks[0], heat_overlay(picture, heat, (0.0, 1.0)), masks[1])
        for axis, image in zip(axes[:, column], images, strict=True):
            axis.imshow(image)
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, head in zip(axes[:, 0], ("picture", "what sounds", "localization", "segmentation"), strict=True):
        axis.set_ylabel(head, fontsize=9)


def draw_duet(figure: SubFigure, predictor: Predictor, world: Path) -> None:
    """Both sources of a duet: picture, mixture, estimate and truth."""
    path = find_clips(str(world / "duets.csv"))[0].path
    truth = read_annotation(path)
    second, numbers = middle(path, truth)
    with MediaFile(path) as media:
        picture, mixture = media.frame(second), media.sound(0.0, truth.num_samples / truth.sample_rate)
    boxes = [box_of(numbers == 1 + n) for n in heard_and_seen(truth)]
    separated = predictor.separate(path, boxes=boxes)
    axes = figure.subplots(len(boxes), 4, squeeze=False, width_ratios=[0.55, 1, 1, 1])
    whole = level_db(mixture)
    for row, (box, number, sound) in enumerate(zip(boxes, heard_and_seen(truth), separated.sources, strict=True)):
        left, top, right, bottom = (
            round(part * side) for part, side in zip(box, picture.shape[1::-1] * 2, strict=True)
        )
        axes[row, 0].imshow(picture[top:bottom, left:right])
        stem = stem_of(path, truth, number)
        for axis, level in zip(axes[row, 1:], (whole, level_db(sound), level_db(stem)), strict=True):
            axis.imshow(
                level, origin="lower", aspect="auto", cmap="magma", vmin=whole.max() - DYNAMIC_DB, vmax=whole.max()
            )
        for axis in axes[row]:
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, head in zip(axes[0], ("", "mixture", "separation", "truth"), strict=True):
        axis.set_title(head, fontsize=9)


def heard_and_seen(truth: ClipTruth) -> list[int]:
    """Numbers of the visible sources that sound."""
    return [source.number for source in truth.sources if source.audible and source.visible]


def middle(path: str, truth: ClipTruth) -> tuple[float, NDArray[np.uint8]]:
    """The annotated moment in the middle of a clip, in seconds, and its mask."""
    place = truth.nearest_annotated(truth.num_frames / truth.frame_rate / 2)
    return truth.annotated_seconds[place], read_mask(path, truth, place)


def nearest(times: Any, second: float) -> int:
    return int(np.abs(np.asarray(times) - second).argmin())


def at_size(mask: NDArray[np.uint8], picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A mask at the picture's size, by the nearest pixel."""
    rows, columns = (np.arange(side) * own // side for side, own in zip(picture.shape[:2], mask.shape, strict=True))
    return mask[rows[:, None], columns]


def box_of(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a mask, in fractions of the picture."""
    rows, columns = (np.flatnonzero(np.asarray(mask.any(axis=axis))) for axis in (1, 0))
    height, width = mask.shape
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height


def stem_of(path: str, truth: ClipTruth, number: int) -> NDArray[np.float32]:
    """The sound of a source alone."""
    import soundfile

    stem = next(source.stem for source in truth.sources if source.number == number)
    assert stem is not None
    return np.asarray(soundfile.read(Path(path).parent / stem, dtype="float32")[0])


if __name__ == "__main__":
    raise SystemExit(main())
