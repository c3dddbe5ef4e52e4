"""Files of maps and masks, written moment by moment as they come from the model.

    TASK.json   what is found at each moment (written by the caller, from what `write_maps` returns)
    TASK.mp4    the video with the maps over its frames, and its sound; not of a single moment
    TASK.png    the moment of the highest score
    TASK.npy    all maps, if wanted

Shape legend: `T` moments, `K` maps, `R C` rows and columns, `H W` pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepavfusion.atomic import replacing
from deepavfusion.audio import SAMPLE_RATE
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.media.film_writer import FilmWriter
from deepavfusion.data.sets.masks import palette
from deepavfusion.drawing.film import QUALITY, film_size
from deepavfusion.drawing.localization import heat_overlay
from deepavfusion.drawing.segmentation import overlay
from deepavfusion.inference.inputs import Recording
from deepavfusion.inference.maps import MapBatch
from deepavfusion.inference.shared_film import FilmReader, SharedFilm
from deepavfusion.inference.sliding_sound import SlidingSound
from deepavfusion.inference.steps import Steps

TOP_CLASSES = 3
"""Classes that a record names for each moment."""


MapTask = Literal["localization", "segmentation"]


@dataclass(frozen=True)
class MapLook:
    """How maps are told and drawn."""

    task: MapTask
    name: str
    """What was looked at."""
    classes: tuple[str, ...]
    step_seconds: float

    def draw(self, picture: NDArray[np.uint8], found: NDArray[Any]) -> NDArray[np.uint8]:
        """A map or mask over its picture `(H, W, 3)`. Heat is on the fixed scale from 0 to 1."""
        if self.task == "localization":
            return heat_overlay(picture, found.astype(np.float32).max(axis=0), (0.0, 1.0))
        height, width = picture.shape[:2]
        mask = np.asarray(Image.fromarray(found).resize((width, height), Image.Resampling.NEAREST))
        return overlay(picture, mask, len(self.classes))

    def colours(self) -> dict[str, str]:
        """By class, as #rrggbb, what masks are drawn in; empty where there is one colour, or heat."""
        if self.task == "localization" or not self.classes:
            return {}
        found = {
            name: "#" + bytes(row).hex() for name, row in zip(self.classes, palette(len(self.classes)), strict=True)
        }
        return dict(list(found.items())[1:])

    def strength(self, scores: NDArray[np.float32]) -> float:
        """How much there is to see at a moment: of its scores `(K,)` the largest; of shares all but the background."""
        return float(scores.max() if self.task == "localization" else scores[1:].sum())

    def tell(self, time: float, found: NDArray[Any], scores: NDArray[np.float32]) -> dict[str, Any]:
        """What the record says of a moment."""
        told: dict[str, Any] = {"seconds": round(time, 4)}
        if self.task == "localization":
            best = int(scores.argmax())
            row, column = np.unravel_index(int(found[best].argmax()), found[best].shape)
            rows, columns = found[best].shape
            told |= {
                "confidence": round(float(scores[best]), 5),
                "peak": {
                    "x": round((float(column) + 0.5) / columns, 4),
                    "y": round((float(row) + 0.5) / rows, 4),
                    "score": round(float(found[best].max()), 5),
                },
            }
            key = "confidence"
        else:
            told["share"] = round(float(scores[1:].sum()), 5)
            scores, key = scores.copy(), "share"
            scores[0] = 0  # the background is none of what sounds
        if self.classes:
            order = np.argsort(-scores, kind="stable")[:TOP_CLASSES]
            told["classes"] = [
                {"class": self.classes[i], key: round(float(scores[i]), 5)} for i in order if scores[i] > 0
            ]
        return told


