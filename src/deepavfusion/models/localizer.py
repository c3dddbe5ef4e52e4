"""Localizer: the encoder with a head that scores for every image patch whether the sound comes from there.

    x = the patch compared with the sound, as `comparison`                  (B, I, H)
    logit = MLP(x, after reading the sound's tokens one by one, as `sound_reading`)

With a `stride`, `x` is also brought to finer cells by `refinement`, whose logits are added to those of the patches,
resized.

Shape legend: `B` batch, `T` frames, `I` image patches of a frame, `H` width of the head, `K` maps (classes, or one),
`R C` rows and columns of the maps: of patches, or of finer cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepavfusion.models.comparison import PatchComparison
from deepavfusion.models.encoder import EncoderOutput, initialize
from deepavfusion.models.encoder_model import EncoderModel
from deepavfusion.models.frames import reference_picture
from deepavfusion.models.localizer_config import LocalizerConfig, LocalizerHeadConfig
from deepavfusion.models.picture_view import PictureView
from deepavfusion.models.refinement import RefiningStep, num_refining_steps, refine, refined_widths, resized
from deepavfusion.models.sound_reading import ReadingBlock, SoundContext, SoundTokens

HEAD_STD = 0.01
"""Standard deviation of the last layer's weights: maps start all but flat."""


@dataclass
class LocalizerOutput:
    """Scores of patches, or of finer cells, and of whole pictures, as logits."""

    maps: Tensor
    """`(B, K, R, C)` float32."""
    pooled: Tensor
    """`(B, K)` float32: each map's pooled score."""


class LocalizerHead(PatchComparison):
    """Scores every patch compared with the sound."""

    def __init__(self, config: LocalizerConfig) -> None:
        width = config.dim
        super().__init__(config.encoder, config.layers, width, config.view_dim)
        self.context = SoundContext(config.encoder, width) if config.readings else None
        self.readings = nn.ModuleList(ReadingBlock(width) for _ in range(config.readings))
        self.norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, config.num_maps)
        self.apply(initialize)
        nn.init.trunc_normal_(self.fc2.weight, std=HEAD_STD)
        self.finer = FinerMaps(config) if config.stride else None

    def forward(self, picture: Tensor, tokens: EncoderOutput, audio_present: Tensor | None = None) -> Tensor:
        """Logits `(B, K, R, C)`; arguments as in `compare`."""
        x = self.compare(picture, tokens, audio_present)
        if self.context is not None:
            context, key_mask = self.context(SoundTokens(tokens.audio, audio_present, tokens.fusion), len(x))
            for reading in self.readings:
                x = reading(x, context, key_mask)
        x = self.norm(x)
        maps = self.fc2(F.gelu(self.fc1(x))).mT.unflatten(2, self.encoder_config.image_grid)
        if self.finer is None:
            return maps
        grid = x.mT.unflatten(2, self.encoder_config.image_grid)
        return self.finer(grid, maps, reference_picture(picture))


class FinerMaps(nn.Module):
    """Logits of finer cells than patches."""

    def __init__(self, config: LocalizerConfig) -> None:
        super().__init__()
        num_steps = num_refining_steps(config.encoder.patch_size, config.stride)
        widths = [config.dim, *refined_widths(config.dim, num_steps)[1:]]
        self.picture = PictureView(num_steps, config.stride)
        self.steps = nn.ModuleList(RefiningStep(widths[k], 0, widths[k + 1]) for k in range(num_steps))
        self.last = nn.Conv2d(widths[-1], config.num_maps, 1)
        self.apply(initialize)
        nn.init.trunc_normal_(self.last.weight, std=HEAD_STD)

    def forward(self, x: Tensor, coarse: Tensor, picture: Tensor) -> Tensor:
        """Features `(B, H, r, c)` and logits `(B, K, r, c)` of patches, and the picture, to logits `(B, K, R, C)`."""
        y = refine(self.steps, x, self.picture(picture), [[] for _ in self.steps])
        logits: Tensor = self.last(y)
        return logits + resized(coarse, logits.shape[-2:])


class Localizer(EncoderModel):
    """The early-fusion encoder and the head that compares its patches with the sound."""

    config_class = LocalizerConfig

    def __init__(self, config: LocalizerConfig) -> None:
        super().__init__(config)
        self.config = config
        self.head = LocalizerHead(config)

    def forward(
        self,
        image: Tensor,
        audio: Tensor | None,
        image_present: Tensor | None = None,
        audio_present: Tensor | None = None,
    ) -> LocalizerOutput:
        """Score every cell of the image for the sound of its sample.

        Args:
            image: `(B, 3, H, W)`, of several frames `(B, T, 3, H, W)`, ImageNet-normalised.
            audio: `(B, 1, mels, frames)` log-mel; None if no sample has sound.
            image_present: `(B,)` bool, False where a sample has no picture: its map is finite but means nothing.
            audio_present: `(B,)` bool, False where a sample has no sound.

        Raises:
            ValueError: an input has another size than the configuration's.
        """
        tokens = self.encoder(
            image, audio, return_layers=True, image_present=image_present, audio_present=audio_present
        )
        return self.answer(image, tokens, audio_present)

    def answer(self, image: Tensor, tokens: EncoderOutput, audio_present: Tensor | None = None) -> LocalizerOutput:
        """The head's scores for images and the encoder's output for them; arguments as in `forward`.

        `tokens` hold every layer.
        """
        maps = self.head(image, tokens, audio_present).float()
        return LocalizerOutput(maps, pool_scores(maps.flatten(2), self.config))

    def blank_answer(self) -> Tensor:
        """The map of a blank picture and sound."""
        answer: LocalizerOutput = self(self.blank_image(), self.blank_audio())
        return answer.maps


def pool_scores(logits: Tensor, config: LocalizerHeadConfig) -> Tensor:
    """One logit of several patches or cells.

    `top`: the mean of the largest `top_share` of them, at least of one. `logsumexp`: log(mean(exp(r x))) / r with `r`
    the sharpness, which lies between mean and maximum and does not depend on how many there are.

    Args:
        logits: `(..., I)`.
        config: the way and its share or sharpness.

    Returns:
        `(...)`.
    """
    count = logits.shape[-1]
    if config.pooling == "top":
        return logits.topk(max(1, round(config.top_share * count)), dim=-1).values.mean(dim=-1)
    return (torch.logsumexp(config.sharpness * logits, dim=-1) - math.log(count)) / config.sharpness
