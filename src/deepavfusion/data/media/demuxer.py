"""An open media file: which of its tracks are read, where its time starts, and what is refused before decoding.

The choice of tracks and all limits on sizes are here; `Track` reads the packets of one track.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from typing import Any, Literal

import av

from deepavfusion.data.media.clock import Kind
from deepavfusion.data.media.formats import not_media, photo
from deepavfusion.data.media.media_error import MediaError, cause_of, reading
from deepavfusion.data.media.mp4_header import Matrix, display_matrices
from deepavfusion.data.media.packet_list import PacketList, list_packets
from deepavfusion.data.media.photo_header import photo_header

MAX_SIDE = 16384
"""Pictures that claim more pixels than this on a side are refused before anything is allocated for them."""
MAX_PIXELS = 100_000_000
"""And so are pictures that claim more pixels than this in all."""
MAX_CHANNELS = 8
"""Sound that claims more channels than this is refused; PyAV would read beyond the list of their samples."""
MAX_START_SECONDS = 1.0
"""Where sound is said to start further from its first packet than this, the packet is believed."""
MAX_SAMPLE_RATE = 768_000
"""And so is sound that claims a higher rate than this, in samples per second."""

Layout = Literal["mp4", "matroska", "other"]

# Containers of clips. Playlists are left out: they open other files, and the network. So are single pictures and bare
# streams, which have no time.
_CONTAINERS = "mov,matroska,mpeg,mpegts,avi,flv,asf,ogg,nut,mxf,rm,wav,w64,mp3,flac,aac,ac3,amr,aiff,au,caf"
_READING_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
# The header of MP4 says all that is needed before decoding. Left alone, libav decodes pictures to learn the pixel
# format, which takes a fifth of all the time that reading a clip takes.
_SHORT_PROBE = {"probesize": "32", "analyzeduration": "1"}
# For the decoders that libav runs while it opens a file. PyAV before 18 must not be given any where the header does not
# list all tracks: it crashes.
_LIMITS = {"max_pixels": str(MAX_PIXELS)}
_DECODING_OPTIONS: dict[Layout, dict[str, str]] = {
    "mp4": _LIMITS | {"skip_frame": "all"},
    "matroska": _LIMITS,
    "other": {},
}
# Containers of PCM in which a seek counts bytes, by a rate that their header states and that may be a guess.
_COUNTED_CONTAINERS = ("wav", "w64", "aiff", "au", "caf")
_PCM_BITS = {
    f"pcm_{kind}{order}": bits
    for kind, bits in {
        "u8": 8,
        "s8": 8,
        "mulaw": 8,
        "alaw": 8,
        "s16": 16,
        "s24": 24,
        "s32": 32,
        "f32": 32,
        "f64": 64,
    }.items()
    for order in ("", "le", "be")
}
_DISCARD = getattr(av.stream, "Discard", None)  # PyAV 18


class Demuxer:
    """The open container; `streams` has its picture and sound tracks, None where the file has none.

    Of several picture tracks one of more than a frame is read, of these the default one, among equals the largest;
    cover art is no picture track. Of several sound tracks the default one is read, among equals the one with most
    channels; sound for the hearing or visually impaired and commentary only when there is nothing else.

    `is_untouched` tells whether the file stands where opening it has left it, and `has_index` whether the container
    knows where its key frames are (in MPEG-PS a seek does not even find the first packet). `packets` lists those of a
    container that does not know their times, and is None otherwise. `origin_seconds` is the presentation time at which
    the earlier of the two tracks starts: the clip's time 0.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.display_matrices: dict[int, Matrix] = {}
        """Of the tracks, by stream id, where the file's header tells."""
        self._layout = self._look_at_header()
        self.open()
        if self._layout == "mp4" and any(s is not None and _is_vague(s) for s in self.streams.values()):
            self.close()
            self._layout = "matroska"
            self.open()
        self.packets: PacketList | None = None
        if not (self.has_index or self._is_exact_by_itself()):
            self.list_packets()
        starts = [self._start(kind) for kind, stream in self.streams.items() if stream is not None]
        self.origin_seconds = min((start for start in starts if start is not None), default=0.0)

    def list_packets(self) -> None:
        """Read through the whole file for its `packets`."""
        streams = {kind: stream for kind, stream in self.streams.items() if stream is not None}
        with reading(self.path, "cannot be read through"):
            self.packets = list_packets(self.path, _READING_OPTIONS, streams)

    def _is_exact_by_itself(self) -> bool:
        """Whether times and seeks are exact without an index: FLAC numbers its samples, those of PCM are counted."""
        sound, name = self.streams["sound"], self.container.format.name
        if self.streams["picture"] is not None or sound is None:
            return False
        context = sound.codec_context
        rate = context.sample_rate * num_channels(sound) * _PCM_BITS.get(context.name, 0)
        return name == "flac" or (name in _COUNTED_CONTAINERS and rate > 0 and context.bit_rate == rate)

    def _start(self, kind: Kind) -> float | None:
        stream = self.streams[kind]
        listed = self.packets.tracks.get(kind) if self.packets is not None else None
        stated = None if stream.start_time is None else float(stream.start_time * stream.time_base)
        if listed is None:
            return stated
        first = float(listed.ordered_seconds[0])
        if kind == "picture" or stated is None or abs(stated - first) > MAX_START_SECONDS:
            return first
        return stated  # of sound, whose first packets may hold samples that are not to be played

    def open(self) -> None:
        """Open the file, or open it again from its start: the container and its streams are new objects then."""
        with reading(self.path, "cannot be opened"):
            try:
                self.container = av.open(
                    os.path.abspath(self.path),  # a bare name with a colon would be taken for a protocol
                    options=_DECODING_OPTIONS[self._layout],
                    container_options=_READING_OPTIONS | (_SHORT_PROBE if self._layout == "mp4" else {}),
                    metadata_errors="replace",
                )
            except av.FFmpegError as error:
                if not isinstance(error, av.InvalidDataError) and error.errno != errno.EINVAL:
                    raise
                known = not_media(self.path, is_known_to_libav=error.errno == errno.EINVAL)
                cause = known or f"no media container, or one whose index is missing or damaged ({cause_of(error)})"
                raise MediaError(self.path, f"cannot be opened: {cause}") from error
        self.is_untouched = True
        self.has_index = self.container.format.name.startswith(("mov,", "matroska,"))
        try:
            self.streams: dict[Kind, Any] = {
                "picture": _best(self.container.streams.video, _picture_rank),
                "sound": _best(self.container.streams.audio, _sound_rank),
            }
            if self.streams["picture"] is not None:
                self._prepare_picture(self.streams["picture"])
            if self.streams["sound"] is not None:
                self._prepare_sound(self.streams["sound"])
        except BaseException:
            self.container.close()
            raise

    def _look_at_header(self) -> Layout:
        """Refuse what is no file, and tell how much its header says."""
        with reading(self.path, "cannot be opened"):
            status = os.stat(self.path)
            if not stat.S_ISREG(status.st_mode):
                raise MediaError(self.path, "cannot be opened: not a regular file")
            if status.st_size == 0:
                raise MediaError(self.path, "cannot be opened: the file is empty")
            self.file_size = status.st_size
            with open(self.path, "rb", buffering=0) as file:
                head = os.pread(file.fileno(), 8, 0)
                if head[4:] == b"ftyp":
                    still = photo_header(file.fileno())
                    if still is not None:
                        raise MediaError(self.path, f"cannot be opened: {photo(still.format)}")
                    self.display_matrices = display_matrices(file.fileno())
                    return "mp4"
                return "matroska" if head.startswith(b"\x1aE\xdf\xa3") else "other"

    def close(self) -> None:
        """Close the file; harmless when it is closed already."""
        self.container.close()

    def attend_to(self, kind: Kind) -> None:
        """Let the demuxer leave out the packets of all tracks but one. PyAV before 18 reads them all the same."""
        if _DISCARD is not None:
            wanted = self.streams[kind].index
            for stream in self.container.streams:
                stream.discard = _DISCARD.default if stream.index == wanted else _DISCARD.all

    def check_size(self, width: int, height: int) -> None:
        """Raise MediaError for a picture size that no real clip has."""
        if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
            raise MediaError(self.path, f"its video track claims {width} x {height} pixels, more than is supported")

    def _prepare_picture(self, stream: Any) -> None:
        self._prepare(stream)
        self.check_size(stream.codec_context.width, stream.codec_context.height)
        stream.codec_context.options = _LIMITS

    def _prepare_sound(self, stream: Any) -> None:
        self._prepare(stream)
        rate, channels = stream.codec_context.sample_rate, num_channels(stream)
        if rate > MAX_SAMPLE_RATE or channels > MAX_CHANNELS:
            raise MediaError(
                self.path, f"its sound track claims {channels} channels at {rate} Hz, more than is supported"
            )

    def _prepare(self, stream: Any) -> None:
        if stream.codec_context is None:
            raise MediaError(self.path, f"there is no decoder for its {stream.type} track")
        if not stream.time_base:
            raise MediaError(self.path, f"its {stream.type} track has no time base")
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"


