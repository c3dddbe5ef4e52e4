"""Recognises by its first bytes whether a file is a photo, or of a known format that is not supported.

The file name is not used. An unsupported format is named in the error, so that nobody looks for damage in an intact
file; all other files are left to libav (`demuxer`).
"""

from __future__ import annotations

import os
import stat

from deepavfusion.data.media.photo_header import photo_header

HEAD_BYTES = 64

READ = (
    "videos MP4, MOV, Matroska, WebM, MPEG-PS, MPEG-TS, AVI, FLV, ASF, Ogg, NUT, MXF, RealMedia; sounds WAV, W64, MP3, "
    "FLAC, AAC, AC-3, AMR, AIFF, AU, CAF; photos JPEG, PNG, WebP, BMP, TIFF, AVIF, HEIC"
)
"""The formats that are read, in words."""

_PHOTOS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_FOREIGN = {
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"wvpk": "WavPack",
    b"TTA1": "True Audio (TTA)",
    b"TTA2": "True Audio (TTA)",
    b"\x7f\xfe\x80\x01": "DTS",
    b"\xfe\x7f\x01\x80": "DTS",
    b"\x1f\xff\xe8\x00": "DTS",
    b"\xff\x1f\x00\xe8": "DTS",
    b"DTSHDHDR": "DTS-HD",
    b"MAC ": "Monkey's Audio",
    b"MPCK": "Musepack",
    b"MP+": "Musepack",
    b"tBaK": "TAK",
    b"DSD ": "DSD",
    b"FRM8": "DSD",
    b"MThd": "MIDI",
    b"Creative Voice File": "Creative Voice",
    b"#EXTM3U": "M3U playlist",
    b"DKIF": "IVF",
    b"YUV4MPEG2": "YUV4MPEG",
    b"FWS": "Flash (SWF)",
    b"CWS": "Flash (SWF)",
    b"\0\0\x01\xb3": "bare MPEG video",
    b"\0\0\0\x01": "bare H.264 or HEVC video",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"8BPS": "Photoshop",
    b"v/1\x01": "OpenEXR",
    b"qoif": "QOI",
    b"<svg": "SVG",
    b"%PDF": "PDF",
}


def photo_format(path: str) -> str | None:
    """The name of a photo's format, None if a file is none or cannot be opened."""
    head = _head(path)
    if head[4:8] == b"ftyp":
        with open(path, "rb", buffering=0) as file:
            header = photo_header(file.fileno())
        return None if header is None else header.format
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    return next((name for begin, name in _PHOTOS.items() if head.startswith(begin)), None)


def not_media(path: str, is_known_to_libav: bool) -> str | None:
    """Why a file that libav does not open is neither video nor sound; None if it may be a damaged one.

    Args:
        path: the file.
        is_known_to_libav: whether libav refused it because its format is not on the list of those that are read.
    """
    name = photo_format(path)
    if name is not None:
        return photo(name)
    name = _foreign_format(path)
    if name is not None:
        return f"{name} is not among the formats read: {READ}"
    return f"not among the formats read, or damaged; read are {READ}" if is_known_to_libav else None


def photo(name: str) -> str:
    """Why a photo is refused where a video is expected."""
    return f"a photo ({name}), neither video nor sound"


def _head(path: str) -> bytes:
    """How a file begins; nothing of what cannot be opened, or is a pipe or a device."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return b""
        with open(path, "rb", buffering=0) as file:
            return file.read(HEAD_BYTES)
    except (OSError, ValueError):  # ValueError: a name with a zero in it
        return b""


def _foreign_format(path: str) -> str | None:
    head = _head(path)
    if head[:2] == b"\x0bw" and len(head) > 5 and head[5] >> 3 > 10:  # AC-3 has a smaller number there
        return "E-AC-3"
    if len(head) > 2 and head[0] == 0x56 and head[1] & 0xE0 == 0xE0:
        return "LATM (LOAS)"
    return next((name for begin, name in _FOREIGN.items() if head.startswith(begin)), None)
