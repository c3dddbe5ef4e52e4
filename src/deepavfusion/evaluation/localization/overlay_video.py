"""Videos with the map over every frame, each computed with the window of sound around the frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from deepavfusion.atomic import replacing
from deepavfusion.audio import SAMPLE_RATE, log_mel
from deepavfusion.data.clips import Clip
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.media.film_writer import write_film
from deepavfusion.data.opening import open_clip
from deepavfusion.data.views import seconds
from deepavfusion.data.waveforms import continue_sound
from deepavfusion.drawing.film import QUALITY
from deepavfusion.drawing.localization import heat_overlay
from deepavfusion.evaluation.localization.sound_mapper import SoundMapper
from deepavfusion.images import normalize
from deepavfusion.inference.timeline import read_frames, to_images
from deepavfusion.inference.windows import times_around

FRAME_RATE = 10.0
"""Frames per second of the videos."""
MAX_SECONDS = 20.0
"""Longer clips are shown from their start to here."""
SHORT_SIDE = 240
"""Pixels of the shorter side of the videos."""
_BATCH = 16


def write_overlay(mapper: SoundMapper, clip: Clip, path: Path, device: torch.device) -> None:
    """Write a clip as mp4 with the map over every frame and its sound.

    The colours of a video are on one scale, from the smallest to the largest score in it.

    Raises:
        ClipError: the clip cannot be read.
        ValueError: it has no picture.
    """
    window = seconds(mapper.encoder)
    with open_clip(clip) as media:
        info = media.info
        if not info.has_picture or not info.width or not info.height:
            raise ValueError(f"{clip.id}: has no video track")
        duration = min(info.duration_seconds, MAX_SECONDS)
        times = np.arange(max(1, int(duration * FRAME_RATE))) / FRAME_RATE
        scale = SHORT_SIDE / min(info.width, info.height)
        size = tuple(2 * max(1, round(side * scale / 2)) for side in (info.height, info.width))
        shown = [media.frame(float(t), FrameCrop.whole((size[0], size[1]))) for t in times]
        moments = times_around(times, window, mapper.encoder.num_frames, info.duration_seconds)
        seen = read_frames(media, moments, FrameCrop.whole(mapper.encoder.image_size))
        sound = np.zeros(0, np.float32)
        if info.has_sound:
            sound = media.sound(0.0, info.duration_seconds, SAMPLE_RATE)
    count = round(window * SAMPLE_RATE)
    latest = max(0, len(sound) - count)
    starts = [min(max(0, round((t - window / 2) * SAMPLE_RATE)), latest) for t in times]
    maps = []
    with torch.no_grad():
        for first in range(0, len(times), _BATCH):
            part = slice(first, first + _BATCH)
            image = to_images(seen[part])
            waves = [sound[start : start + count] for start in starts[part]]
            waves = [continue_sound(w, count) if len(w) else np.zeros(count, np.float32) for w in waves]
            audio = log_mel(torch.from_numpy(np.stack(waves)).to(device), mapper.encoder.audio_size[0])
            maps.append(mapper(normalize(image.to(device)), audio).amax(dim=1).cpu())
    heat = torch.cat(maps).numpy()
    limits = (float(np.nanmin(heat)), float(np.nanmax(heat)))
    frames = [heat_overlay(picture, own, limits) for picture, own in zip(shown, heat, strict=True)]
    length = round(len(times) / FRAME_RATE * SAMPLE_RATE)
    heard = sound[:length] if len(sound) else np.zeros(length, np.float32)
    with replacing(path) as temporary:
        write_film(temporary, frames, heard, FRAME_RATE, SAMPLE_RATE, QUALITY)
