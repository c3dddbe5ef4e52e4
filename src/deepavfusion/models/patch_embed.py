"""Patch embeddings: from the pixels of a patch to its token, every patch by itself.

As no patch sees another's pixels, hidden patches stay hidden, and only the visible ones are computed.

Shape legend: `B` batch, `T` frames, `K` patches to embed, `D` width, `C` channels, `p` patch side, `H W` pixels (or mel
bands and frames).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from deepavfusion.models.config import PatchEmbedForm
from deepavfusion.models.patch_mask import take


def patchify(x: Tensor, patch_size: int) -> Tensor:
    """Cut pictures into patches, row by row; values of a patch are ordered (row, column, channel).

    Args:
        x: `(B, C, H, W)`, both sides divisible by `patch_size`; or several frames `(B, T, C, H, W)`.

    Returns:
        `(B, N, p * p * C)`, or `(B, T * N, p * p * C)`, one frame after the other.
    """
    if x.ndim == 5:
        return patchify(x.flatten(0, 1), patch_size).unflatten(0, x.shape[:2]).flatten(1, 2)
    b, c, h, w = x.shape
    p = patch_size
    if h % p or w % p:
        raise ValueError(f"a {h} x {w} input cannot be cut into patches of {p}")
    return x.reshape(b, c, h // p, p, w // p, p).permute(0, 2, 4, 3, 5, 1).reshape(b, -1, p * p * c)


def unpatchify(patches: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """Inverse of `patchify`: `(B, N, p * p * C)` with `N` = rows x columns of `grid` -> `(B, C, H, W)`.

    Patches of `T` frames, `(B, T * N, p * p * C)`, become `(B, T, C, H, W)`.
    """
    num_frames = patches.shape[1] // (grid[0] * grid[1])
    if num_frames > 1:
        frames = patches.unflatten(1, (num_frames, -1))
        return unpatchify(frames.flatten(0, 1), patch_size, grid).unflatten(0, frames.shape[:2])
    b, p, (rows, columns) = len(patches), patch_size, grid
    return patches.reshape(b, rows, columns, p, p, -1).permute(0, 5, 1, 3, 2, 4).reshape(b, -1, rows * p, columns * p)


def visible_patches(x: Tensor, patch_size: int, ids_keep: Tensor | None) -> Tensor:
    """`patchify`, of the patches with these numbers `(B, K)` only (None: all) -> `(B, K, p * p * C)`."""
    patches = patchify(x, patch_size)
    return patches if ids_keep is None else take(patches, ids_keep)


class PatchEmbed(nn.Module):
    """A convolution with kernel = stride = patch: one linear map of a patch's values."""

    def __init__(self, channels: int, patch_size: int, dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(channels, dim, patch_size, patch_size)

    def forward(self, x: Tensor, ids_keep: Tensor | None = None) -> Tensor:
        """`(B, C, H, W)` or `(B, T, C, H, W)` and the patch numbers to embed `(B, K)` (None: all) -> `(B, K, D)`."""
        patches = visible_patches(x, self.patch_size, ids_keep)
        kernel = self.proj.weight.permute(0, 2, 3, 1).flatten(1)  # (channel, row, column) -> (row, column, channel)
        return F.linear(patches, kernel, self.proj.bias)


class ConvolutionalPatchEmbed(nn.Module):
    """Two convolutions within a patch, then a linear map of what they found.

    Each convolution is 3 x 3 with stride 2 and zeros around the patch; they make D / 4 and D / 2 channels of it. A
    linear embedding has to learn a shape anew for every place in the patch; these weights are shared by all places.
    After Xiao et al. 2021 (convolutions before a ViT) and Touvron et al. 2022 (patches kept apart, for masking).
    """

    def __init__(self, channels: int, patch_size: int, dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.conv1 = nn.Conv2d(channels, dim // 4, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(dim // 4, dim // 2, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(dim // 2, eps=1e-6)
        self.proj = nn.Linear((patch_size // 4) ** 2 * (dim // 2), dim)

    def forward(self, x: Tensor, ids_keep: Tensor | None = None) -> Tensor:
        """`(B, C, H, W)` or `(B, T, C, H, W)` and the patch numbers to embed `(B, K)` (None: all) -> `(B, K, D)`."""
        p = self.patch_size
        patches = visible_patches(x, p, ids_keep)
        pixels = patches.reshape(-1, p, p, self.conv1.in_channels).permute(0, 3, 1, 2)
        found = F.gelu(self.conv2(F.gelu(self.conv1(pixels)))).permute(0, 2, 3, 1)  # (B K, row, column, D / 2)
        return self.proj(self.norm(found).flatten(1)).unflatten(0, patches.shape[:2])


PATCH_EMBEDDINGS: dict[PatchEmbedForm, type[PatchEmbed] | type[ConvolutionalPatchEmbed]] = {
    "linear": PatchEmbed,
    "convolutional": ConvolutionalPatchEmbed,
}
"""By the name of `EarlyFusionConfig.patch_embed`."""
