"""Which clips of an official list a score covers: the line that is printed with every score.

The official list of a manifest is its rows, quarantined ones included, and the clips in the table beside it that names
missing clips (`NAME.missing.csv`, which `manifest` writes).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deepavfusion.data.clips import Clip, clips_where, column_of, list_clips
from deepavfusion.data.sets.manifest_report import digest_ids
from deepavfusion.data.splits import of_splits, spellings_of

NAMES_SHOWN = 5
"""Clips that a line names."""


@dataclass(frozen=True)
class ClipSelection:
    """The clips of a split and what the split officially is."""

    source: str
    split: str
    """The split, `all` for every clip."""
    clips: Sequence[Clip]
    """Clips to be scored: there, not quarantined, labelled."""
    official: tuple[str, ...]
    """Ids of the official list."""
    missing: tuple[str, ...]
    """Ids that are not there."""
    quarantined: dict[str, str]
    """Ids of clips found unusable before, with the reason."""
    unlabelled: tuple[str, ...]
    """Ids of clips without a label, which cannot be scored."""


@dataclass(frozen=True)
class Coverage:
    """How many clips of the official list were scored, and the names of the others."""

    num_official: int
    num_scored: int
    official_digest: str
    """Hash of the official ids."""
    scored_digest: str
    """Hash of the scored ids: two scores compare clip by clip only under the same hash."""
    missing: tuple[str, ...]
    failed: dict[str, str]
    """Clips that could not be read, with the cause."""
    unlabelled: tuple[str, ...]

    def line(self) -> str:
        """The coverage in one line."""
        parts = [f"scored {self.num_scored} of {self.num_official} official clips (ids {self.scored_digest})"]
        for what, names in (("missing", self.missing), ("failed", self.failed), ("without label", self.unlabelled)):
            if names:
                shown = ", ".join(list(names)[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
                parts.append(f"{len(names)} {what}: {shown}")
        return "; ".join(parts)

    def __str__(self) -> str:
        return self.line()


def select_clips(source: str, split: str, needs_label: bool = True) -> ClipSelection:
    """The clips of a split, and which of the split are missing.

    Args:
        source: a folder, manifest, shards or data set of the Hub.
        split: `all`, or the name of a split; usual spellings of train, val and test are one. A source that tells no
            splits is a whole: only `all` and `test` take it.
        needs_label: whether clips without a label are left out and named.

    Raises:
        ValueError: the source has no such split, or no clip of it can be used.
    """
    rows = list_clips(source)
    absent = _missing(source)
    there = sorted({split for split in (*column_of(rows, "split"), *(s for _, s in absent)) if split})
    if split != "all" and (there or split != "test"):
        spellings = spellings_of(split)
        rows = of_splits(rows, spellings)
        absent = [(name, s) for name, s in absent if (s or "").lower() in spellings]
        if not rows:
            raise ValueError(f"data.split {split}: {source} has {', '.join(there) or 'no splits'}; give one, or all")
    usable = clips_where(rows, "verdict", lambda verdict: verdict != "quarantined")
    labelled = clips_where(usable, "label", bool) if needs_label else usable
    if not labelled:
        raise ValueError(f"{source}: none of {len(rows)} clips of split {split} can be used and has a label")
    ids = tuple(column_of(rows, "id"))
    known = set(ids)
    spoiled = clips_where(rows, "verdict", lambda verdict: verdict == "quarantined")
    missing = tuple(name for name, _ in absent if name not in known)
    return ClipSelection(
        source=source,
        split=split,
        clips=labelled,
        official=(*ids, *missing),
        missing=missing,
        quarantined={clip.id: clip.reason or "quarantined" for clip in spoiled},
        unlabelled=tuple(column_of(clips_where(usable, "label", lambda label: not label), "id")) if needs_label else (),
    )


def coverage(selection: ClipSelection, scored: Sequence[str], failed: dict[str, str]) -> Coverage:
    """What a score over the clips `scored` covers, `failed` being those that could not be read."""
    return Coverage(
        num_official=len(selection.official),
        num_scored=len(scored),
        official_digest=digest_ids(selection.official),
        scored_digest=digest_ids(scored),
        missing=selection.missing,
        failed={**selection.quarantined, **failed},
        unlabelled=selection.unlabelled,
    )


def _missing(source: str) -> list[tuple[str, str | None]]:
    """Id and split of the clips that the table beside a manifest names as missing."""
    path = f"{source.removesuffix('.csv')}.missing.csv"
    if not source.endswith(".csv") or not os.path.isfile(path):
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows: Iterable[dict[str, str]] = csv.DictReader(file)
        return [(row["id"], row["split"] or None) for row in rows if row["cause"] == "missing"]