def write_maps(
    folder: Path,
    recording: Recording,
    film: SharedFilm,
    look: MapLook,
    times: NDArray[np.float64],
    batches: Iterable[MapBatch],
    *,
    with_film: bool,
    with_arrays: bool,
) -> Steps[dict[str, Any]]:
    """Write all files but the record, and return the record.

    Args:
        folder: is made.
        recording: what is looked at.
        film: its pictures; those of the film are asked for in the first step, before any batch.
        look: how.
        times: all moments `(T,)`.
        batches: what is found at them, in their order.
        with_film: whether to write the mp4, of more than one moment.
        with_arrays: whether to write the npy.

    Raises:
        MediaError: the recording cannot be read.
    """
    info, task = recording.info, look.task
    folder.mkdir(parents=True, exist_ok=True)
    crop = FrameCrop.whole(film_size(info.height, info.width))
    moments: list[dict[str, Any]] = []
    best: tuple[float, float, NDArray[Any]] | None = None
    files = {"picture": f"{task}.png"}
    with ExitStack() as stack:
        video, store = None, None
        if with_film and len(times) > 1:
            path = stack.enter_context(replacing(folder / f"{task}.mp4"))
            video = stack.enter_context(MapFilm(path, recording, film.reader(times[:, None], crop), look))
            files["film"] = f"{task}.mp4"
        yield 0.0
        for batch in batches:
            done = len(moments)
            if with_arrays and store is None:
                path = stack.enter_context(replacing(folder / f"{task}.npy"))
                kind = np.float16 if task == "localization" else np.uint8
                store = np.lib.format.open_memmap(path, "w+", kind, (len(times), *batch.maps.shape[1:]))
                files["maps"] = f"{task}.npy"
            if store is not None:
                store[done : done + len(batch.maps)] = batch.maps
            for time, found, scores in zip(batch.times_seconds, batch.maps, batch.scores, strict=True):
                moments.append(look.tell(float(time), found, scores))
                strength = look.strength(scores)
                if best is None or strength > best[0]:
                    best = (strength, float(time), found)
            if video is not None:
                video.add(batch)
            yield moments[-1]["seconds"]
        if store is not None:
            store.flush()
        del store
    assert best is not None
    _, time, found = best
    with replacing(folder / f"{task}.png") as path:
        Image.fromarray(look.draw(recording.frames([time], crop)[0], found)).save(path, "png")
    return {
        "task": task,
        "name": look.name,
        "duration_seconds": round(info.duration_seconds, 4),
        "step_seconds": look.step_seconds,
        "width": info.width,
        "height": info.height,
        "num_classes": len(look.classes),
        **({"colours": look.colours()} if look.colours() else {}),
        "moments": moments,
        "files": files,
    }


class MapFilm:
    """The film of maps, to be used in a `with` statement. It is drawn and encoded in a thread of its own.

    Almost all of that is done by numpy and x264, which leave other threads to go on meanwhile.
    """

    def __init__(self, path: Path, recording: Recording, pictures: FilmReader, look: MapLook) -> None:
        """
        Args:
            path: of the mp4.
            recording: whose sound is heard.
            pictures: of every moment, in the film's size.
            look: how maps are drawn.
        """
        self._pictures, self._look, self._num_moments = pictures, look, 0
        self._sound = SlidingSound(recording) if recording.info.has_sound else None
        rate = SAMPLE_RATE if recording.info.has_sound else None
        self._writer = FilmWriter(path, pictures.crop.output_size, 1 / look.step_seconds, rate, QUALITY)
        self._thread = ThreadPoolExecutor(1)
        self._at_work: Future[None] | None = None

    def __enter__(self) -> MapFilm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pictures.close()
        self._thread.shutdown()
        with self._writer:
            if error is not None:
                raise error
            self._wait()

    def add(self, batch: MapBatch) -> None:
        """The next moments. Raises what went wrong with those before them."""
        pictures = self._pictures.at(batch.times_seconds[:, None])
        begin, end = (
            round((self._num_moments + count) * self._look.step_seconds * SAMPLE_RATE) for count in (0, len(batch.maps))
        )
        self._num_moments += len(batch.maps)
        sound = None
        if self._sound is not None:
            sound = self._sound.window(begin / SAMPLE_RATE, (end - begin) / SAMPLE_RATE)
        self._wait()
        self._at_work = self._thread.submit(self._draw, pictures, batch, sound)

    def _draw(self, pictures: NDArray[np.uint8], batch: MapBatch, sound: NDArray[np.float32] | None) -> None:
        for picture, found in zip(pictures, batch.maps, strict=True):
            self._writer.add_picture(self._look.draw(picture, found))
        if sound is not None:
            self._writer.add_sound(sound)

    def _wait(self) -> None:
        if self._at_work is not None:
            self._at_work.result()
