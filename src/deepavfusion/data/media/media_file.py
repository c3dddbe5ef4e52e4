"""Reading a clip from a media file: the frame shown at a time and the sound of a window, from one opening of the file.

`MediaFile` is the reader, `MediaInfo` describes a file, `MediaError` is the error of an unreadable file. Frames are
found in `picture_track`, sound in `sound_track`, damage is handled in `track`.

Time 0 is where the earlier of the two tracks starts to be presented. One decoder thread is used, because clips are read
in parallel by processes. A MediaFile belongs to one thread.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from deepavfusion.data.clip import ClipInfo
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.media import frame_pixels
from deepavfusion.data.media.clock import Seam
from deepavfusion.data.media.demuxer import MAX_SAMPLE_RATE, Demuxer, codec_name
from deepavfusion.data.media.dynamic_range import ColourCoding, colour_coding, stated
from deepavfusion.data.media.media_error import MediaError, reading
from deepavfusion.data.media.picture_track import PictureTrack
from deepavfusion.data.media.sound_track import MAX_WINDOW_SECONDS, SoundTrack

__all__ = ["FrameCrop", "MediaError", "MediaFile", "MediaInfo"]


@dataclass(frozen=True, kw_only=True)
class MediaInfo(ClipInfo):
    """What is known of a media file."""

    picture_end_seconds: float
    """Where the picture track ends, which may be before or after the sound does; 0 without a picture."""
    sound_end_seconds: float
    video_codec: str
    """libav's name of the codec; empty without a picture."""
    audio_codec: str


