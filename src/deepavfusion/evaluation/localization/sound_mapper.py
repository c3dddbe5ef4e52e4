"""From image and sound to a map, by a trained head or by a method on the encoder alone.

Shape legend: `B` batch, `K` maps (classes, or one), `R C` rows and columns of the map, `H W` pixels, `p` side of a cell
in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from deepavfusion.evaluation.localization.config import MapMethod
from deepavfusion.models import EarlyFusionEncoder, Localizer
from deepavfusion.models.config import EarlyFusionConfig
from deepavfusion.models.localizer_config import LocalizerConfig
from deepavfusion.models.sound_maps import check_method, zero_shot_maps
from deepavfusion.storage.starting_point import encoder_config, load_encoder
from deepavfusion.storage.trained_models import open_models

UNTRAINED = "untrained:"
"""Before a run: its configuration with random weights."""

Maps = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class SoundMapper:
    """Makes score maps of normalised pictures `(B, 3, H, W)` or frames `(B, T, 3, H, W)` and log-mel spectrograms
    `(B, 1, mels, frames)`."""

    maps: Maps
    """`(B, K, R, C)` in [0, 1], on one scale for all pictures."""
    encoder: EarlyFusionConfig
    classes: tuple[str, ...]
    """One map each; empty for a single map."""
    name: str
    """Method and what decides about it, for the protocol."""
    cell_size: int
    """Pixels that a cell of a map is high and wide; without shifts."""
    shifts: int = 1
    dtype: torch.dtype | None = None
    """Of the forward pass under autocast; None is plain float32."""

    def __call__(self, image: Tensor, audio: Tensor) -> Tensor:
        """`(B, K, R, C)` float32 in [0, 1]; `shifts` times as many cells in both directions."""
        with torch.autocast(image.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            if self.shifts == 1:
                return self.maps(image, audio).float()
            return shifted_maps(self.maps, image, audio, self.cell_size, self.shifts)


def load_mapper(
    run: str,
    method: MapMethod = "auto",
    layers: tuple[int, ...] = (),
    *,
    device: torch.device,
    untrained: bool = False,
    shifts: int = 1,
    dtype: torch.dtype | None = None,
    seed: int = 0,
) -> SoundMapper:
    """The mapper of a run or model.

    Raises:
        ValueError: nothing there, a method that the model does not have, or shifts that do not divide its patches.
    """
    if run.startswith(UNTRAINED):
        run, untrained = run.removeprefix(UNTRAINED), True
    config = encoder_config(run)
    if config.patch_size % shifts:
        raise ValueError(f"shifts {shifts} must divide the patch side {config.patch_size} of {run}")
    has_head = _has_head(run)
    if method == "auto":
        method = "head" if has_head and not untrained else "rise" if config.fused else "audio_cosine"
    if method == "head":
        if not has_head or untrained:
            raise ValueError(f"method head: {run} has no trained head; train one, or choose a method that needs none")
        model = open_models(run).load("localization")
        assert isinstance(model, Localizer)
        return of_localizer(model.to(device), shifts, dtype)
    if not layers:
        layers = (config.fused[-1] if method == "attention" and config.fused else config.depth - 1,)
    check_method(config, method, layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = EarlyFusionEncoder(config)
    if not untrained:
        load_encoder(encoder, run)
    name = f"{method} of layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"
    name += ", untrained" if untrained else ""
    maps = partial(zero_shot_maps, encoder.to(device).eval(), method, layers)
    return SoundMapper(maps, config, (), name, config.patch_size, shifts, dtype)


def of_localizer(model: Localizer, shifts: int = 1, dtype: torch.dtype | None = None) -> SoundMapper:
    """The mapper of a trained head."""
    config: LocalizerConfig = model.config

    def maps(image: Tensor, audio: Tensor) -> Tensor:
        return model(image, audio).maps.sigmoid()

    if config.cell_size % shifts:
        raise ValueError(f"shifts {shifts} must divide the side {config.cell_size} of the map's cells")
    return SoundMapper(maps, config.encoder, config.classes, "head", config.cell_size, shifts, dtype)


def shifted_maps(maps: Maps, image: Tensor, audio: Tensor, cell_size: int, shifts: int) -> Tensor:
    """A finer map from overlapping shifts of the picture.

    The picture is moved by multiples of `p / shifts` in both directions, its border repeated where it moves in. A
    pixel's score is the mean over the cells that cover it in the moved pictures.

    Args:
        maps: scores of the cells of pictures, such as patches.
        image: `(B, 3, H, W)` or `(B, T, 3, H, W)`.
        audio: `(B, 1, mels, frames)`.
        cell_size: `p`.
        shifts: in each direction; divides `p`.

    Returns:
        `(B, K, H shifts / p, W shifts / p)`.
    """
    height, width = image.shape[-2:]
    step, first = cell_size // shifts, (shifts - 1) * (cell_size // shifts) // 2
    offsets = [i * step - first for i in range(shifts)]
    margin = cell_size
    wide = F.pad(image.flatten(0, -4), (margin, margin, margin, margin), mode="replicate")
    wide = wide.unflatten(0, image.shape[:-3])
    total: Tensor | None = None
    count = torch.zeros(height, width, device=image.device)
    for down in offsets:
        for right in offsets:
            rows, columns = slice(margin + down, margin + down + height), slice(margin + right, margin + right + width)
            scores = maps(wide[..., rows, columns], audio).float()
            pixels = scores.repeat_interleave(cell_size, 2).repeat_interleave(cell_size, 3)
            # Pixel (y, x) of the moved picture is (y + down, x + right) of the picture itself.
            inside = (max(0, down), min(height, height + down), max(0, right), min(width, width + right))
            part = pixels[..., inside[0] - down : inside[1] - down, inside[2] - right : inside[3] - right]
            total = torch.zeros_like(pixels) if total is None else total
            total[..., inside[0] : inside[1], inside[2] : inside[3]] += part
            count[inside[0] : inside[1], inside[2] : inside[3]] += 1
    assert total is not None
    return F.avg_pool2d(total / count, step)


def _has_head(run: str) -> bool:
    if run.endswith(".json"):  # a configuration, of an untrained encoder
        return False
    return "localization" in open_models(run).tasks
