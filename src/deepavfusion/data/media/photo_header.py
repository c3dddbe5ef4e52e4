"""Tells photos (HEIC, AVIF) from videos in an MP4 container, and reads properties from the header that decoders ignore.

Telephones store a photo as a grid of tiles. For libav each tile is a video track of its own, and any photo a video of
one second. So photos are recognised here, and read by `data.photos`. Layout: ISO/IEC 23008-12, box `meta` with its
primary item (`pitm`), the properties of items (`ipco`) and the items that have them (`ipma`).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from fractions import Fraction

from deepavfusion.data.media.mp4_header import boxes

MAX_META_BYTES = 16 * 2**20
"""A larger header than this is not looked into."""
_STILL = (b"avif", b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"avci", b"vvic", b"jpeg", b"j2ki", b"miaf")
_ITEMS = {b"av01": "AVIF", b"hvc1": "HEIC", b"hev1": "HEIC"}
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC"}
_LOOKED_INTO = (b"hdlr", b"pitm", b"iinf", b"iprp")

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True)
class PhotoHeader:
    """What the header of a photo says."""

    format: str
    """`AVIF` or `HEIC`; what else this container holds, by its brand."""
    transfer: int | None = None
    """Transfer characteristics in the numbers of ITU-T H.273, if they are stated."""
    primaries: int | None = None
    """Colour primaries likewise."""
    aperture: tuple[Fraction, Fraction, Fraction, Fraction] | None = None
    """Width and height of the part to be shown, and how far its centre lies right of and below that of the picture."""

    def shown(self, width: int, height: int) -> Box | None:
        """The part of the stored picture that is to be shown; None if that is all of it.

        Raises ValueError for a part that is none.
        """
        if self.aperture is None:
            return None
        wide, high, right, down = self.aperture
        left, top = (width - wide) / 2 + right, (height - high) / 2 + down
        box = round(left), round(top), round(left + wide), round(top + high)
        if not (0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height):
            raise ValueError(f"shows the part {box} of {width} x {height} pixels")
        return None if box == (0, 0, width, height) else box


def photo_header(file: int) -> PhotoHeader | None:
    """The header of a photo, None if the open file is none.

    A file that has a film too is a photo if its main brand says so. Of a damaged header only the format is known.
    """
    brand, brands, meta, has_film = b"", b"", None, False
    try:
        for kind, begin, end in boxes(file, 0, os.fstat(file).st_size):
            if kind == b"ftyp":
                content = os.pread(file, min(end - begin, 1024), begin)
                brand, brands = content[:4], content[8:]
            elif kind == b"moov":
                has_film = True
                if brand not in _STILL:
                    return None
            elif kind == b"meta" and meta is None:
                meta = _content(file, begin + 4, min(end, begin + MAX_META_BYTES))
    except (struct.error, OSError, OverflowError):
        pass  # what was read until here decides
    meta = meta or {}
    has_pictures, is_photo = meta.get(b"hdlr", b"")[8:12] == b"pict", brand in _STILL
    if not (has_pictures and is_photo if has_film else has_pictures or is_photo):
        return None
    known = {brand, *(brands[at : at + 4] for at in range(0, len(brands), 4))}
    name = next((each for mark, each in _BRANDS.items() if mark in known), f"HEIF ({brand.decode('latin-1').strip()})")
    try:
        kinds = _kinds(meta.get(b"iinf", b""))
        name = next((each for kind, each in _ITEMS.items() if kind in kinds), name)
        return _properties(name, meta)
    except (struct.error, IndexError, ZeroDivisionError, ValueError):
        return PhotoHeader(name)


def _kinds(iinf: bytes) -> set[bytes]:
    """What kinds of items there are."""
    infos = _split(iinf[6 if iinf[:1] == b"\0" else 8 :])
    return {body[8:12] if body[:1] == b"\2" else body[10:14] for kind, body in infos if kind == b"infe"}


def _content(file: int, begin: int, end: int) -> dict[bytes, bytes]:
    """The boxes inside another by kind, the first of each."""
    found: dict[bytes, bytes] = {}
    for kind, inner, inner_end in boxes(file, begin, end):
        found.setdefault(kind, os.pread(file, inner_end - inner, inner) if kind in _LOOKED_INTO else b"")
    return found


def _properties(name: str, meta: dict[bytes, bytes]) -> PhotoHeader:
    """Of the primary item: colours and the part to be shown."""
    primary, iprp = meta.get(b"pitm", b""), dict(_split(meta.get(b"iprp", b"")))
    if not primary or not iprp:
        return PhotoHeader(name)
    (number,) = struct.unpack_from(">I" if primary[0] else ">H", primary, 4)
    properties = _split(iprp[b"ipco"]) if b"ipco" in iprp else []
    transfer = primaries = aperture = None
    for index in _associated(iprp.get(b"ipma", b""), number):
        kind, body = properties[index - 1]
        if kind == b"colr" and body[:4] == b"nclx":
            primaries, transfer = struct.unpack_from(">HH", body, 4)
        elif kind == b"clap":
            values = struct.unpack_from(">IIIIiIiI", body)
            wide, high, right, down = (Fraction(*values[at : at + 2]) for at in range(0, 8, 2))
            aperture = wide, high, right, down
    return PhotoHeader(name, transfer, primaries, aperture)


def _associated(ipma: bytes, number: int) -> list[int]:
    """The properties of an item, by their numbers from 1; 0, which stands for none, is left out."""
    version, wide = ipma[0], ipma[3] & 1
    (count,) = struct.unpack_from(">I", ipma, 4)
    at = 8
    for _ in range(count):
        (item,) = struct.unpack_from(">I" if version else ">H", ipma, at)
        at += 4 if version else 2
        many, size = ipma[at], 2 if wide else 1
        entries = ipma[at + 1 : at + 1 + many * size]
        at += 1 + many * size
        if item == number:
            if wide:
                numbers = [value & 0x7FFF for value in struct.unpack(f">{many}H", entries)]
            else:
                numbers = [value & 0x7F for value in entries]
            return [value for value in numbers if value]
    return []


def _split(data: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and content of the boxes that lie one after another in memory."""
    found, at = [], 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8:
            raise struct.error("a box is smaller than its own head")
        found.append((kind, data[at + 8 : at + size]))
        at += size
    return found
