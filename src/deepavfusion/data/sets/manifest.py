"""`manifest`: from an official annotation file and a folder of clips to a manifest and a list of missing clips.

It writes the manifest (`NAME.csv`) of the clips that are there, and beside it `NAME.missing.csv` with the official
clips that are missing or cannot be used, `NAME.classes.txt` with the classes in the order of their numbers,
`NAME.report.json`, and for data sets with boxes `NAME.boxes.csv`. Data stored as image and sound files become a table
of frames (`framed_clips`) instead of a manifest of clips.
"""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from deepavfusion.data.clip_names import possible_names
from deepavfusion.data.clips import Clip, write_manifest
from deepavfusion.data.framed_clips import FramedClip, write_framed_clips
from deepavfusion.data.hub import HubSource, is_hub
from deepavfusion.data.locations import write_whole
from deepavfusion.data.sets.box_table import write_boxes
from deepavfusion.data.sets.boxes import BoxAnnotation, with_truth
from deepavfusion.data.sets.catalogue import CLIP_SETS, FOLDERS, FRAME_SETS, MASK_FOLDERS, NAMES
from deepavfusion.data.sets.clip_index import ClipIndex
from deepavfusion.data.sets.folders import read_folders, read_id_set
from deepavfusion.data.sets.listing import ListedClip, Listing
from deepavfusion.data.sets.manifest_report import (
    LackingClip,
    ManifestReport,
    digest_ids,
    report_path,
    write_lacking,
    write_report,
)
from deepavfusion.data.sets.readability import CHECKS, Check, checked_clip, fault, quarantined
from deepavfusion.data.sets.stills import find_stills, has_stills, read_mask_folders
from deepavfusion.data.sets.vocabularies import shipped_classes, vocabulary
from deepavfusion.data.stored_media import fetched
from deepavfusion.data.workers import Casualty, map_isolated

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ManifestConfig:
    """Convert the official annotation file of a data set, and a folder of its clips, to a manifest."""

    dataset: str
    """The data set, such as vggsound, audioset, vggss or avsbench_s4."""
    clips: str
    """Folder of the clips, in any of the usual layouts, or hf:OWNER/NAME:SPLIT:id=COLUMN; for AVSBench the folder of
    the data."""
    out: str
    """The manifest to write (.csv); missing clips, classes and a report are written beside it."""
    annotations: str | None = None
    """The official annotation file. The data set folders takes a list of classes here, or none; mask_folders takes
    none."""
    split: str | None = None
    """Keep only this split; for a list without splits, the split that its clips get."""
    exclude: str | None = None
    """A list of clips to leave out, such as the test list when preparing training clips."""
    boxes: str | None = None
    """Folder of the box annotations where they are separate files (flickr_soundnet)."""
    check: Check = "open"
    """How files are checked: none, open (header and tracks), or decode (a frame and some sound from the middle)."""
    num_workers: int = 2
    """Processes that check files; 0 checks in this process, unprotected from crashes."""
    timeout_seconds: float = 60.0
    """A file that takes longer to check counts as unreadable."""

    def __post_init__(self) -> None:
        if self.dataset not in NAMES:
            near = difflib.get_close_matches(self.dataset, NAMES, n=1, cutoff=0.0)[0]
            raise ValueError(f"dataset {self.dataset!r}: did you mean {near}? known are {', '.join(NAMES)}")
        if self.annotations is None and self.dataset not in (FOLDERS, MASK_FOLDERS):
            summary = (CLIP_SETS | FRAME_SETS)[self.dataset].summary
            raise ValueError(f"annotations: {self.dataset} needs its annotation file, {summary}")
        if not self.out.endswith(".csv"):
            raise ValueError(f"out {self.out} must end in .csv")
        if self.boxes is None and self.dataset == "flickr_soundnet":
            raise ValueError("boxes: flickr_soundnet needs the folder of its XML files")
        if self.boxes is not None and self.dataset != "flickr_soundnet":
            raise ValueError(f"boxes {self.boxes}: {self.dataset} has its boxes in its list, not in a folder")
        if self.check not in CHECKS:
            raise ValueError(f"check {self.check!r} must be one of {', '.join(CHECKS)}")
        if self.num_workers < 0:
            raise ValueError(f"num_workers {self.num_workers} must not be negative")

    def beside(self, ending: str) -> str:
        """A file beside the manifest."""
        return f"{self.out.removesuffix('.csv')}.{ending}"


@dataclass(frozen=True)
class _Findings:
    """What became of the clips that were asked for."""

    listing: Listing
    selected: tuple[ListedClip, ...]
    num_excluded: int
    there: frozenset[str]
    """Ids whose files are there."""
    faults: dict[str, str]
    """Ids of those that cannot be used, with the reason."""
    num_unlisted: int = 0
    ambiguous: tuple[str, ...] = ()
    longer: tuple[str, ...] = ()
    """Ids of those whose file holds more than the segment that is listed."""


