"""Contact sheets: what the classes look and sound like, and one row of scenes per split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from deepavfusion.atomic import replacing
from deepavfusion.bandstand.backdrop import draw_backdrop
from deepavfusion.bandstand.score import Note
from deepavfusion.bandstand.sources import LOOK_NAMES, TIMBRE_NAMES, draw_instrument
from deepavfusion.bandstand.splits import Cast
from deepavfusion.bandstand.stage import Camera, Performer, Room, Scene, Stage

_PAPER, _TEXT_COLOUR = (250, 248, 243), (40, 36, 48)
_HEAT = np.array([(18, 14, 34), (86, 28, 98), (190, 54, 84), (246, 140, 60), (252, 240, 180)], np.float32)
"""Colours of a spectrogram from quiet to loud."""


def class_sheet(cast: Cast, path: str) -> None:
    """Write the contact sheet of the classes.

    For the band: a row per look and a column per timbre, each with the instrument at a stroke and the spectrogram of
    the same short tune. For other casts: scenes of the first labelled split.
    """
    if cast.name != "band":
        scene_sheet(cast, 0, path, columns=8)
        return
    stage = Stage(size=128, frame_rate=12.5, seconds=2.0)
    tune = tuple(Note(0.08 + 0.48 * k, 0.44, s, 0.9) for k, s in enumerate((0, 4, 7, 2)))
    cell_width, cell_height, left, top = 268, 140, 96, 34
    sheet = Image.new("RGB", (left + cell_width * len(TIMBRE_NAMES), top + cell_height * len(LOOK_NAMES)), _PAPER)
    words, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for column, timbre in enumerate(TIMBRE_NAMES):
        words.text((left + cell_width * (column + 0.5), 18), timbre, _TEXT_COLOUR, font, anchor="mm")
    for row, look in enumerate(LOOK_NAMES):
        words.text((left - 12, top + cell_height * (row + 0.47)), look, _TEXT_COLOUR, font, anchor="rm")
        for column, timbre in enumerate(TIMBRE_NAMES):
            rng = np.random.default_rng([row, column])
            instrument = draw_instrument(rng, look, timbre, 92.0, stage.seconds, tune)
            calm = replace(draw_backdrop(rng), props=(), light_slope=0.1)
            scene = Scene((Performer(instrument, (80.0, 92.0), True),), calm, Camera(), Room())
            corner = (left + cell_width * column, top + cell_height * row)
            sheet.paste(Image.fromarray(stage.film(scene, (), (1,)).frames[1]), corner)
            heat = spectrogram(stage.record(scene).mixture, stage.sample_rate)
            sheet.paste(
                Image.fromarray(heat).resize((128, 128), Image.Resampling.BILINEAR), (corner[0] + 132, corner[1])
            )
    _save(sheet, path)


def scene_sheet(cast: Cast, seed: int, path: str, columns: int = 6) -> None:
    """Write a sheet with a row of scenes per split, each in the middle of its clip; what sounds has a white frame."""
    stage, seconds = Stage(size=160), 4.0
    font = ImageFont.load_default(size=13)
    left, cell = max(132, *(16 + round(font.getlength(split)) for split in cast.splits)), 166
    sheet = Image.new("RGB", (left + cell * columns, cell * len(cast.splits)), _PAPER)
    words = ImageDraw.Draw(sheet)
    for row, split in enumerate(cast.splits):
        words.text((left - 8, cell * (row + 0.5)), split, _TEXT_COLOUR, font, anchor="rm")
        for column in range(columns):
            plan = cast.plan(seed, split, column, seconds)
            middle = stage.num_frames // 2
            pictures = stage.film(plan.scene, (middle,), (middle,))
            picture = Image.fromarray(pictures.frames[middle])
            draw = ImageDraw.Draw(picture)
            for number, performer in enumerate(plan.scene.performers):
                rows, across = np.nonzero(pictures.masks[middle] == number + 1)
                if performer.audible and len(rows):
                    draw.rectangle((across.min() - 1, rows.min() - 1, across.max() + 1, rows.max() + 1), None, "white")
            sheet.paste(picture, (left + cell * column, cell * row))
    _save(sheet, path)


def spectrogram(wave: NDArray[np.int16], sample_rate: int, rows: int = 96) -> NDArray[np.uint8]:
    """A picture uint8 `rows T 3` of a sound, low frequencies at the bottom, on a scale even in octaves above 100 Hz."""
    window, hop = 1024, 160
    starts = np.arange(0, len(wave) - window, hop)
    pieces = (wave / 32768.0)[starts[:, None] + np.arange(window)] * np.hanning(window)
    power = np.abs(np.fft.rfft(pieces)) ** 2
    centres = np.geomspace(100, 0.48 * sample_rate, rows)
    bins = np.arange(power.shape[1]) * sample_rate / window
    level = np.stack([np.interp(centres, bins, frame) for frame in power])
    level = 10 * np.log10(level + 1e-9)
    bright = np.clip((level - level.max() + 60) / 60, 0, 1).T[::-1]
    steps = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(bright, steps, _HEAT[:, c]) for c in range(3)], -1).astype(np.uint8)


def _save(sheet: Image.Image, path: str) -> None:
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
