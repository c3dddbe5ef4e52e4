"""Convolutions over the image, for what the patches of a ViT lose: edges and small shapes.

Shape legend: `B` batch, `E` width, `R C` rows and columns of patches, `H W` pixels.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

PICTURE_DIM = 16
"""Width of the views at every resolution."""
GROUPS = 8
"""Groups of every GroupNorm."""


class PictureView(nn.Module):
    """A shallow convolutional view of the picture, one map for each step, the coarsest first.

    The finest has a cell per `stride x stride` pixels, all of which its first convolution reads.
    """

    def __init__(self, num_steps: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.stem = conv_block(3 * stride**2, PICTURE_DIM)
        self.halvings = nn.ModuleList(conv_block(PICTURE_DIM, PICTURE_DIM, stride=2) for _ in range(num_steps - 1))

    def forward(self, picture: Tensor) -> list[Tensor]:
        views = [self.stem(F.pixel_unshuffle(picture, self.stride))]
        for halving in self.halvings:
            views.append(halving(views[-1]))
        return views[::-1]


class PatchView(nn.Module):
    """What every patch looks like to a few convolutions, `width` numbers a patch."""

    def __init__(self, image_size: tuple[int, int], patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.stride = math.gcd(4, *image_size)
        num_halvings = max(0, int(math.log2(patch_size / self.stride)))
        self.stem = conv_block(3 * self.stride**2, width)
        self.halvings = nn.Sequential(*(conv_block(width, width, stride=2) for _ in range(num_halvings)))
        self.last = conv_block(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, picture: Tensor) -> Tensor:
        """`(B, 3, H, W)` -> `(B, R C, E)`, patches row by row."""
        x = self.last(self.halvings(self.stem(F.pixel_unshuffle(picture, self.stride))))
        grid = (picture.shape[-2] // self.patch_size, picture.shape[-1] // self.patch_size)
        tokens: Tensor = self.norm(F.adaptive_avg_pool2d(x, grid).flatten(2).transpose(1, 2))
        return tokens


def conv_block(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution, GroupNorm (no batch statistics: small batches are common here) and GELU."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride, padding=1, bias=False), nn.GroupNorm(GROUPS, width), nn.GELU()
    )
