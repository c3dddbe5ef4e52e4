"""Our segmentation decoder: from the encoder's tokens to the pixels of what sounds. The sound enters twice.

1. At the grid of patches, every image position attends to the fusion and audio tokens in two cross-attention blocks:
   what is heard is compared with what is seen there. In the form `comparing` the comparison of a localizer's head
   (`comparison`) is added before, which also tells whether a place changes when the sound does.
2. The result is upsampled by 2 at every step, down to one cell per `stride` pixels, joined by the maps of lower layers
   and by a shallow convolutional view of the image, which has the edges that patches lose.
3. One learned query per class attends to the same tokens and becomes a mask kernel: the logit of a cell is the product
   of kernel and cell embedding, so that silence can empty the whole mask. Logits are upsampled bilinearly.

Shape legend: `B` batch, `h w` patches down and across, `D` width of the encoder, `E` width of the decoder, `C` logits
per pixel, `H W` pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepavfusion.models.comparison import PatchComparison
from deepavfusion.models.config import EarlyFusionConfig
from deepavfusion.models.encoder import EncoderOutput, initialize
from deepavfusion.models.frames import reference_picture, reference_tokens
from deepavfusion.models.picture_view import PictureView
from deepavfusion.models.refinement import RefiningStep, num_refining_steps, refine, refined_widths, resized
from deepavfusion.models.segmenter_config import SegmenterConfig
from deepavfusion.models.sound_reading import ReadingBlock, SoundContext, SoundTokens
from deepavfusion.models.token_norm import TokenNorm

NUM_READINGS = 2
"""Blocks in which image positions read the sound."""
VIEW_DIM = 48
"""Width of the convolutions through which patches are seen where they are compared."""
FOREGROUND_PRIOR = 0.1
"""Probability of sounding that a new binary model starts near, for every pixel."""


class SegmentationDecoder(nn.Module):
    """Cross-attention to the sound, coarse-to-fine maps, and mask kernels made of the sound."""

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        dim, width, num_logits = config.encoder.embed_dim, config.decoder_dim, config.num_logits
        self.layers, self.encoder_config = config.layer_numbers, config.encoder
        num_maps = len(self.layers)
        num_steps = num_refining_steps(config.encoder.patch_size, config.stride)
        self.norms = nn.ModuleList(TokenNorm(dim) for _ in range(num_maps))
        self.inputs = nn.ModuleList(nn.Linear(dim, width) for _ in range(num_maps))
        compares = config.decoder == "comparing"
        self.comparison = PatchComparison(config.encoder, self.layers, width, VIEW_DIM) if compares else None
        self.context = SoundContext(config.encoder, width, config.hears)
        self.readings = nn.ModuleList(ReadingBlock(width) for _ in range(NUM_READINGS))
        widths = refined_widths(width, num_steps)
        self.picture = PictureView(num_steps, config.stride)
        # The highest map starts; the next ones join at one step each, what is left over at the last.
        self.joins = [min(k, num_steps) for k in range(1, num_maps)]
        self.steps = nn.ModuleList(
            RefiningStep(widths[k - 1], self.joins.count(k) * width, widths[k]) for k in range(1, num_steps + 1)
        )
        self.queries = nn.Parameter(torch.empty(1, num_logits, width))
        self.asking = ReadingBlock(width)
        self.kernel_norm = nn.LayerNorm(width)
        self.kernel = nn.Linear(width, widths[-1] + 1)
        self.apply(initialize)
        nn.init.normal_(self.queries, std=0.02)
        if num_logits == 1:
            with torch.no_grad():
                self.kernel.bias[-1] = math.log(FOREGROUND_PRIOR / (1 - FOREGROUND_PRIOR))

    def forward(self, image: Tensor, tokens: EncoderOutput, audio_present: Tensor | None = None) -> Tensor:
        """Logits of the reference frame.

        Args:
            image: `(B, 3, H, W)`, of several frames `(B, T, 3, H, W)`.
            tokens: of the encoder, with every layer.
            audio_present: `(B,)` bool, False where a sample has no sound.

        Returns:
            `(B, C, H, W)`.
        """
        picture = reference_picture(image)
        maps = reference_maps(tokens, self.layers, self.encoder_config, picture)
        sound = SoundTokens(tokens.audio, audio_present, tokens.fusion if self.encoder_config.fused else None)
        rows, columns = maps[0].shape[-2:]
        levels = [  # (B, h * w, E), highest layer first
            linear(norm(tokens.flatten(2).transpose(1, 2)))
            for linear, norm, tokens in zip(self.inputs, self.norms, maps, strict=True)
        ][::-1]
        context, key_mask = self.context(sound, len(picture))
        x = levels[0]
        if self.comparison is not None:
            x = x + self.comparison.compare(image, tokens, audio_present)
        for reading in self.readings:
            x = reading(x, context, key_mask)
        grids = [level.transpose(1, 2).unflatten(2, (rows, columns)) for level in (x, *levels[1:])]
        joining: list[list[Tensor]] = [[] for _ in self.steps]
        for grid, place in zip(grids[1:], self.joins, strict=True):
            joining[place - 1].append(grid)
        y = refine(self.steps, grids[0], self.picture(picture), joining)
        asked = self.asking(self.queries.expand(len(picture), -1, -1), context, key_mask)
        kernel, bias = self.kernel(self.kernel_norm(asked)).split([y.shape[1], 1], dim=-1)
        logits = torch.einsum("bchw,bkc->bkhw", y, kernel) * y.shape[1] ** -0.5
        return resized(logits + bias[..., None], picture.shape[-2:])


def reference_maps(
    tokens: EncoderOutput, layers: Sequence[int], config: EarlyFusionConfig, picture: Tensor
) -> list[Tensor]:
    """Image tokens of the reference frame after some layers, laid out as maps `(B, D, h, w)`.

    Args:
        tokens: of the encoder, with every layer.
        layers: zero-based numbers.
        config: of the encoder.
        picture: `(..., H, W)`, whose size may be another than the configuration's.
    """
    assert tokens.layers is not None
    grid, maps = [side // config.patch_size for side in picture.shape[-2:]], []
    for number in layers:
        image = tokens.layers[number].image
        assert image is not None
        maps.append(reference_tokens(image, config).transpose(1, 2).unflatten(2, grid))
    return maps
