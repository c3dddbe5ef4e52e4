"""Checks that the columns of a csv file are separated by commas, before its cells are read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain

_OTHERS = (("\t", "tabs"), (";", "semicolons"), ("|", "bars"))


def check_commas(lines: Iterable[str], path: str, comment: str | None = None) -> Iterator[str]:
    """The same lines, unless the first that says anything has its cells separated by something else than commas.

    Args:
        lines: of the file.
        path: for the message.
        comment: lines beginning with this say nothing.

    Raises:
        ValueError: tabs, semicolons or bars stand there, as spreadsheets and databases write them.
    """
    rest, begun = iter(lines), []
    for number, line in enumerate(rest, 1):
        begun.append(line)
        if not line.strip() or (comment is not None and line.startswith(comment)):
            continue
        bare = re.sub(r'"[^"]*"', "", line)
        commas = bare.count(",")
        for mark, name in _OTHERS:
            if bare.count(mark) > commas and (mark != "|" or not commas):  # bars also stand between labels
                raise ValueError(
                    f"{path}, line {number}: its cells are separated by {name}; write it with commas between them"
                )
        break
    return chain(begun, rest)
