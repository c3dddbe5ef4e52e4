"""How many queries find their own item within a number of results, as a figure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray


def recall_figure(ranks: Mapping[str, NDArray[np.int64]], title: str = "") -> Figure:
    """Recall over the number of results, one line per direction, and what chance would give.

    Args:
        ranks: by direction, the rank of every query's own item, `(N,)` from 1.
        title: headline.
    """
    figure = Figure(figsize=(6, 4), dpi=110, layout="constrained")
    axis = figure.subplots()
    for name, own in ranks.items():
        axis.step(np.sort(own), np.arange(1, len(own) + 1) / len(own), where="post", label=name)
    size = max(len(own) for own in ranks.values())
    results = np.arange(1, size + 1)
    axis.plot(results, results / size, color="0.6", linestyle="--", label="chance")
    axis.set_xscale("log")
    axis.set_xlim(1, max(size, 2))
    axis.set_ylim(0, 1)
    axis.set_xlabel(f"results looked at, of {size:,}")
    axis.set_ylabel("queries that found their own")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    if title:
        axis.set_title(title, fontsize=9)
    return figure
