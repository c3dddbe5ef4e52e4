"""The encoder on images of another size: its sine-cosine positions, resampled to the new grid of patches.

A patch of the new grid gets the position at which its centre lies on the grid that the encoder was trained on, between
the trained positions rather than beyond them. On the trained grid itself these are exactly the trained positions.

Shape legend: `N` patches, `D` width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from deepavfusion.models.encoder import EarlyFusionEncoder

Grid = tuple[int, int]


def resampled_positions(grid: Grid, trained_grid: Grid, dim: int) -> Tensor:
    """Sine-cosine positions `(1, N, D)` of a grid of patches, spread over the range of another.

    Channels are ordered as in `vit.sincos_positions`, which this equals where the grids are the same.
    """
    frequencies = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    places = [
        (torch.arange(count, dtype=torch.float64) + 0.5) * (trained / count) - 0.5
        for count, trained in zip(grid, trained_grid, strict=True)
    ]
    rows, columns = torch.meshgrid(*places, indexing="ij")
    angles = [axis.flatten()[:, None] * frequencies for axis in (columns, rows)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1).float()[None]


def set_picture_size(encoder: EarlyFusionEncoder, image_size: tuple[int, int], positions_grid: Grid) -> None:
    """Make an encoder take pictures of another size from here on.

    Args:
        encoder: is changed, its `config` too.
        image_size: height and width in pixels, divisible by the patch size.
        positions_grid: the grid over whose range positions are spread.

    Raises:
        ValueError: the patch size does not divide the size.
    """
    config = replace(encoder.config, image_size=image_size)
    table = resampled_positions(config.image_grid, positions_grid, config.embed_dim)
    encoder.config, encoder.image.size = config, config.image_size
    encoder.image.pos_embed = table.to(encoder.image.pos_embed)
