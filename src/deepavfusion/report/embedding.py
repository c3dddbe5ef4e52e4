"""Images and clips as `data:` URIs, so that a page needs no other file."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

from PIL import Image

from deepavfusion.data.media import MediaFile
from deepavfusion.report.sections import Picture

MAX_PICTURE_SIDE = 1600
"""Pixels; larger pictures are scaled down."""
WEBP_QUALITY = 88

_MEDIA_TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm", ".wav": "audio/wav"}
"""What browsers play."""


def data_uri(content: bytes, media_type: str) -> str:
    """Bytes as a `data:` URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def embed_picture(path: Path, alt: str, caption: str, label: str = "") -> Picture:
    """A picture of any format Pillow reads, coded anew as WebP: a few times smaller than PNG, hardly different to see.

    Raises ValueError naming a file that is no picture.
    """
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except OSError as error:
        raise ValueError(f"{path}: not a readable image: {error}") from None
    image.thumbnail((MAX_PICTURE_SIDE, MAX_PICTURE_SIDE), Image.Resampling.LANCZOS)
    return Picture(data_uri(_webp(image), "image/webp"), alt, caption, image.width, image.height, label)


def embed_clip(path: Path) -> str:
    """A media file, byte by byte. Raises ValueError for a format that browsers do not play."""
    media_type = _MEDIA_TYPES.get(path.suffix.lower())
    if media_type is None:
        raise ValueError(
            f"{path}: browsers play {', '.join(_MEDIA_TYPES)}, not {path.suffix or 'a file without suffix'}"
        )
    return data_uri(path.read_bytes(), media_type)


def embed_frame(path: str | os.PathLike[str], time_seconds: float) -> str:
    """The frame of a media file shown at a time, as a picture. Raises MediaError if it cannot be read."""
    with MediaFile(path) as media:
        return data_uri(_webp(Image.fromarray(media.frame(time_seconds))), "image/webp")


def _webp(image: Image.Image) -> bytes:
    stored = io.BytesIO()
    image.save(stored, format="WEBP", quality=WEBP_QUALITY, method=4)
    return stored.getvalue()
