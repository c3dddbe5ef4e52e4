"""Rotation and mirroring of an MP4 or QuickTime file, read from its header.

libav gives the display matrix only with decoded frames. Decoding a frame just for that would take a sixth of the time
of reading a clip; the boxes with the matrix are a few hundred bytes. Layout: ISO/IEC 14496-12, boxes `moov`, `mvhd`,
`trak`, `tkhd`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

Matrix = tuple[int, int, int, int]
"""a, b, c, d of a display matrix, which takes a stored point (x, y) to (a x + c y, b x + d y); 65536 stands for 1."""

UPRIGHT: Matrix = (65536, 0, 0, 65536)


def display_matrices(file: int) -> dict[int, Matrix]:
    """The display matrix of every track, by the track's number.

    Empty where the header is damaged or turns the movie as a whole besides; only decoded frames tell then.
    """
    matrices: dict[int, Matrix] = {}
    try:
        for kind, body, end in boxes(file, 0, os.fstat(file).st_size):
            if kind != b"moov":
                continue
            for inner_kind, inner, inner_end in boxes(file, body, end):
                if inner_kind == b"mvhd" and _header(file, inner, 36)[1] != UPRIGHT:
                    return {}
                if inner_kind == b"trak":
                    for part_kind, part, _ in boxes(file, inner, inner_end):
                        if part_kind == b"tkhd":
                            number, matrix = _header(file, part, 40)
                            matrices[number] = matrix
    except (struct.error, OSError, OverflowError):
        return {}
    return matrices


def boxes(file: int, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and end of the content of the boxes that lie one after another."""
    while begin + 8 <= end:
        head = os.pread(file, 16, begin)
        size, kind = struct.unpack_from(">I4s", head)
        body = begin + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", head, 8)
            body += 8
        elif size == 0:
            size = end - begin
        if size < body - begin:
            raise struct.error("a box is smaller than its own head")
        yield kind, body, min(begin + size, end)
        begin += size


def _header(file: int, begin: int, matrix_offset: int) -> tuple[int, Matrix]:
    """Track number (of no meaning in `mvhd`) and matrix; version 1 of both boxes has three longer fields before it."""
    content = os.pread(file, matrix_offset + 12 + 36, begin)
    longer = content[:1] == b"\x01"
    (number,) = struct.unpack_from(">I", content, 20 if longer else 12)
    a, b, _, c, d = struct.unpack_from(">5i", content, matrix_offset + (12 if longer else 0))
    return number, (a, b, c, d)
