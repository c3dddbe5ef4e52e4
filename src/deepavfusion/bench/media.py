"""`bench media`: speed of reading training views, from files and from shards, with each JPEG decoder.

Measured is what a data loader worker does for one sample: open the clip, crop and resize one frame to 224 x 224, read
3 s of sound. The CPU time of this process is counted, which other work on the machine changes little. The ways of
reading are measured alternately, view by view, at the same moments of the same clips.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from rich.console import Console
from rich.table import Table

from deepavfusion.atomic import write_text
from deepavfusion.bench.config import MediaBenchConfig
from deepavfusion.data.clips import Clip, find_clips
from deepavfusion.data.jpeg import installed_decoders
from deepavfusion.data.opening import open_clip
from deepavfusion.data.shard_writing import ShardConfig, write_shards
from deepavfusion.data.shards import ShardedClip
from deepavfusion.data.views import OpenClip, TrainingView

NUM_CLIPS = 4
"""Clips written when none are given."""

Opener = Callable[[Clip], AbstractContextManager[OpenClip]]


@dataclass(frozen=True)
class MediaSpeed:
    """One way of reading."""

    way: str
    milliseconds: float
    """Median CPU time of a view."""
    clips_per_core_second: float
    """Views over all the CPU time they took."""
    num_views: int


def write_clip(path: Path, seed: int, num_seconds: int = 10, frame_rate: int = 30, key_frame_every: int = 16) -> None:
    """A clip of 640 x 360, H.264 with a key frame every so many frames, AAC stereo at 44.1 kHz."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:360, 0:640].astype(np.float32)
    texture = rng.normal(0, 4, (360, 640, 3)).astype(np.float32)
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", frame_rate, options={"crf": "23", "preset": "veryfast"})
        picture.gop_size = key_frame_every
        picture.width, picture.height, picture.pix_fmt = 640, 360, "yuv420p"
        sound = container.add_stream("aac", 44_100, layout="stereo")
        for n in range(num_seconds * frame_rate):
            wave = np.stack([np.sin(x / 40 + n / 9), np.sin(y / 30 - n / 13), np.sin((x + y) / 60 + n / 7)], axis=-1)
            pixels = np.clip(128 + 80 * wave + np.roll(texture, (n, 2 * n), (0, 1)), 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, frame_rate)
            container.mux(picture.encode(frame))
        t = np.arange(num_seconds * 44_100) / 44_100
        chord = sum(np.sin(2 * math.pi * f * t) for f in rng.uniform(100, 2000, 4)) * 0.1 + rng.normal(0, 0.02, len(t))
        for start in range(0, len(t), 1024):
            block = np.repeat(chord[None, start : start + 1024], 2, axis=0).astype(np.float32)
            samples = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout="stereo")
            samples.sample_rate, samples.pts, samples.time_base = 44_100, start, Fraction(1, 44_100)
            container.mux(sound.encode(samples))
        container.mux(picture.encode(None))
        container.mux(sound.encode(None))


def measure(config: MediaBenchConfig, folder: Path) -> list[MediaSpeed]:
    """Read the same views in every way; shards are written under `folder`, and clips if none are given."""
    source = config.source
    if source is None:
        source = str(folder / "clips")
        Path(source).mkdir()
        for i in range(NUM_CLIPS):
            write_clip(Path(source) / f"{i}.mp4", seed=i)
    ways: dict[str, tuple[Sequence[Clip], Opener]] = {
        "files, exact": (find_clips(source), partial(open_clip, seek="exact")),
        "files, nearest key frame": (find_clips(source), partial(open_clip, seek="nearest_keyframe")),
    }
    for sound in ("wav", "flac"):
        out = str(folder / sound)
        write_shards(ShardConfig(source, out, sound=sound))
        for decoder in installed_decoders():
            ways[f"shards, {sound}, {decoder}"] = (
                find_clips(out),
                lambda clip, decoder=decoder: ShardedClip(clip.path, clip.digest, decoder),  # type: ignore[misc]
            )
    view = TrainingView(image_size=(224, 224), window_seconds=3.0)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(-len(ways["files, exact"][0]), config.views):  # the first round over the clips warms up
        for way, (clips, opener) in ways.items():
            rng = np.random.default_rng((0, abs(number)))
            began = time.process_time()
            with opener(clips[number % len(clips)]) as media:
                view.read(media, rng)
            if number >= 0:
                seconds[way].append(time.process_time() - began)
    return [
        MediaSpeed(way, 1e3 * statistics.median(times), len(times) / sum(times), len(times))
        for way, times in seconds.items()
    ]


def run(config: MediaBenchConfig) -> list[MediaSpeed]:
    """Measure, print the table, and write the JSON file if asked for."""
    console = Console()
    with tempfile.TemporaryDirectory() as folder, console.status("measuring"):
        speeds = measure(config, Path(folder))
    table = Table(title="a training view: one frame to 224 x 224, 3 s of sound", title_justify="left")
    for column in ("read from", "CPU ms, median", "clips per core-second", "against files, exact"):
        table.add_column(column, justify="left" if column == "read from" else "right")
    for speed in speeds:
        ratio = speed.clips_per_core_second / speeds[0].clips_per_core_second
        table.add_row(speed.way, f"{speed.milliseconds:.2f}", f"{speed.clips_per_core_second:.0f}", f"{ratio:.1f} x")
    console.print(table)
    if config.json:
        record = {"config": asdict(config), "speeds": [asdict(speed) for speed in speeds]}
        write_text(config.json, json.dumps(record, indent=2) + "\n")
    return speeds
