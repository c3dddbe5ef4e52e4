"""What the pilots on two-digit scenes train by: masked reconstruction, and terms beside it that are not in the product.

Shape legend: `B` scenes, `D` width, `E` width of the joint space.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepavfusion.models import AudioVisualMAE, EarlyFusionConfig, MaskedAutoencoderConfig
from deepavfusion.models.encoder import EncoderOutput
from deepavfusion.models.patch_mask import random_mask

JOINT_DIM, HIDDEN_DIM = 64, 256
TEMPERATURE, LARGEST_SCALE = 0.1, 50.0
"""Where the learned temperature starts, and the most its inverse may be."""
DIGITS = 10


@dataclass(frozen=True)
class Arm:
    """One way to train; the defaults are reconstruction alone with early fusion."""

    fuses: bool = True
    """In every layer, or in none: two separate encoders."""
    coupled: float = 0.0
    """Share of the steps in which one sense is hidden nearly whole and the other is seen more than usually."""
    pairs: float = 0.0
    """Weight of InfoNCE between a picture and its sound, each encoded alone."""
    views: float = 0.0
    """Weight of InfoNCE between all that is encoded: every stream of the joint view with either sense alone, and these
    with each other; a quarter of it for each."""
    halves: bool = False
    """With `views`: the joint view has half of the picture and half of the sound's time, the sound alone is the other
    half, so that they share what is heard twice."""
    targets: tuple[str, ...] = ("image", "audio")
    """With `views`: the senses that are encoded alone."""
    reconstruction: float = 1.0
    """Its weight."""
    labels: float = 0.0
    """Weight of the spoken digit's cross-entropy: what the encoder learns when it is told."""
    parts: int = 10
    """Training scenes, in parts of 4,000."""
    draws: int = 32_000
    """Scenes that training draws."""
    probes: int = 2
    """Probes of a run, evenly spread, the last at its end."""
    augmented: bool = False
    """Whether scenes are moved, recoloured and made noisier at every draw; with `views` they always are."""


ALONE_IMAGE_RATIO, ALONE_AUDIO_RATIO = 0.5, 0.6
"""Hidden shares of a sense that is encoded alone, and of both when labels teach."""
COUPLED_RATIOS = ((0.9, 0.5), (0.4, 0.95))
"""Hidden shares of picture and sound in either kind of coupled step."""


def autoencoder_config(fuses: bool) -> MaskedAutoencoderConfig:
    """The model of all pilots: 1.9 million weights of encoder with fusion."""
    return MaskedAutoencoderConfig(
        EarlyFusionConfig(
            image_size=(96, 96),
            audio_size=(128, 192),
            embed_dim=128,
            depth=4,
            num_heads=4,
            num_tokens=(8, 4, 4),
            fusion_layers="all" if fuses else "none",
        ),
        decoder_dim=64,
        image_decoder_depth=2,
        audio_decoder_depth=2,
        decoder_num_heads=2,
        decoder_form="cross",
        predicted_share=0.5,
        image_variance_floor=0.15,
        audio_variance_floor=0.5,
    )


