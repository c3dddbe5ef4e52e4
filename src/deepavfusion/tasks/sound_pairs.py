"""Matching and mismatched pairs of image and sound made from a batch, and collages of several images.

Random draws are made on the host from torch's generator, which the loop seeds by the step; nothing waits for the
device.

Shape legend: `B` batch, `H W` pixels, `S` samples of sound.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from deepavfusion.data.dataset import Batch
from deepavfusion.data.sets.listing import split_labels

NUM_CELLS = 4
"""Pictures in a collage, two by two."""


def audible(batch: Batch, quiet_db: float) -> Tensor:
    """bool `(B,)`: there is sound, and its root mean square reaches `quiet_db` decibels of full scale."""
    level = batch.waveform.square().mean(dim=1)
    return batch.audio_present & (level >= 10 ** (quiet_db / 10))


def strangers(batch: Batch) -> Tensor:
    """bool `(B, B)` on the host: whether clip j may stand in for one that has nothing to do with clip i.

    It is another clip, and has no label in common with it where the labels of both are known.
    """
    ids = _numbers(batch.ids)
    own = [split_labels(label) for label in batch.labels]
    names = _numbers([name for labels in own for name in labels])
    has = torch.zeros(len(batch), 1 + max(names.tolist(), default=-1))
    has[torch.arange(len(batch)).repeat_interleave(torch.tensor([len(labels) for labels in own])), names] = 1
    return (ids[:, None] != ids[None]) & (has @ has.T == 0)


def _numbers(names: Sequence[str]) -> Tensor:
    """Int64 `(n,)`: equal names have equal numbers, from 0."""
    known = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([known[name] for name in names], dtype=torch.int64)


def draw_partners(allowed: Tensor, count: int = 1) -> Tensor:
    """For each row `count` random columns that are allowed, different ones as far as there are enough.

    Args:
        allowed: bool `(B, B)`, on any device; a row without any gets columns without meaning.
        count: partners per row.

    Returns:
        int64 `(B, count)` on the device of `allowed`.
    """
    draws = torch.rand(allowed.shape).to(allowed.device, non_blocking=True)
    ranked = torch.where(allowed, draws, -1.0).argsort(dim=1, descending=True)
    number = allowed.sum(dim=1, keepdim=True).clamp_min(1)
    places = torch.arange(count, device=allowed.device) % number  # begin again where there are too few
    return ranked.gather(1, places)


def collages(image: Tensor, members: Tensor) -> Tensor:
    """Four pictures at half their size in one.

    Args:
        image: `(B, 3, H, W)` float, both sides even; of several frames `(B, T, 3, H, W)`, put together frame by frame.
        members: int `(N, 4)`: which pictures, in the order top left, top right, bottom left, bottom right.

    Returns:
        `(N, 3, H, W)` or `(N, T, 3, H, W)`.
    """
    small = F.avg_pool2d(image.flatten(0, -4), 2).unflatten(0, image.shape[:-3])
    small = small[members]  # (N, 4, ..., 3, H / 2, W / 2)
    return torch.cat([torch.cat([small[:, 0], small[:, 1]], dim=-1), torch.cat([small[:, 2], small[:, 3]], dim=-1)], -2)


def cells(maps: Tensor) -> Tensor:
    """The four quarters of maps `(N, K, R, C)`, both sides even, in the order of `collages`: `(N, K, 4, R C / 4)`."""
    rows, columns = maps.shape[-2] // 2, maps.shape[-1] // 2
    parts = maps.unflatten(-1, (2, columns)).unflatten(-3, (2, rows))  # (N, K, 2, R / 2, 2, C / 2)
    return parts.transpose(-3, -2).flatten(-2).flatten(-3, -2)