class MediaFile:
    """An open media file; to be used in a `with` statement.

    Args:
        path: the file.
        seek: "exact" finds the frame shown at a time; "nearest_keyframe" the key frame nearest to it, which is
            cheaper and can be seconds away.

    Raises MediaError if the file cannot be opened. `frame`, `frames`, `sound` and `info` raise MediaError for what
    they cannot read, and ValueError for wrong arguments and for a track the file does not have.
    """

    def __init__(self, path: str | os.PathLike[str], seek: Literal["exact", "nearest_keyframe"] = "exact") -> None:
        if seek not in ("exact", "nearest_keyframe"):
            raise ValueError(f"seek must be 'exact' or 'nearest_keyframe', got {seek!r}")
        self.path = os.fspath(path)
        self._seek = seek
        with reading(self.path, "cannot be opened"):
            self._demuxer = Demuxer(self.path)
        self._picture = PictureTrack(self._demuxer) if self._demuxer.streams["picture"] is not None else None
        self._sound = SoundTrack(self._demuxer) if self._demuxer.streams["sound"] is not None else None
        picture = self._demuxer.streams["picture"]
        # The container's word: decoding may put that of the pictures in its place.
        self._stated_colours = stated(picture.codec_context) if picture is not None else (None, None)
        self.converted_from: ColourCoding | None = None
        """How the pictures read so far are coded, if they had to be brought to the standard range and colours."""
        self._is_open = True

    def __enter__(self) -> MediaFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. `info`, once looked at, stays."""
        self._is_open = False
        self._demuxer.close()

    @property
    def num_refused_packets(self) -> int:
        """How many packets the decoders have refused so far: 0 for a file without damage where it was read."""
        tracks = [part.track for part in (self._picture, self._sound) if part is not None]
        return sum(track.num_refused_packets for track in tracks)

    @property
    def seams(self) -> tuple[Seam, ...]:
        """Where the file's clock leaps or starts over; it is read on across as one recording."""
        if self._demuxer.packets is None:
            return ()
        return tuple(
            Seam(seam.seconds - self._demuxer.origin_seconds, seam.leap_seconds) for seam in self._demuxer.packets.seams
        )

    @cached_property
    def info(self) -> MediaInfo:
        """Tracks, times and sizes. Decodes a frame of sound, and one of the picture if no header tells its turn."""
        with self._reading("its properties cannot be read"):
            picture_end = self._picture.track.end_seconds if self._picture is not None else None
            sound_end = self._sound.track.end_seconds if self._sound is not None else None
            width, height, frame_rate, video_codec = 0, 0, 0.0, ""
            if self._picture is not None and picture_end is not None:
                height, width = self._picture.displayed_size()
                stream = self._picture.track.stream
                frame_rate = float(stream.average_rate or stream.guessed_rate or 0)
                video_codec = codec_name(stream)
            sample_rate, channels, audio_codec = 0, 0, ""
            if self._sound is not None and sound_end is not None:
                specimen = self._sound.specimen()
                sample_rate, channels = specimen.sample_rate, specimen.layout.nb_channels
                audio_codec = codec_name(self._sound.track.stream)
            return MediaInfo(
                duration_seconds=max(picture_end or 0.0, sound_end or 0.0, 0.0),
                has_picture=picture_end is not None,
                has_sound=sound_end is not None,
                width=width,
                height=height,
                frame_rate=frame_rate,
                sample_rate=sample_rate,
                channels=channels,
                picture_end_seconds=picture_end or 0.0,
                sound_end_seconds=sound_end or 0.0,
                video_codec=video_codec,
                audio_codec=audio_codec,
            )

    def frame(self, time_seconds: float, crop: FrameCrop | None = None) -> npt.NDArray[np.uint8]:
        """The frame shown at a time, `(H, W, 3)` RGB: the last one that starts at or before it.

        Before the first frame it is the first, after the last the last (a picture shorter than its sound stays).
        Without a crop it has the displayed picture's own size.
        """
        return self._pictures([time_seconds], crop)[0]

    def frames(self, times_seconds: Sequence[float], crop: FrameCrop | None = None) -> npt.NDArray[np.uint8]:
        """The frames shown at several ascending times, `(T, H, W, 3)` RGB, in one pass over the file."""
        pictures = self._pictures(list(times_seconds), crop)
        if any(picture.shape != pictures[0].shape for picture in pictures):
            raise MediaError(self.path, "its frames change their size; read them with a crop")
        return np.stack(pictures)

    def film(self, wanted: Sequence[tuple[float, Sequence[FrameCrop]]]) -> Iterator[list[npt.NDArray[np.uint8]]]:
        """The frames shown at ascending times, each in every crop named with its time, as they are decoded.

        Decodes onward through the file, with no start at a key frame in between but where times lie far apart. Until
        it ends nothing else may be read from this opening.
        """
        shown = self._shown([time for time, _ in wanted])
        last: Any = None
        cropped: dict[FrameCrop, npt.NDArray[np.uint8]] = {}
        for _, crops in wanted:
            with self._reading("no frame can be read"):
                frame = next(shown)
                if frame is not last:
                    last, cropped = frame, {}
                for crop in crops:
                    if crop not in cropped:
                        cropped[crop] = self._pixels(frame, crop)
            yield [cropped[crop] for crop in crops]

    def _pictures(self, times: list[float], crop: FrameCrop | None) -> list[npt.NDArray[np.uint8]]:
        with self._reading("no frame can be read"):
            return [self._pixels(frame, crop) for frame in self._shown(times)]

    def _shown(self, times: list[float]) -> Iterator[Any]:
        """The decoded frames shown at ascending times; decoding them raises what `_reading` is for."""
        if not times or not all(map(math.isfinite, times)) or times != sorted(times):
            raise ValueError(f"times must be finite, ascending and at least one, got {times}")
        self._check_open()
        if self._picture is None:
            raise ValueError(f"{self.path} has no picture")
        return self._picture.shown_at(times) if self._seek == "exact" else map(self._picture.nearest_key_frame, times)

    def sound(self, start_seconds: float, duration_seconds: float, sample_rate: int = 16000) -> npt.NDArray[np.float32]:
        """The sound of a window, `(n,)` mono in [-1, 1]: the plain average of all channels, resampled.

        `n` is round(duration_seconds * sample_rate) where the track covers the window, less where it ends before,
        0 where it ends before the window starts. What is missing before the track's start or in gaps is silence.
        """
        if not (math.isfinite(start_seconds) and start_seconds >= 0):
            raise ValueError(f"start_seconds must be 0 or more, got {start_seconds}")
        if not 0 < duration_seconds <= MAX_WINDOW_SECONDS:
            raise ValueError(f"duration_seconds must be in 0 to {MAX_WINDOW_SECONDS:g}, got {duration_seconds}")
        if not 0 < sample_rate <= MAX_SAMPLE_RATE:
            raise ValueError(f"sample_rate must be in 1 to {MAX_SAMPLE_RATE}, got {sample_rate}")
        with self._reading("no sound can be read"):
            if self._sound is None:
                raise ValueError(f"{self.path} has no sound")
            return self._sound.window(start_seconds, duration_seconds, sample_rate)

    def _pixels(self, frame: Any, crop: FrameCrop | None) -> npt.NDArray[np.uint8]:
        self._demuxer.check_size(frame.width, frame.height)
        assert self._picture is not None
        of_frame, of_decoder = stated(frame), stated(self._picture.track.stream.codec_context)
        coding = colour_coding(*map(list, zip(of_frame, of_decoder, self._stated_colours, strict=True)))
        self.converted_from = coding or self.converted_from
        return frame_pixels.pixels(frame, crop, coding)

    def _reading(self, action: str) -> AbstractContextManager[None]:
        self._check_open()
        return reading(self.path, action)

    def _check_open(self) -> None:
        if not self._is_open:
            raise ValueError(f"{self.path} is closed")
