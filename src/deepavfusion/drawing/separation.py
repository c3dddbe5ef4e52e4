"""Figures and sounds of separated mixtures: spectrograms side by side, and wav files.

Shapes: `N` sources, `S` samples, `H W` pixels, `F T` spectrogram.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepavfusion.atomic import replacing
from deepavfusion.audio import HOP_LENGTH
from deepavfusion.stft import N_FFT, stft

RANGE_DB = 70.0
"""What is this much softer than the loudest cell of the mixture is drawn black."""
PEAK = 0.99
"""Sounds that would clip in a file are scaled to this, all of a mixture alike."""


@dataclass(frozen=True)
class SeparatedMixture:
    """One mixture, taken apart."""

    id: str
    mixture: NDArray[np.float32]
    """`(S,)`."""
    references: NDArray[np.float32]
    """`(N, S)`."""
    estimates: NDArray[np.float32]
    """`(N, S)`."""
    pictures: NDArray[np.uint8]
    """`(N, H, W, 3)`: what the model was shown of each source."""
    names: tuple[str, ...]
    """Of the sources, `N`."""
    sample_rate: int


def separation_figure(example: SeparatedMixture, notes: Sequence[str] = (), title: str = "") -> Figure:
    """One row per source: its picture, the mixture, the estimate and the reference, on one colour scale.

    Args:
        example: what to draw.
        notes: a line for each source, such as its scores.
        title: headline.
    """
    count = len(example.references)
    whole = level_db(example.mixture)
    top = float(whole.max())
    figure = Figure(figsize=(11, 2.1 * count + 0.6), dpi=90, layout="constrained")
    axes = figure.subplots(count, 4, squeeze=False, width_ratios=[0.8, 1.3, 1.3, 1.3])
    for n in range(count):
        axes[n, 0].imshow(example.pictures[n])
        axes[n, 0].set_xticks([])
        axes[n, 0].set_yticks([])
        axes[n, 0].set_ylabel(example.names[n], fontsize=8)
        if notes:
            axes[n, 0].set_xlabel(notes[n], fontsize=7)
        levels = (whole, level_db(example.estimates[n]), level_db(example.references[n]))
        for column, level in enumerate(levels, start=1):
            _draw(axes[n, column], level, top, example.sample_rate, left=column == 1, bottom=n == count - 1)
    for axis, head in zip(axes[0], ("picture", "mixture", "estimate", "reference"), strict=True):
        axis.set_title(head, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def level_db(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Spectrogram in dB, `(F, T)`, of a sound `(S,)`; 0 dB is a magnitude of one."""
    magnitude = stft(torch.from_numpy(np.ascontiguousarray(waveform)), N_FFT).abs()
    return (20 * torch.log10(magnitude.clamp_min(1e-6))).numpy()


def write_sounds(folder: Path, example: SeparatedMixture) -> dict[str, str]:
    """Write mixture, estimates, references and residual as 16-bit wav files; returns file names by what they are.

    All are scaled alike where one of them would clip.
    """
    sounds: dict[str, NDArray[np.float32]] = {"mixture": example.mixture}
    for n, name in enumerate(example.names):
        sounds[f"estimate {n}: {name}"] = example.estimates[n]
        sounds[f"reference {n}: {name}"] = example.references[n]
    sounds["residual"] = example.mixture - example.estimates.sum(axis=0)
    peak = max(float(np.abs(sound).max()) for sound in sounds.values())
    factor = min(1.0, PEAK / max(peak, 1e-9))
    files = {}
    for what, sound in sounds.items():
        file = what.partition(":")[0].replace(" ", "_") + ".wav"
        with replacing(folder / file) as temporary:
            soundfile.write(temporary, np.nan_to_num(sound) * factor, example.sample_rate, "PCM_16")
        files[what] = file
    return files


def improvement_figure(values: Mapping[str, NDArray[np.float64]], title: str) -> Figure:
    """SDR improvements of the mixtures of each kind, one dot per mixture and a line at the mean.

    Args:
        values: by kind, dB.
        title: headline.
    """
    figure = Figure(figsize=(1.5 * len(values) + 2, 3.4), dpi=90, layout="constrained")
    axis = figure.subplots()
    rng = np.random.default_rng(0)
    for place, (_, own) in enumerate(values.items()):
        axis.plot(place + rng.uniform(-0.2, 0.2, len(own)), own, ".", markersize=4, color="tab:blue", alpha=0.5)
        axis.plot([place - 0.3, place + 0.3], [own.mean()] * 2, color="black", linewidth=2)
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.set_xticks(range(len(values)), [f"{name}\n({len(own)})" for name, own in values.items()], fontsize=8)
    axis.set_ylabel("SDR improvement, dB")
    axis.set_title(title, fontsize=10)
    return figure


def _draw(axis: Axes, level: NDArray[np.float32], top: float, rate: int, left: bool, bottom: bool) -> None:
    seconds = (level.shape[1] - 1) * HOP_LENGTH / rate
    axis.imshow(
        level,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0, seconds, 0, rate / 2000),
        vmin=top - RANGE_DB,
        vmax=top,
        cmap="magma",
    )
    axis.tick_params(labelsize=6, labelbottom=bottom, labelleft=left)
    if bottom:
        axis.set_xlabel("seconds", fontsize=7)
    if left:
        axis.set_ylabel("kHz", fontsize=7)
