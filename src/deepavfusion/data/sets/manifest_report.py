"""The report of `manifest`: how many clips of an official list are there, and the names of those that are not."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from deepavfusion.data.locations import write_json, write_whole
from deepavfusion.data.sets.readability import Check


@dataclass(frozen=True)
class LackingClip:
    """A clip of the official list that cannot be used."""

    id: str
    label: str | None
    split: str | None
    cause: str
    """`missing`, or why the file is unusable."""


@dataclass(frozen=True)
class ManifestReport:
    """Counts and names, as written beside a manifest."""

    dataset: str
    annotations: str | None
    clips: str
    out: str
    """The manifest written."""
    check: Check
    num_official: int
    """Clips of the list that were asked for: of the split, without the excluded ones."""
    num_present: int
    """Those there and, as far as was checked, readable."""
    missing: tuple[str, ...]
    """Ids of clips that are not there."""
    unreadable: dict[str, str]
    """Ids of clips that are there and unusable, with the reason; in the manifest they are quarantined."""
    num_excluded: int
    """Listed clips left out because they are on the list to exclude."""
    num_unlisted: int
    """Files that are there and not on the list."""
    ambiguous: tuple[str, ...]
    """Ids that several files have the name of; the first in its class's folder, then by name, was taken."""
    without_truth: tuple[str, ...]
    """Ids without any box that covers a pixel; none for data sets without boxes."""
    splits: dict[str, tuple[int, int]]
    """Official and present clips of each split."""
    num_classes: int
    official_digest: str
    """Hash of the official ids, to tell whether two numbers are about the same clips."""
    files: tuple[str, ...]
    """Everything written."""
    longer: dict[str, str] = field(default_factory=dict)
    """Ids of clips whose file is longer than the segment that is listed, such as a whole video, with both lengths; in
    the manifest they are quarantined, for the labels hold for the segment alone."""

    @property
    def num_missing(self) -> int:
        return len(self.missing)

    @property
    def num_unreadable(self) -> int:
        return len(self.unreadable)

    def lines(self) -> list[str]:
        """The report in words, one fact a line."""
        checked = {"none": "not checked", "open": "opened", "decode": "decoded in the middle"}[self.check]
        facts = [
            f"{self.num_present} of {self.num_official} official clips present ({checked}), "
            f"{self.num_missing} missing, {self.num_unreadable} unreadable",
            *(f"  {split}: {present} of {official}" for split, (official, present) in self.splits.items()),
            f"{self.num_classes} classes, official ids {self.official_digest}",
        ]
        for count, what in (
            (len(self.longer), "clips are longer than their segment: cut the listed seconds out of the files"),
            (self.num_excluded, "listed clips excluded"),
            (len(self.ambiguous), "clips have several files, of which one was taken"),
            (len(self.without_truth), "clips have no box that covers a pixel"),
            (self.num_unlisted, "files are not on the list"),
        ):
            if count:
                facts.append(f"{count} {what}")
        return [*facts, *(f"wrote {path}" for path in self.files)]


def report_path(manifest: str) -> str:
    """Where the report of a manifest lies."""
    return f"{manifest.removesuffix('.csv')}.report.json"


def write_report(report: ManifestReport) -> None:
    """Write a report beside its manifest, whole or not at all."""
    write_json(report_path(report.out), asdict(report))


def write_lacking(path: str, clips: Iterable[LackingClip]) -> None:
    """Write the clips that cannot be used, header id,label,split,cause, whole or not at all."""
    with write_whole(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "label", "split", "cause"))
        writer.writerows((clip.id, clip.label or "", clip.split or "", clip.cause) for clip in clips)


def digest_ids(ids: Iterable[str]) -> str:
    """A hash of a set of ids, whatever their order: BLAKE2b of 8 bytes, hexadecimal."""
    return hashlib.blake2b("\n".join(sorted(ids)).encode(), digest_size=8).hexdigest()
