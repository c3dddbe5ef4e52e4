"""The early-fusion encoder: two ViTs that exchange information in every fusion layer (the paper's main model).

In a fusion layer all three updates read the layer's inputs:

    image'  = ImageBlock([fusion ; image]), image tokens
    audio'  = AudioBlock([fusion ; audio]), audio tokens
    fusion' = FusionBlock(fusion, image, audio)

The unimodal blocks discard their outputs for fusion tokens, so there fusion tokens are only keys and values.

With several frames per clip, the image stream holds the tokens of all frames, one frame after the other.

Shape legend: `B` batch, `I` image tokens, `A` audio tokens, `F` fusion tokens, `D` width, `H W` pixels, `M T` mel bands
and frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deepavfusion.models.config import EarlyFusionConfig
from deepavfusion.models.frames import frame_positions, reference_picture
from deepavfusion.models.fusion import FusionBlock, Streams, where_present
from deepavfusion.models.vit import VisionTransformer
from deepavfusion.saved_model import PretrainedModel, strip_prefix


class LayerTokens(NamedTuple):
    """The three streams after one layer, before the final norms."""

    image: Tensor | None
    """`(B, I, D)`, None without pictures."""
    audio: Tensor | None
    """`(B, A, D)`, None without sound."""
    fusion: Tensor
    """`(B, F, D)`."""


@dataclass
class EncoderOutput:
    """The three streams after their final norms; rows of absent samples are zero."""

    image: Tensor | None
    """`(B, I, D)`, None without pictures."""
    audio: Tensor | None
    """`(B, A, D)`, None without sound."""
    fusion: Tensor
    """`(B, F, D)`: fusion, image-aggregation and audio-aggregation tokens, in this order."""
    layers: tuple[LayerTokens, ...] | None = None
    """Each layer's tokens, if asked for."""


class EarlyFusionEncoder(nn.Module, PretrainedModel):
    """Two ViTs and the fusion tokens between them."""

    config_class = EarlyFusionConfig

    def __init__(self, config: EarlyFusionConfig) -> None:
        super().__init__()
        self.config = config
        dims = (config.patch_size, config.embed_dim, config.depth, config.num_heads, config.mlp_ratio, config.drop_path)
        times = frame_positions(config, config.embed_dim)
        self.image = VisionTransformer(3, config.image_size, *dims, times, patch_embed=config.patch_embed)
        self.audio = VisionTransformer(1, config.audio_size, *dims, patch_embed=config.patch_embed)
        self.fusion_tokens = nn.Parameter(torch.empty(1, sum(config.num_tokens), config.embed_dim))
        self.fusion_blocks = nn.ModuleDict({str(i): FusionBlock(config) for i in config.fused})
        self.fusion_norm = nn.LayerNorm(config.embed_dim)
        self.gradient_checkpointing = False
        self.is_frozen = False
        self.apply(initialize)
        nn.init.normal_(self.fusion_tokens, std=0.02)

    @classmethod
    def own_part(
        cls, values: dict[str, Any], state: dict[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """The encoder of a model that stands on one."""
        encoder = values.get("encoder")
        return (encoder, strip_prefix(state, "encoder.")) if isinstance(encoder, dict) else None

    def freeze(self) -> None:
        """Stay as it is from here on: no gradients, and evaluation mode, so no drop path, whatever `train` is told."""
        self.is_frozen = True
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> EarlyFusionEncoder:
        """Training or evaluation mode; frozen it stays in evaluation mode, also as part of a model that trains."""
        return super().train(mode and not self.is_frozen)

    def forward(
        self,
        image: Tensor | None,
        audio: Tensor | None,
        image_ids_keep: Tensor | None = None,
        audio_ids_keep: Tensor | None = None,
        return_layers: bool = False,
        image_present: Tensor | None = None,
        audio_present: Tensor | None = None,
    ) -> EncoderOutput:
        """Encode pictures and sound together.

        Args:
            image: `(B, 3, H, W)`, of several frames `(B, num_frames, 3, H, W)`, ImageNet-normalised; None if no sample
                has a picture.
            audio: `(B, 1, M, T)` log-mel; None if no sample has sound.
            image_ids_keep: `(B, K)` numbers of the visible image patches, counted through all encoded frames, None for
                all; outputs keep this order.
            audio_ids_keep: the same for audio.
            return_layers: also return every layer's tokens.
            image_present: `(B,)` bool, False where a sample's picture is missing; its pixels have no effect but must
                be finite.
            audio_present: the same for audio.

        Raises:
            ValueError: both inputs are None, or an input has another size than the configuration's.
        """
        given = image if image is not None else audio
        if given is None:
            raise ValueError("the encoder needs an image or an audio input, both are None")
        if image is not None and self.config.encode_frames == "reference":
            image = reference_picture(image)
        tokens = LayerTokens(
            None if image is None else self.image.embed(image, image_ids_keep),
            None if audio is None else self.audio.embed(audio, audio_ids_keep),
            self.fusion_tokens.expand(len(given), -1, -1),
        )
        layers: list[LayerTokens] = []
        for i in range(self.config.depth):
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                tokens = checkpoint(self.layer, i, tokens, image_present, audio_present, use_reentrant=False)
            else:
                tokens = self.layer(i, tokens, image_present, audio_present)
            if return_layers:
                layers.append(tokens)
        return EncoderOutput(
            None if tokens.image is None else where_present(self.image.norm(tokens.image), image_present),
            None if tokens.audio is None else where_present(self.audio.norm(tokens.audio), audio_present),
            self.fusion_norm(tokens.fusion),
            tuple(layers) if return_layers else None,
        )

    def layer(
        self, i: int, tokens: LayerTokens, image_present: Tensor | None, audio_present: Tensor | None
    ) -> LayerTokens:
        """Layer `i`: all three streams from the layer's inputs."""
        image, audio, fusion = tokens
        fuses = str(i) in self.fusion_blocks
        context = fusion if fuses else None
        return LayerTokens(
            None if image is None else self.image.blocks[i](image, context),
            None if audio is None else self.audio.blocks[i](audio, context),
            self.fusion_blocks[str(i)](fusion, Streams(image, audio, image_present, audio_present))
            if fuses
            else fusion,
        )

    def layer_ids(self) -> dict[str, int]:
        """The layer number of every parameter, for layer-wise learning rates.

        Patch embeddings and fusion tokens are 0, block and fusion block i are i + 1, final norms are depth + 1.
        """
        ids = {}
        for name, _ in self.named_parameters():
            # image.blocks.3.norm1.weight, fusion_blocks.3.norm2.weight, image.patch_embed.proj.weight, ...
            rest = name.partition("blocks.")[2]
            if rest:
                ids[name] = int(rest.split(".")[0]) + 1
            elif name == "fusion_tokens" or ".patch_embed." in name:
                ids[name] = 0
            else:
                ids[name] = self.config.depth + 1
        return ids


def initialize(module: nn.Module) -> None:
    """Xavier-uniform weights, zero biases; a patch embedding counts as the linear map it is. Use with `apply`."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
