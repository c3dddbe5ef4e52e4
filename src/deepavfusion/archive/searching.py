"""`search`: the moments of an index most similar to a recording. `OpenIndex` is opened once for many searches.

In a joint space a query of one sense is compared with images and sounds of the archive, and the similarity of a moment
is the larger of the two; a query of both with both. Without a joint space, images are compared with images, sound with
sound, and what the encoder makes of both together with the like.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deepavfusion.archive.config import SearchConfig, Senses
from deepavfusion.archive.indexing import check_model
from deepavfusion.archive.space import VectorSpace
from deepavfusion.archive.window_table import Found, WindowTable
from deepavfusion.data.clip import Clip, storage_of
from deepavfusion.data.locations import is_url
from deepavfusion.data.media import MediaError
from deepavfusion.inference.inputs import Input, name_of, open_recording
from deepavfusion.inference.listing import shown
from deepavfusion.inference.steps import Progress

_FEW = 50
"""Windows asked of the store at least."""


@dataclass(frozen=True)
class Hit:
    """A moment that was found."""

    path: str
    """A file, or where in a shard, Parquet or tar file the clip lies."""
    sound: str | None
    start_seconds: float
    end_seconds: float
    similarity: float
    """Cosine, -1 to 1."""
    stream: str
    """What of it is similar: image, audio, or both."""
    clip: str | None = None
    """Id of the clip in its data set; None of a file that was found in a folder."""
    digest: str | None = None
    """Of its content when it was indexed; None where an index of an earlier version does not tell."""

    @property
    def recording(self) -> Clip | str | tuple[str, str]:
        """What opens it (`open_recording`)."""
        if self.sound is not None:
            return self.path, self.sound
        return self.path if self.clip is None else Clip(self.clip, self.path, digest=self.digest)

    @property
    def name(self) -> str:
        """What it is called in one line: the id of a clip that is no file of its own, and where it lies."""
        if self.clip is not None and (storage_of(self.path) != "file" or is_url(self.path)):
            return f"{self.clip} in {self.path}"
        return self.path if self.sound is None else f"{self.path} with {self.sound}"


@dataclass(frozen=True)
class SearchResult:
    """What was found, best first."""

    query: str
    compared: str
    """What was compared with what, in words."""
    approximate: bool
    """Whether the quicker way of a large index was taken, which may miss a few."""
    num_windows: int
    """In the index."""
    hits: tuple[Hit, ...]

    def to_json(self) -> str:
        """One line."""
        return json.dumps({**asdict(self), "hits": [asdict(hit) for hit in self.hits]})

    def table(self) -> str:
        """Lines for a terminal."""
        hint = "; approximate, --exact compares with every vector" if self.approximate else ""
        lines = [f"{shown(self.query)} among {self.num_windows:,} windows: {self.compared}{hint}"]
        lines.append(f"{'':>4}  similarity  {'seconds':>17}  by      file")
        for rank, hit in enumerate(self.hits, 1):
            span = f"{hit.start_seconds:.1f}-{hit.end_seconds:.1f}"
            lines.append(f"{rank:>4}  {hit.similarity:>10.4f}  {span:>17}  {hit.stream:<6}  {shown(hit.name)}")
        return "\n".join(lines)


class OpenIndex:
    """An index and its model, opened once and searched any number of times."""

    def __init__(self, table: WindowTable, space: VectorSpace) -> None:
        self.table, self.space = table, space

    @classmethod
    def open(
        cls,
        folder: str | Path,
        model: str | None = None,
        device: str = "auto",
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        batch_size: int = 16,
        model_setting: str = "--model",
    ) -> OpenIndex:
        """Open the index in a folder, and its model.

        Args:
            folder: of the index.
            model: where its model is now, if it was moved.
            device: cpu, cuda or auto.
            precision: of the forward pass; auto is bfloat16 on CUDA, else float32.
            batch_size: windows per forward pass.
            model_setting: what the error calls the setting that names `model`.

        Raises:
            ValueError: no such index, its model is not there or another, or the extra is not installed.
        """
        folder = Path(folder)
        table = WindowTable.open(folder)
        place = model or table.record.model
        try:
            space = VectorSpace.open(place, device, precision, batch_size)
        except ValueError as error:
            raise ValueError(
                f"{error}; {folder} was made with the model {table.record.model}: name its place now with "
                f"{model_setting}"
            ) from error
        check_model(table.record, place, space.digest(), folder)
        return cls(table, space)

    def search(
        self,
        query: Input,
        k: int = 10,
        by: Senses = "auto",
        within: Senses = "auto",
        per_file: int = 1,
        exact: bool = False,
        progress: Progress | None = None,
    ) -> SearchResult:
        """The moments most similar to a query, of the index as it is now.

        Args:
            query: whatever `open_recording` takes; of a long one the mean of its windows is looked for.
            k: how many moments.
            by: what of the query is used.
            within: what of the archive it is compared with, in a joint space.
            per_file: moments of one file at most; 0 is any number.
            exact: compare with every vector, also where the index has a quicker way.
            progress: is told seconds of the query that are done and in all.

        Raises:
            ValueError: the query cannot be read, or lacks what is asked for; or nothing is indexed yet; or `within`
                without a joint space.
            DamagedIndexError: the index cannot be read, or is another by now.
        """
        record = self.table.record
        if not record.joint and within != "auto":
            raise ValueError(
                f"within {within}: {self.table.folder} has no joint space, so like is compared with like; "
                "choose with --by"
            )
        self.table.refresh()
        if not self.table.num_windows():
            raise ValueError(f"{self.table.folder} has no windows yet: the same `index` command goes on with it")
        name = name_of(query)
        try:
            with open_recording(query) as recording:
                windows = self.space.windows(recording, record.hop_seconds, progress)
        except MediaError as error:
            raise ValueError(f"query {error}") from error
        means = {
            stream: _unit(windows.streams[stream][there].sum(axis=0))
            for stream, there in windows.present.items()
            if there.any()
        }
        if not means:
            raise ValueError(f"query {name}: has neither image nor sound")
        asked = _joint(name, means, by, within) if record.joint else _alike(name, means, by)
        pairs = ", ".join(f"{what} with {stream}" for what, stream, _ in asked)
        compared = (
            f"{pairs}, in the joint space" if record.joint else f"{pairs}, mean tokens: this model has no joint space"
        )
        approximate = not exact and bool(set(self.table.approximate()) & {stream for _, stream, _ in asked})
        hits = _hits(self.table, asked, k, per_file, exact)
        return SearchResult(name, compared, approximate, self.table.num_windows(), hits)


def search(config: SearchConfig) -> SearchResult:
    """Search an index once.

    Raises:
        ValueError: no such index, its model is not there or another, or the query cannot be read or lacks what is
            asked for.
    """
    opened = OpenIndex.open(config.index, config.model, config.device, config.precision)
    return opened.search(config.query, config.k, config.by, config.within, config.per_file, config.exact)


Asked = list[tuple[str, str, NDArray[np.float32]]]
"""What of the query is compared with which stream, and its vector `(E,)`."""


def _joint(name: str, means: dict[str, NDArray[np.float32]], by: Senses, within: Senses) -> Asked:
    what = _what(name, means, by)
    streams: tuple[str, ...] = (within,)
    if within == "auto":
        streams = ("both",) if what == "both" else ("image", "audio")
    return [(what, stream, means[what]) for stream in streams]


def _alike(name: str, means: dict[str, NDArray[np.float32]], by: Senses) -> Asked:
    if by == "auto" and "both" not in means:  # of an encoder that does not fuse
        return [(stream, stream, vector) for stream, vector in means.items()]
    what = _what(name, means, by)
    return [(what, what, means[what])]


def _what(name: str, means: dict[str, NDArray[np.float32]], by: Senses) -> str:
    """What of the query is used."""
    senses = [stream for stream in means if stream != "both"]
    what = by if by != "auto" else "both" if len(senses) == 2 else senses[0]
    if what not in means or (what == "both" and len(senses) < 2):
        raise ValueError(f"by {what}: {name} has {' and '.join(senses)} alone")
    return what


def _hits(table: WindowTable, asked: Asked, k: int, per_file: int, exact: bool) -> tuple[Hit, ...]:
    """The best windows, of one file no more than asked for."""
    count = max(_FEW, 4 * k)
    while True:
        best: dict[tuple[Any, ...], tuple[Found, str]] = {}
        complete = True
        for _, stream, vector in asked:
            found = table.search(stream, vector, count, exact)
            complete = complete and len(found) < count
            for window in found:
                key = (window.path, window.sound, window.start_seconds)
                if key not in best or best[key][0].similarity < window.similarity:
                    best[key] = window, stream
        ordered = sorted(best.values(), key=lambda pair: (-pair[0].similarity, pair[0].path, pair[0].start_seconds))
        seen, kept = Counter[tuple[str, str | None]](), []
        for window, stream in ordered:
            seen[window.path, window.sound] += 1
            if per_file == 0 or seen[window.path, window.sound] <= per_file:
                kept.append(Hit(**{**asdict(window), "stream": stream}))
        if len(kept) >= k or complete:
            return tuple(kept[:k])
        count *= 4


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
