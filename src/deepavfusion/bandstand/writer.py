"""Writes one clip: mp4, stems, masks and, last, its annotation, whose presence marks the clip as complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from deepavfusion.atomic import writing
from deepavfusion.bandstand.splits import Plan
from deepavfusion.bandstand.stage import Pictures, Sounds, Stage, boxes
from deepavfusion.bandstand.world import FIRST_VERSION, STAGE_UNITS
from deepavfusion.data.media.film_writer import FilmQuality, write_film
from deepavfusion.data.scenes.annotation import ClipTruth, SourceTruth

KEY_FRAME_INTERVAL = 12
"""Frames between key frames, about a second: an exact seek decodes few frames."""
QUALITY = FilmQuality(
    {
        "preset": "veryfast",
        "crf": "20",
        "g": str(KEY_FRAME_INTERVAL),
        "bf": "0",
        "threads": "1",
        "x264-params": "mbtree=0",
    },
    audio_bit_rate=96_000,
    threads=None,
)


@dataclass(frozen=True)
class Performance:
    """One clip in memory: what the writer of files, or of shards, stores."""

    plan: Plan
    pictures: Pictures
    sounds: Sounds
    truth: ClipTruth


def perform(
    stage: Stage,
    plan: Plan,
    *,
    cast: str,
    seed: int,
    split: str,
    index: int,
    annotate_every: int,
    stems: bool = True,
    masks: bool = True,
    world: str = FIRST_VERSION,
) -> Performance:
    """Draw and play one clip and state the truth about it.

    Args:
        stage: size and rates.
        plan: what happens.
        cast, seed, split, index: where the plan comes from.
        annotate_every: frames from one annotated frame to the next.
        stems, masks: whether these will be stored, so that the annotation names their files.
        world: version of the world that brought the split.
    """
    name = clip_id(split, index)
    annotated = tuple(range(0, stage.num_frames, annotate_every))
    pictures, sounds = stage.film(plan.scene, annotated), stage.record(plan.scene)
    found = [boxes(pictures.masks[frame], len(plan.scene.performers)) for frame in annotated]
    scale = stage.size / STAGE_UNITS
    sources = []
    for number, performer in enumerate(plan.scene.performers):
        source, visible, audible = performer.source, performer.centre is not None, performer.audible
        centre = None
        if performer.centre is not None:
            x, y = (round(scale * c, 2) for c in performer.centre)
            centre = (round(stage.size - x, 2) if plan.scene.mirrored else x, y)
        sources.append(
            SourceTruth(
                number=number,
                visible=visible,
                audible=audible,
                off_screen=audible and not visible,
                class_name=source.class_name if visible and audible else None,
                look=source.look if visible else None,
                timbre=source.timbre if audible else None,
                size_pixels=round(scale * plan.scene.camera.zoom * source.size, 2) if visible else None,
                centre=centre,
                boxes=tuple(row[number] for row in found) if visible else None,
                sounding=source.sounding() if audible else (),
                gain_db=round(performer.gain_db + sounds.gain_db, 2) if audible else None,
                stem=f"{name}/stem_{number}.flac" if audible and stems else None,
                details=source.describe(audible),
            )
        )
    truth = ClipTruth(
        id=name,
        world=world,
        cast=cast,
        split=split,
        index=index,
        seed=seed,
        scene_type=plan.scene_type,
        label=plan.label,
        size=stage.size,
        frame_rate=stage.frame_rate,
        num_frames=stage.num_frames,
        sample_rate=stage.sample_rate,
        num_samples=stage.num_samples,
        annotated_frames=annotated,
        masks=tuple(f"{name}/mask_{frame:03d}.png" for frame in annotated) if masks else None,
        noise_stem=f"{name}/noise.flac" if stems else None,
        sources=tuple(sources),
        facts=dict(plan.facts or {}),
    )
    return Performance(plan, pictures, sounds, truth)


def clip_id(split: str, index: int) -> str:
    """Name of a clip, unique in its data set."""
    return f"{split}_{index:06d}"


def is_complete(folder: str, name: str) -> bool:
    """Whether a clip was written to the end."""
    return all(os.path.isfile(os.path.join(folder, name + suffix)) for suffix in (".mp4", ".json"))


def remove_partial(folder: str) -> None:
    """Remove what a killed run left half written in the folder of a split."""
    for name in os.listdir(folder):
        if name.startswith(".") and name.endswith(".partial"):
            shutil.rmtree(os.path.join(folder, name))


def write_clip(folder: str, performance: Performance) -> None:
    """Write a clip's files into the folder of its split.

    Nothing appears under its final name before it is complete, and the annotation appears last.

    Raises:
        OSError: the files cannot be written.
    """
    truth = performance.truth
    final = os.path.join(folder, truth.id)
    partial = os.path.join(folder, f".{truth.id}.{os.getpid()}.partial")
    with writing(f"{final}.mp4"):
        os.makedirs(partial)
        try:
            media, words, extras = (os.path.join(partial, name) for name in ("clip.mp4", "truth.json", "extras"))
            encode(media, performance.pictures.frames, performance.sounds.mixture, truth.frame_rate, truth.sample_rate)
            if truth.masks is not None or truth.noise_stem is not None:
                os.makedirs(extras)
                _write_extras(extras, performance)
                if os.path.isdir(final):  # left by a run that was killed before the annotation
                    shutil.rmtree(final)
                os.replace(extras, final)
            with open(words, "w", encoding="utf-8") as file:
                file.write(truth.to_json() + "\n")
            os.replace(media, final + ".mp4")
            os.replace(words, final + ".json")
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _write_extras(folder: str, performance: Performance) -> None:
    truth, sounds = performance.truth, performance.sounds

    def place(name: str) -> str:
        return os.path.join(folder, os.path.basename(name))

    if truth.noise_stem is not None:
        soundfile.write(place(truth.noise_stem), sounds.noise, truth.sample_rate, subtype="PCM_16")
        for source in truth.sources:
            if source.stem is not None:
                soundfile.write(place(source.stem), sounds.stems[source.number], truth.sample_rate, subtype="PCM_16")
    if truth.masks is not None:
        for name, frame in zip(truth.masks, truth.annotated_frames, strict=True):
            Image.fromarray(performance.pictures.masks[frame]).save(place(name), compress_level=1)


def encode(
    path: str,
    frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    mixture: NDArray[np.int16],
    frame_rate: float,
    sample_rate: int,
) -> None:
    """Encode an mp4 file: H.264 picture, AAC sound, both from time 0.

    Args:
        path: the file.
        frames: uint8 `T H W 3`.
        mixture: int16 `N`, mono.
        frame_rate: frames per second.
        sample_rate: samples per second.
    """
    sound = (mixture / np.float32(32768)).astype(np.float32)
    write_film(path, frames, sound, frame_rate, sample_rate, QUALITY)
