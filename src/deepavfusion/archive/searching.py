"""`search`: the moments of an index most similar to a recording.

In a joint space a query of one sense is compared with images and sounds of the archive, and the similarity of a moment
is the larger of the two; a query of both with both. Without a joint space, images are compared with images, sound with
sound, and what the encoder makes of both together with the like.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepavfusion.archive.config import SearchConfig
from deepavfusion.archive.indexing import check_model
from deepavfusion.archive.space import VectorSpace
from deepavfusion.archive.window_table import Found, IndexRecord, WindowTable
from deepavfusion.data.media import MediaError
from deepavfusion.inference.inputs import open_recording
from deepavfusion.inference.listing import shown

_FEW = 50
"""Windows asked of the store at least."""


@dataclass(frozen=True)
class Hit:
    """A moment that was found."""

    path: str
    sound: str | None
    start_seconds: float
    end_seconds: float
    similarity: float
    """Cosine, -1 to 1."""
    stream: str
    """What of it is similar: image, audio, or both."""


@dataclass(frozen=True)
class SearchResult:
    """What was found, best first."""

    query: str
    compared: str
    """What was compared with what, in words."""
    num_windows: int
    """In the index."""
    hits: tuple[Hit, ...]

    def to_json(self) -> str:
        """One line."""
        return json.dumps({**asdict(self), "hits": [asdict(hit) for hit in self.hits]})

    def table(self) -> str:
        """Lines for a terminal."""
        lines = [f"{shown(self.query)} among {self.num_windows:,} windows: {self.compared}"]
        lines.append(f"{'':>4}  similarity  {'seconds':>17}  by      file")
        for rank, hit in enumerate(self.hits, 1):
            span = f"{hit.start_seconds:.1f}-{hit.end_seconds:.1f}"
            name = hit.path if hit.sound is None else f"{hit.path} with {hit.sound}"
            lines.append(f"{rank:>4}  {hit.similarity:>10.4f}  {span:>17}  {hit.stream:<6}  {shown(name)}")
        return "\n".join(lines)


def search(config: SearchConfig) -> SearchResult:
    """Search an index.

    Raises:
        ValueError: no such index, its model is not there or another, or the query lacks what is asked for.
        MediaError: the query cannot be read.
    """
    folder = Path(config.index)
    record = IndexRecord.read(folder)
    if not record.joint and config.within != "auto":
        raise ValueError(
            f"within {config.within}: {folder} has no joint space, so like is compared with like; choose with --by"
        )
    table = WindowTable.open(folder)
    place = config.model or record.model
    try:
        space = VectorSpace.open(place, config.device, config.precision)
    except ValueError as error:
        raise ValueError(
            f"{error}; {folder} was made with the model {record.model}: name its place now with --model"
        ) from error
    check_model(record, place, space.digest(), folder)
    try:
        with open_recording(config.query) as recording:
            windows = space.windows(recording, record.hop_seconds)
    except MediaError as error:
        raise ValueError(f"query {error}") from error
    means = {
        name: _unit(windows.streams[name][there].sum(axis=0)) for name, there in windows.present.items() if there.any()
    }
    if not means:
        raise ValueError(f"query {config.query}: has neither image nor sound")
    asked = _joint(config, means) if record.joint else _alike(config, means)
    pairs = ", ".join(f"{what} with {stream}" for what, stream, _ in asked)
    compared = (
        f"{pairs}, in the joint space" if record.joint else f"{pairs}, mean tokens: this model has no joint space"
    )
    approximate = set(table.approximate()) & {stream for _, stream, _ in asked}
    if approximate and not config.exact:
        compared += "; approximate, --exact compares with every vector"
    return SearchResult(config.query, compared, table.num_windows(), _hits(config, table, asked))


Asked = list[tuple[str, str, NDArray[np.float32]]]
"""What of the query is compared with which stream, and its vector `(E,)`."""


def _joint(config: SearchConfig, means: dict[str, NDArray[np.float32]]) -> Asked:
    what = _what(config, means)
    within = ("both",) if what == "both" else ("image", "audio")
    return [(what, stream, means[what]) for stream in (within if config.within == "auto" else (config.within,))]


def _alike(config: SearchConfig, means: dict[str, NDArray[np.float32]]) -> Asked:
    if config.by == "auto" and "both" not in means:  # of an encoder that does not fuse
        return [(name, name, vector) for name, vector in means.items()]
    what = _what(config, means)
    return [(what, what, means[what])]


def _what(config: SearchConfig, means: dict[str, NDArray[np.float32]]) -> str:
    """What of the query is used."""
    senses = [name for name in means if name != "both"]
    what = config.by if config.by != "auto" else "both" if len(senses) == 2 else senses[0]
    if what not in means or (what == "both" and len(senses) < 2):
        raise ValueError(f"by {what}: {config.query} has {' and '.join(senses)} alone")
    return what


def _hits(config: SearchConfig, table: WindowTable, asked: Asked) -> tuple[Hit, ...]:
    """The best windows, of one file no more than asked for."""
    count = max(_FEW, 4 * config.k)
    while True:
        best: dict[tuple[Any, ...], tuple[Found, str]] = {}
        complete = True
        for _, stream, vector in asked:
            found = table.search(stream, vector, count, config.exact)
            complete = complete and len(found) < count
            for window in found:
                key = (window.path, window.sound, window.start_seconds)
                if key not in best or best[key][0].similarity < window.similarity:
                    best[key] = window, stream
        ordered = sorted(best.values(), key=lambda pair: (-pair[0].similarity, pair[0].path, pair[0].start_seconds))
        seen, kept = Counter[tuple[str, str | None]](), []
        for window, stream in ordered:
            seen[window.path, window.sound] += 1
            if config.per_file == 0 or seen[window.path, window.sound] <= config.per_file:
                kept.append(Hit(**{**asdict(window), "stream": stream}))
        if len(kept) >= config.k or complete:
            return tuple(kept[: config.k])
        count *= 4


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
