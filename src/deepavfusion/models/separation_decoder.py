"""Our separation decoder: from audio tokens and the mixture's spectrogram to a mask, conditioned on the image.

A patch of 16 x 16 cells is too coarse for the harmonics of a note. So two inputs meet at every level of a U-shaped
network: convolutions over the mixture's spectrogram, which resolve the harmonics, and the audio tokens of several
encoder layers, which have attended to the image and give a scale and a shift for every cell of every level. A learned
vector per row tells the convolutions their frequency, because pitch matters.

A summary of image and mixture as a whole (the *gist*: means and deviations of their tokens) is added to every token,
and gives logits per mel band; tokens give logits for the cells of their own patch. Both are added to the mask's logits.
This direct path from image to mask can be learned from a few thousand mixtures.

Maps are stored channels-last: they have few channels, and convolutions and sums over cells are several times as fast
that way on a CPU.

Shape legend: `B` batch, `A` audio tokens, `I` image tokens, `D` encoder width, `M T` bands and frames, `F` bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepavfusion.models.attention import num_heads
from deepavfusion.models.separator_config import SeparatorConfig
from deepavfusion.models.token_norm import TokenNorm
from deepavfusion.models.vit import Block, Mlp
from deepavfusion.stft import N_FFT, mel_mapping

GIST_DIM = 128
"""Width of what is known of picture and mixture as a whole."""
GIST_DROPOUT = 0.3
"""Of its features, which are more than small training sets can tell apart."""


class Gist(nn.Module):
    """Picture and mixture as a whole: mean and deviation over each one's tokens, of every layer, and what they mean.

    Whether anything but the wanted source sounds, and how high it is beside what else there is, is plain from these.
    From one sample to the next they differ far less than tokens do, so they are standardised over the data once more:
    otherwise thousands of mixtures teach nothing.
    """

    def __init__(self, dim: int, num_layers: int, out_dim: int) -> None:
        super().__init__()
        self.norm = TokenNorm(4 * dim * num_layers)
        self.dropout = nn.Dropout(GIST_DROPOUT)
        self.proj = nn.Linear(4 * dim * num_layers, out_dim)

    def forward(self, streams: Sequence[Tensor]) -> Tensor:
        """Layers of tokens `(B, N, D)`, of the picture, then of the sound -> `(B, out_dim)`."""
        layers = [F.layer_norm(tokens, tokens.shape[-1:]) for tokens in streams]
        moments = [moment for x in layers for moment in (x.mean(dim=1), x.std(dim=1, correction=0))]
        return F.gelu(self.proj(self.dropout(self.norm(torch.cat(moments, dim=1)))))


class SeparationDecoder(nn.Module):
    """Mask logits from token maps, picture tokens and the spectrogram of the mixture."""

    def __init__(self, config: SeparatorConfig) -> None:
        super().__init__()
        self.config = config
        encoder, dim, widths, levels = config.encoder, config.decoder_dim, config.widths, config.num_levels
        self.layers = tuple(dict.fromkeys(config.layers))
        """Encoder layers that are read, each once."""
        self.audio_embed = nn.ModuleList(_embed(encoder.embed_dim, dim) for _ in self.layers)
        self.picture_embed = nn.ModuleList(_embed(encoder.embed_dim, dim) for _ in self.layers)
        self.picture = Block(dim, num_heads(dim), mlp_ratio=2)
        self.norm, self.mlp = nn.LayerNorm(dim), Mlp(dim, 2 * dim)
        self.gist = Gist(encoder.embed_dim, len(self.layers), GIST_DIM)
        self.told_norm, self.told = nn.LayerNorm(dim), nn.Linear(GIST_DIM, 2 * dim)
        self.coarse_norm, self.coarse = nn.LayerNorm(dim), nn.Linear(dim, encoder.patch_size**2)
        self.bands = nn.Linear(GIST_DIM, encoder.audio_size[0])
        self.modulate = nn.ModuleList(nn.Linear(dim, 2 * w * 4 ** (levels - k)) for k, w in enumerate(widths))
        bands = encoder.audio_size[0]
        self.rows = nn.ParameterList(torch.empty(1, w, bands >> k, 1) for k, w in enumerate(widths))
        self.down = nn.ModuleList(
            _convolve(widths[k - 1] if k else 1, w, stride=2 if k else 1) for k, w in enumerate(widths)
        )
        self.up = nn.ModuleList(_convolve(w + (widths[k + 1] if k < levels else dim), w) for k, w in enumerate(widths))
        self.fine = nn.Conv2d(1, widths[0], 3, padding=1)
        self.head = nn.Conv2d(widths[0], 1, 3, padding=1)
        for parameter in (*self.rows, self.coarse.weight, self.bands.weight):
            nn.init.normal_(parameter, std=0.02)
        nn.utils.convert_conv2d_weight_memory_format(self, torch.channels_last)

    def forward(self, maps: Sequence[Tensor], pictures: Sequence[Tensor], log_mel: Tensor, log_power: Tensor) -> Tensor:
        """Logits of the mask.

        Args:
            maps: audio tokens of `layers`, each `(B, A, D)`.
            pictures: tokens of `layers` that tell what is wanted, each `(B, I, D)`.
            log_mel: of the mixture, `(B, 1, M, T)`.
            log_power: of the mixture on the bins of the STFT, `(B, 1, F, T)`.

        Returns:
            `(B, 1, F, T)`.
        """
        gist = self.gist([*pictures, *maps])
        x = self._led(gist, maps, pictures)
        coarse = self._grid(self.coarse(self.coarse_norm(x)), self.config.num_levels)
        coarse = coarse + self.bands(gist).unflatten(1, (-1, coarse.shape[2], 1))
        skips = []
        y = _channels_last(_standardized(log_mel))
        for down in self.down:
            y = down(y)
            skips.append(y)
        y = self._grid(x, 0)
        for k in reversed(range(len(skips))):
            scale, shift = self._grid(self.modulate[k](x), self.config.num_levels - k).chunk(2, dim=1)
            skip = skips[k] * (1 + scale) + shift + self.rows[k]
            if y.shape[-1] != skip.shape[-1]:
                y = F.interpolate(y, scale_factor=2.0, mode="nearest")
            y = self.up[k](torch.cat([y, skip], dim=1))
        mapping = mel_mapping(y.shape[2], N_FFT, torch.float32, y.device).to(y.dtype)
        y = F.gelu(_mapped(mapping, y) + self.fine(_channels_last(_standardized(log_power))))
        return self.head(y) + _mapped(mapping, coarse)

    def _led(self, gist: Tensor, maps: Sequence[Tensor], pictures: Sequence[Tensor]) -> Tensor:
        """Audio tokens `(B, A, dim)` that know what is wanted."""
        x = _embedded(self.audio_embed, maps)
        scale, shift = self.told(gist)[:, None].chunk(2, dim=2)
        x = x + self.told_norm(x) * scale + shift
        x = self.picture(x, _embedded(self.picture_embed, pictures))
        return x + self.mlp(self.norm(x))

    def _grid(self, tokens: Tensor, doublings: int) -> Tensor:
        """Tokens `(B, A, C * 4^n)` to a map with `n` doublings of the token grid, channels becoming cells."""
        rows, columns = self.config.encoder.audio_grid
        factor = 1 << doublings
        # As F.pixel_shuffle, with channels last: (B, rows, columns, C, factor, factor)
        cells = tokens.unflatten(2, (-1, factor, factor)).unflatten(1, (rows, columns))
        grid = cells.permute(0, 1, 4, 2, 5, 3)
        return grid.reshape(len(tokens), rows * factor, columns * factor, -1).permute(0, 3, 1, 2)


def _embedded(embeds: nn.ModuleList, layers: Sequence[Tensor]) -> Tensor:
    return torch.stack([embed(tokens) for embed, tokens in zip(embeds, layers, strict=True)]).sum(dim=0)


def _embed(dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(TokenNorm(dim), nn.Linear(dim, out_dim))


def _convolve(channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution with normalisation: over all channels of a level where they are few."""
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 3, stride, padding=1),
        nn.GroupNorm(max(1, out_channels // 16), out_channels),
        nn.GELU(),
    )


def _standardized(log_power: Tensor) -> Tensor:
    """Log10 power from -7 (silence) to about 4 brought near 0 and 1."""
    return (log_power + 3) / 3


def _mapped(mapping: Tensor, x: Tensor) -> Tensor:
    """Rows `(F, M)` of a matrix over the bands of maps `(B, C, M, T)` with channels last: `(B, C, F, T)`, likewise."""
    mapped = mapping @ x.permute(0, 2, 3, 1).flatten(2)  # (B, F, T C)
    return mapped.unflatten(2, (x.shape[3], x.shape[1])).permute(0, 3, 1, 2)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
