"""Cross-attention of heads to the sound: image positions attend to the encoder's fusion and audio tokens.

So what is heard is compared with what is seen at a place, whichever token it is in; a mean of the tokens has lost pitch
and rhythm. In an encoder without fusion the fusion tokens carry nothing: then the audio tokens are used alone, in the
same modules. Without sound, a learned token stands for its absence.

Shape legend: `B` batch, `A` audio and `F` fusion tokens, `D` width of the encoder, `N` image positions, `E` width of
the head, `K` sound tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepavfusion.models.attention import CrossAttention, num_heads
from deepavfusion.models.config import EarlyFusionConfig
from deepavfusion.models.token_norm import TokenNorm
from deepavfusion.models.vit import Mlp


@dataclass
class SoundTokens:
    """What a head knows beside the image tokens."""

    audio: Tensor | None
    """`(B, A, D)` after the final norm, zero rows where absent; None where no sample has sound."""
    audio_present: Tensor | None
    """bool `(B,)`; None if all that are given have sound."""
    fusion: Tensor | None
    """`(B, F, D)` after the final norm; None from an encoder that does not fuse."""


class SoundContext(nn.Module):
    """The fusion and audio tokens at the head's width; the first token stands for the absence of sound."""

    def __init__(self, encoder: EarlyFusionConfig, width: int, hears: bool = True) -> None:
        super().__init__()
        dim = encoder.embed_dim
        self.nothing = nn.Parameter(torch.empty(1, 1, width))
        self.audio = nn.Sequential(TokenNorm(dim), nn.Linear(dim, width)) if hears else None
        self.fusion = nn.Sequential(TokenNorm(dim), nn.Linear(dim, width)) if encoder.fused else None
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.nothing, std=0.02)

    def forward(self, sound: SoundTokens, batch_size: int) -> tuple[Tensor, Tensor]:
        """Tokens `(B, K, E)` and, bool `(B, K)`, which of them there are."""
        nothing = self.nothing.expand(batch_size, -1, -1)
        tokens, present = [nothing], [torch.ones_like(nothing[..., 0], dtype=torch.bool)]
        if self.fusion is not None and sound.fusion is not None:
            tokens.append(self.fusion(sound.fusion))
            present.append(present[0].expand(-1, tokens[-1].shape[1]))
        if self.audio is not None and sound.audio is not None:
            tokens.append(self.audio(sound.audio))
            flags = present[0] if sound.audio_present is None else sound.audio_present.bool()[:, None]
            present.append(flags.expand(-1, tokens[-1].shape[1]))
        return self.norm(torch.cat(tokens, dim=1)), torch.cat(present, dim=1)


class ReadingBlock(nn.Module):
    """Pre-norm cross-attention to context tokens that are normalised already, and an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = CrossAttention(width, width, num_heads(width))
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 2 * width)

    def forward(self, x: Tensor, context: Tensor, key_mask: Tensor) -> Tensor:
        """`(B, N, E)` reading `(B, K, E)` where bool `(B, K)` is true -> `(B, N, E)`."""
        x = x + self.attn(self.norm1(x), context, key_mask)
        return x + self.mlp(self.norm2(x))
