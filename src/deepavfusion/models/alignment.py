"""Contrastive alignment of two moments of a clip: each moment should be recognised among those of other clips.

The encoder gets image and audio of the first moment together, and image and audio of the second moment each alone. Each
stream of the first moment is projected into a joint space, as are image and audio of the second, and InfoNCE compares
them over the batch (van den Oord et al. 2018; the projections follow SimCLR). Two moments of a clip share what lasts:
the objects and their sounds. Image and audio of the second moment are also compared with each other, which makes the
joint space usable for retrieval between them.

Mean tokens differ little between clips, so they are standardised over the batch first. With several processes all clips
are compared with each other, as if the batch were one.

Shape legend: `B` clips, `D` width of the encoder, `E` of the joint space.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather

from deepavfusion.models.config import AlignmentConfig, EarlyFusionConfig
from deepavfusion.models.encoder import EncoderOutput

Encoded = Mapping[str, Tensor]
"""By stream, `(B,)` bool: whose first moment has it."""
LARGEST_SCALE = 50.0
"""The most that the inverse of the learned temperature may be."""
STREAMS = ("image", "audio", "fusion")


class Alignment(nn.Module):
    """Projections into the joint space, and the loss in it."""

    def __init__(self, encoder: EarlyFusionConfig, config: AlignmentConfig) -> None:
        super().__init__()
        self.only_fusion = config.together == "fusion" and bool(encoder.fused)
        self.streams = STREAMS if encoder.fused else STREAMS[:2]
        width, dims = encoder.embed_dim, (config.hidden_dim, config.dim)
        alone = width * (2 if encoder.fused else 1)  # its own tokens, and the fusion tokens that have read them
        self.together = nn.ModuleDict({name: Projection(width, *dims) for name in self.streams})
        self.alone = nn.ModuleDict({name: Projection(alone, *dims) for name in STREAMS[:2]})
        self.log_scale = nn.Parameter(torch.tensor([1 / config.temperature]).log())

    def forward(
        self, first: EncoderOutput, image: EncoderOutput, audio: EncoderOutput, there: Tensor, encoded: Encoded
    ) -> dict[str, Tensor]:
        """Mean InfoNCE in both directions, by target.

        Args:
            first: the streams of the first moment, both modalities together.
            image: those of the second moment's image alone.
            audio: those of its audio alone.
            there: `(B,)` bool, clips that have image and audio at both moments; the others take no part.
            encoded: which streams of the first moment were encoded; the others take no part either.

        Returns:
            `image` and `audio`: mean over the first moment's streams of the InfoNCE loss with the second's image, or
            audio; `pair`: the loss between these two. 0 where fewer than two clips take part.
        """
        with torch.autocast(there.device.type, enabled=False):
            means = [getattr(first, name).float().mean(dim=1) for name in self.streams]
            if self.only_fusion:  # who has both senses learns by the fusion tokens
                image_seen, heard = encoded["image"], encoded["audio"]
                encoded = {**encoded, "image": image_seen & ~heard, "audio": heard & ~image_seen}
            flags = torch.stack([there, *(there & encoded[name] for name in self.streams)], dim=1)
            means += [self.pooled(image), self.pooled(audio), flags.float()]
            *means, flags = self.of_all(torch.cat(means, dim=1)).split([x.shape[1] for x in means], dim=1)
            there, *known = flags.bool().unbind(dim=1)
            queries = [
                project(x, own) for project, x, own in zip(self.together.values(), means[:-2], known, strict=True)
            ]
            targets = {
                name: project(x, there) for (name, project), x in zip(self.alone.items(), means[-2:], strict=True)
            }
            terms = {
                name: torch.stack(
                    [self.info_nce(query, target, own, there) for query, own in zip(queries, known, strict=True)]
                ).mean()
                for name, target in targets.items()
            }
            return {**terms, "pair": self.info_nce(targets["image"], targets["audio"], there, there)}

    def pooled(self, out: EncoderOutput) -> Tensor:
        """Mean tokens of the streams that are there, side by side, in float32: `(B, D)` or `(B, 2 D)`."""
        found = [x for name in self.streams if (x := getattr(out, name)) is not None]
        return torch.cat([x.float().mean(dim=1) for x in found], dim=1)

    def embed(self, out: EncoderOutput) -> Tensor:
        """A picture or a sound that was encoded alone, as a unit vector of the joint space: `(B, E)`.

        Raises:
            ValueError: both senses were encoded, or neither.
        """
        if (out.image is None) == (out.audio is None):
            raise ValueError("the joint space takes a picture or a sound that was encoded alone")
        name = "image" if out.audio is None else "audio"
        return F.normalize(self.alone[name](self.pooled(out)), dim=1)

    def info_nce(self, x: Tensor, y: Tensor, x_there: Tensor, y_there: Tensor) -> Tensor:
        """InfoNCE of rows `(B, E)` that belong together where they have the same number, both ways; a scalar.

        Rows that are not there, `(B,)` bool, are compared with none.
        """
        logits = F.normalize(x, dim=1) @ F.normalize(y, dim=1).T * self.log_scale.exp().clamp(max=LARGEST_SCALE)
        logits = logits.masked_fill(~(x_there[:, None] & y_there), -1e4)
        own = torch.arange(len(x), device=x.device)
        loss = (F.cross_entropy(logits, own, reduction="none") + F.cross_entropy(logits.T, own, reduction="none")) / 2
        both = x_there & y_there
        return (loss * both).sum() / both.sum().clamp_min(1)

    def of_all(self, x: Tensor) -> Tensor:
        """The rows of all processes, in their order; of one process its own."""
        if not (self.training and torch.distributed.is_available() and torch.distributed.is_initialized()):
            return x
        return torch.cat(all_gather(x.contiguous()))


class Projection(nn.Module):
    """From mean tokens to the joint space: two layers, standardised before, between and after them."""

    def __init__(self, dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.before, self.between, self.after = (Standardized(n) for n in (dim, hidden_dim, out_dim))
        self.hidden = nn.Linear(dim, hidden_dim)
        self.out = nn.Linear(hidden_dim, out_dim, bias=False)

    def forward(self, x: Tensor, there: Tensor | None = None) -> Tensor:
        """`(B, dim)` to `(B, out_dim)`; `there` `(B,)` says whose statistics count."""
        x = F.gelu(self.between(self.hidden(self.before(x, there)), there))
        return self.after(self.out(x), there)


class Standardized(nn.Module):
    """BatchNorm without scale and shift over some rows of a batch: what is absent does not enter the statistics."""

    def __init__(self, dim: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))
        self.mean: Tensor
        self.variance: Tensor

    def forward(self, x: Tensor, there: Tensor | None = None) -> Tensor:
        """`(B, dim)`, standardised by the rows that are there in training, by what training saw afterwards."""
        mean, variance = self.mean, self.variance
        if self.training:
            weight = torch.ones_like(x[:, :1]) if there is None else there.to(x.dtype)[:, None]
            count = weight.sum().clamp_min(1)
            mean = (x * weight).sum(dim=0) / count
            variance = ((x - mean).square() * weight).sum(dim=0) / count
            with torch.no_grad():
                share = self.momentum * (count > 1)
                self.mean.lerp_(mean.detach(), share)
                self.variance.lerp_(variance.detach(), share)
        return (x - mean) * (variance + self.eps).rsqrt()
