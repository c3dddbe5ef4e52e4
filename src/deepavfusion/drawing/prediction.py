"""Figures of predictions: class scores over time, and spectrograms of separated sounds.

Shapes: `T` windows, `K` classes, `N` sounds, `S` samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepavfusion.audio import SAMPLE_RATE
from deepavfusion.drawing.separation import RANGE_DB, level_db
from deepavfusion.stft import N_FFT

MAX_COLUMNS = 1200
"""Columns of a spectrogram that are drawn; a longer one is thinned out."""


def timeline_figure(
    centre_seconds: NDArray[np.float64],
    scores: NDArray[np.float32],
    classes: Sequence[str],
    duration_seconds: float,
) -> Figure:
    """Scores `(T, K)` of the best classes over time, one line each.

    Args:
        centre_seconds: `(T,)` the windows' middles.
        scores: in [0, 1].
        classes: `K` names.
        duration_seconds: of the recording.
    """
    figure = Figure(figsize=(8, 3.2), dpi=100, layout="constrained")
    axis = figure.subplots()
    for column, name in enumerate(classes):
        label = plain(name)
        axis.plot(centre_seconds, scores[:, column], marker="o" if len(scores) < 60 else "", markersize=3, label=label)
    axis.set_xlim(0, max(duration_seconds, 0.1))
    axis.set_ylim(0, 1)
    axis.set_xlabel("seconds, middle of each window")
    axis.set_ylabel("score")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axis.set_title("best classes of the recording, over time", fontsize=10)
    return figure


def level_figure(names: Sequence[str], sounds: NDArray[np.float32]) -> Figure:
    """Spectrograms of separated sounds `(N, S)` on one colour scale, the recording on top.

    Args:
        names: of the sounds.
        sounds: at 16 kHz; their sum is the recording.
    """
    shortest = N_FFT
    if sounds.shape[1] < shortest:
        sounds = np.pad(sounds, ((0, 0), (0, shortest - sounds.shape[1])))
    rows = [sounds.sum(axis=0), *sounds]
    levels = [level_db(np.ascontiguousarray(row, np.float32)) for row in rows]
    top = float(levels[0].max())
    seconds = sounds.shape[1] / SAMPLE_RATE
    figure = Figure(figsize=(8, 1.5 * len(rows) + 0.7), dpi=90, layout="constrained")
    axes = figure.subplots(len(rows), 1, squeeze=False, sharex=True)[:, 0]
    thin = -(-levels[0].shape[1] // MAX_COLUMNS)
    for axis, name, level in zip(axes, ["recording", *names], levels, strict=True):
        axis.imshow(
            level[:, ::thin],
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            extent=(0, seconds, 0, SAMPLE_RATE / 2000),
            vmin=top - RANGE_DB,
            vmax=top,
            cmap="magma",
        )
        axis.set_ylabel("kHz", fontsize=7)
        axis.set_title(plain(name), fontsize=8, loc="left")
        axis.tick_params(labelsize=6)
    axes[-1].set_xlabel("seconds", fontsize=7)
    return figure


def plain(text: str) -> str:
    """A name as matplotlib is to draw it: no formula between dollars, no line breaks, not endless."""
    text = "".join(c if c.isprintable() else " " for c in text).replace("$", r"\$")
    return text if len(text) <= 60 else f"{text[:57]}..."
