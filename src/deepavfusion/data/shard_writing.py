"""`shard`: clips are decoded once and stored so that training reads them fast and from anywhere.

Clips are encoded in parallel and written in the manifest's order, so that the bytes depend only on the clips and the
settings: not on the number of workers, the division of the work, or interruptions. A shard appears when it is complete,
followed by its description (`00003.json`); a shard with a description is not written again. When all shards are there,
the manifest of the clips in them and the list of shards with their checksums are written.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import tarfile
import wave
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from deepavfusion.data.clips import SHARDS_FILE, SHARDS_MANIFEST, Clip, find_clips, write_manifest
from deepavfusion.data.cluster import check_address, connected
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.jpeg import encode_jpeg
from deepavfusion.data.locations import write_json, write_whole
from deepavfusion.data.parts import parse_part
from deepavfusion.data.shards import BLOCK, SHARD_FORMAT, SHARD_RATE, WAV_HEADER, annotation_digest
from deepavfusion.data.stored_media import fetched, open_media
from deepavfusion.data.workers import Casualty, map_isolated

FRAMES_AT_ONCE = 64
"""Frames decoded in one pass."""
SOUND_SECONDS_AT_ONCE = 60.0
"""Sound decoded in one pass."""


@dataclass(frozen=True)
class ShardConfig:
    """Write the clips of a manifest as shards (WebDataset tar files) for fast training."""

    source: str
    """A manifest, a folder of video files, or hf:OWNER/NAME[:SPLIT] (docs/data.md)."""
    out: str
    """Folder to write to; finished shards in it are kept."""
    part: str = "1/1"
    """Write only one part of the shards, such as 3/8, in a job array."""
    frames_per_second: float = 1.0
    """Frames stored per second of video."""
    short_side: int = 256
    """Frames are scaled down to this many pixels on their shorter side; smaller frames keep their size."""
    jpeg_quality: int = 90
    """JPEG quality of the frames."""
    sound: Literal["wav", "flac"] = "wav"
    """Storage of the sound: wav is read twenty times faster, flac is about a third smaller."""
    clips_per_shard: int = 256
    """Clips per shard."""
    verify: bool = False
    """When all shards are there, read them completely and compare them with their checksums; also shards of an earlier
    run."""
    ray: str | None = None
    """Work on a Ray cluster: auto, local, host:port or ray://host:port (docs/scaling.md)."""
    num_workers: int = 2
    """Processes that decode clips (on a cluster, of each worker); 0 decodes in this process."""
    timeout_seconds: float = 600.0
    """A clip that takes longer counts as failed."""

    def __post_init__(self) -> None:
        for name in ("short_side", "clips_per_shard"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if self.frames_per_second <= 0:
            raise ValueError(f"frames_per_second {self.frames_per_second} must be positive")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality {self.jpeg_quality} must be in 1 to 100")
        if self.sound not in ("wav", "flac"):
            raise ValueError(f"sound {self.sound!r} must be wav or flac")
        if self.num_workers < 0:
            raise ValueError(f"num_workers {self.num_workers} must not be negative")
        parse_part(self.part)
        check_address(self.ray)

    @property
    def recipe(self) -> dict[str, Any]:
        """What the bytes of a shard depend on, besides its clips."""
        names = ("frames_per_second", "short_side", "jpeg_quality", "sound", "clips_per_shard")
        return {"format": SHARD_FORMAT} | {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class ShardSummary:
    """What a run of the writer did."""

    out: str
    num_shards: int
    """In all parts together."""
    num_written: int
    """By this run; the others of its part were there."""
    num_clips: int
    """In this part's shards."""
    num_bytes: int
    """Of this part's shards."""
    complete: bool
    """Whether the shards of all parts are there, and so the manifest."""
    failures: list[tuple[str, str]]
    """Id and cause of this part's clips that could not be read and so are in no shard."""


@dataclass(frozen=True)
class EncodedClip:
    """A clip's members in a shard, and its row in the manifest except for the place."""

    data: bytes
    row: Clip


def write_shards(config: ShardConfig, progress: Callable[[int, int], None] | None = None) -> ShardSummary:
    """Write shards, or those of one part.

    Args:
        config: which clips, where to and how.
        progress: is called with the number of clips of this part that are done, and in all.

    Raises:
        ValueError: no clips, none that can be read, or the folder holds shards of other clips or settings.
    """
    clips = find_clips(config.source)
    if any(clip.storage == "shard" for clip in clips):
        raise ValueError(f"{config.source}: holds shards already; shards are written from media files")
    if any(clip.storage == "framed" for clip in clips):
        raise ValueError(f"{config.source}: is a table of frames; shards are written from media files")
    os.makedirs(config.out, exist_ok=True)
    shards = [clips[i : i + config.clips_per_shard] for i in range(0, len(clips), config.clips_per_shard)]
    number, count = parse_part(config.part)
    own = range(number - 1, len(shards), count)
    known = {index: _description(config, index, shards[index]) for index in range(len(shards))}
    missing = [index for index in own if known[index] is None]
    total = sum(len(shards[index]) for index in own)
    done = total - sum(len(shards[index]) for index in missing)

    def count_on(more: int) -> None:
        if progress is not None:
            progress(done + more, total)

    count_on(0)
    with closing(_written([(index, list(shards[index])) for index in missing], config, count_on)) as written:
        known |= dict(written)
    # Other parts may have finished meanwhile; the last one to finish sees them all.
    every = [known[index] or _description(config, index, shards[index]) for index in range(len(shards))]
    present = [description for description in every if description is not None]
    complete = len(present) == len(shards)
    if complete and any(description["clips"] for description in present):
        _finish(config, present)
    mine = [description for index in own if (description := every[index]) is not None]
    if mine and not any(description["clips"] for description in mine):
        name, cause = mine[0]["failures"][0]
        part = f" of part {config.part}" if count > 1 else ""
        raise ValueError(
            f"{config.source}: none of the {total} clips{part} could be read, for example {name}: {cause}; remove "
            f"{config.out} before trying again"
        )
    return ShardSummary(
        out=config.out,
        num_shards=len(shards),
        num_written=len(missing),
        num_clips=sum(len(description["clips"]) for description in mine),
        num_bytes=sum(description["num_bytes"] for description in mine),
        complete=complete,
        failures=[(name, cause) for description in mine for name, cause in description["failures"]],
    )


def _written(
    wanted: list[tuple[int, Sequence[Clip]]], config: ShardConfig, count: Callable[[int], None]
) -> Generator[tuple[int, dict[str, Any]], None, None]:
    """Write shards, in processes of this one or on a cluster; their numbers and descriptions as they are done.

    Args:
        wanted: numbers of shards and their clips.
        config: how.
        count: is called with the number of clips that are done.
    """
    if config.ray is None or not wanted:
        numbered = (
            (index * config.clips_per_shard + i, clip) for index, clips in wanted for i, clip in enumerate(clips)
        )
        with closing(_encoded(numbered, config)) as results:
            encoded = _counted(results, count)
            for index, clips in wanted:
                yield index, _write_shard(config, index, clips, encoded)
        return
    num_cpus, done = max(1, config.num_workers), 0
    with connected(config.ray, num_cpus) as cluster:
        for number, description in cluster.map(partial(write_shard, config=config), wanted, num_cpus):
            index, clips = wanted[number]
            done += len(clips)
            count(done)
            yield index, description


def write_shard(numbered: tuple[int, Sequence[Clip]], config: ShardConfig) -> dict[str, Any]:
    """Write one shard, given its number and its clips; its description, which is written beside it too."""
    index, clips = numbered
    with closing(_encoded(enumerate(clips, index * config.clips_per_shard), config)) as encoded:
        return _write_shard(config, index, clips, encoded)


def _encoded(
    numbered: Iterable[tuple[int, Clip]], config: ShardConfig
) -> Generator[EncodedClip | str | Casualty, None, None]:
    encode = partial(encode_clip, config=config)
    items = ((number, fetched(clip)) for number, clip in numbered)
    return map_isolated(encode, items, config.num_workers, config.timeout_seconds)


def _counted(
    results: Iterator[EncodedClip | str | Casualty], count: Callable[[int], None]
) -> Iterator[EncodedClip | str | Casualty]:
    for number, result in enumerate(results, 1):
        count(number)
        yield result


def encode_clip(numbered: tuple[int, Clip], config: ShardConfig) -> EncodedClip | str:
    """Decode one clip and encode it as members of a shard; the cause in words if it cannot be read.

    Args:
        numbered: the clip's number in the manifest, which names its members, and the clip.
        config: how.
    """
    from deepavfusion.data.media import MediaError

    number, clip = numbered
    try:
        with open_media(clip.path) as media:
            info = media.info
            if not (info.has_picture or info.has_sound):
                return "has neither picture nor sound"
            pictures = list(_pictures(media, config)) if info.has_picture else []
            waveform = _waveform(media) if info.has_sound else np.zeros(0, np.int16)
    except MediaError as error:
        return str(error)
    key, body, times = f"{number:08d}", io.BytesIO(), _times(info.duration_seconds, config)
    frames = sound = None
    if pictures:
        places = [_add_member(body, f"{key}.{i:03d}.jpg", picture) for i, picture in enumerate(pictures)]
        frames = {
            "width": info.width,
            "height": info.height,
            "frame_rate": info.frame_rate,
            "times": times,
            "offsets": places,
            "num_bytes": [len(picture) for picture in pictures],
            "crc32": [zlib.crc32(picture) for picture in pictures],
        }
    if info.has_sound:
        stored, checks = _stored_sound(waveform, config.sound)
        sound = {
            "sample_rate": info.sample_rate,
            "channels": info.channels,
            "codec": config.sound,
            "num_samples": len(waveform),
            "offset": _add_member(body, f"{key}.{config.sound}", stored),
            "num_bytes": len(stored),
            "crc32": checks,
        }
    about = {
        "format": SHARD_FORMAT,
        "id": clip.id,
        "label": clip.label,
        "split": clip.split,
        "duration_seconds": info.duration_seconds,
        "frames": frames,
        "sound": sound,
    }
    text = json.dumps(about, separators=(",", ":")).encode()
    head = io.BytesIO()
    _add_member(head, f"{key}.json", text)
    data = head.getvalue() + body.getvalue()
    row = replace(
        clip,
        num_bytes=len(data),
        modified_ns=None,
        digest=annotation_digest(text),
        duration_seconds=info.duration_seconds,
        width=info.width if info.has_picture else None,
        height=info.height if info.has_picture else None,
        frame_rate=info.frame_rate if info.has_picture else None,
        sample_rate=info.sample_rate if info.has_sound else None,
        channels=info.channels if info.has_sound else None,
    )
    return EncodedClip(data, row)


def _times(duration_seconds: float, config: ShardConfig) -> list[float]:
    """The middle of every frame of a film at the rate asked for; the clip's own middle if it is shorter than one."""
    count = round(duration_seconds * config.frames_per_second)
    return [(i + 0.5) / config.frames_per_second for i in range(count)] or [duration_seconds / 2]


def _pictures(media: Any, config: ShardConfig) -> Iterator[bytes]:
    info = media.info
    scale = min(1.0, config.short_side / min(info.height, info.width))
    crop = FrameCrop.whole((max(1, round(info.height * scale)), max(1, round(info.width * scale))))
    times = _times(info.duration_seconds, config)
    for start in range(0, len(times), FRAMES_AT_ONCE):
        for picture in media.frames(times[start : start + FRAMES_AT_ONCE], crop):
            yield encode_jpeg(picture, config.jpeg_quality)


def _waveform(media: Any) -> NDArray[np.int16]:
    """All of a file's sound, `(samples,)` at 16 kHz. Its samples lie on one grid whatever window they are read in."""
    parts, start = [], 0.0
    while start < media.info.duration_seconds:
        parts.append(media.sound(start, SOUND_SECONDS_AT_ONCE, SHARD_RATE))
        if len(parts[-1]) < SOUND_SECONDS_AT_ONCE * SHARD_RATE:
            break
        start += SOUND_SECONDS_AT_ONCE
    waveform = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return np.clip(np.round(waveform * 2**15), -(2**15), 2**15 - 1).astype("<i2")


def _stored_sound(waveform: NDArray[np.int16], codec: str) -> tuple[bytes, list[int]]:
    """A wav or flac file, and checksums: of each second's samples in the one, of the file in the other."""
    buffer = io.BytesIO()
    if codec == "flac":
        import soundfile

        soundfile.write(buffer, waveform, SHARD_RATE, format="FLAC", subtype="PCM_16")
        return buffer.getvalue(), [zlib.crc32(buffer.getvalue())]
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SHARD_RATE)
        file.writeframes(waveform.tobytes())
    stored = buffer.getvalue()
    assert len(stored) == WAV_HEADER + waveform.nbytes
    seconds = range(0, len(waveform), SHARD_RATE)
    return stored, [zlib.crc32(waveform[start : start + SHARD_RATE].tobytes()) for start in seconds]


def _add_member(archive: IO[bytes], name: str, data: bytes) -> int:
    """Append a member to a tar file; returns where its data start."""
    header = tarfile.TarInfo(name)  # owner, time and mode stay at their defaults: bytes tell of the data alone
    header.size = len(data)
    archive.write(header.tobuf(tarfile.USTAR_FORMAT))
    start = archive.tell()
    archive.write(data + bytes(-len(data) % BLOCK))
    return start


def _write_shard(
    config: ShardConfig, index: int, clips: Sequence[Clip], encoded: Iterator[EncodedClip | str | Casualty]
) -> dict[str, Any]:
    """Write a shard from the next encoded clips, then its description."""
    name = _shard_name(index)
    path = os.path.join(config.out, name)
    for remains in glob.glob(f"{glob.escape(path)}.*.partial"):  # of a run that was killed
        os.remove(remains)
    digest, num_bytes = hashlib.sha256(), 0
    rows, failures = [], []
    with write_whole(path, "wb") as file:
        for clip in clips:
            result = next(encoded)
            if isinstance(result, EncodedClip):
                rows.append(replace(result.row, path=f"{name}#{num_bytes}"))
                file.write(result.data)
                digest.update(result.data)
                num_bytes += len(result.data)
            else:
                failures.append((clip.id, result if isinstance(result, str) else result.cause))
        end = bytes(2 * BLOCK)
        file.write(end)
        digest.update(end)
        num_bytes += len(end)
    description = {
        "shard": name,
        "num_bytes": num_bytes,
        "sha256": digest.hexdigest(),
        "recipe": config.recipe,
        "source": _source_digest(clips),
        "failures": failures,
        "clips": [asdict(row) for row in rows],
    }
    write_json(_description_name(config, index), description)
    return description


def _description(config: ShardConfig, index: int, clips: Sequence[Clip]) -> dict[str, Any] | None:
    """The description of a shard that is complete; None if it is not."""
    path = _description_name(config, index)
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        description = json.load(file)
    if description["recipe"] != config.recipe or description["source"] != _source_digest(clips):
        raise ValueError(
            f"{path}: was written from other clips or settings; choose an empty folder for --out, or remove it"
        )
    shard = os.path.join(config.out, description["shard"])
    complete = os.path.exists(shard) and os.path.getsize(shard) == description["num_bytes"]
    return description if complete else None


def _finish(config: ShardConfig, descriptions: list[dict[str, Any]]) -> None:
    manifest = os.path.join(config.out, SHARDS_MANIFEST)
    write_manifest(manifest, [Clip(**row) for description in descriptions for row in description["clips"]])
    with open(manifest, "rb") as file:
        listed = file.read()
    index = {
        "recipe": config.recipe,
        "manifest": {"name": SHARDS_MANIFEST, "num_bytes": len(listed), "sha256": hashlib.sha256(listed).hexdigest()},
        "shards": [
            {"name": entry["shard"], "num_bytes": entry["num_bytes"], "sha256": entry["sha256"]}
            for entry in descriptions
        ],
        "failures": [failure for entry in descriptions for failure in entry["failures"]],
    }
    write_json(os.path.join(config.out, SHARDS_FILE), index)


def _shard_name(index: int) -> str:
    return f"{index:05d}.tar"


def _description_name(config: ShardConfig, index: int) -> str:
    return os.path.join(config.out, f"{index:05d}.json")


def _source_digest(clips: Sequence[Clip]) -> str:
    rows = [(clip.id, os.path.basename(clip.path), clip.num_bytes, clip.label, clip.split) for clip in clips]
    return hashlib.blake2b(json.dumps(rows).encode(), digest_size=16).hexdigest()
