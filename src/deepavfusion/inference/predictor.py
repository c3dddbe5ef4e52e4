"""The Python interface of prediction: `Predictor.from_pretrained(PLACE).classify("clip.mp4")`.

Every method takes one input or a list of them (a path, an image, `Arrays`, or a pair of image and sound; see `inputs`)
and gives a dataclass or a list of them (see `predictions`). A model is loaded when it is first needed. `write` does
what the methods and `save` do together, without keeping maps and sounds in memory, for recordings of hours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import numpy as np
import torch

from deepavfusion.audio import SAMPLE_RATE
from deepavfusion.inference.inputs import Input, Recording, name_of, open_recording
from deepavfusion.inference.map_files import MapLook, write_maps
from deepavfusion.inference.maps import MapBatch
from deepavfusion.inference.one_pass import OnePass
from deepavfusion.inference.predict_config import TASKS, Task
from deepavfusion.inference.predictions import (
    RESIDUAL,
    Classification,
    Embedding,
    Levels,
    Localization,
    Segmentation,
    Separation,
    write_record,
)
from deepavfusion.inference.ready_models import ReadyModels
from deepavfusion.inference.separation import write_sounds
from deepavfusion.inference.sources import Box, ask_for
from deepavfusion.inference.steps import Progress, Steps, finish, side_by_side
from deepavfusion.inference.timeline import Compute
from deepavfusion.inference.windows import step_times
from deepavfusion.storage.trained_models import TrainedModels, open_models

STEP_SECONDS = 0.1
"""From one moment of a map to the next."""
MAX_KEPT_BYTES = 2**30
"""Maps, masks and sounds of one recording that the methods keep in memory; `write` keeps none."""

Result = TypeVar("Result")
Inputs = Input | Sequence[Input]


class Predictor:
    """All that the models of a bundle can say of a recording."""

    def __init__(
        self,
        models: TrainedModels,
        device: str | torch.device = "auto",
        *,
        batch_size: int = 16,
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
    ) -> None:
        """
        Args:
            models: an opened bundle, or models in memory.
            device: cpu, cuda, or auto: CUDA if there is one.
            batch_size: windows or frames per forward pass; results do not depend on it.
            precision: of the forward pass; auto is bfloat16 on CUDA and float32 elsewhere.

        Raises:
            ValueError: a batch size below 1, or a device that there is not.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size} must be at least 1")
        if str(device) == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if str(device).startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"device {device}: no such device here; take cpu or auto")
        place = torch.device(device)
        low = precision == "bfloat16" or (precision == "auto" and place.type == "cuda")
        self.models = models
        self.compute = Compute(place, torch.bfloat16 if low else None, batch_size)
        self._ready = ReadyModels(models, place)

    @classmethod
    def from_pretrained(cls, place: str | Path, device: str | torch.device = "auto", **settings: Any) -> Predictor:
        """The predictor of a bundle, of a finished run, of a model folder, of `shipped:NAME` or of `hf:OWNER/NAME`.

        Args:
            place: where the models are.
            device: cpu, cuda or auto.
            settings: `batch_size` and `precision`, as of the constructor.

        Raises:
            ValueError: nothing there that can be loaded; names the place and the fix.
        """
        return cls(open_models(place), device, **settings)

    @property
    def tasks(self) -> tuple[str, ...]:
        """What can be asked for."""
        return (*self.models.tasks, "embedding")

    @overload
    def classify(self, inputs: list[Input], hop_seconds: float | None = ...) -> list[Classification]: ...
    @overload
    def classify(
        self, inputs: Input, hop_seconds: float | None = ..., progress: Progress | None = ...
    ) -> Classification: ...
    def classify(self, inputs: Any, hop_seconds: float | None = None, progress: Progress | None = None) -> Any:
        """Which classes, when and in all.

        Args:
            inputs: one input or a list.
            hop_seconds: from one window to the next at most; None is half a window.
            progress: is told seconds done and in all.

        Raises:
            MediaError: a file that cannot be read.
            ValueError: no such head, or an input that lacks what the model looks at; names it.
        """

        def one(given: Input) -> Classification:
            with open_recording(given) as recording:
                steps = self._pass(recording).classification(hop_seconds)
                return finish(steps, recording.info.duration_seconds, progress)

        return _each(one, inputs)

    @overload
    def embed(self, inputs: list[Input], hop_seconds: float | None = ...) -> list[Embedding]: ...
    @overload
    def embed(self, inputs: Input, hop_seconds: float | None = ..., progress: Progress | None = ...) -> Embedding: ...
    def embed(self, inputs: Any, hop_seconds: float | None = None, progress: Progress | None = None) -> Any:
        """The encoder's features over time. Arguments and errors as of `classify`."""

        def one(given: Input) -> Embedding:
            with open_recording(given) as recording:
                steps = self._pass(recording).embedding(hop_seconds)
                return finish(steps, recording.info.duration_seconds, progress)

        return _each(one, inputs)

    @overload
    def localize(self, inputs: list[Input], step_seconds: float = ...) -> list[Localization]: ...
    @overload
    def localize(self, inputs: Input, step_seconds: float = ..., progress: Progress | None = ...) -> Localization: ...
    def localize(self, inputs: Any, step_seconds: float = STEP_SECONDS, progress: Progress | None = None) -> Any:
        """Where it sounds, moment by moment.

        Args:
            inputs: one input or a list.
            step_seconds: from one moment to the next.
            progress: is told seconds done and in all.

        Raises:
            MediaError: a file that cannot be read.
            ValueError: no such head, an input without picture or sound, or maps that are too many to keep.
        """
        model = self._ready.localizer()
        rows, columns = model.config.map_grid
        kept = 4 * model.config.num_maps * rows * columns
        one = partial(
            self._maps, Localization, OnePass.localization, model.config.classes, kept, step_seconds, progress
        )
        return _each(one, inputs)

    @overload
    def segment(self, inputs: list[Input], step_seconds: float = ...) -> list[Segmentation]: ...
    @overload
    def segment(self, inputs: Input, step_seconds: float = ..., progress: Progress | None = ...) -> Segmentation: ...
    def segment(self, inputs: Any, step_seconds: float = STEP_SECONDS, progress: Progress | None = None) -> Any:
        """What sounds, pixel by pixel, moment by moment. Arguments and errors as of `localize`."""
        model = self._ready.segmenter()
        height, width = model.config.encoder.image_size
        kept = height * width
        one = partial(
            self._maps, Segmentation, OnePass.segmentation, model.config.classes, kept, step_seconds, progress
        )
        return _each(one, inputs)

    @overload
    def separate(
        self, inputs: list[Input], pictures: Sequence[Any] = ..., boxes: Sequence[Box] = ...
    ) -> list[Separation]: ...
    @overload
    def separate(
        self,
        inputs: Input,
        pictures: Sequence[Any] = ...,
        boxes: Sequence[Box] = ...,
        consistent: bool = ...,
        progress: Progress | None = ...,
    ) -> Separation: ...
    def separate(
        self,
        inputs: Any,
        pictures: Sequence[Any] = (),
        boxes: Sequence[Box] = (),
        consistent: bool = False,
        progress: Progress | None = None,
    ) -> Any:
        """Separate the sound of what the frame shows, or of each of several images, and the residual.

        Args:
            inputs: one input or a list.
            pictures: of the sources, paths or `(H, W, 3)` uint8; if there are none, the recording's own picture.
            boxes: parts of the recording's picture, one per source: left, top, right, bottom in fractions; if there
                are none, the whole picture is one source.
            consistent: make the sources add up to the recording.
            progress: is told seconds done and in all.

        Raises:
            MediaError: a file that cannot be read.
            ValueError: no such head, an input without sound, or without a picture to ask by; names it.
        """
        asked = ask_for(pictures, boxes)

        def one(given: Input) -> Separation:
            with open_recording(given) as recording:
                _check_kept(
                    recording.name, round(4 * (len(asked.names) + 2) * recording.info.duration_seconds * SAMPLE_RATE)
                )
                length, done, blocks = recording.info.duration_seconds, 0, []
                for block in self._pass(recording).separation(asked, consistent):
                    blocks.append(block)
                    done += len(block.mixture)
                    if progress is not None:
                        progress(min(done / SAMPLE_RATE, length), length)
                sources = np.concatenate([block.sources for block in blocks], axis=1)
                residual = np.concatenate([block.residual for block in blocks])
                return Separation(recording.name, recording.info.duration_seconds, asked.names, sources, residual)

        return _each(one, inputs)

    def write(
        self,
        task: Task,
        given: Input,
        folder: str | Path,
        *,
        about: Mapping[str, Any] = {},
        hop_seconds: float | None = None,
        step_seconds: float = STEP_SECONDS,
        pictures: Sequence[Any] = (),
        boxes: Sequence[Box] = (),
        consistent: bool = False,
        film: bool = True,
        arrays: bool = False,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Predict and save, in memory that does not grow with the maps and sounds; returns the record.

        Args:
            task: one of `tasks`.
            given: one input.
            folder: where the files go.
            about: what else the record says.
            hop_seconds: as of `classify`.
            step_seconds: as of `localize`.
            pictures: as of `separate`.
            boxes: as of `separate`.
            consistent: as of `separate`.
            film: whether maps and masks are written as a film too.
            arrays: whether they are written as a numpy file too.
            progress: is told seconds done and in all.

        Raises:
            MediaError: a file that cannot be read.
            ValueError: as the method of the task.
        """
        found = self.write_all(
            (task,),
            given,
            folder,
            about={task: about},
            hop_seconds=hop_seconds,
            step_seconds=step_seconds,
            pictures=pictures,
            boxes=boxes,
            consistent=consistent,
            film=film,
            arrays=arrays,
            progress=progress,
        )[task]
        if isinstance(found, Exception):
            raise found
        return found

    def write_all(
        self,
        tasks: Sequence[Task],
        given: Input,
        folder: str | Path,
        *,
        about: Mapping[Task, Mapping[str, Any]] = {},
        hop_seconds: float | None = None,
        step_seconds: float = STEP_SECONDS,
        pictures: Sequence[Any] = (),
        boxes: Sequence[Box] = (),
        consistent: bool = False,
        film: bool = True,
        arrays: bool = False,
        progress: Progress | None = None,
    ) -> dict[Task, dict[str, Any] | Exception]:
        """What `write` does, of several tasks in one pass over the recording.

        It is decoded once, and what tasks have in common is computed once.

        Arguments as of `write`, `about` by task. Returns by task the record, or why there is none: a task that fails
        does not keep the others back.

        Raises:
            MediaError: a file that cannot be opened.
            ValueError: what is no task, no input or no way to ask.
            NotWrittenError: a full disk.
        """
        for task in tasks:
            if task not in TASKS:
                raise ValueError(f"{task!r} is not a task; there are {', '.join(TASKS)}")
        place = Path(folder)
        asked = ask_for(pictures, boxes)
        with open_recording(given) as recording:
            one = self._pass(recording)

            def work(task: Task) -> Steps[dict[str, Any]]:
                told = about.get(task, {})
                if task == "classification":
                    return (yield from one.classification(hop_seconds)).save(place, told)
                if task == "embedding":
                    return (yield from one.embedding(hop_seconds)).save(place, told)
                if task == "separation":
                    levels = Levels((*asked.names, RESIDUAL))
                    files = {name: place / f"{name}.wav" for name in levels.names}
                    blocks = one.separation(asked, consistent)
                    yield 0.0  # what all tasks will read is known before any reads
                    yield from write_sounds(blocks, files, levels.add)
                    return levels.save(place, name_of(given), told)
                batches = one.localization(step_seconds) if task == "localization" else one.segmentation(step_seconds)
                head = self._ready.localizer() if task == "localization" else self._ready.segmenter()
                look = MapLook(task, recording.name, head.config.classes, step_seconds)
                times = one.times(step_seconds)
                made = yield from write_maps(
                    place, recording, one.film, look, times, batches, with_film=film, with_arrays=arrays
                )
                return write_record(place, {**made, **told})

            works = {task: work(task) for task in tasks}
            return side_by_side(works, recording.info.duration_seconds, progress)

    def digest(self, task: Task) -> str:
        """A hash of all weights that a task's predictions come from: BLAKE2b of 8 bytes, hexadecimal."""
        return self._ready.digest(task)

    def _pass(self, recording: Recording) -> OnePass:
        return OnePass(self._ready, recording, self.compute)

    def _maps(
        self,
        kind: Callable[..., Result],
        moments_of: Callable[[OnePass, float], Iterator[MapBatch]],
        classes: tuple[str, ...],
        num_bytes: int,
        step_seconds: float,
        progress: Progress | None,
        given: Input,
    ) -> Result:
        """What `moments_of` finds in one input, kept in memory: `num_bytes` of every moment."""
        with open_recording(given) as recording:
            length, found = recording.info.duration_seconds, []
            times = step_times(length, step_seconds)
            _check_kept(recording.name, num_bytes * len(times))
            for batch in moments_of(self._pass(recording), step_seconds):
                found.append(batch)
                if progress is not None:
                    progress(min(length, float(batch.times_seconds[-1])), length)
        maps, scores = (np.concatenate([getattr(batch, name) for batch in found]) for name in ("maps", "scores"))
        return kind(recording.name, length, classes, step_seconds, times, maps, scores, given)


def _check_kept(name: str, num_bytes: int) -> None:
    if num_bytes > MAX_KEPT_BYTES:
        raise ValueError(
            f"{name}: the result would take {num_bytes / 2**30:.1f} GiB of memory; take a longer step, or "
            f"Predictor.write, which writes to files piece by piece"
        )


def _each(one: Callable[[Input], Result], inputs: Any) -> Result | list[Result]:
    return [one(given) for given in inputs] if isinstance(inputs, list) else one(inputs)
