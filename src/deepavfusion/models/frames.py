"""Several frames of a clip in one stream of image tokens: their time embedding, and the frame that answers are about.

The `T` frames of a window of sound are shown at the centres of its `T` equal parts. Their tokens follow one another,
frame by frame, each with the position of its patch and the time of its frame. Times are counted from the middle frame,
the *reference*: its time embedding is zero, so that its tokens are those of a model of one frame, and weights trained
on one frame can start a model of several. The unit is a column of audio patches: the same for both modalities, whatever
`T` is.

Shape legend: `B` batch, `T` frames, `N` patches of a frame, `K` visible patches, `D` width, `H W` pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from deepavfusion.models.config import EarlyFusionConfig, reference_frame


def frame_positions(config: EarlyFusionConfig, dim: int) -> Tensor | None:
    """Sine-cosine time embedding `(T, D)` float32, zero at the reference frame; None for one frame.

    With t the time from the reference: D/2 channels sin(w t), D/2 channels cos(w t) - 1, w = 10000^(-i / (D/2)).
    """
    if config.num_encoded_frames == 1:
        return None
    frequencies = 10000.0 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim // 2))
    steps = torch.arange(config.num_frames, dtype=torch.float64) - reference_frame(config.num_frames)
    angles = (steps * config.audio_grid[1] / config.num_frames)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos() - 1], dim=1).float()


def token_positions(places: Tensor, times: Tensor | None, ids: Tensor | None = None) -> Tensor:
    """Positions of tokens in the stream.

    Args:
        places: `(N, D)` of the patches of a frame.
        times: `(T, D)` of the frames; None for one frame.
        ids: `(B, K)` numbers of patches, counted through all frames; None for all of them.

    Returns:
        `(B, K, D)`, or `(1, T N, D)` for all.
    """
    if times is None:
        return places[None] if ids is None else F.embedding(ids, places)
    if ids is None:
        return (times[:, None] + places).flatten(0, 1)[None]
    return F.embedding(ids % len(places), places) + F.embedding(ids // len(places), times)


def reference_tokens(tokens: Tensor, config: EarlyFusionConfig) -> Tensor:
    """Of what all encoded frames' tokens have, `(B, T N, ...)`, that of the reference frame, `(B, N, ...)`."""
    return tokens.unflatten(1, (config.num_encoded_frames, -1))[:, reference_frame(config.num_encoded_frames)]


def sound_of_frames(audio: Tensor, config: EarlyFusionConfig) -> Tensor:
    """The mean audio token of each frame's part of the window, of one frame all of it: `(B, A, D)` -> `(B, T, D)`."""
    if config.num_frames == 1:
        return audio.mean(dim=1, keepdim=True)
    columns = audio.unflatten(1, config.audio_grid).mean(dim=1)  # (B, columns, D), in time
    return F.adaptive_avg_pool1d(columns.mT, config.num_frames).mT


def reference_picture(image: Tensor) -> Tensor:
    """The reference frame of `(B, T, 3, H, W)`, as `(B, 3, H, W)`; pictures of one frame stay as they are."""
    return image[:, reference_frame(image.shape[1])] if image.ndim == 5 else image
