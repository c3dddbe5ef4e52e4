"""The stores that vector_stores.py compares, each behind the same few methods."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class VectorStore(Protocol):
    """A store in a folder; rows are numbered as they were added."""

    place: Path
    saves_adding: bool
    """Whether rows are saved as they come; otherwise `finish` writes everything anew."""

    def add(self, block: np.ndarray) -> None:
        """Add vectors `(N, D)`, saved where the store saves rows as they come."""

    def finish(self) -> None:
        """Save, and index what is not indexed."""

    def open(self) -> None:
        """Be ready to search what is on disk."""

    def search(self, query: np.ndarray, k: int) -> np.ndarray:
        """Rows `(k,)` most similar to a vector `(D,)`."""

    def count(self) -> int:
        """Vectors on disk."""


class RawFile:
    """Exact search over a file of numbers, mapped into memory."""

    saves_adding = True

    def __init__(self, place: Path, dim: int, dtype: Any) -> None:
        self.place, self.dim, self.dtype = place, dim, np.dtype(dtype)
        self.file = place / "vectors.raw"
        place.mkdir(parents=True, exist_ok=True)

    def add(self, block: np.ndarray) -> None:
        with open(self.file, "ab") as file:
            block.astype(self.dtype).tofile(file)

    def finish(self) -> None:
        pass

    def open(self) -> None:
        size = self.file.stat().st_size // (self.dim * self.dtype.itemsize)
        self.rows = np.memmap(self.file, self.dtype, "r", shape=(size, self.dim))

    def search(self, query: np.ndarray, k: int) -> np.ndarray:
        step = 1 << 16
        parts = [self.rows[n : n + step].astype(np.float32, copy=False) @ query for n in range(0, len(self.rows), step)]
        return np.argpartition(-np.concatenate(parts), k)[:k].copy()  # not a view that keeps all of them

    def count(self) -> int:
        size = self.file.stat().st_size
        return size // (self.dim * self.dtype.itemsize) if size % (self.dim * self.dtype.itemsize) == 0 else -1


class Faiss:
    """An index of faiss, by its factory's name, kept as one file that is written whole."""

    saves_adding = False

    def __init__(self, place: Path, dim: int, kind: str, probes: int = 0) -> None:
        self.place, self.dim, self.kind, self.probes = place, dim, kind, probes
        self.file = place / "index.faiss"
        place.mkdir(parents=True, exist_ok=True)
        self.faiss, self.index, self.waiting = import_module("faiss"), None, []

    def add(self, block: np.ndarray) -> None:
        if self.index is None and self.file.exists():
            self.index = self.faiss.read_index(str(self.file))
        if self.index is None or not self.index.is_trained:
            self.waiting.append(block)  # a kind with centres learns them from a sample
            if len(self.waiting) >= 8 or not self.kind.startswith("IVF"):
                self.index = self.faiss.index_factory(self.dim, self.kind, self.faiss.METRIC_INNER_PRODUCT)
                self.index.train(np.concatenate(self.waiting))
                block, self.waiting = np.concatenate(self.waiting), []
            else:
                return
        self.index.add(block)

    def finish(self) -> None:
        if self.index is not None:
            self.faiss.write_index(self.index, str(self.file))

    def open(self) -> None:
        self.index = self.faiss.read_index(str(self.file))
        if self.probes and self.kind.startswith("IVF"):
            self.index.nprobe = self.probes
        elif self.probes:
            self.index.hnsw.efSearch = self.probes

    def search(self, query: np.ndarray, k: int) -> np.ndarray:
        return self.index.search(query[None], k)[1][0]

    def count(self) -> int:
        return self.faiss.read_index(str(self.file)).ntotal


