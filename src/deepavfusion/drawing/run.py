"""Figures of a run: reconstructions of both modalities, and the learning curve.

Figures are made with matplotlib's object interface, without its global state: save them with `figure.savefig`. Shape
legend: `N` clips, `P` patches, `H W` pixels, `M T` mel bands and frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepavfusion.audio import FRAMES_PER_SECOND, SAMPLE_RATE

HIDDEN_GREY = 0.5
"""Brightness of hidden patches in a masked picture, 0 to 1."""


def reconstruction_figure(
    names: Sequence[str],
    image: Sequence[NDArray[np.float32]] | None,
    audio: Sequence[NDArray[np.float32]] | None,
    title: str = "",
) -> Figure:
    """One row per clip: masked input, reconstruction and target of the picture, then of the log-mel spectrogram.

    Args:
        names: `N` row labels.
        image: masked, reconstruction, target, each `(N, H, W, 3)` in 0 to 1, NaN where hidden or missing; None
            leaves the three columns out.
        audio: the same for log-mel values `(N, M, T)`; a row shares one colour scale, that of its target.
        title: headline.
    """
    num_columns = 3 * ((image is not None) + (audio is not None))
    if num_columns == 0 or not names:
        raise ValueError("a reconstruction figure needs at least one clip and one modality")
    ratios = [1.0] * (3 if image is not None else 0) + [1.5] * (3 if audio is not None else 0)
    figure = Figure(figsize=(1.9 * sum(ratios), 1.9 * len(names) + 0.8), dpi=100, layout="constrained")
    axes = figure.subplots(len(names), num_columns, squeeze=False, width_ratios=ratios)
    if title:
        figure.suptitle(title, fontsize=11)
    for row, name in enumerate(names):
        start = 0
        if image is not None:
            for column, pictures in enumerate(image):
                _draw_image(axes[row, column], pictures[row])
            start = 3
        if audio is not None:
            target = audio[2][row]
            low, high = (np.nanmin(target), np.nanmax(target)) if np.isfinite(target).any() else (-7.0, 0.0)
            for column, spectra in enumerate(audio):
                last_row, first = row == len(names) - 1, column == 0
                _draw_log_mel(axes[row, start + column], spectra[row], (low, high), last_row, first)
        axes[row, 0].text(
            -0.04, 0.5, name[-28:], rotation=90, ha="right", va="center", fontsize=6, transform=axes[row, 0].transAxes
        )
    modalities = [name for name, given in (("picture", image), ("log-mel", audio)) if given is not None]
    heads = [f"{modality}, {what}" for modality in modalities for what in ("masked", "reconstruction", "target")]
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head, fontsize=8)
    return figure


def _draw_image(axis: Axes, picture: NDArray[np.float32]) -> None:
    axis.set_axis_off()
    if not np.isfinite(picture).any():
        axis.text(0.5, 0.5, "no picture", ha="center", va="center", fontsize=8, transform=axis.transAxes)
        return
    axis.imshow(np.clip(np.nan_to_num(picture, nan=HIDDEN_GREY), 0, 1), interpolation="nearest")


def _draw_log_mel(
    axis: Axes, spectrum: NDArray[np.float32], limits: tuple[float, float], bottom: bool, left: bool
) -> None:
    bands, frames = spectrum.shape
    if not np.isfinite(spectrum).any():
        axis.set_axis_off()
        axis.text(0.5, 0.5, "no sound", ha="center", va="center", fontsize=8, transform=axis.transAxes)
        return
    axis.set_facecolor(str(HIDDEN_GREY))
    axis.imshow(
        np.ma.masked_invalid(spectrum),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0, frames / FRAMES_PER_SECOND, 0, bands),
        vmin=limits[0],
        vmax=limits[1],
        cmap="magma",
    )
    ticks_khz = [t for t in (0.5, 1, 2, 4, 8) if t * 2000 <= SAMPLE_RATE]
    axis.set_yticks([_mel_band(1000 * t, bands) for t in ticks_khz], [f"{t:g}" for t in ticks_khz] if left else [])
    axis.tick_params(labelsize=6, labelbottom=bottom)
    if bottom:
        axis.set_xlabel("seconds", fontsize=7)
    if left:
        axis.set_ylabel("kHz", fontsize=7)


def _mel_band(frequency_hz: float, bands: int) -> float:
    """Position of a frequency on an axis of mel bands (HTK scale from 0 Hz to half the sample rate)."""

    def mel(hz: float) -> float:
        return 2595 * np.log10(1 + hz / 700)

    return bands * mel(frequency_hz) / mel(SAMPLE_RATE / 2)


def learning_curve_figure(rows: Sequence[Mapping[str, str | float]], title: str = "") -> Figure:
    """Losses and learning rate over epochs from the rows of metrics.csv.

    Columns named `loss*` share the left axis; the learning rate has the right one.
    """
    if not rows:
        raise ValueError("a learning curve needs at least one row of metrics")
    epochs = [float(row["epoch"]) for row in rows]
    figure = Figure(figsize=(7, 4), dpi=100, layout="constrained")
    axis = figure.subplots()
    for name in (key for key in rows[0] if key.startswith("loss")):
        axis.plot(epochs, [float(row[name]) for row in rows], label=name.replace("_", " "), linewidth=1.2)
    axis.set_xlabel("epoch")
    axis.set_ylabel("loss")
    axis.grid(alpha=0.3)
    right = axis.twinx()
    right.plot(
        epochs, [float(row["lr"]) for row in rows], color="grey", linestyle=":", linewidth=1, label="learning rate"
    )
    right.set_ylabel("learning rate")
    right.set_ylim(bottom=0)
    handles = [h for a in (axis, right) for h in a.get_legend_handles_labels()[0]]
    axis.legend(handles, [str(h.get_label()) for h in handles], fontsize=8, frameon=False)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure
