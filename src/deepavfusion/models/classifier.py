"""Audio-event classifier: one linear head per stream of the encoder, and the average of their logits.

The heads are named as in the published weights: `image_head`, `audio_head`, `fusion_head`; a linear probe's
normalisations are `image_norm`, `audio_norm`, `fusion_norm`. A sample without one modality is classified by the heads
that have an input.

Shape legend: `B` batch, `N` tokens, `D` width, `C` classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepavfusion.models.attention import attention, merge_heads, split_heads
from deepavfusion.models.config import ClassifierConfig
from deepavfusion.models.encoder import EncoderOutput, initialize
from deepavfusion.models.encoder_model import EncoderModel
from deepavfusion.models.fusion import where_present
from deepavfusion.models.token_norm import TokenNorm

HEAD_STD = 0.01
"""Standard deviation of a new head's weights: all but nothing beside the bias."""


@dataclass
class ClassifierOutput:
    """Logits of every head and their average."""

    average: Tensor
    """`(B, C)`: mean over the heads that are present; 0 in a row with none."""
    logits: dict[str, Tensor]
    """By head, `(B, C)`; without meaning in a row whose head is not present."""
    present: dict[str, Tensor]
    """By head, bool `(B,)`: whether it had something to read."""


class AttentivePooling(nn.Module):
    """One learned query reads a stream's tokens; the head behind it is the output projection."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.query = nn.Parameter(torch.empty(1, 1, dim))
        self.norm = TokenNorm(dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.apply(initialize)
        nn.init.normal_(self.query, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """`(B, N, D)` -> `(B, D)`."""
        k, v = self.kv(self.norm(tokens)).chunk(2, dim=-1)
        q, k, v = (split_heads(t, self.num_heads) for t in (self.query.expand(len(tokens), -1, -1), k, v))
        return merge_heads(attention(q, k, v, self.scale))[:, 0]


class PresentBatchNorm(nn.BatchNorm1d):
    """Batch normalisation without scale and shift whose statistics are those of the samples that are present.

    Statistics are this process's and micro-batch's own, as in any batch normalisation that is not synchronised.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-6, affine=False)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """`(B, D)` and flags `(B,)` (None: all present) -> `(B, D)` float32."""
        x = x.float()
        if not self.training:
            return super().forward(x)
        weight = torch.ones_like(x[:, :1]) if present is None else present.float()[:, None]
        count = weight.sum()
        mean = (x * weight).sum(dim=0) / count.clamp_min(1)
        var = ((x - mean).square() * weight).sum(dim=0) / count.clamp_min(1)
        with torch.no_grad():
            momentum = (self.momentum or 0.0) * (count > 0)  # a batch without any leaves them as they are
            unbiased = var * count / (count - 1).clamp_min(1)
            self.running_mean.add_(momentum * (mean - self.running_mean))
            self.running_var.add_(momentum * (unbiased - self.running_var))
            self.num_batches_tracked.add_(1)
        return (x - mean) * (var + self.eps).rsqrt()


