"""The samples of tar files in WebDataset's form as others write them: where each of their parts lies.

Files that follow each other and differ only in what comes after the first dot of their name are the parts of a sample:
`a/0001.mp4` and `a/0001.json` are `mp4` and `json` of `a/0001`.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_PART = re.compile(r"((?:.*/)?[^./][^/.]*)\.([^/]+)")


@dataclass
class TarSample:
    """One sample."""

    key: str
    """What the names of its parts have in common."""
    parts: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Offset and number of bytes, by what the name ends in."""
    values: dict[str, Any] = field(default_factory=dict)
    """Those of the parts that were asked for."""


def tar_samples(path: str, wanted: set[str]) -> Iterator[TarSample]:
    """The samples of a tar file without compression, in order.

    Args:
        path: a local file.
        wanted: parts whose values are read: numbers and texts as text, and `json.KEY` of a JSON object.

    Raises:
        OSError or tarfile.TarError: it cannot be read.
        ValueError: a part that is wanted is no text or no JSON.
    """
    sample: TarSample | None = None
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            match = _PART.fullmatch(member.name)
            if not member.isfile() or match is None:
                continue
            key, name = match.groups()
            if sample is not None and sample.key != key:
                yield sample
                sample = None
            sample = sample or TarSample(key)
            sample.parts[name] = member.offset_data, member.size
            inner = {column: column.partition(".")[2] for column in wanted if column.startswith(f"{name}.")}
            if name in wanted or (inner and name == "json"):
                file = archive.extractfile(member)
                assert file is not None
                text = file.read().decode()
                if name in wanted:
                    sample.values[name] = text.strip()
                record = json.loads(text) if inner and name == "json" else {}
                sample.values |= {column: record.get(inside) for column, inside in inner.items()}
    if sample is not None:
        yield sample
