"""Images as the models get them: normalised by ImageNet's mean and standard deviation (section 1 of the method).

Shapes: `B` batch, `H W` pixels.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

IMAGE_MEAN = (0.485, 0.456, 0.406)
"""Mean of red, green, blue over ImageNet, on a scale of 0 to 1."""
MEAN_COLOUR = tuple(round(255 * mean) for mean in IMAGE_MEAN)
"""The same from 0 to 255: nothing to see for a model that takes it away."""
IMAGE_STD = (0.229, 0.224, 0.225)
"""Standard deviation of red, green, blue over ImageNet, on a scale of 0 to 1."""


def normalize(image: Tensor) -> Tensor:
    """8-bit pictures `(B, 3, H, W)`, 0 to 255, to float32 with ImageNet's mean and deviation taken out.

    Frames `(B, T, 3, H, W)` are treated alike.
    Raises ValueError if the picture is not uint8: a picture already scaled to 0 to 1 would come out almost black.
    """
    if image.dtype != torch.uint8:
        raise ValueError(f"image has dtype {image.dtype}, expected uint8 values from 0 to 255")
    mean, std = _constants(image.device)
    return (image.float() / 255 - mean) / std


def denormalize(image: Tensor) -> Tensor:
    """The inverse of `normalize`, float to float, 0 to 1, values outside cut off."""
    mean, std = _constants(image.device)
    return (image.float() * std + mean).clamp(0, 1)


@lru_cache(maxsize=8)  # made once per device: every copy from the host would wait for the device
def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # a cached inference tensor could not take part in a later backward pass
        mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
        return mean, std
