"""Cross-modal retrieval: the rank at which a query finds its own item.

Recall at k (R@k) is the share of queries whose own item is among the k most similar ones; the median rank is over all
queries. Both depend on the size of the gallery, which must be given with every score. Shapes: `N` pairs, `E` features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS = 1024
"""Rows of the similarity matrix computed at a time."""


def own_ranks(queries: Tensor, gallery: Tensor) -> Tensor:
    """The rank of every query's own item in the gallery by cosine similarity, 1 the best.

    Items that are exactly as similar as the own one stand before it, so that features that are all alike find nothing.

    Args:
        queries: `(N, E)`, any scale.
        gallery: `(N, E)`; row n belongs to query n.

    Returns:
        `(N,)` int64, 1 to N.

    Raises:
        ValueError: no pairs, or shapes that differ.
    """
    if queries.shape != gallery.shape or queries.ndim != 2 or not len(queries):
        raise ValueError(f"queries {tuple(queries.shape)} and gallery {tuple(gallery.shape)} must be pairs of features")
    units, items = (F.normalize(x.double(), dim=1) for x in (queries, gallery))
    ranks = []
    for start in range(0, len(units), _ROWS):
        similarity = units[start : start + _ROWS] @ items.T
        own = similarity.diagonal(offset=start)
        ranks.append((similarity >= own[:, None]).sum(dim=1))  # its own item is among them
    return torch.cat(ranks)
