"""Commands that search one's own recordings: `index`, `search`."""

from __future__ import annotations

from typing import Any

from deepavfusion.verbs.verb import Verb


def _index_config() -> type:
    from deepavfusion.archive.config import IndexConfig

    return IndexConfig


def _index(config: Any) -> int:
    import sys

    from deepavfusion.archive.indexing import failure_lines, index
    from deepavfusion.counting import counting, report

    with counting("recordings") as progress:
        summary = index(config, progress)
    for line in failure_lines(summary.failed):
        print(line, file=sys.stderr)
    report("index", summary)
    return int(bool(summary.failed))


def _search_config() -> type:
    from deepavfusion.archive.config import SearchConfig

    return SearchConfig


def _search(config: Any) -> int:
    from deepavfusion.archive.searching import search

    result = search(config)
    print(result.to_json() if config.json else result.table())
    return 0


ARCHIVE: dict[str, Verb] = {
    "index": Verb(
        "put windows of recordings into an index that can be searched",
        _index_config,
        _index,
        ("source",),
        sole_writer=True,
    ),
    "search": Verb(
        "find moments of an index by a video, a sound or a photo",
        _search_config,
        _search,
        ("index", "query"),
    ),
}