def _is_vague(stream: Any) -> bool:
    return stream.start_time is None or (stream.type == "video" and stream.codec_context.width == 0)


def num_channels(stream: Any) -> int:
    """The number of channels a sound track claims, 0 if it claims none."""
    layout = stream.codec_context.layout
    return layout.nb_channels if layout is not None else 0


def _best(streams: Iterable[Any], rank: Any) -> Any:
    ranked = [(rank(stream), -stream.index, stream) for stream in streams]
    ranked = [entry for entry in ranked if entry[0] is not None]
    return max(ranked, key=lambda entry: entry[:2])[2] if ranked else None


def _picture_rank(stream: Any) -> tuple[bool, bool, bool, int] | None:
    if _has(stream, "attached_pic") or _has(stream, "timed_thumbnails"):
        return None
    context = stream.codec_context
    size = context.width * context.height if context is not None else 0
    # Moving AVIF and HEIC hold a still picture beside the film, which libav calls a track and the default one.
    return context is not None, stream.frames != 1, _has(stream, "default"), size


def _sound_rank(stream: Any) -> tuple[bool, bool, bool, int]:
    beside = any(_has(stream, flag) for flag in ("hearing_impaired", "visual_impaired", "comment", "descriptions"))
    context = stream.codec_context
    return context is not None, not beside, _has(stream, "default"), num_channels(stream) if context is not None else 0


def _has(stream: Any, flag: str) -> bool:
    # PyAV has known dispositions since 14.1; before that every track counts as an ordinary one.
    disposition = getattr(stream, "disposition", None)
    return (
        disposition is not None
        and flag in type(disposition).__members__
        and bool(disposition & type(disposition)[flag])
    )


def codec_name(stream: Any) -> str:
    """libav's name of a track's codec, not of the decoder in use."""
    codec = stream.codec_context.codec
    return getattr(codec, "canonical_name", codec.name)
