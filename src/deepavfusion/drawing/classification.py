"""The confusion matrix of a classifier, as a figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

MAX_NAMED = 60
"""Classes up to which the axes name them."""


def confusion_figure(confusion: NDArray[np.int64], classes: Sequence[str], title: str = "") -> Figure:
    """Shares of each true class's clips by predicted class, rows adding up to 1.

    Args:
        confusion: `(C, C + 1)` counts, the last column for clips without a usable prediction, which is left out of
            the picture if empty.
        classes: `C` names.
        title: headline.
    """
    counts = confusion if confusion[:, -1].any() else confusion[:, :-1]
    columns = [*classes, "none usable"][: counts.shape[1]]
    shares = counts / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    named = len(classes) <= MAX_NAMED
    side = min(12.0, 3.0 + 0.16 * len(classes)) if named else 9.0
    figure = Figure(figsize=(side + 1, side), dpi=110, layout="constrained")
    axis = figure.subplots()
    drawn = axis.imshow(shares, vmin=0, vmax=1, cmap="viridis", interpolation="nearest", aspect="equal")
    if named:
        axis.set_xticks(range(len(columns)), columns, rotation=90, fontsize=6)
        axis.set_yticks(range(len(classes)), classes, fontsize=6)
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    figure.colorbar(drawn, ax=axis, label="share of the true class's clips", shrink=0.8)
    if title:
        axis.set_title(title, fontsize=9)
    return figure
