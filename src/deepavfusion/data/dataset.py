"""From clips to batches: samples by number, and the fields of a batch.

Training sees an endless stream. Sample `s` of seed `g` is clip `order(g, s // N)[s % N]` of the `N` clips, and
everything random about it comes from a generator seeded by `(g, s)`. So a sample does not depend on the number of
workers or processes, nor on what was read before, and a run that continues at step `k` sees what it would have seen.

Shapes: `B` batch, `T` frames, `H W` pixels, `S` samples of sound, `Ni` and `Na` image and audio patches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from deepavfusion.data.clips import Clip, ClipError
from deepavfusion.data.locations import one_line
from deepavfusion.data.opening import Seek, open_clip
from deepavfusion.data.randomness import Purpose, generator
from deepavfusion.data.truth import Truth, crop_mask
from deepavfusion.data.views import CentreView, ClipView, TrainingView


@dataclass(frozen=True)
class Failure:
    """A clip that could not be read."""

    clip_id: str
    cause: str


@dataclass(frozen=True)
class Sample:
    """One view of one clip, as arrays. Absent modalities are zeros; two flags say which are present."""

    number: int
    """Sample number in training, position in the list of clips in evaluation."""
    clip: Clip
    image: NDArray[np.uint8]
    """`(H, W, 3)`, of several frames `(T, H, W, 3)`."""
    waveform: NDArray[np.float32]
    """`(S,)` in [-1, 1]."""
    image_present: bool
    audio_present: bool
    image_noise: NDArray[np.float32] | None = None
    """`(Ni,)` in [0, 1), of all frames."""
    audio_noise: NDArray[np.float32] | None = None
    """`(Na,)` in [0, 1)."""
    truth: NDArray[np.uint8] | None = None
    """`(H, W)` numbers, where masks are asked for."""
    failure: Failure | None = None
    second: Sample | None = None
    """The same clip at a second moment, where a task wants two."""


@dataclass(frozen=True)
class Batch:
    """What a model is trained or evaluated on."""

    image: Tensor
    """`(B, 3, H, W)` uint8, of several frames `(B, T, 3, H, W)`; zeros where absent."""
    waveform: Tensor
    """`(B, S)` float32 at 16 kHz in [-1, 1], zeros where absent."""
    image_present: Tensor
    """`(B,)` bool: the clip has a picture."""
    audio_present: Tensor
    """`(B,)` bool: the clip has sound in this window."""
    image_noise: Tensor | None
    """`(B, Ni)` float32 uniform in [0, 1), whose ranks decide the picture's masks; None in evaluation."""
    audio_noise: Tensor | None
    """`(B, Na)` float32 uniform in [0, 1), whose ranks decide the sound's masks; None in evaluation."""
    sample_numbers: list[int]
    """Sample numbers in training, positions in the list of clips in evaluation."""
    ids: list[str]
    """Clip ids."""
    labels: list[str | None]
    """Class names, None where unknown."""
    failures: list[Failure]
    """Clips of this batch that could not be read. They are still in it, with both tracks absent."""
    truth: Tensor | None = None
    """`(B, H, W)` uint8 numbers of what each pixel (of the reference frame) shows, where masks are asked for; zeros for
    failures."""
    second: Batch | None = None
    """The same clips at a second moment, where a task wants two."""

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from where a GPU copies without waiting."""
        return self._map(Tensor.pin_memory)

    def tensors(self) -> dict[str, Tensor]:
        """The fields that are tensors, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {name: function(tensor) for name, tensor in self.tensors().items()}
        second = None if self.second is None else self.second._map(function)
        return replace(self, **changed, second=second)


