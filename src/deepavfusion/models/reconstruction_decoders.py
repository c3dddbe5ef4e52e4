"""Decoders of the masked autoencoder: they predict hidden patches from visible tokens and fusion tokens.

- `self` (the paper's): a small ViT over [fusion ; visible ; mask] tokens. Only predictions enter the loss, so its last
  block and the prediction layer are computed for these alone. Attention does not depend on the order of tokens, so they
  are never put back in place.
- `cross`: mask tokens attend to [fusion ; visible] tokens, which no layer changes, and never to one another. A
  prediction then depends only on its own position and on what is visible: predicting a share of the patches costs that
  share.

In both, which other patches are predicted changes no prediction.

Shape legend: `B` batch, `K` visible patches, `M` masked patches, `R` predicted ones among them, `F` fusion tokens, `D`
encoder width, `E` decoder width, `P` values of a patch (row, column, channel).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepavfusion.models.attention import CrossAttention
from deepavfusion.models.encoder import initialize
from deepavfusion.models.frames import token_positions
from deepavfusion.models.patch_mask import PatchMask
from deepavfusion.models.vit import Block, Mlp, sincos_positions


class ReconstructionDecoder(nn.Module):
    """A small ViT that predicts hidden patches from visible tokens and fusion tokens."""

    time_embed: Tensor | None

    def __init__(
        self,
        grid: tuple[int, int],
        patch_dim: int,
        encoder_dim: int,
        dim: int,
        depth: int,
        num_heads: int,
        times: Tensor | None = None,
    ) -> None:
        """`times` `(T, dim)` is the time embedding of several frames; None of one, or of sound."""
        super().__init__()
        self.embed = nn.Linear(encoder_dim, dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(sincos_positions(grid, dim))
        self.register_buffer("time_embed", times, persistent=False)
        self.blocks = nn.ModuleList(self.block(dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.pred = nn.Linear(dim, patch_dim)
        self.apply(initialize)
        nn.init.normal_(self.mask_token, std=0.02)

    @staticmethod
    def block(dim: int, num_heads: int) -> nn.Module:
        """One layer."""
        return Block(dim, num_heads, eps=1e-5)

    def forward(self, fusion: Tensor, visible: Tensor, mask: PatchMask) -> Tensor:
        """Fusion `(B, F, D)` and visible `(B, K, D)` -> predictions `(B, R, P)`."""
        seen = self.embed_seen(fusion, visible, mask)
        queries = self.queries(mask.ids_predicted, seen.dtype)
        others = [] if mask.ids_unpredicted is None else [self.queries(mask.ids_unpredicted, seen.dtype)]
        x = torch.cat([seen, *others, queries], dim=1)
        for block in self.blocks[:-1]:
            x = block(x)
        seen, hidden = x.split([x.shape[1] - queries.shape[1], queries.shape[1]], dim=1)
        return self.pred(self.norm(self.blocks[-1](hidden, context=seen)))

    def embed_seen(self, fusion: Tensor, visible: Tensor, mask: PatchMask) -> Tensor:
        """Fusion and visible tokens at the decoder's width, the visible ones with their positions `(B, F + K, E)`."""
        return torch.cat([self.embed(fusion), self.embed(visible) + self.positions(mask.ids_keep)], dim=1)

    def queries(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Mask tokens at the positions `(B, R)` -> `(B, R, E)`."""
        return (self.mask_token + self.positions(ids)).to(dtype)

    def positions(self, ids: Tensor) -> Tensor:
        """Positions, and times of several frames, of patches `(B, R)`, counted through all frames: `(B, R, E)`."""
        return token_positions(self.pos_embed[0], self.time_embed, ids)


class CrossBlock(nn.Module):
    """Pre-norm block whose tokens read a context and not one another."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.norm_context = nn.LayerNorm(dim, eps=eps)
        self.attn = CrossAttention(dim, dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Update `(B, R, E)` from context `(B, K, E)`."""
        x = x + self.attn(self.norm1(x), self.norm_context(context))
        return x + self.mlp(self.norm2(x))


class CrossReconstructionDecoder(ReconstructionDecoder):
    """Mask tokens of the predicted patches alone, each reading the visible and fusion tokens in every block."""

    @staticmethod
    def block(dim: int, num_heads: int) -> nn.Module:
        """One layer."""
        return CrossBlock(dim, num_heads)

    def forward(self, fusion: Tensor, visible: Tensor, mask: PatchMask) -> Tensor:
        """Fusion `(B, F, D)` and visible `(B, K, D)` -> predictions `(B, R, P)`."""
        seen = self.embed_seen(fusion, visible, mask)
        x = self.queries(mask.ids_predicted, seen.dtype)
        for block in self.blocks:
            x = block(x, seen)
        return self.pred(self.norm(x))


DECODERS: dict[str, type[ReconstructionDecoder]] = {
    "self": ReconstructionDecoder,
    "cross": CrossReconstructionDecoder,
}