def build_manifest(config: ManifestConfig, progress: Progress | None = None) -> ManifestReport:
    """Find the clips of an official list, check them, and write the manifest and the files beside it.

    Args:
        config: which list and folder.
        progress: is called with the number of files checked so far and in all.

    Returns:
        Counts and names of what is present, missing and unreadable.

    Raises:
        ValueError: an annotation file that does not fit (names file and line), a split that is not listed, or not one
            listed clip in the folder.
    """
    of_frames = config.dataset in FRAME_SETS or config.dataset == MASK_FOLDERS
    if not os.path.isdir(config.clips) and (of_frames or not is_hub(config.clips)):
        raise ValueError(f"clips {config.clips}: no such folder")
    reader = CLIP_SETS[config.dataset].boxes if config.dataset in CLIP_SETS else None
    boxes = reader(config.annotations or "", config.boxes) if reader is not None else None
    if of_frames:
        findings = _find_frames(config, *_read_frames(config), (), progress)
    elif config.dataset == FOLDERS:
        findings = _find_clips(config, read_folders(config.clips, config.annotations), progress)
    else:
        if is_hub(config.clips) and "id" not in HubSource.parse(config.clips).named:
            raise ValueError(
                f"clips {config.clips}: name the column that has the listed names, id=COLUMN (of a column of media, "
                f"its files' names)"
            )
        listing = CLIP_SETS[config.dataset].read(config.annotations or "")
        if has_stills(config.clips):
            findings = _find_frames(config, listing, *find_stills(listing.clips, config.clips), progress)
        else:
            findings = _find_clips(config, listing, progress)
    return _report(config, findings, boxes)


def _read_frames(config: ManifestConfig) -> tuple[Listing, dict[str, FramedClip]]:
    """What should be there, and that of it whose files all are."""
    root = os.path.abspath(config.clips)
    if config.dataset == MASK_FOLDERS:
        clips, classes = read_mask_folders(config.annotations, root), None
    else:
        kind = FRAME_SETS[config.dataset]
        clips, classes = kind.read(config.annotations or "", root), kind.classes
    # A semantic video's label names several objects; its classes are those of the masks.
    names = shipped_classes(classes) if classes else vocabulary(clip.label for clip in clips if clip.label)
    labels = [(clip.label,) if clip.label else () for clip in clips]
    listed = tuple(ListedClip(clip.id, label, clip.split, ()) for clip, label in zip(clips, labels, strict=True))
    folders: dict[str, frozenset[str]] = {}
    return Listing(listed, names), {clip.id: clip for clip in clips if all(_is_there(p, folders) for p in clip.files)}


def _is_there(path: str, folders: dict[str, frozenset[str]]) -> bool:
    """Whether a file exists; each folder is listed once, which is far cheaper than asking for every file."""
    folder, name = os.path.split(path)
    if folder not in folders:
        folders[folder] = frozenset(os.listdir(folder)) if os.path.isdir(folder) else frozenset()
    return name in folders[folder]


def _select(config: ManifestConfig, clips: Iterable[ListedClip]) -> tuple[tuple[ListedClip, ...], int]:
    """The clips of the split that are not excluded, and how many are."""
    given = [replace(clip, split=config.split) if clip.split is None else clip for clip in clips]
    wanted = [clip for clip in given if config.split in (None, clip.split)]
    if not wanted:
        splits = sorted({clip.split for clip in given if clip.split})
        raise ValueError(f"split {config.split!r}: {config.annotations} lists {', '.join(splits) or 'no clips'}")
    listed = read_id_set(config.exclude) if config.exclude is not None else ()
    excluded = {name for item in listed for name in possible_names(item)}
    # By any of its names: a list may give a video's id alone.
    kept = tuple(clip for clip in wanted if excluded.isdisjoint((clip.id, *clip.names)))
    if not kept:
        raise ValueError(f"exclude {config.exclude}: leaves none of {len(wanted)} clips")
    return kept, len(wanted) - len(kept)


