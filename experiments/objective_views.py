"""Changes of a scene that leave the digits what they are, so that two views share no colour, level, noise or place.

Shape legend: `B` scenes; pictures `(B, 3, H, W)` normalised, sound `(B, 1, M, T)` log-mel.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST_MOVE, LARGEST_LIFT = 10, 2
"""Pixels that a picture moves, mel bands that a sound does."""
CONTRAST, TINT, SLOPE = (0.6, 1.4), 0.4, 0.6
"""Factor of a colour channel, what is added to all of it, and what is added at one side and taken at the other."""
GAIN = 0.6
"""In log10 of power: 6 dB."""
NOISE = (-3.5, -1.0)
"""Log10 of the mean power of added noise."""


def changed(image: Tensor, audio: Tensor, rng: torch.Generator, turns: bool = True) -> tuple[Tensor, Tensor]:
    """Another view of each scene: moved, recoloured, turned in time or not, lifted, louder or softer, noisier."""
    size, (bands, frames) = len(image), audio.shape[-2:]

    def moved(x: Tensor, dim: int, most: int) -> Tensor:
        """Along one axis by up to `most`, edges repeated."""
        shift = torch.randint(-most, most + 1, (size, 1), generator=rng)
        return _taken(x, dim, (torch.arange(x.shape[dim]) + shift).clamp(0, x.shape[dim] - 1))

    def uniform(low: float, high: float, channels: int = 3) -> Tensor:
        return torch.empty(size, channels, 1, 1).uniform_(low, high, generator=rng)

    image = moved(moved(image, 2, LARGEST_MOVE), 3, LARGEST_MOVE)
    down, across = torch.linspace(-1, 1, image.shape[2])[:, None], torch.linspace(-1, 1, image.shape[3])
    image = image * uniform(*CONTRAST) + uniform(-TINT, TINT)
    image = image + uniform(-SLOPE, SLOPE) * down + uniform(-SLOPE, SLOPE) * across
    turned = (torch.arange(frames) + turns * torch.randint(0, frames, (size, 1), generator=rng)) % frames
    audio = moved(_taken(audio, 3, turned), 2, LARGEST_LIFT) + uniform(-GAIN, GAIN, 1)
    # Power of noise is exponentially distributed.
    noise = -torch.rand(size, 1, bands, frames, generator=rng).clamp_min(1e-9).log() * 10 ** uniform(*NOISE, 1)
    return image, torch.log10(10**audio + noise)


def _taken(x: Tensor, dim: int, places: Tensor) -> Tensor:
    """Rows `(B, N)` of an axis, other ones for every sample."""
    shape = [len(x), 1, 1, 1]
    shape[dim] = -1
    return x.gather(dim, places.view(shape).expand(*(n if k != dim else -1 for k, n in enumerate(x.shape))))
