"""Photos as they are displayed, from files or from images opened by Pillow, by the same rules.

Rotation and mirroring are applied, alpha is dropped (colours are taken as they are stored), other colour spaces and
high dynamic range are converted to 8-bit RGB. Size limits are checked before anything is allocated. HEIC is read where
`pillow-heif` is installed, else refused by name.
"""

from __future__ import annotations

import importlib.util
import os
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, features

from deepavfusion.data.media.demuxer import MAX_PIXELS, MAX_SIDE
from deepavfusion.data.media.dynamic_range import colour_coding, standard_range
from deepavfusion.data.media.formats import not_media, photo_format
from deepavfusion.data.media.media_error import MediaError
from deepavfusion.data.media.photo_header import PhotoHeader, photo_header

PHOTO_SIDE = 2048
"""Photos are brought to at most this many pixels on their longer side when they are read: models look at 224."""
_PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_STATIC = ("TIFF", "MPO")  # whose further pictures are no film: pages, other eyes, maps of depth
# What Pillow raises for damaged files, by their formats.
_DAMAGE: tuple[type[Exception], ...] = (
    OSError, SyntaxError, ValueError, EOFError, ArithmeticError, LookupError, TypeError, RuntimeError, MemoryError,
    struct.error,
)  # fmt: skip


def read_photo(path: str | os.PathLike[str], longest: int | None = PHOTO_SIDE) -> NDArray[np.uint8]:
    """A photo file as it is to be displayed, `(H, W, 3)` RGB.

    Args:
        path: the file; its content says what it is.
        longest: no side of the result is longer; None leaves the size.

    Raises:
        MediaError: not a photo that is read, damaged, or it claims more pixels than are supported.
    """
    with _opened(os.fspath(path)) as (image, header):
        if longest is not None:
            image.draft("RGB", (longest, longest))  # large JPEGs are decoded at a fraction of their size
        return _displayed(_cut(image, header), longest, header)


def probe_photo(path: str | os.PathLike[str]) -> None:
    """Raise MediaError for a file that `read_photo` would refuse by its header; damage further on is not looked for."""
    with _opened(os.fspath(path)):
        pass


def photo_of_image(image: Image.Image, longest: int | None = PHOTO_SIDE) -> NDArray[np.uint8]:
    """An image of Pillow as its file would be read, `(H, W, 3)` RGB; the image itself stays as it is.

    Args:
        image: opened or made.
        longest: no side of the result is longer; None leaves the size.

    Raises:
        ValueError: it cannot be read, or a file like it would be refused; without a name.
    """
    try:
        check_photo(image)
        header = _header_of(image)
        return _displayed(ImageOps.exif_transpose(_cut(image, header)), longest, header)
    except PhotoRefused:
        raise
    except _DAMAGE as error:
        raise ValueError(f"not a readable image: {error or type(error).__name__}") from error


def check_photo(image: Image.Image) -> None:
    """Raise PhotoRefused for what is refused by what an image claims to be, before it is decoded."""
    _check_size(*image.size)
    if image.mode.startswith(("I", "F")):
        raise PhotoRefused(f"has pixels of kind {image.mode}; convert it to 8 bits a channel")
    if getattr(image, "is_animated", False) and image.format not in _STATIC:
        count = getattr(image, "n_frames", "several")
        raise PhotoRefused(f"is animated ({count} frames of {image.format}); give one of them, or a video")


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise PhotoRefused(f"claims {width} x {height} pixels, more than is supported")
    if min(width, height) < 1:
        raise PhotoRefused(f"has {width} x {height} pixels")


class PhotoRefused(ValueError):
    """A photo that is as it should be, and not read."""


def _displayed(image: Image.Image, longest: int | None, header: PhotoHeader | None) -> NDArray[np.uint8]:
    """The pixels of an image that has been checked and may be changed."""
    if longest is not None:
        image.thumbnail((longest, longest), Image.Resampling.BILINEAR)
    pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    coding = None if header is None else colour_coding([header.transfer], [header.primaries])
    return pixels if coding is None else standard_range(pixels.astype(np.uint16) * 257, coding)


def _cut(image: Image.Image, header: PhotoHeader | None) -> Image.Image:
    """The part of a photo that is to be shown, where Pillow gives what lies around it too."""
    part = header.shown(*image.size) if header is not None and image.format == "AVIF" else None
    return image if part is None else image.crop(part)


def _header_of(image: Image.Image) -> PhotoHeader | None:
    """The header of the file that an image was opened from, where that is one of photos in the container of MP4."""
    name = getattr(image, "filename", None)
    if image.format not in ("AVIF", "HEIF") or not name:
        return None
    try:
        with open(name, "rb") as file:
            return photo_header(file.fileno())
    except OSError:
        return None


@contextmanager
def _opened(path: str) -> Iterator[tuple[Image.Image, PhotoHeader | None]]:
    """A photo file opened by what reads it, and its header in the container of MP4; whatever fails is a MediaError."""
    if photo_format(path) is None:
        there = os.path.exists(path)
        raise MediaError(path, (not_media(path, False) or "not a photo") if there else "no such file")
    try:
        with open(path, "rb") as file:
            header = photo_header(file.fileno())
        with _decoder(path, header) as image:
            check_photo(image)
            yield image, header
    except MediaError:
        raise
    except Image.DecompressionBombError as error:
        raise MediaError(path, "claims more pixels than are supported") from error
    except Image.UnidentifiedImageError as error:
        raise MediaError(path, "not a readable image: a damaged header") from error
    except PhotoRefused as error:
        raise MediaError(path, str(error)) from error
    except _DAMAGE as error:
        raise MediaError(path, f"not a readable image: {error or type(error).__name__}") from error


def _decoder(path: str, header: PhotoHeader | None) -> AbstractContextManager[Image.Image]:
    """What decodes a photo. Raises PhotoRefused where nothing installed does."""
    if header is None:
        return Image.open(path, formats=_PILLOW_FORMATS)
    if header.format == "AVIF":
        if not ("avif" in features.modules and features.check("avif")):
            raise PhotoRefused("a photo of the format AVIF, which needs Pillow 11.3; or convert it to JPEG")
        return Image.open(path, formats=("AVIF",))
    if header.format != "HEIC":
        raise PhotoRefused(f"a photo of the format {header.format}, which is not read; convert it to JPEG")
    if importlib.util.find_spec("pillow_heif") is None:
        raise PhotoRefused(
            "a photo of the format HEIC, which needs `pip install deepavfusion[heif]`; or convert it to JPEG"
        )
    import pillow_heif

    photo = pillow_heif.open_heif(path)
    _check_size(*photo.size)
    return photo.to_pillow()
