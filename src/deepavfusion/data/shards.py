"""Reading clips out of shards: a few large tar files instead of many small media files. Needs no PyAV.

A shard is a tar file in WebDataset's form. Each clip is one group of members, in this order:

    00000042.json      what is known of the clip, and where in this group frames and sound lie, with their checksums
    00000042.000.jpg   its frames, at evenly spaced times, scaled down
    ...
    00000042.wav       its sound, mono at 16 kHz, 16 bit (or 00000042.flac)

A clip's path in the manifest is `SHARD.tar#OFFSET`, the offset of its first member, and its digest that of the JSON,
which in turn holds checksums of all the rest: one frame and one window of sound are read by three short reads, and
nothing altered is ever taken for true.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepavfusion.data.clip import ClipInfo
from deepavfusion.data.clips import SHARDS_FILE, SHARDS_MANIFEST
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.jpeg import Decoder, crop_picture, decode_jpeg, fastest_decoder
from deepavfusion.data.locations import join, open_bytes, open_text, read_range

SHARD_FORMAT = 1
"""Version of the layout above."""
SHARD_RATE = 16_000
"""Samples per second of the sound in shards."""
WAV_HEADER = 44
"""Bytes before the samples of a wav member."""
BLOCK = 512
"""Tar files consist of such blocks."""
FIRST_READ = 4096
"""Bytes read at a clip's offset; its JSON rarely is longer."""


class ShardError(Exception):
    """A shard, or a clip in it, cannot be read: `place` and `cause`."""

    def __init__(self, place: str, cause: str) -> None:
        super().__init__(place, cause)
        self.place, self.cause = place, cause

    def __str__(self) -> str:
        return f"{self.place}: {self.cause}"


