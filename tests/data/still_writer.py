"""Photos in the container of MP4 for tests: tiles of one colour each, put together as telephones do it.

Written box by box after ISO/IEC 23008-12. Tiles are coded by Pillow (AVIF) or PyAV (HEIC); any property can be added to
the whole: turns, mirroring, the part to be shown, colours.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

Colour = tuple[int, int, int]
Tile = tuple[bytes, bytes, bytes]
"""Kind of item, its configuration box, its coded picture."""


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full_box(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def turned(quarters: int) -> bytes:
    """A property that turns by so many quarters, anticlockwise."""
    return box(b"irot", bytes([quarters]))


def mirrored(left_to_right: bool) -> bytes:
    return box(b"imir", bytes([left_to_right]))


def shown_part(width: int, height: int, right: tuple[int, int], down: tuple[int, int]) -> bytes:
    """A property that shows a part whose centre lies so far from that of the picture, each as a fraction."""
    return box(b"clap", struct.pack(">IIIIiIiI", width, 1, height, 1, *right, *down))


def colours(primaries: int, transfer: int, matrix: int) -> bytes:
    return box(b"colr", b"nclx", struct.pack(">HHHB", primaries, transfer, matrix, 0x80))


def avif_tile(colour: Colour, side: int) -> Tile:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "AVIF", quality=95)
    data = buffer.getvalue()
    return b"av01", _whole_box(data, b"av1C"), _whole_box(data, b"mdat")[8:]


def heic_tile(colour: Colour, side: int) -> Tile:
    encoder = av.CodecContext.create("libx265", "w")
    encoder.width = encoder.height = side
    encoder.pix_fmt, encoder.time_base, encoder.thread_count = "yuv420p", Fraction(1), 1
    encoder.options = {"x265-params": "log-level=none:pools=none:frame-threads=1:info=0"}
    frame = av.VideoFrame.from_ndarray(np.full((side, side, 3), colour, np.uint8), format="rgb24")
    frame.pts = 0
    stream = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
    units = [unit for unit in re.split(b"\0\0\0?\1", stream) if unit]
    headers = [[unit for unit in units if unit[0] >> 1 == kind] for kind in (32, 33, 34)]
    # Profile and level as the sequence's header has them, without the bytes that keep it from looking like a start.
    level = headers[1][0].replace(b"\0\0\3", b"\0\0")[3:15]
    body = b"\1" + level + b"\xf0\0\xfc\xfd\xf8\xf8\0\0\x0f" + bytes([len(headers)])
    for kind, (unit,) in zip((32, 33, 34), headers, strict=True):
        body += struct.pack(">BHH", 0x80 | kind, 1, len(unit)) + unit
    picture = b"".join(struct.pack(">I", len(unit)) + unit for unit in units if unit[0] >> 1 < 32)
    return b"hvc1", box(b"hvcC", body), picture


def write_grid(path: Path, brand: bytes, tiles: Sequence[Tile], columns: int, side: int, *properties: bytes) -> Path:
    """A photo of square tiles, row by row, with properties of the whole."""
    rows, count = len(tiles) // columns, len(tiles)
    kind, configuration, _ = tiles[0]
    grid = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, columns * side, rows * side)

    def size(width: int, height: int) -> bytes:
        return full_box(b"ispe", struct.pack(">II", width, height))

    infos = [full_box(b"infe", struct.pack(">HH4s", 1, 0, b"grid"), b"\0", version=2)]
    infos += [full_box(b"infe", struct.pack(">HH4s", 2 + k, 0, kind), b"\0", version=2, flags=1) for k in range(count)]
    shared = [size(columns * side, rows * side), size(side, side), full_box(b"pixi", b"\3\x08\x08\x08"), configuration]
    essential = [0x80 if each[4:8] in (b"irot", b"imir", b"clap") else 0 for each in properties]
    whole = [1, 3, *(flag | 5 + k for k, flag in enumerate(essential))]
    owners = struct.pack(">IHB", 1 + count, 1, len(whole)) + bytes(whole)
    owners += b"".join(struct.pack(">HBBBB", 2 + k, 3, 2, 3, 0x80 | 4) for k in range(count))

    def meta(first: int) -> bytes:
        places = struct.pack(">BBHHHHHII", 0x44, 0, 1 + count, 1, 1, 0, 1, 0, len(grid))
        for k, (_, _, data) in enumerate(tiles):
            places += struct.pack(">HHHHII", 2 + k, 0, 0, 1, first, len(data))
            first += len(data)
        return full_box(
            b"meta",
            full_box(b"hdlr", struct.pack(">I4s12x", 0, b"pict"), b"\0"),
            full_box(b"pitm", struct.pack(">H", 1)),
            full_box(b"iloc", places, version=1),
            full_box(b"iinf", struct.pack(">H", 1 + count), *infos),
            full_box(b"iref", box(b"dimg", struct.pack(f">HH{count}H", 1, count, *range(2, 2 + count)))),
            box(b"iprp", box(b"ipco", *shared, *properties), full_box(b"ipma", owners)),
            box(b"idat", grid),
        )

    head = box(b"ftyp", brand, bytes(4), b"mif1", b"miaf", b"avif" if kind == b"av01" else b"heic")
    data = box(b"mdat", *(data for _, _, data in tiles))
    path.write_bytes(head + meta(len(head) + len(meta(0)) + 8) + data)
    return path


def _whole_box(data: bytes, kind: bytes) -> bytes:
    """The first box of a kind, its head included."""
    begin = data.index(kind) - 4
    (size,) = struct.unpack_from(">I", data, begin)
    return data[begin : begin + size]