class Pilot(nn.Module):
    """The masked autoencoder, with the projections and the classifier that an arm's terms need."""

    def __init__(self, arm: Arm) -> None:
        super().__init__()
        self.arm = arm
        self.autoencoder = AudioVisualMAE(autoencoder_config(arm.fuses))
        width = self.autoencoder.config.encoder.embed_dim
        self.streams = ("image", "audio", "fusion") if arm.fuses else ("image", "audio")
        alone = width * (2 if arm.fuses else 1)  # its own stream, and the fusion tokens that have read it
        if arm.pairs or arm.views:
            self.image_alone = projection(alone) if "image" in arm.targets else None
            self.audio_alone = projection(alone)
            self.log_scale = nn.Parameter(torch.tensor(1 / TEMPERATURE).log())
        if arm.views:
            self.joint = nn.ModuleDict({name: projection(width) for name in self.streams})
        if arm.labels:
            self.classifier = nn.Linear(width * len(self.streams), DIGITS)

    def forward(
        self, image: Tensor, audio: Tensor, again: tuple[Tensor, Tensor], digit: Tensor, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """The arm's terms by name, weighted.

        Args:
            image: `(B, 3, 96, 96)`.
            audio: `(B, 1, 128, 192)`.
            again: both in another view, for what is encoded alone.
            digit: `(B,)` spoken digits, for the arm with labels.
            rng: draws the masks.
        """
        arm, terms = self.arm, {}
        first = half(self.autoencoder.config.encoder.audio_grid, rng) if arm.halves else None
        if arm.reconstruction or arm.views:
            losses, encoded = self.reconstruct(image, audio, first, rng)
            terms.update({name: arm.reconstruction * loss for name, loss in losses.items()})
        alone = {}
        if arm.pairs or ("image" in arm.targets and arm.views):
            alone["image"] = self.image_alone(self.pooled(self.encode(again[0], None, rng)))
        if arm.pairs or arm.views:
            alone["audio"] = self.audio_alone(self.pooled(self.encode(None, again[1], rng, first)))
        if len(alone) == 2:
            terms["pairs"] = (arm.pairs or arm.views / 4) * self.info_nce(*alone.values())
        if arm.views:
            for name, head in self.joint.items():
                z = head(getattr(encoded, name).float().mean(1))
                for sense, other in alone.items():
                    terms[f"{name}_with_{sense}"] = arm.views / 4 * self.info_nce(z, other)
        if arm.labels:
            logits = self.classifier(self.pooled(self.encode(image, audio, rng)))
            terms["labels"] = arm.labels * F.cross_entropy(logits, digit)
        return terms

    def reconstruct(
        self, image: Tensor, audio: Tensor, first: Tensor | None, rng: torch.Generator
    ) -> tuple[dict[str, Tensor], EncoderOutput]:
        """Losses on the hidden patches of picture and sound under this step's masks if the arm has them, and the
        encoder's streams."""
        model, config = self.autoencoder, self.autoencoder.config
        sizes, kept = patches(config.encoder), (config.num_image_kept, config.num_audio_kept)
        noise = [torch.rand(len(image), n, generator=rng) for n in sizes]
        draw = float(torch.rand((), generator=rng))
        if draw < self.arm.coupled:
            ratios = COUPLED_RATIOS[draw < self.arm.coupled / 2]
            kept = tuple(int(n * (1 - ratio)) for n, ratio in zip(sizes, ratios, strict=True))
        if first is not None:
            noise[1], kept = noise[1] - first.float(), (sizes[0] // 2, sizes[1] // 2)
        masks = [
            random_mask(x, k, round(config.predicted_share * (n - k)))
            for x, n, k in zip(noise, sizes, kept, strict=True)
        ]
        out = model.encoder(image, audio, *(mask.ids_keep for mask in masks))
        losses = {}
        if self.arm.reconstruction:
            for name, x, stream, decoder, mask, floor in (
                ("image", image, out.image, model.image_decoder, masks[0], config.image_variance_floor),
                ("audio", audio, out.audio, model.audio_decoder, masks[1], config.audio_variance_floor),
            ):
                predicted = decoder(out.fusion, stream, mask)
                losses[name] = model.loss(x, predicted, mask.ids_predicted, variance_floor=floor)
        return losses, out

    def encode(
        self, image: Tensor | None, audio: Tensor | None, rng: torch.Generator, first: Tensor | None = None
    ) -> EncoderOutput:
        """What is there of two senses, seen in part; of the sound what is not in the first half, if there is one."""
        given = image if image is not None else audio
        assert given is not None
        sizes, ratios = patches(self.autoencoder.config.encoder), (ALONE_IMAGE_RATIO, ALONE_AUDIO_RATIO)
        ids = [
            torch.rand(len(given), n, generator=rng).argsort(1)[:, : int(n * (1 - ratio))].sort(1).values
            for n, ratio in zip(sizes, ratios, strict=True)
        ]
        if first is not None:
            ids[1] = (~first).nonzero()[:, 0].expand(len(given), -1)
        return self.autoencoder.encoder(image, audio, *ids)

    def pooled(self, encoded: EncoderOutput) -> Tensor:
        """Mean tokens of the streams that are there, side by side, in float32."""
        streams = (getattr(encoded, name) for name in self.streams)
        return torch.cat([x.float().mean(1) for x in streams if x is not None], dim=1)

    def info_nce(self, x: Tensor, y: Tensor) -> Tensor:
        """InfoNCE over the batch, both ways: rows of `x` and `y` `(B, E)` with the same number belong together."""
        x, y = (F.normalize(z.float(), dim=1) for z in (x, y))
        logits, own = x @ y.T * self.log_scale.exp().clamp(max=LARGEST_SCALE), torch.arange(len(x))
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def projection(dim: int) -> nn.Sequential:
    """To the joint space, by way of batch statistics: mean tokens of different scenes are nearly the same."""
    return nn.Sequential(
        nn.BatchNorm1d(dim, affine=False),
        nn.Linear(dim, HIDDEN_DIM, bias=False),
        nn.BatchNorm1d(HIDDEN_DIM),
        nn.GELU(),
        nn.Linear(HIDDEN_DIM, JOINT_DIM, bias=False),
        nn.BatchNorm1d(JOINT_DIM, affine=False),
    )


def half(grid: tuple[int, int], rng: torch.Generator) -> Tensor:
    """Half of the columns of a grid, one after the other from any of them, round the edge: `(N,)` bool.

    The same for all scenes of a step: if it differed, two views would be found by their positions alone.
    """
    columns, start = torch.arange(grid[0] * grid[1]) % grid[1], torch.randint(0, grid[1], (), generator=rng)
    return (columns - start) % grid[1] < grid[1] // 2


def patches(config: EarlyFusionConfig) -> tuple[int, int]:
    """Of picture and sound."""
    return config.num_image_patches, config.num_audio_patches