class Usearch:
    """A graph of usearch, kept as one file that is written whole and may be mapped for searching."""

    saves_adding = False

    def __init__(self, place: Path, dim: int, dtype: str) -> None:
        self.place, self.dim, self.dtype = place, dim, dtype
        self.file = place / "index.usearch"
        place.mkdir(parents=True, exist_ok=True)
        self.module, self.index = import_module("usearch.index"), None

    def add(self, block: np.ndarray) -> None:
        if self.index is None:
            self.index = self.module.Index(ndim=self.dim, metric="ip", dtype=self.dtype)
            if self.file.exists():
                self.index.load(str(self.file))
        self.index.add(np.arange(len(self.index), len(self.index) + len(block)), block, threads=1)

    def finish(self) -> None:
        self.index.save(str(self.file))

    def open(self) -> None:
        self.index = self.module.Index.restore(str(self.file), view=True)

    def search(self, query: np.ndarray, k: int) -> np.ndarray:
        return self.index.search(query, k, threads=1).keys

    def count(self) -> int:
        index = self.module.Index.restore(str(self.file), view=True)
        if index is None:
            raise ValueError("not an index")
        return len(index)


class Lance:
    """A table of LanceDB; every block is a commit of its own."""

    saves_adding = True

    def __init__(self, place: Path, dim: int, index: dict[str, Any] | None, probes: int = 0, refine: int = 0) -> None:
        self.place, self.dim, self.kind, self.probes, self.refine = place, dim, index, probes, refine
        self.pa = import_module("pyarrow")
        self.db = import_module("lancedb").connect(str(place))
        there = "vectors" in self.db.list_tables().tables
        self.table = self.db.open_table("vectors") if there else None
        self.next = self.table.count_rows() if there else 0

    def add(self, block: np.ndarray) -> None:
        pa = self.pa
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), self.dim)
        rows = pa.table({"row": pa.array(np.arange(self.next, self.next + len(block))), "vector": vectors})
        if self.table is None:
            self.table = self.db.create_table("vectors", rows)
        else:
            self.table.add(rows)
        self.next += len(block)

    def finish(self) -> None:
        assert self.table is not None
        if self.kind is not None and not self.table.list_indices() and self.next > 100_000:
            self.table.create_index(metric="dot", vector_column_name="vector", **self.kind)
        self.table.optimize(cleanup_older_than=timedelta(milliseconds=1), delete_unverified=True)

    def open(self) -> None:
        self.table = self.db.open_table("vectors")

    def search(self, query: np.ndarray, k: int) -> np.ndarray:
        assert self.table is not None
        asked = self.table.search(query).distance_type("dot").limit(k).select(["row", "_distance"])
        if self.kind is not None:
            asked = asked.nprobes(self.probes)
        if self.refine:
            asked = asked.refine_factor(self.refine)
        return asked.to_arrow()["row"].to_numpy()

    def count(self) -> int:
        return self.db.open_table("vectors").count_rows()


STORES: dict[str, Callable[[Path, int], VectorStore]] = {
    "numpy float32, exact": lambda place, dim: RawFile(place, dim, np.float32),
    "numpy float16, exact": lambda place, dim: RawFile(place, dim, np.float16),
    "faiss Flat, exact": lambda place, dim: Faiss(place, dim, "Flat"),
    "faiss IVF1024,Flat": lambda place, dim: Faiss(place, dim, "IVF1024,Flat", 16),
    "faiss HNSW32": lambda place, dim: Faiss(place, dim, "HNSW32", 64),
    "usearch HNSW float16": lambda place, dim: Usearch(place, dim, "f16"),
    "lancedb, exact": lambda place, dim: Lance(place, dim, None),
    "lancedb IVF_FLAT": lambda place, dim: Lance(place, dim, {"index_type": "IVF_FLAT", "num_partitions": 1024}, 16),
    "lancedb IVF_PQ, refined": lambda place, dim: Lance(
        place, dim, {"index_type": "IVF_PQ", "num_partitions": 1024, "num_sub_vectors": 16}, 16, 10
    ),
}
"""By the name in the table."""
