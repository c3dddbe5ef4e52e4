"""Files of maps and masks, written moment by moment as they come from the model.

    TASK.json   what is found at each moment (written by the caller, from what `write_maps` returns)
    TASK.mp4    the video with the maps over its frames, and its sound; not of a single moment
    TASK.png    the moment of the highest score
    TASK.npy    all maps, if wanted

Shape legend: `T` moments, `K` maps, `R C` rows and columns, `H W` pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
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
from deepavfusion.inference.inputs import Input, Recording, open_recording
from deepavfusion.inference.maps import MapBatch
from deepavfusion.inference.sliding_sound import SlidingSound

TOP_CLASSES = 3
"""Classes that a record names for each moment."""


@dataclass(frozen=True)
class MapLook:
    """How maps are told and drawn."""

    task: Literal["localization", "segmentation"]
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
    source: Input,
    look: MapLook,
    times: NDArray[np.float64],
    batches: Iterable[MapBatch],
    *,
    film: bool,
    arrays: bool,
) -> dict[str, Any]:
    """Write all files but the record, and return the record.

    Args:
        folder: is made.
        source: what is looked at.
        look: how.
        times: all moments `(T,)`.
        batches: what is found at them, in their order.
        film: whether to write the mp4.
        arrays: whether to write the npy.

    Raises:
        MediaError: the recording cannot be read.
    """
    with open_recording(source) as recording:
        return _write(folder, recording, look, times, batches, film and len(times) > 1, arrays)


def _write(
    folder: Path,
    recording: Recording,
    look: MapLook,
    times: NDArray[np.float64],
    batches: Iterable[MapBatch],
    film: bool,
    arrays: bool,
) -> dict[str, Any]:
    info, task = recording.info, look.task
    folder.mkdir(parents=True, exist_ok=True)
    size = film_size(info.height, info.width)
    sound, moments, done = SlidingSound(recording), [], 0
    best: tuple[float, NDArray[np.uint8]] | None = None
    step_samples = look.step_seconds * SAMPLE_RATE
    files = {"picture": f"{task}.png"} | ({"film": f"{task}.mp4"} if film else {})
    with ExitStack() as stack:
        video, store = None, None
        if film:
            path = stack.enter_context(replacing(folder / f"{task}.mp4"))
            video = stack.enter_context(
                FilmWriter(path, size, 1 / look.step_seconds, SAMPLE_RATE if info.has_sound else None, QUALITY)
            )
        for batch in batches:
            if arrays and store is None:
                path = stack.enter_context(replacing(folder / f"{task}.npy"))
                kind = np.float16 if task == "localization" else np.uint8
                store = np.lib.format.open_memmap(path, "w+", kind, (len(times), *batch.maps.shape[1:]))
                files["maps"] = f"{task}.npy"
            if store is not None:
                store[done : done + len(batch.maps)] = batch.maps
            strengths = [look.strength(scores) for scores in batch.scores]
            is_best = best is None or max(strengths) > best[0]
            pictures = None
            if video is not None or is_best:
                pictures = recording.frames(batch.times_seconds.tolist(), FrameCrop.whole(size))
            for i, (time, found, scores) in enumerate(zip(batch.times_seconds, batch.maps, batch.scores, strict=True)):
                moments.append(look.tell(float(time), found, scores))
                drawn = None if pictures is None else look.draw(pictures[i], found)
                if drawn is not None and (best is None or strengths[i] > best[0]):
                    best = (strengths[i], drawn)
                if video is not None and drawn is not None:
                    video.add_picture(drawn)
            done += len(batch.maps)
            if video is not None and info.has_sound:
                begin, end = ((n * step_samples) for n in (done - len(batch.maps), done))
                own = sound.window(round(begin) / SAMPLE_RATE, (round(end) - round(begin)) / SAMPLE_RATE)
                video.add_sound(own)
        if store is not None:
            store.flush()
        del store
    assert best is not None
    with replacing(folder / f"{task}.png") as path:
        Image.fromarray(best[1]).save(path, "png")
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
