"""Separate recordings of any length: one estimate per picture, and what remains.

Shape legend: `N` pictures, `H W` pixels, `S` samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepavfusion.atomic import replacing
from deepavfusion.audio import SAMPLE_RATE
from deepavfusion.data.media import MediaFile
from deepavfusion.images import normalize
from deepavfusion.inference.overlap_add import consistent, overlap_add
from deepavfusion.inference.sources import given_picture
from deepavfusion.inference.timeline import still_images, to_images
from deepavfusion.models.separator import Separator

BLOCK_SECONDS = 10.0
"""How much of a recording is read at a time."""
RESIDUAL = "residual"
"""Name of what remains of the mixture when all estimates are taken from it."""


@dataclass(frozen=True)
class SeparatedFile:
    """Files of a separated recording: mono, 16 kHz, 32-bit float."""

    sources: dict[str, Path]
    """By name of the picture."""
    residual: Path
    """The mixture minus all sources."""
    num_samples: int


def separate_blocks(
    model: Separator, image: Tensor, blocks: Iterable[Tensor], mixture_consistent: bool = False
) -> Iterator[Tensor]:
    """Separate a recording that comes in parts, in bounded memory.

    Args:
        model: in evaluation mode.
        image: `(N, 3, H, W)` uint8 of the model's picture size, one per source that is asked for; `(N, T, 3, H, W)` for
            a model of several frames.
        blocks: mono sound at 16 kHz, each part `(n,)`.
        mixture_consistent: make the estimates of every window add up to it.

    Yields:
        Parts of the estimates `(N, n)`, one after the other.

    Raises:
        ValueError: a recording without samples.
    """
    device = next(model.parameters()).device
    pictures = normalize(image.to(device))

    def process(window: Tensor) -> Tensor:
        mixture = window.to(device).expand(len(pictures), -1)
        with torch.inference_mode():
            estimates = model(pictures, mixture).waveform()
        estimates = estimates.cpu()
        return consistent(estimates, window) if mixture_consistent else estimates

    return overlap_add(blocks, model.config.num_samples, process)


def separate_recording(model: Separator, image: Tensor, mixture: Tensor, mixture_consistent: bool = False) -> Tensor:
    """Estimates `(N, S)` for a recording `(S,)` that is in memory; arguments as of `separate_blocks`."""
    return torch.cat(list(separate_blocks(model, image, [mixture], mixture_consistent)), dim=1)


def separate_file(
    model: Separator,
    path: str,
    pictures: Sequence[NDArray[np.uint8]],
    out: str | Path,
    names: Sequence[str] = (),
    mixture_consistent: bool = False,
) -> SeparatedFile:
    """Separate a media file of any length into one wav file per picture and one for what remains.

    Args:
        model: in evaluation mode.
        path: a file with sound.
        pictures: `(h, w, 3)` of any size, one per source that is asked for; brought to the model's size as `predict
            --pictures` does: squeezed, or cropped for a model to which the size of things matters.
        out: folder of the wav files, which appear when they are complete.
        names: of the sources, and so of the files; default source_0, source_1, ...
        mixture_consistent: make the estimates add up to the mixture.

    Raises:
        ValueError: no picture, names that do not fit, or a file without sound.
        MediaError: the file cannot be read.
    """
    names = tuple(names) or tuple(f"source_{n}" for n in range(len(pictures)))
    if not pictures or len(names) != len(pictures) or len({*names, RESIDUAL}) <= len(names):
        raise ValueError(f"{len(pictures)} pictures need as many different names, other than {RESIDUAL}: {names}")
    shown = to_images(np.stack([given_picture(picture, model.config) for picture in pictures]))
    image = still_images(shown, model.config.encoder.num_frames)
    folder = Path(out)
    files = {name: folder / f"{name}.wav" for name in (*names, RESIDUAL)}
    num_samples = 0
    with MediaFile(path) as media, ExitStack() as stack:
        temporary = [stack.enter_context(replacing(file)) for file in files.values()]
        writers = [
            stack.enter_context(soundfile.SoundFile(file, "w", SAMPLE_RATE, 1, "FLOAT", format="WAV"))
            for file in temporary
        ]
        waiting: list[Tensor] = []  # parts of the mixture that are read and not yet separated

        def read() -> Iterator[Tensor]:
            for block in sound_blocks(media):
                waiting.append(block)
                yield block

        for estimates in separate_blocks(model, image, read(), mixture_consistent):
            mixture = torch.cat(waiting)
            count = estimates.shape[1]
            waiting[:] = [mixture[count:]]
            rows = [*estimates, mixture[:count] - estimates.sum(dim=0)]
            for writer, row in zip(writers, rows, strict=True):
                writer.write(row.numpy())
            num_samples += count
    return SeparatedFile({name: files[name] for name in names}, files[RESIDUAL], num_samples)


def sound_blocks(media: MediaFile) -> Iterator[Tensor]:
    """The sound of a file from its start to its end, in parts `(n,)` at 16 kHz."""
    number = 0
    while True:
        block = media.sound(number * BLOCK_SECONDS, BLOCK_SECONDS, SAMPLE_RATE)
        if len(block):
            yield torch.from_numpy(block)
        if len(block) < round(BLOCK_SECONDS * SAMPLE_RATE):
            return
        number += 1
