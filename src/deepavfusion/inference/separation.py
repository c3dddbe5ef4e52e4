"""Separation of recordings of any length: the sound of the source in each image, and the residual.

The images of a window are taken from its middle, so that sources may move. Windows overlap by half and are put together
by `overlap_add`.

Shape legend: `N` sources, `n` samples, `W` samples of a window, `S` of a recording, `H W` pixels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from deepavfusion.images import normalize
from deepavfusion.inference.inputs import Recording, open_recording
from deepavfusion.inference.overlap_add import consistent, overlap_add
from deepavfusion.inference.shared_film import FilmReader, SharedFilm
from deepavfusion.inference.sliding_sound import sound_blocks
from deepavfusion.inference.sources import AskedSources, SourcePart, given_picture, source_parts
from deepavfusion.inference.steps import Steps, finish
from deepavfusion.inference.timeline import Compute, still_images, to_images
from deepavfusion.inference.windows import times_around
from deepavfusion.models.no_numbers import check_numbers
from deepavfusion.models.separator import Separator

RESIDUAL = "residual"
"""Name of what remains of a recording when all sources are taken from it."""


@dataclass(frozen=True)
class SourceBlock:
    """A stretch of the recording, taken apart."""

    mixture: NDArray[np.float32]
    """`(n,)`."""
    sources: NDArray[np.float32]
    """`(N, n)`."""

    @property
    def residual(self) -> NDArray[np.float32]:
        """`(n,)`: the mixture minus all sources."""
        return self.mixture - self.sources.sum(axis=0)


@dataclass(frozen=True)
class SeparatedFile:
    """Files of a separated recording: mono, 16 kHz, 32-bit float."""

    sources: dict[str, Path]
    """By name of the picture."""
    residual: Path
    """The mixture minus all sources."""
    num_samples: int


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
    asked = AskedSources(pictures=tuple(pictures))
    names = tuple(names) or asked.names
    if not pictures or len(names) != len(pictures) or len({*names, RESIDUAL}) <= len(names):
        raise ValueError(f"{len(pictures)} images need as many different names, other than {RESIDUAL}: {names}")
    files = {name: Path(out) / f"{name}.wav" for name in (*names, RESIDUAL)}
    compute = Compute(next(model.parameters()).device)
    with open_recording(path) as recording:
        blocks = separate_recording(model, recording, SharedFilm(recording), asked, mixture_consistent, compute)
        num_samples = finish(write_sounds(blocks, files))
    return SeparatedFile({name: files[name] for name in names}, files[RESIDUAL], num_samples)


def write_sounds(
    blocks: Iterable[SourceBlock],
    files: Mapping[str, Path],
    told: Callable[[list[NDArray[np.float32]]], None] | None = None,
) -> Steps[int]:
    """Write the sources and the residual as they come; the files appear when all are complete.

    Args:
        blocks: of `separate_recording`.
        files: by name of the source, the residual last.
        told: is given the rows of every block.

    Returns:
        Samples of each file.
    """
    num_samples = 0
    with ExitStack() as stack:
        writers: list[soundfile.SoundFile] = []
        for block in blocks:
            if not writers:  # nothing is written of a recording that gives nothing
                writers = [
                    stack.enter_context(soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "FLOAT", format="WAV"))
                    for path in [stack.enter_context(replacing(file)) for file in files.values()]
                ]
            rows = [*block.sources, block.residual]
            for writer, row in zip(writers, rows, strict=True):
                writer.write(row)
            num_samples += len(block.mixture)
            if told is not None:
                told(rows)
            yield num_samples / SAMPLE_RATE
    return num_samples


def separate_recording(
    model: Separator,
    recording: Recording,
    film: SharedFilm,
    asked: AskedSources,
    mixture_consistent: bool,
    compute: Compute,
) -> Iterator[SourceBlock]:
    """Take a recording apart, in bounded memory.

    Args:
        model: in evaluation mode, on its device.
        recording: with sound.
        film: its pictures, of which those in the middle of windows are asked for at once.
        asked: by what sources are asked for.
        mixture_consistent: make the estimates add up to the mixture.
        compute: how.

    Raises:
        MediaError: the recording cannot be read.
        ValueError: no sound, or no picture to ask by.
    """
    info = recording.info
    if not info.has_sound:
        raise ValueError(f"{recording.name}: has no sound to separate")
    if not info.has_picture and not asked.pictures:
        raise ValueError(f"{recording.name}: has no video to show the source; give pictures")
    num_samples, num_frames = model.config.num_samples, model.config.encoder.num_frames
    if asked.pictures:
        given = to_images(np.stack([given_picture(picture, model.config) for picture in asked.pictures]))
        shown: Iterator[Tensor] = itertools.repeat(still_images(given, num_frames))
    else:
        parts = source_parts(asked.boxes, info.height, info.width, model.config)
        window, length = num_samples / SAMPLE_RATE, info.duration_seconds
        # As many windows as there can be: the sound may end before the picture.
        centres = np.arange(1, max(1, math.ceil(length / (window / 2))) + 1) * window / 2
        moments = np.minimum(centres, length)
        moments[0] = min(centres[0], length / 2)
        times = times_around(moments, window, num_frames, length)
        shown = _shown(parts, [film.reader(times, part.crop) for part in parts], times)
    return _separate(model, recording, shown, mixture_consistent, compute)


def _shown(parts: Sequence[SourcePart], readers: Sequence[FilmReader], times: NDArray[np.float64]) -> Iterator[Tensor]:
    """Pictures of window after window, `(N, 3, H, W)` or of several frames."""
    try:
        for number in range(len(times)):
            row = times[number : number + 1]
            seen = [part.painted(reader.at(row)) for part, reader in zip(parts, readers, strict=True)]
            yield to_images(np.concatenate(seen))
        while True:  # the sound goes on a little longer than it was said to
            yield to_images(np.concatenate(seen))
    finally:
        for reader in readers:
            reader.close()


def _separate(
    model: Separator,
    recording: Recording,
    shown: Iterator[Tensor],
    mixture_consistent: bool,
    compute: Compute,
) -> Iterator[SourceBlock]:
    waiting: list[Tensor] = []  # parts of the mixture that are read and not yet separated

    def read() -> Iterator[Tensor]:
        for block in sound_blocks(recording):
            waiting.append(torch.from_numpy(block))
            yield waiting[-1]

    def process(window: Tensor) -> Tensor:
        estimates = separate_window(model, next(shown), window, compute)
        check_numbers(estimates)
        return consistent(estimates, window) if mixture_consistent else estimates

    for estimates in overlap_add(read(), model.config.num_samples, process):
        mixture, count = torch.cat(waiting), estimates.shape[1]
        waiting[:] = [mixture[count:]]
        yield SourceBlock(mixture[:count].numpy(), estimates.numpy())


def separate_sound(model: Separator, image: Tensor, mixture: Tensor, compute: Compute) -> Tensor:
    """Estimates `(N, S)` of the sources in pictures `(N, 3, H, W)` uint8 of the model's size, or of several frames, for
    a recording `(S,)` that is in memory."""

    def process(window: Tensor) -> Tensor:
        return separate_window(model, image, window, compute)

    return torch.cat(list(overlap_add([mixture], model.config.num_samples, process)), dim=1)


def separate_window(model: Separator, image: Tensor, window: Tensor, compute: Compute) -> Tensor:
    """Estimates `(N, W)` of one window `(W,)` of a mixture, for pictures as of `separate_sound`."""
    mixture, rows = window.to(compute.device), []
    for first in range(0, len(image), compute.batch_size):
        own = normalize(image[first : first + compute.batch_size].to(compute.device))
        with torch.inference_mode(), compute.autocast():
            rows.append(model(own, mixture.expand(len(own), -1)))
    return torch.cat([row.waveform().float().cpu() for row in rows])
