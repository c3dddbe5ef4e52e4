"""From maps at the grid of patches to finer ones: upsampled by 2 at every step and joined by a convolutional view of
the image, which has the edges that patches lose.

Shape legend: `B` batch, `E` width of the coarse map, `r c` its rows and columns, `R C` those of the finest.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepavfusion.models.picture_view import GROUPS, PICTURE_DIM, conv_block

LEAST_DIM = 24
"""Width that maps keep at the finest resolutions."""


def num_refining_steps(patch_size: int, stride: int) -> int:
    """Steps from cells of `patch_size` pixels to cells of `stride` pixels, at least one."""
    return max(1, math.ceil(math.log2(patch_size / stride)))


def refined_widths(width: int, num_steps: int) -> list[int]:
    """Widths before and after every step: halved each time, in whole groups."""
    return [max(-(-(width >> k) // GROUPS) * GROUPS, LEAST_DIM) for k in range(num_steps + 1)]


class RefiningStep(nn.Module):
    """Bring a map to the size of a view of the picture and join it with that view and with maps of lower layers."""

    def __init__(self, width_in: int, width_joining: int, width: int) -> None:
        super().__init__()
        self.lateral = nn.Conv2d(width_joining, width, 1) if width_joining else None
        self.join = conv_block(width_in + PICTURE_DIM, width)
        self.refine = conv_block(width, width)

    def forward(self, x: Tensor, joining: list[Tensor], view: Tensor) -> Tensor:
        size = view.shape[-2:]
        x = self.join(torch.cat([resized(x, size), view], dim=1))
        if self.lateral is not None:  # mapped at the coarse grid, which is cheaper and the same as after upsampling
            x = x + resized(self.lateral(torch.cat(joining, dim=1)), size)
        refined: Tensor = self.refine(x)
        return refined


def refine(steps: nn.ModuleList, coarse: Tensor, views: list[Tensor], joining: list[list[Tensor]]) -> Tensor:
    """A map `(B, E, r, c)` through all steps, `(B, width, R, C)`; a view and joining maps for each."""
    for step, view, maps in zip(steps, views, joining, strict=True):
        coarse = step(coarse, maps, view)
    return coarse


def resized(x: Tensor, size: torch.Size) -> Tensor:
    """Maps `(B, E, r, c)` at another size, bilinearly."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
