"""Whether a file can be used: it opens and has video and sound, or a little of both can even be decoded.

The audit checks much more; this is for counting. Both functions are meant for `map_isolated`, because broken files can
crash or hang a decoder.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from deepavfusion.data.clips import Clip
from deepavfusion.data.framed_clips import FramedClip
from deepavfusion.data.locations import check_file, one_line
from deepavfusion.data.stored_media import media_status, open_media

Check = Literal["none", "open", "decode"]
"""Not at all; header and tracks; also a frame and half a second of sound from the middle."""
CHECKS = ("none", "open", "decode")
SOUND_SECONDS = 0.5


def checked_clip(clip: Clip, check: Check) -> Clip:
    """The row with what is known of its file; quarantined, with the reason, if it cannot be used."""
    from deepavfusion.data.media import MediaError

    try:
        status = media_status(clip.path)
        if status is not None:
            clip = replace(clip, num_bytes=status.st_size, modified_ns=status.st_mtime_ns)
        with open_media(clip.path) as media:
            info = media.info
            clip = clip.with_info(info)
            if not info.has_picture:
                return quarantined(clip, "no video")
            if not info.has_sound:
                return quarantined(clip, "no audio")
            if check == "decode":
                middle = info.duration_seconds / 2
                media.frame(middle)
                media.sound(max(0.0, middle - SOUND_SECONDS / 2), SOUND_SECONDS)
    except MediaError as error:
        return quarantined(clip, f"unreadable: {error.cause}")
    except OSError as error:
        return quarantined(clip, f"unreadable: {error.strerror or error}")
    return clip


def fault(clip: FramedClip, check: Check) -> str | None:
    """What is wrong with the first unusable file of a clip kept as pictures, None if all can be used."""
    from PIL import Image, UnidentifiedImageError

    from deepavfusion.data.media import MediaError, MediaFile
    from deepavfusion.data.photos import probe_photo, read_photo

    for path in clip.frames:
        try:
            if check == "decode":
                read_photo(path, longest=None)
            else:
                probe_photo(path)
        except MediaError as error:
            return f"unreadable: {error}"
    for path in clip.files:
        if path == clip.sound or path in clip.frames:
            continue
        try:
            check_file(path)
            with Image.open(path) as image:
                if check == "decode":
                    image.load()
        except UnidentifiedImageError:
            return f"unreadable: {one_line(path)}: not a picture"
        except (OSError, SyntaxError) as error:  # PIL raises SyntaxError for broken PNG files
            return f"unreadable: {one_line(path)}: {getattr(error, 'strerror', None) or error}"
    try:
        with MediaFile(clip.sound) as media:
            if not media.info.has_sound:
                return f"no audio: {one_line(clip.sound)}"
            if check == "decode":
                media.sound(0.0, SOUND_SECONDS)
    except MediaError as error:
        return f"unreadable: {error}"
    return None


def quarantined(clip: Clip, reason: str) -> Clip:
    """The row set aside; the reason in the words of the audit, which separates several by semicolons."""
    return replace(clip, verdict="quarantined", reason=" ".join(reason.replace(";", ",").split()))
