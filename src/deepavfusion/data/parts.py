"""Parts of a job array: which share of the work `--part 3/8` is."""

from __future__ import annotations

import re


def parse_part(part: str) -> tuple[int, int]:
    """`3/8` to (3, 8). Raises ValueError for anything but a number from 1 and a count."""
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(f"part {part!r} must be i/n with i from 1 to n, such as 3/8")
    return number, count