class ClipStream(Dataset[Sample]):
    """The endless training stream: item `s` is sample number `s`."""

    def __init__(
        self,
        clips: Sequence[Clip],
        view: TrainingView,
        seed: int,
        num_patches: tuple[int, int] | None = None,
        seek: Seek = "exact",
        truth: Truth | None = None,
        two_moments: bool = False,
    ) -> None:
        """
        Args:
            clips: what to read; an epoch is each of them once.
            view: how to draw a view.
            seed: decides order, views and masks; not negative.
            num_patches: patches of picture and sound, for the masking noise; None makes no noise.
            seek: `nearest_keyframe` trades the exact frame for speed.
            truth: where masks come from, if they are wanted; frames are then those that have one.
            two_moments: draw a second view of the same clip too, with masks of its own.
        """
        if not clips:
            raise ValueError("a stream needs at least one clip")
        if seed < 0:
            raise ValueError(f"seed {seed} must not be negative")
        self.clips, self.view, self.seed, self.num_patches, self.seek = clips, view, seed, num_patches, seek
        self.truth, self.two_moments = truth, two_moments

    def __getitem__(self, number: int) -> Sample:
        epoch, position = divmod(number, len(self.clips))
        clip = self.clips[epoch_order(self.seed, epoch, len(self.clips))[position]]
        view, masks = generator(self.seed, number, Purpose.VIEW), generator(self.seed, number, Purpose.MASKS)
        if not self.two_moments:
            return self._masked(read_sample(number, clip, self.view, self.seek, view, self.truth), masks)
        rngs = [view, generator(self.seed, number, Purpose.SECOND_VIEW)]
        first, second = read_moments(number, clip, self.view, self.seek, rngs, self.truth)
        second = self._masked(second, generator(self.seed, number, Purpose.SECOND_MASKS))
        return replace(self._masked(first, masks), second=second)

    def _masked(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample with masking noise, if the stream makes any."""
        if self.num_patches is None:
            return sample
        image_noise, audio_noise = (rng.random(count, dtype=np.float32) for count in self.num_patches)
        return replace(sample, image_noise=image_noise, audio_noise=audio_noise)


class ClipSet(Dataset[Sample]):
    """Clips for evaluation: item `i` is the centre view of clip `i`."""

    def __init__(
        self, clips: Sequence[Clip], view: CentreView, seek: Seek = "exact", truth: Truth | None = None
    ) -> None:
        if not clips:
            raise ValueError("a set needs at least one clip")
        self.clips, self.view, self.seek, self.truth = clips, view, seek, truth

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample:
        return read_sample(index, self.clips[index], self.view, self.seek, None, self.truth)


def read_sample(
    number: int,
    clip: Clip,
    view: TrainingView | CentreView,
    seek: Seek,
    rng: np.random.Generator | None,
    truth: Truth | None = None,
) -> Sample:
    """Read one view. A clip that cannot be read gives a sample without either track that says why."""
    return read_moments(number, clip, view, seek, [rng], truth)[0]


def read_moments(
    number: int,
    clip: Clip,
    view: TrainingView | CentreView,
    seek: Seek,
    rngs: Sequence[np.random.Generator | None],
    truth: Truth | None = None,
) -> list[Sample]:
    """Read one view per generator of a clip that is opened once, each as far as can be from the first in time.

    Where one of them cannot be read, all are samples without either track, and the first says why.
    """
    samples: list[Sample] = []
    first: float | None = None
    try:
        with open_clip(clip, seek) as media:
            for rng in rngs:
                times = truth.times(clip) if truth else ()
                if first is None:
                    drawn = view.read(media, rng, times)
                    first = drawn.start_seconds
                else:
                    assert isinstance(view, TrainingView)  # the others have one moment
                    drawn = view.read(media, rng, times, first)
                if drawn.image is None and drawn.waveform is None:
                    raise ClipError(
                        clip.id,
                        f"neither a frame nor sound from {drawn.start_seconds:.2f} s on in {one_line(clip.path)}",
                    )
                mask = None if truth is None else np.zeros(view.image_size, np.uint8)
                if truth is not None and drawn.crop is not None:
                    end = drawn.start_seconds + view.window_seconds
                    mask = crop_mask(truth.read(clip, drawn.frame_seconds, drawn.start_seconds, end), drawn.crop)
                samples.append(_sample(number, clip, view, drawn, mask))
    except ClipError as error:
        mask = None if truth is None else np.zeros(view.image_size, np.uint8)
        nothing = _sample(number, clip, view, ClipView(None, None, 0.0, 0.0), mask)
        samples = [replace(nothing, failure=Failure(clip.id, error.cause)), *(nothing for _ in rngs[1:])]
    return samples


def _sample(
    number: int, clip: Clip, view: TrainingView | CentreView, drawn: ClipView, mask: NDArray[np.uint8] | None
) -> Sample:
    return Sample(
        number=number,
        clip=clip,
        image=np.zeros(view.image_shape, np.uint8) if drawn.image is None else drawn.image,
        waveform=np.zeros(view.num_samples, np.float32) if drawn.waveform is None else drawn.waveform,
        image_present=drawn.image is not None,
        audio_present=drawn.waveform is not None,
        truth=mask,
    )


def collate(samples: Sequence[Sample]) -> Batch:
    """Join samples of one view into a batch."""
    image = torch.from_numpy(np.stack([sample.image for sample in samples]))  # (B, H, W, 3) or (B, T, H, W, 3)
    return Batch(
        image=image.movedim(-1, -3).contiguous(),
        waveform=torch.from_numpy(np.stack([sample.waveform for sample in samples])),
        image_present=torch.tensor([sample.image_present for sample in samples]),
        audio_present=torch.tensor([sample.audio_present for sample in samples]),
        image_noise=_stack([sample.image_noise for sample in samples]),
        audio_noise=_stack([sample.audio_noise for sample in samples]),
        sample_numbers=[sample.number for sample in samples],
        ids=[sample.clip.id for sample in samples],
        labels=[sample.clip.label for sample in samples],
        failures=[sample.failure for sample in samples if sample.failure is not None],
        truth=_stack([sample.truth for sample in samples]),
        second=collate(seconds) if (seconds := [s.second for s in samples if s.second is not None]) else None,
    )


@lru_cache(maxsize=2)  # a batch may reach over the end of an epoch
def epoch_order(seed: int, epoch: int, num_clips: int) -> NDArray[np.int64]:
    """The order of an epoch, a permutation `(num_clips,)`."""
    return generator(seed, epoch, Purpose.ORDER).permutation(num_clips)


def _stack(rows: Sequence[NDArray[Any] | None]) -> Tensor | None:
    present = [row for row in rows if row is not None]
    return torch.from_numpy(np.stack(present)) if present else None
