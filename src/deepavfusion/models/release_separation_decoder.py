"""The published separation decoder, a baseline for ours (section 5 of the method).

The audio tokens of five layers become feature maps, from the first layer at the bottom to the last at full resolution.
At step k a map is resized to 2^k times the token grid and width D / 2^k; the running map is doubled in size,
concatenated with it and with the mean image token, and convolved twice. One logit per mel cell.

Shape legend: `B` batch, `A` audio tokens, `I` image tokens, `D` encoder width, `M T` bands and frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepavfusion.models.separator_config import SeparatorConfig


class ReleaseSeparationDecoder(nn.Module):
    """Mask logits on mel bands from token maps and picture tokens; it does not look at the spectrogram."""

    def __init__(self, config: SeparatorConfig) -> None:
        super().__init__()
        self.config, self.layers = config, config.layers
        dim = config.encoder.embed_dim
        widths = [max(1, dim >> k) for k in range(config.num_levels + 1)]
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in widths)
        self.enlarge = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(dim, w, 1 << k, 1 << k) if k else nn.Conv2d(dim, w, 1), *_double(w, w))
            for k, w in enumerate(widths)
        )
        self.picture = nn.ModuleList(nn.Linear(dim, w) for w in widths)
        self.join = nn.ModuleList(
            nn.Sequential(*_double(2 * w + (widths[k - 1] if k else 0), w)) for k, w in enumerate(widths)
        )
        self.head = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, maps: Sequence[Tensor], pictures: Sequence[Tensor], log_mel: Tensor, log_power: Tensor) -> Tensor:
        """Logits of the mask.

        Args:
            maps: audio tokens of `layers`, each `(B, A, D)`.
            pictures: picture tokens of `layers`, each `(B, I, D)`, of which the last are read.
            log_mel, log_power: have no effect.

        Returns:
            `(B, 1, M, T)`.
        """
        pooled = pictures[-1].mean(dim=1)
        running: list[Tensor] = []
        for k, tokens in enumerate(maps):
            grid = self.norms[k](tokens).transpose(1, 2).unflatten(2, self.config.encoder.audio_grid)
            level = self.enlarge[k](grid)
            told = self.picture[k](pooled)[:, :, None, None].expand_as(level)
            before = [F.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=False) for y in running]
            running = [self.join[k](torch.cat([*before, level, told], dim=1))]
        return self.head(running[0])


def _double(channels: int, out_channels: int) -> list[nn.Module]:
    """Two 3 x 3 convolutions, each with batch normalisation and ReLU."""
    modules: list[nn.Module] = []
    for width in (channels, out_channels):
        modules += [
            nn.Conv2d(width, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        ]
    return modules