def _find_clips(config: ManifestConfig, listing: Listing, progress: Progress | None) -> _Findings:
    """Look the clips up and write the manifest."""
    index = ClipIndex(config.clips)
    found = {clip.id: [clip.path] if clip.path else index.find(clip.names, clip.label) for clip in listing.clips}
    used = {path for paths in found.values() for path in paths}
    selected, num_excluded = _select(config, listing.clips)
    rows = [Clip(clip.id, found[clip.id][0], clip.label, clip.split) for clip in selected if found[clip.id]]
    if not rows:
        others = f", such as {index.paths[0].removeprefix(f'{os.path.abspath(config.clips)}/')}" if index.paths else ""
        _refuse(config, selected, f"{len(index.paths)} other video files are there{others}")
    if config.check != "none":
        results = _checked(config, partial(checked_clip, check=config.check), rows, progress)
        rows = [
            quarantined(clip, f"unreadable: {result.cause}") if isinstance(result, Casualty) else result
            for clip, result in zip(rows, results, strict=True)
        ]
    segments = {clip.id: clip.segment for clip in selected if clip.segment is not None}
    longer = {
        clip.id: why
        for clip in rows
        if clip.verdict is None and clip.duration_seconds is not None and clip.id in segments
        if (why := segments[clip.id].excess(clip.path, clip.duration_seconds)) is not None
    }
    rows = [quarantined(clip, longer[clip.id]) if clip.id in longer else clip for clip in rows]
    write_manifest(config.out, rows)
    faults = {clip.id: clip.reason or "" for clip in rows if clip.verdict == "quarantined"}
    several = tuple(clip.id for clip in selected if len(found[clip.id]) > 1)
    there = frozenset(clip.id for clip in rows)
    num_unlisted = len(set(index.paths) - used)
    return _Findings(listing, selected, num_excluded, there, faults, num_unlisted, several, tuple(longer))


def _find_frames(
    config: ManifestConfig,
    listing: Listing,
    found: dict[str, FramedClip],
    several: tuple[str, ...],
    progress: Progress | None,
) -> _Findings:
    """Write the table of pictures."""
    selected, num_excluded = _select(config, listing.clips)
    rows = [replace(found[clip.id], split=clip.split) for clip in selected if clip.id in found]
    if not rows:
        _refuse(config, selected, "some of the files of each are missing")
    faults: dict[str, str] = {}
    if config.check != "none":
        results = _checked(config, partial(fault, check=config.check), rows, progress)
        for clip, result in zip(rows, results, strict=True):
            if result is not None:
                faults[clip.id] = f"unreadable: {result.cause}" if isinstance(result, Casualty) else result
    # The table has no column for a verdict, so what cannot be read is left out of it.
    write_framed_clips(config.out, (clip for clip in rows if clip.id not in faults))
    ids = {clip.id for clip in selected}
    there = frozenset(clip.id for clip in rows)
    return _Findings(listing, selected, num_excluded, there, faults, 0, tuple(name for name in several if name in ids))


def _checked(config: ManifestConfig, check: Callable, rows: Sequence, progress: Progress | None) -> list:
    results = []
    items = (fetched(row) if isinstance(row, Clip) else row for row in rows)
    for result in map_isolated(check, items, config.num_workers, config.timeout_seconds):
        results.append(result)
        if progress is not None:
            progress(len(results), len(rows))
    return results


def _refuse(config: ManifestConfig, selected: Sequence[ListedClip], there: str) -> None:
    name = next(iter(selected[0].names), selected[0].id)
    raise ValueError(f"clips {config.clips}: holds none of {len(selected)} listed clips, such as {name}; {there}")


def _report(config: ManifestConfig, findings: _Findings, boxes: Sequence[BoxAnnotation] | None) -> ManifestReport:
    """Write what lies beside the manifest."""
    faults, selected, classes = findings.faults, findings.selected, findings.listing.classes
    lacking = [
        LackingClip(clip.id, clip.label, clip.split, faults.get(clip.id, "missing"))
        for clip in selected
        if clip.id not in findings.there or clip.id in faults
    ]
    files = [config.out, config.beside("missing.csv"), report_path(config.out)]
    write_lacking(config.beside("missing.csv"), lacking)
    if classes:
        files.append(config.beside("classes.txt"))
        with write_whole(files[-1]) as file:
            file.writelines(f"{name}\n" for name in classes)
    without_truth: tuple[str, ...] = ()
    if boxes is not None:
        ids = {clip.id for clip in selected}
        boxes = [item for item in boxes if item.id in ids]
        files.append(config.beside("boxes.csv"))
        write_boxes(files[-1], boxes)
        without_truth = with_truth(boxes)[1]
    official = Counter(clip.split for clip in selected)
    absent = Counter(clip.split for clip in lacking)
    report = ManifestReport(
        dataset=config.dataset,
        annotations=config.annotations,
        clips=config.clips,
        out=config.out,
        check=config.check,
        num_official=len(selected),
        num_present=len(selected) - len(lacking),
        missing=tuple(clip.id for clip in lacking if clip.id not in faults),
        unreadable={name: why for name, why in faults.items() if name not in findings.longer},
        longer={name: faults[name] for name in findings.longer},
        num_excluded=findings.num_excluded,
        num_unlisted=findings.num_unlisted,
        ambiguous=findings.ambiguous,
        without_truth=without_truth,
        splits={name: (official[name], official[name] - absent[name]) for name in sorted(filter(None, official))},
        num_classes=len(classes),
        official_digest=digest_ids(clip.id for clip in selected),
        files=tuple(files),
    )
    write_report(report)
    return report