class AudioVisualClassifier(EncoderModel):
    """The early-fusion encoder and the classifiers on its streams."""

    config_class = ClassifierConfig

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__(config)
        self.config = config
        dim = config.encoder.embed_dim
        for stream in config.streams:
            if config.pooling == "attentive":
                self.add_module(f"{stream}_pool", AttentivePooling(dim, config.encoder.num_heads))
            if config.batch_norm:
                self.add_module(f"{stream}_norm", PresentBatchNorm(dim))
        for head in config.heads:
            linear = nn.Linear(2 * dim if head == "concat" else dim, len(config.classes))
            nn.init.trunc_normal_(linear.weight, std=HEAD_STD)
            nn.init.zeros_(linear.bias)
            self.add_module(f"{head}_head", linear)

    def blank_answer(self) -> Tensor:
        """Averaged logits of a blank picture and sound."""
        answer: ClassifierOutput = self(self.blank_image(), self.blank_audio())
        return answer.average

    def set_biases(self, biases: Tensor) -> None:
        """Start every head from the same biases `(C,)`, such as the classes' log-odds."""
        with torch.no_grad():
            for head in self.config.heads:
                self.get_submodule(f"{head}_head").bias.copy_(biases)  # type: ignore[operator]

    def forward(
        self,
        image: Tensor | None,
        audio: Tensor | None,
        image_present: Tensor | None = None,
        audio_present: Tensor | None = None,
    ) -> ClassifierOutput:
        """Classify pictures and sound together.

        Args:
            image: `(B, 3, H, W)`, of several frames `(B, T, 3, H, W)`, ImageNet-normalised; None if no sample has a
                picture.
            audio: `(B, 1, mels, frames)` log-mel; None if no sample has sound.
            image_present: `(B,)` bool, False where a sample has no picture; None if all that are given have one.
            audio_present: the same for audio.

        Raises:
            ValueError: nothing is left of the inputs, or one has another size than the configuration's.
        """
        image, audio = (None, audio) if self.config.modalities == "audio" else (image, audio)
        image, audio = (image, None) if self.config.modalities == "image" else (image, audio)
        tokens = self.encoder(image, audio, image_present=image_present, audio_present=audio_present)
        pooled = self.pool(streams_of(tokens))
        rows = tokens.fusion
        return self.classify(pooled, _flags(image, image_present, rows), _flags(audio, audio_present, rows))

    def pool(self, streams: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One vector `(B, D)` for each stream's tokens `(B, N, D)`, by name."""
        read = {name: x for name, x in streams.items() if name in self.config.streams}
        if self.config.pooling == "mean":
            return mean_pool(read)
        return {name: self.get_submodule(f"{name}_pool")(x) for name, x in read.items()}

    def classify(self, pooled: dict[str, Tensor], image_present: Tensor, audio_present: Tensor) -> ClassifierOutput:
        """Logits from one vector per stream.

        Args:
            pooled: by stream, `(B, D)`; a stream that no sample has may be lacking.
            image_present: bool `(B,)`.
            audio_present: bool `(B,)`.
        """
        has = {"image": image_present, "audio": audio_present, "fusion": image_present | audio_present}
        features = {}
        for stream in self.config.streams:
            x = pooled.get(stream)
            if x is None:
                x = torch.zeros_like(next(iter(pooled.values())))
            if self.config.batch_norm:
                x = self.get_submodule(f"{stream}_norm")(x, has[stream])
            features[stream] = where_present(x, has[stream])
        if "concat" in self.config.heads:
            has["concat"] = has["fusion"]
            features["concat"] = torch.cat([features["image"], features["audio"]], dim=1)
        logits: dict[str, Tensor] = {
            head: self.get_submodule(f"{head}_head")(features[head]).float() for head in self.config.heads
        }
        present: dict[str, Tensor] = {head: has[head] for head in self.config.heads}
        total = torch.stack([where_present(logits[head], present[head]) for head in logits]).sum(dim=0)
        count = torch.stack(list(present.values())).sum(dim=0).clamp_min(1)
        return ClassifierOutput(total / count[:, None], logits, present)


def streams_of(tokens: EncoderOutput) -> dict[str, Tensor]:
    """The streams that there are, `(B, N, D)` each, by name."""
    streams = {"image": tokens.image, "audio": tokens.audio, "fusion": tokens.fusion}
    return {name: x for name, x in streams.items() if x is not None}


def mean_pool(streams: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean token of every stream, `(B, N, D)` -> `(B, D)` each; 0 in the rows of absent samples."""
    return {name: x.mean(dim=1) for name, x in streams.items()}


def _flags(x: Tensor | None, present: Tensor | None, rows: Tensor) -> Tensor:
    if x is None:
        return torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    return torch.ones(len(rows), dtype=torch.bool, device=rows.device) if present is None else present.bool()