class ShardedClip:
    """An opened clip of a shard; stands in for a media file wherever one is read."""

    def __init__(self, path: str, digest: str | None = None, decoder: Decoder | None = None) -> None:
        """
        Args:
            path: `SHARD.tar#OFFSET`, local or a URL.
            digest: of the clip's JSON, from the manifest; without it alterations of the JSON itself stay unnoticed.
            decoder: of the pictures; the fastest installed one if None.

        Raises:
            ShardError: there is no such clip, or it is not what the digest says.
        """
        self.path = path
        self._shard, offset = path.rsplit("#", 1)
        self._decoder = decoder or fastest_decoder()
        start = int(offset)
        head = self._read(start, FIRST_READ, exact=False)
        if len(head) < BLOCK:
            raise ShardError(path, "the shard ends before this clip: it is truncated, or belongs to another manifest")
        if head[257:262] != b"ustar":
            raise ShardError(path, "no clip starts here: the shard was altered, or belongs to another manifest")
        num_bytes = int(head[124:135], 8) if head[124:135].isdigit() else 0
        text = head[BLOCK : BLOCK + num_bytes]
        if len(text) < num_bytes:
            text += self._read(start + len(head), num_bytes - len(text))
        if digest is not None and annotation_digest(text) != digest:
            raise ShardError(path, "its description differs from the manifest's digest: the shard was altered")
        try:
            self._about = json.loads(text)
        except ValueError as error:
            raise ShardError(path, f"its description is damaged ({error})") from error
        if self._about.get("format") != SHARD_FORMAT:
            raise ShardError(path, f"has format {self._about.get('format')}; this version reads {SHARD_FORMAT}")
        self._start = start + BLOCK + -(-num_bytes // BLOCK) * BLOCK
        self.info = _info(self._about)

    def __enter__(self) -> ShardedClip:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close: files stay open for the next clip of the shard."""

    def frame(self, time_seconds: float, crop: FrameCrop | None = None) -> NDArray[np.uint8]:
        """The stored frame nearest to a time, `(H, W, 3)` RGB, whole and at its stored size without a crop.

        Raises ShardError if it cannot be read, ValueError if the clip has no picture.
        """
        picture = self._picture(self._nearest(time_seconds))
        return picture if crop is None else crop_picture(picture, crop)

    def frames(self, times_seconds: Sequence[float], crop: FrameCrop) -> NDArray[np.uint8]:
        """The stored frames nearest to several times, `(T, H, W, 3)`; one that is nearest to two is read once.

        Raises as `frame`.
        """
        numbers = [self._nearest(time) for time in times_seconds]
        cropped = {number: crop_picture(self._picture(number), crop) for number in dict.fromkeys(numbers)}
        return np.stack([cropped[number] for number in numbers])

    def _nearest(self, time_seconds: float) -> int:
        frames = self._about["frames"]
        if frames is None:
            raise ValueError(f"{self.path} has no picture")
        return int(np.abs(np.asarray(frames["times"]) - time_seconds).argmin())

    def _picture(self, nearest: int) -> NDArray[np.uint8]:
        frames = self._about["frames"]
        data = self._read(self._start + frames["offsets"][nearest], frames["num_bytes"][nearest])
        self._check(data, frames["crc32"][nearest], f"frame {nearest}")
        try:
            return decode_jpeg(data, self._decoder)
        except ValueError as error:
            raise ShardError(self.path, f"frame {nearest}: {error}") from error

    def sound(
        self, start_seconds: float, duration_seconds: float, sample_rate: int = SHARD_RATE
    ) -> NDArray[np.float32]:
        """The sound of a window, `(n,)` in [-1, 1], shorter than asked for where it ends.

        Raises ShardError if it cannot be read, ValueError if the clip has no sound or a rate other than 16 kHz is
        asked for.
        """
        sound = self._about["sound"]
        if sound is None:
            raise ValueError(f"{self.path} has no sound")
        if sample_rate != SHARD_RATE:
            raise ValueError(f"{self.path}: shards hold sound at {SHARD_RATE} Hz, not {sample_rate}; use the files")
        first = min(max(0, round(start_seconds * SHARD_RATE)), sound["num_samples"])
        last = min(first + round(duration_seconds * SHARD_RATE), sound["num_samples"])
        if first == last:
            return np.zeros(0, np.float32)
        samples = self._flac(sound, first, last) if sound["codec"] == "flac" else self._wav(sound, first, last)
        return samples.astype(np.float32) / np.float32(2**15)

    def _wav(self, sound: dict[str, Any], first: int, last: int) -> NDArray[np.int16]:
        begin, end = first // SHARD_RATE, -(-last // SHARD_RATE)  # whole seconds, which have a checksum each
        position = begin * SHARD_RATE
        num_samples = min(end * SHARD_RATE, sound["num_samples"]) - position
        data = self._read(self._start + sound["offset"] + WAV_HEADER + 2 * position, 2 * num_samples)
        for second, crc in enumerate(sound["crc32"][begin:end]):
            part = data[2 * SHARD_RATE * second : 2 * SHARD_RATE * (second + 1)]
            self._check(part, crc, f"second {begin + second} of its sound")
        return np.frombuffer(data, "<i2")[first - position : last - position]

    def _flac(self, sound: dict[str, Any], first: int, last: int) -> NDArray[np.int16]:
        import soundfile

        data = self._read(self._start + sound["offset"], sound["num_bytes"])
        self._check(data, sound["crc32"][0], "its sound")
        try:
            with soundfile.SoundFile(io.BytesIO(data)) as file:
                file.seek(first)
                return file.read(last - first, dtype="int16")
        except soundfile.LibsndfileError as error:
            raise ShardError(self.path, f"its sound does not decode ({error})") from error

    def _read(self, start: int, num_bytes: int, exact: bool = True) -> bytes:
        try:
            data = read_range(self._shard, start, num_bytes)
        except OSError as error:
            raise ShardError(self.path, f"cannot be read ({error.strerror or error})") from error
        if exact and len(data) < num_bytes:
            raise ShardError(self.path, "the shard ends inside this clip: it is truncated")
        return data

    def _check(self, data: bytes, crc: int, what: str) -> None:
        if zlib.crc32(data) != crc:
            raise ShardError(self.path, f"{what} does not match its checksum: the shard was altered")


def annotation_digest(text: bytes) -> str:
    """BLAKE2 of a clip's JSON, as the manifest of the shards holds it."""
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def verify_shards(source: str, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Read all shards through and compare them with their checksums.

    Args:
        source: the folder or URL they were written to.
        progress: is called with the number of shards read so far and in all.

    Returns:
        What is wrong, one line per shard or manifest that is missing, truncated or altered; empty if all is well.

    Raises:
        ValueError: no shards there.
    """
    try:
        with open_text(join(source, SHARDS_FILE)) as file:
            index = json.load(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{source}: no readable {SHARDS_FILE}, so no finished shards ({error})") from error
    problems = []
    entries = [index["manifest"], *index["shards"]]
    assert index["manifest"]["name"] == SHARDS_MANIFEST
    for done, entry in enumerate(entries):
        if progress is not None:
            progress(done, len(entries))
        place = join(source, entry["name"])
        try:
            digest, num_bytes = _sha256(place)
        except OSError as error:
            problems.append(f"{place}: cannot be read ({error.strerror or error})")
            continue
        if num_bytes != entry["num_bytes"]:
            kind = "truncated" if num_bytes < entry["num_bytes"] else "too long"
            problems.append(f"{place}: {kind}, has {num_bytes} of {entry['num_bytes']} bytes")
        elif digest != entry["sha256"]:
            problems.append(f"{place}: altered, its SHA-256 differs")
    if progress is not None:
        progress(len(entries), len(entries))
    return problems


def _sha256(place: str) -> tuple[str, int]:
    digest, num_bytes = hashlib.sha256(), 0
    with open_bytes(place) as file:
        while block := file.read(1 << 20):
            digest.update(block)
            num_bytes += len(block)
    return digest.hexdigest(), num_bytes


def _info(about: dict[str, Any]) -> ClipInfo:
    """The figures are those of the file that the clip was made from."""
    frames, sound = about["frames"] or {}, about["sound"] or {}
    return ClipInfo(
        duration_seconds=about["duration_seconds"],
        has_picture=bool(frames),
        has_sound=bool(sound),
        width=frames.get("width", 0),
        height=frames.get("height", 0),
        frame_rate=frames.get("frame_rate", 0.0),
        sample_rate=sound.get("sample_rate", 0),
        channels=sound.get("channels", 0),
    )
