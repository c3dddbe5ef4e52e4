"""Can heads on a frozen encoder learn whether a picture and a sound belong together? With standardised tokens, and not.

Image tokens of a solo, with the audio tokens of the same solo or of one whose instrument differs in size, and so in
pitch, by at least a fifth: half and half, so that chance is one half. Every task that joins the senses in its head has
to learn this. Heads are as small as can be: the product of two linear maps of mean tokens, a two-layer network on both
side by side, and image tokens that read audio tokens by cross-attention as in our segmentation decoder.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepavfusion.atomic import write_text
from deepavfusion.data.scenes.annotation import read_annotation
from deepavfusion.models.segmentation_decoder import ReadingBlock
from deepavfusion.models.token_norm import TokenNorm, measuring
from experiments.encoders import SEEDS
from experiments.steps import AnyStep, Making
from experiments.worlds import Worlds

LEAST_RATIO = 1.2
STEPS, BATCH, RATE = 900, 16, 1e-3
WIDTH = 64
TEST_DRAWS = 4


@dataclass(frozen=True)
class Matching:
    """Where the features of the encoder lie, and where the numbers go."""

    root: Path
    features: dict[str, Path]
    worlds: Worlds

    def numbers(self, head: str, measured: bool, seed: int) -> Path:
        return self.root / f"{head}-{'standardised' if measured else 'plain'}-{seed}.json"

    def steps(self, seed: int) -> list[AnyStep]:
        steps: list[AnyStep] = []
        for head in HEADS:
            for measured in (True, False):
                out = self.numbers(head, measured, seed)
                made = partial(match, self.features, self.worlds.root / "band_solos", head, measured, seed, out)
                steps.append(Making(made, out, tuple(self.features.values())))
        return steps

    def summarize(self, out: Path) -> None:
        """Write what is done."""
        rows = []
        for head in HEADS:
            for measured in (True, False):
                files = [self.numbers(head, measured, seed) for seed in SEEDS]
                found = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
                if found:
                    accuracies = [own["accuracy"] for own in found]
                    rows.append({"head": head, "standardised": measured, "seeds": accuracies, "num": found[0]["num"]})
        if rows:
            write_text(out, json.dumps({"rows": rows}, indent=1) + "\n")


class Product(nn.Module):
    """The inner product of what each sense is mapped to."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.image, self.audio = (nn.Sequential(TokenNorm(dim), nn.Linear(dim, WIDTH)) for _ in range(2))

    def forward(self, image: Tensor, audio: Tensor) -> Tensor:
        """Tokens `(B, N, D)` of either sense to logits `(B,)`."""
        return (self.image(image.mean(dim=1)) * self.audio(audio.mean(dim=1))).mean(dim=1)


class Network(nn.Module):
    """Two layers on both mean tokens side by side."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(TokenNorm(dim) for _ in range(2))
        self.layers = nn.Sequential(nn.Linear(2 * dim, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, 1))

    def forward(self, image: Tensor, audio: Tensor) -> Tensor:
        """Tokens `(B, N, D)` of either sense to logits `(B,)`."""
        pooled = [norm(tokens.mean(dim=1)) for norm, tokens in zip(self.norms, (image, audio), strict=True)]
        return self.layers(torch.cat(pooled, dim=1))[:, 0]


class Reading(nn.Module):
    """Image tokens read audio tokens twice, then vote."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.image, self.audio = (nn.Sequential(TokenNorm(dim), nn.Linear(dim, 2 * WIDTH)) for _ in range(2))
        self.norm = nn.LayerNorm(2 * WIDTH)
        self.readings = nn.ModuleList(ReadingBlock(2 * WIDTH) for _ in range(2))
        self.vote = nn.Linear(2 * WIDTH, 1)

    def forward(self, image: Tensor, audio: Tensor) -> Tensor:
        """Tokens `(B, N, D)` of either sense to logits `(B,)`."""
        x, context = self.image(image), self.norm(self.audio(audio))
        there = torch.ones(context.shape[:2], dtype=torch.bool)
        for reading in self.readings:
            x = reading(x, context, there)
        return self.vote(x.mean(dim=1))[:, 0]


HEADS: dict[str, type[Product] | type[Network] | type[Reading]] = {
    "product": Product,
    "network": Network,
    "cross-attention": Reading,
}


@dataclass(frozen=True)
class Solos:
    """Frozen tokens of solos and the logarithm of their instruments' sizes."""

    image: Tensor
    audio: Tensor
    log_size: Tensor

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Image tokens, audio tokens, and whether they are of one clip, 1 or 0."""
        shown = torch.randint(len(self.log_size), (count,), generator=generator)
        apart = (self.log_size[shown, None] - self.log_size[None]).abs() >= math.log(LEAST_RATIO)
        other = torch.multinomial(apart.float(), 1, generator=generator)[:, 0]
        own = torch.rand(count, generator=generator) < 0.5
        return self.image[shown], self.audio[torch.where(own, shown, other)], own.float()


def match(files: dict[str, Path], world: Path, name: str, measured: bool, seed: int, out: Path) -> None:
    """Train a head on the training solos' tokens, score it on the test solos'."""
    train, test = (_solos(file, world / part) for part, file in files.items())
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    head = HEADS[name](train.image.shape[-1])
    if measured:
        with torch.no_grad(), measuring(head):
            head(train.image[:128], train.audio[:128])
    optimizer = torch.optim.AdamW(head.parameters(), RATE, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS, pct_start=0.05, cycle_momentum=False)
    for _ in range(STEPS):
        image, audio, own = train.draw(BATCH, generator)
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(head(image, audio), own).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        generator, right = torch.Generator().manual_seed(0), []
        for _ in range(TEST_DRAWS):
            image, audio, own = test.draw(len(test.log_size), generator)
            right.append((head(image, audio) > 0) == (own > 0))
    accuracy = float(torch.cat(right).float().mean())
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps({"accuracy": accuracy, "num": len(test.log_size)}) + "\n")


def _solos(file: Path, clips: Path) -> Solos:
    with np.load(file, allow_pickle=False) as stored:
        ids, image, audio = stored["ids"], stored["image"].astype(np.float32), stored["audio"].astype(np.float32)
    sizes = []
    for name in ids:
        sources = read_annotation(str(clips / f"{name}.mp4")).sources
        sizes.append(next(source.size_pixels for source in sources if source.visible))
    return Solos(torch.from_numpy(image), torch.from_numpy(audio), torch.tensor(sizes).log())
