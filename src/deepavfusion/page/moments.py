"""The moments of an archive that are most similar to what a visitor gave: a record, and an excerpt of each as files.

The archive is an index that `serve` was told of. Visitors see its files by their names below the innermost folder that
holds them all, clips in shards and rows by their ids, and what is seen and heard in the moments that were found, copied
into their own folder of results.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from deepavfusion.archive.config import Senses
from deepavfusion.archive.excerpt import write_excerpt
from deepavfusion.archive.searching import Hit, OpenIndex
from deepavfusion.archive.window_table import DamagedIndexError
from deepavfusion.atomic import NotWrittenError
from deepavfusion.data.clip import file_of, storage_of
from deepavfusion.data.locations import is_url
from deepavfusion.inference.inputs import Input
from deepavfusion.inference.listing import shown
from deepavfusion.inference.predictions import write_record
from deepavfusion.inference.steps import FAILURES, Progress
from deepavfusion.page.intake import Given, display_name
from deepavfusion.page.serve_config import ServeConfig

NUM_MOMENTS = 6
"""Shown, of each file the best one."""


class Archive:
    """An index that visitors search. One search at a time."""

    def __init__(self, index: OpenIndex) -> None:
        """
        Args:
            index: opened.

        Raises:
            DamagedIndexError: it cannot be read.
        """
        self.index = index
        self._root = _common_folder(index)
        self._version = index.table.version
        for stream in index.table.record.streams:  # what is damaged is told when the server starts
            index.table.search(stream, np.zeros(index.table.record.dim, np.float32), 1)

    @classmethod
    def open(cls, config: ServeConfig) -> Archive:
        """The archive that the settings name.

        Raises:
            ValueError: no such index, it is damaged, its model is not there or another, or the extra is not installed.
        """
        assert config.index is not None
        try:
            opened = OpenIndex.open(
                config.index, config.index_model, config.device, config.precision, config.batch_size, "--index_model"
            )
            return cls(opened)
        except ValueError as error:
            raise ValueError(f"--index: {error}") from error

    @property
    def is_joint(self) -> bool:
        """Whether images and sounds can be compared with each other."""
        return self.index.table.record.joint

    @property
    def model_digest(self) -> str:
        """Of the weights that the vectors come from."""
        return self.index.table.record.model_digest

    def search(
        self,
        given: Input,
        folder: Path,
        about: Mapping[str, Any],
        by: Senses = "auto",
        within: Senses = "auto",
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Search, write excerpts and the record `search.json`, and return the record.

        A moment whose file is gone or cannot be read stays in the record, with its `problem`.

        Args:
            given: what is looked for.
            folder: where the files go.
            about: what else the record says.
            by: what of the query is used.
            within: what of the archive it is compared with; of no effect without a joint space.
            progress: is told seconds of the query done and in all, and again before every excerpt; what it raises ends
                the search.

        Raises:
            ValueError: the query cannot be read or lacks what is asked for, or the index cannot be read.
            NotWrittenError: a full disk.
        """
        done = (0.0, 0.0)

        def tell(seconds: float, whole: float) -> None:
            nonlocal done
            done = seconds, whole
            if progress is not None:
                progress(*done)

        try:
            asked = within if self.is_joint else "auto"  # the control is not on the page then
            found = self.index.search(given, NUM_MOMENTS, by, asked, progress=tell)
            if self.index.table.version != self._version:
                self._root, self._version = _common_folder(self.index), self.index.table.version
        except DamagedIndexError as error:
            sys.stderr.write(f"{error}\n")
            raise ValueError("the archive cannot be searched at present; see the server's log") from error
        moments = []
        for rank, hit in enumerate(found.hits, 1):
            tell(*done)
            moments.append(
                {
                    "rank": rank,
                    "similarity": round(hit.similarity, 6),
                    "file": self._name(hit.path, hit.clip),
                    **({} if hit.sound is None else {"sound": self._name(hit.sound)}),
                    "start_seconds": round(hit.start_seconds, 4),
                    "end_seconds": round(hit.end_seconds, 4),
                    "by": hit.stream,
                    **_excerpt(hit, folder, f"moment_{rank}"),
                }
            )
        record = {
            "task": "search",
            "compared": found.compared,
            "approximate": found.approximate,
            "num_windows": found.num_windows,
            "moments": moments,
        }
        return write_record(folder, {**record, **about})

    def _name(self, path: str, clip: str | None = None) -> str:
        """What visitors see of a path of the archive: of a clip that is no local file of its own its id."""
        if clip is not None and (storage_of(path) != "file" or is_url(path)):
            return shown(clip)
        inside = self._root is not None and path.startswith(os.path.join(self._root, ""))
        return shown(os.path.relpath(path, self._root) if inside else os.path.basename(path))


def _excerpt(hit: Hit, folder: Path, name: str) -> dict[str, Any]:
    """The files of a moment by kind, or the problem why there are none, without the server's paths."""
    if is_url(hit.path):
        return {"files": {}, "problem": "lies on another machine, from which no excerpt is fetched"}
    if not all(os.path.exists(file_of(path)) for path in (hit.path, hit.sound) if path):
        return {"files": {}, "problem": "is no longer there"}
    try:
        files = asdict(write_excerpt(hit, folder, name))
    except NotWrittenError:
        raise
    except FAILURES as error:
        line = Given((hit.path,) if hit.sound is None else (hit.path, hit.sound)).line_of(error)
        return {"files": {}, "problem": line.removeprefix(f"{display_name(hit.path)}: ")}
    return {"files": {kind: file for kind, file in files.items() if file is not None}}


def _common_folder(index: OpenIndex) -> str | None:
    """The innermost folder that holds all recordings; None if that is the root of the file system."""
    stored = [path for file in index.table.files() for path in (file.path, file.sound) if path]
    paths = [path for path in stored if storage_of(path) == "file" and not is_url(path)]
    root = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else None
    return None if root is None or root == os.path.dirname(root) else root
