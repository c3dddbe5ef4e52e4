"""The vision transformer of both streams and both decoders (pre-norm blocks, fixed sine-cosine positions).

Shape legend: `B` batch, `T` frames, `N` patches (of a frame), `K` visible patches, `D` width, `C` channels, `p` patch
side, `H W` pixels (or mel bands and frames).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepavfusion.models.attention import SelfAttention
from deepavfusion.models.config import PatchEmbedForm
from deepavfusion.models.frames import token_positions
from deepavfusion.models.patch_embed import PATCH_EMBEDDINGS


def sincos_positions(grid: tuple[int, int], dim: int) -> Tensor:
    """Fixed 2-D sine-cosine position embedding.

    The first half of the channels encodes the column (image x, audio time), the second half the row (image y, audio
    frequency); in each half D/4 sines, then D/4 cosines, at frequencies 10000^(-i / (D/4)).

    Returns:
        `(1, N, D)` float32, patches row by row.
    """
    frequencies = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    angles = [axis.flatten()[:, None] * frequencies for axis in (columns, rows)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1).float()[None]


class DropPath(nn.Module):
    """Drop a residual branch for whole samples in training, and scale the rest to keep the mean (stochastic depth)."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        keep = torch.rand(len(x), *(1 for _ in x.shape[1:]), device=x.device) >= self.rate
        return x * keep.to(x.dtype) / (1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class Mlp(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block; context tokens are looked at but not updated."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0, eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = SelfAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Update `(B, N, D)`, seeing also context `(B, K, D)`.

        The result is the rows of `x` in a block over `[context ; x]`.
        """
        context = None if context is None else self.norm1(context)
        x = x + self.drop_path(self.attn(self.norm1(x), context))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """One stream: patch embedding, fixed positions, blocks, final norm. The encoder runs the blocks itself.

    With `times` `(T, D)` the input is `T` frames, which share all weights. Times are no weights and are not saved.
    """

    pos_embed: Tensor
    time_embed: Tensor | None

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        patch_size: int,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        drop_path: float,
        times: Tensor | None = None,
        patch_embed: PatchEmbedForm = "linear",
    ) -> None:
        super().__init__()
        self.channels, self.size = channels, size
        self.patch_embed = PATCH_EMBEDDINGS[patch_embed](channels, patch_size, dim)
        grid = (size[0] // patch_size, size[1] // patch_size)
        self.register_buffer("pos_embed", sincos_positions(grid, dim))
        self.register_buffer("time_embed", times, persistent=False)
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio, drop_path) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def embed(self, x: Tensor, ids_keep: Tensor | None = None) -> Tensor:
        """Patches with their positions: `(B, C, H, W)`, ids `(B, K)` or None -> `(B, K, D)`, rows in the order of ids.

        Several frames are `(B, T, C, H, W)`; their patches are numbered one frame after the other.

        Raises:
            ValueError: the input is not of the configured frames, channels and size.
        """
        frames = () if self.time_embed is None else (len(self.time_embed),)
        expected = (*frames, self.channels, *self.size)
        if tuple(x.shape[1:]) != expected:
            told = f"(B, {', '.join(map(str, expected))})"
            raise ValueError(f"expected an input of shape {told}, got {tuple(x.shape)}")
        return self.patch_embed(x, ids_keep) + token_positions(self.pos_embed[0], self.time_embed, ids_keep)
