"""The segmentation decoder of the published models: a baseline for ours (section 5 of the method).

The image tokens of several layers become feature maps, from the lowest layer at the grid of patches to the highest at
the finest resolution. At scale k a transposed convolution (factor 2^k) and two 3x3 conv-BN-ReLU give a map of width D /
2^k, at least 128. The running map is upsampled by 2, concatenated with it and with the mean audio token (linear,
LayerNorm, one per scale) spread over the grid, and passes two more; a 3x3 convolution gives the logits, which are
resized bilinearly to the image's size.

Shape legend: `B` batch, `h w` patches down and across, `D` width, `C` logits per pixel, `H W` pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepavfusion.models.encoder import EncoderOutput
from deepavfusion.models.frames import reference_picture
from deepavfusion.models.segmentation_decoder import reference_maps
from deepavfusion.models.segmenter_config import SegmenterConfig


class ReleaseSegmentationDecoder(nn.Module):
    """Pooled sound at every scale of a U-shaped decoder."""

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.layers, self.encoder_config = config.layer_numbers, config.encoder
        dim, num_maps = config.encoder.embed_dim, len(self.layers)
        widths = [max(dim >> k, config.decoder_dim) for k in range(num_maps)]
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in widths)
        self.raises = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(dim, width, 2**k, 2**k), double_conv(width, width))
            for k, width in enumerate(widths)
        )
        self.sounds = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, width), nn.LayerNorm(width)) for width in widths if config.hears
        )
        below = [0, *widths[:-1]]
        self.joins = nn.ModuleList(
            double_conv(under + width * (2 if config.hears else 1), width)
            for under, width in zip(below, widths, strict=True)
        )
        self.head = nn.Conv2d(widths[-1], config.num_logits, 3, padding=1)

    def forward(self, image: Tensor, tokens: EncoderOutput, audio_present: Tensor | None = None) -> Tensor:
        """Logits of the reference frame, arguments and value as our decoder's; absent audio tokens are zero already."""
        picture = reference_picture(image)
        maps = reference_maps(tokens, self.layers, self.encoder_config, picture)
        x: Tensor | None = None
        pooled = maps[0].new_zeros(maps[0].shape[:2]) if tokens.audio is None else tokens.audio.mean(dim=1)
        for k, grid in enumerate(maps):
            own = self.raises[k](self.norms[k](grid.movedim(1, -1)).movedim(-1, 1))
            parts = [own]
            if len(self.sounds):
                parts.append(self.sounds[k](pooled)[..., None, None].expand(-1, -1, *own.shape[-2:]))
            if x is not None:
                parts.insert(0, F.interpolate(x, size=own.shape[-2:], mode="bilinear", align_corners=False))
            x = self.joins[k](torch.cat(parts, dim=1))
        logits: Tensor = self.head(x)
        return F.interpolate(logits, size=picture.shape[-2:], mode="bilinear", align_corners=False)


def double_conv(channels: int, width: int) -> nn.Sequential:
    """Two 3x3 convolutions, each with batch normalisation and ReLU."""
    layers: list[nn.Module] = []
    for k in (channels, width):
        layers += [nn.Conv2d(k, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
