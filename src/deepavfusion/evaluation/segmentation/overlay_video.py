"""A segmenter's masks over a whole clip, as a video with the clip's own sound.

Shape legend: `T` frames, `H W` pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deepavfusion.atomic import replacing
from deepavfusion.audio import SAMPLE_RATE
from deepavfusion.data.clips import Clip
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.framed import OpenFrame
from deepavfusion.data.framed_clips import frame_of
from deepavfusion.data.media.film_writer import write_film
from deepavfusion.data.opening import open_clip
from deepavfusion.data.views import OpenClip, frame_times, seconds
from deepavfusion.data.waveforms import continue_sound
from deepavfusion.drawing.film import QUALITY
from deepavfusion.drawing.segmentation import overlay
from deepavfusion.evaluation.segmentation.evaluator import segment
from deepavfusion.inference.timeline import read_frames, to_images
from deepavfusion.inference.windows import times_around
from deepavfusion.metrics.segmentation import at_mask_size
from deepavfusion.metrics.semantic_segmentation import semantic_labels
from deepavfusion.models.segmenter import Segmenter

FRAME_RATE = 12.5
"""Pictures per second of the videos."""
MAX_SIDE = 480
"""Longer side of the video at most, in pixels."""
MAX_SECONDS = 60.0
BATCH = 16


def write_overlay_video(model: Segmenter, clip: Clip, path: Path, device: torch.device, flips: bool = False) -> None:
    """Write a clip, at most its first minute, with what sounds laid over it, 12.5 pictures a second.

    Every picture is segmented with the stretch of sound around it, at the ends of the clip the first or last whole
    window. The pictures of a table are each shown for their share of the sound.

    Raises:
        ClipError: the clip cannot be read.
        ValueError: it has no picture.
    """
    pictures, predicted, sound = (
        _stills(model, clip, device, flips) if clip.storage == "framed" else _film(model, clip, device, flips)
    )
    num_classes = len(model.config.classes)
    frames = np.stack([overlay(p, m, num_classes) for p, m in zip(pictures, predicted, strict=True)])
    with replacing(path) as temporary:
        write_film(temporary, frames, sound, FRAME_RATE, SAMPLE_RATE, QUALITY)


Track = tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]], NDArray[np.float32]]
"""Pictures `(H, W, 3)` and masks `(H, W)`, 12.5 a second, and the sound at 16 kHz."""


def _film(model: Segmenter, clip: Clip, device: torch.device, flips: bool) -> Track:
    config, window = model.config.encoder, seconds(model.config.encoder)
    pictures, inputs, heard = [], [], []
    with open_clip(clip) as media:
        info, length = media.info, min(media.info.duration_seconds, MAX_SECONDS)
        if not info.has_picture:
            raise ValueError(f"{clip.id} has no video track")
        shown = _shown_size(info.height or 0, info.width or 0)
        sound = media.sound(0.0, length) if info.has_sound else np.zeros(0, np.float32)
        for number in range(max(1, int(length * FRAME_RATE))):
            moment = float(number / FRAME_RATE)
            pictures.append(media.frame(moment, FrameCrop.whole(shown)))
            times = times_around(np.array([moment]), window, config.num_frames, info.duration_seconds)
            inputs.append(read_frames(media, times, FrameCrop.whole(config.image_size))[0])
            heard.append(_window(media, moment, window, info.duration_seconds))
    return pictures, _masks(model, inputs, heard, shown, device, flips), sound


def _stills(model: Segmenter, clip: Clip, device: torch.device, flips: bool) -> Track:
    config, window = model.config.encoder, seconds(model.config.encoder)
    video, table = frame_of(clip).video, clip.path.rpartition("#")[0]
    first = int(clip.path.rpartition("#")[2]) - frame_of(clip).number
    pictures, inputs, heard, shown, length = [], [], [], None, 0.0
    for number in range(len(video.frames)):
        name = video.id if len(video.frames) == 1 else f"{video.id}#{number}"
        with OpenFrame(Clip(name, f"{table}#{first + number}")) as media:
            shown = shown or _shown_size(media.info.height, media.info.width)
            pictures.append(media.frame(0.0, FrameCrop.whole(shown)))
            start, times = frame_times(media.info, 0.0, window, config.num_frames)
            inputs.append(read_frames(media, np.array([times]), FrameCrop.whole(config.image_size))[0])
            heard.append(media.sound(start, window) if media.info.has_sound else None)
            length = min(media.seconds, MAX_SECONDS)
            sound = media.whole_sound(length)
    assert shown is not None
    masks = _masks(model, inputs, heard, shown, device, flips)
    count = max(1, int(length * FRAME_RATE))
    chosen = [min(i * len(pictures) // count, len(pictures) - 1) for i in range(count)]
    return [pictures[i] for i in chosen], [masks[i] for i in chosen], sound


def _window(media: OpenClip, moment: float, window: float, length: float) -> NDArray[np.float32] | None:
    """The window of sound around a moment, moved inside the clip at its ends; None without sound."""
    if not media.info.has_sound:
        return None
    start = min(max(0.0, moment - window / 2), max(0.0, length - window))
    waveform = media.sound(start, window)
    return continue_sound(waveform, round(window * SAMPLE_RATE)) if len(waveform) else None


def _masks(
    model: Segmenter,
    inputs: list[NDArray[np.uint8]],
    heard: list[NDArray[np.float32] | None],
    size: tuple[int, int],
    device: torch.device,
    flips: bool,
) -> list[NDArray[np.uint8]]:
    """Masks of class numbers, `(H, W)` of `size`."""
    silence, masks = np.zeros(round(seconds(model.config.encoder) * SAMPLE_RATE), np.float32), []
    for begin in range(0, len(inputs), BATCH):
        image = to_images(np.stack(inputs[begin : begin + BATCH]))
        sounds = heard[begin : begin + BATCH]
        waveform = torch.from_numpy(np.stack([silence if w is None else w for w in sounds]))
        present = torch.tensor([w is not None for w in sounds])
        with torch.no_grad():
            logits = segment(model, image.to(device), waveform.to(device), None, present.to(device), flips)
        masks += predicted_masks(at_mask_size(logits, size))
    return masks


def predicted_masks(logits: torch.Tensor) -> list[NDArray[np.uint8]]:
    """Class numbers `(H, W)` of logits `(B, C, H, W)`: 1 above a probability of 0.5, or the best class; 0 for none."""
    numbers = logits[:, 0] > 0 if logits.shape[1] == 1 else semantic_labels(logits).clamp_min(0)
    return list(numbers.to(torch.uint8).cpu().numpy())


def _shown_size(height: int, width: int) -> tuple[int, int]:
    """Even, and no side longer than `MAX_SIDE`."""
    scale = min(1.0, MAX_SIDE / max(height, width))
    rows, columns = (max(2, 2 * round(side * scale / 2)) for side in (height, width))
    return rows, columns
