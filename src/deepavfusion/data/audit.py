"""`audit`: checks every clip of a data set and writes a manifest with a verdict on each.

A little of each file is decoded at several moments, in separate processes, because broken files can crash or hang a
decoder. The moments are unevenly spaced, so that something periodic (a flash every second) is not mistaken for
something constant. A clip that seems black, frozen or silent is checked more closely before it is called so.

The manifest stores size and time of each file, and the summary beside it the settings: a second audit with the same
settings reads only files that changed, and a stopped audit continues. In a job array every part writes its own manifest
(`clips.part-2-of-8.csv`), and an audit without `part` afterwards joins them.
"""

from __future__ import annotations

import glob
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np

from deepavfusion.data.audit_journal import AuditJournal
from deepavfusion.data.clips import Clip, list_clips, read_manifest, write_manifest
from deepavfusion.data.cluster import check_address, connected
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.labels import clip_name, label_clips
from deepavfusion.data.locations import write_json
from deepavfusion.data.parts import parse_part
from deepavfusion.data.stored_media import fetched, media_digest, media_status, never_changes, open_media
from deepavfusion.data.workers import Casualty, map_isolated

AUDIT_VERSION = 2
"""Goes up when a verdict could change; older manifests are then not continued."""
LONGER = "longer than its segment"
"""Said by a manifest of official clips (`sets.manifest`), which knows the segments; an audit keeps it."""
REASONS = (
    "unreadable",
    "no video",
    "no audio",
    "too short",
    "black",
    "frozen picture",
    "silent",
    "damaged",
    "duplicate of",
    LONGER,
)
"""What can be wrong with a clip, as the column `reason` begins; several are separated by semicolons."""
NOTES = ("converted from", "joined")
"""What is noted in that column of clips that are as good as others.

Pictures of high dynamic range or wide colours, and files whose clock leaps, which are read on across the seam.
"""

LOOK = (48, 48)  # pixels that pictures are looked at with
CLOSE_LOOK = 64  # moments of the closer look at a picture
BLACK_LEVEL = 24  # no pixel of a black picture is brighter, of 255
# Blocks of 3 x 3 of these pixels average coding noise out: still pictures of 320 x 240 and more, H.264 up to crf 36,
# changed by at most 7, the stillest of 20 real clips (a talking head) by 26.
FROZEN_LEVEL = 10  # no block of a frozen picture changes by more, of 255
SILENCE_LEVEL = 1e-3  # no sample of a silent sound is louder: -60 dB of full scale
SOUND_SECONDS = 0.5  # sound decoded at each moment
CLOSE_SOUND_SECONDS = 30.0  # sound decoded at a time in the closer look, which takes it all
CLIPS_PER_UNIT = 16  # clips that a worker of a cluster looks at before it tells


@dataclass(frozen=True)
class AuditConfig:
    """Check every clip of a data set and write a manifest."""

    source: str
    """A folder of video files (searched recursively), a manifest, or hf:OWNER/NAME[:SPLIT] (docs/data.md)."""
    out: str
    """The manifest to write (.csv); a summary (.json) is written beside it."""
    part: str = "1/1"
    """Check only one part of the clips, such as 3/8; a run without --part joins the parts afterwards."""
    labels: str = "folder"
    """Source of the labels: folder (names of the folders, or the manifest's labels), none, or a csv file with the
    columns file,label."""
    ray: str | None = None
    """Work on a Ray cluster: auto, local, host:port or ray://host:port (docs/scaling.md)."""
    num_workers: int = 2
    """Processes that read clips (on a cluster, of each worker); 0 reads in this process, which a broken file may
    crash."""
    num_points: int = 5
    """Moments of each clip that are decoded."""
    min_seconds: float = 1.0
    """Clips shorter than this are quarantined."""
    tolerate: tuple[str, ...] = ("damaged",)
    """Reasons that are noted but do not quarantine a clip, such as [damaged,no audio]."""
    timeout_seconds: float = 60.0
    """A clip that takes longer counts as unreadable."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tolerate", tuple(self.tolerate))
        if not self.out.endswith(".csv"):
            raise ValueError(f"out {self.out} must end in .csv")
        if self.num_points < 2:
            raise ValueError(f"num_points {self.num_points} must be at least 2, to tell a moving from a frozen picture")
        if self.num_workers < 0:
            raise ValueError(f"num_workers {self.num_workers} must not be negative")
        for reason in self.tolerate:
            if reason not in REASONS:
                raise ValueError(f"tolerate: {reason!r} is not a known reason; there are {', '.join(REASONS)}")
        parse_part(self.part)
        check_address(self.ray)

    @property
    def settings(self) -> dict[str, object]:
        """What verdicts depend on."""
        names = ("num_points", "min_seconds", "tolerate", "timeout_seconds")
        return {"audit_version": AUDIT_VERSION} | {name: _plain(getattr(self, name)) for name in names}


@dataclass(frozen=True)
class AuditSummary:
    """Counts of an audit."""

    out: str
    """The manifest written."""
    num_clips: int
    num_ok: int
    num_quarantined: int
    num_looked_at: int
    """Clips decoded now; the others had not changed since an earlier audit."""
    num_gone: int
    """Clips of an earlier audit that are not there any more."""
    reasons: dict[str, int]
    """How many clips each reason was found in, tolerated ones and notes included."""
    num_labels: int
    """Different labels."""
    splits: dict[str, int]
    """Clips of each split."""
    shared_between_splits: dict[str, list[str]]
    """Names of clips that more than one split holds, with these splits."""
    num_without_label: int
    total_seconds: float
    """Length of all readable clips."""
    settings: dict[str, object]
    """What the verdicts depend on."""


def audit(config: AuditConfig, progress: Callable[[int, int], None] | None = None) -> AuditSummary:
    """Look through a data set, write its manifest and, beside it, a summary.

    Args:
        config: what to look at and how.
        progress: is called with the number of clips looked at so far and in all.

    Raises:
        ValueError: no clips there, or labels that do not fit.
    """
    clips = list_clips(config.source)
    sharded = [clip.id for clip in clips if clip.storage == "shard"]
    if sharded:
        raise ValueError(f"{config.source}: holds shards, whose clips were audited before they were written")
    if any(clip.storage == "framed" for clip in clips):
        raise ValueError(f"{config.source}: is a table of frames; `manifest --check decode` checks its files")
    if config.labels == "none":
        clips = [replace(clip, label=None) for clip in clips]
    elif config.labels != "folder":
        clips = label_clips(clips, config.labels)
    number, count = parse_part(config.part)
    everywhere = {clip.path for clip in clips}
    clips = clips[number - 1 :: count]
    out = config.out if count == 1 else _part_name(config.out, number, count)
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    known = _known(config, out)
    there = [_stamped(clip) for clip in clips]
    rows = {
        clip.id: replace(known[clip.path], id=clip.id, label=clip.label, split=clip.split)
        for clip in there
        if clip.path in known and _unchanged(clip, known[clip.path])
        if any(map(_is_longer, _reasons(clip))) == any(map(_is_longer, _reasons(known[clip.path])))
    }
    news = [clip for clip in there if clip.id not in rows]
    if progress is not None:
        progress(0, len(news))
    with AuditJournal(f"{out}.journal", config.settings) as journal:
        with closing(_inspected(news, config)) as inspected:
            for done, (clip, row) in enumerate(inspected, 1):
                rows[clip.id] = row
                journal.add(row)
                if progress is not None:
                    progress(done, len(news))
        listed = mark_duplicates([rows[clip.id] for clip in clips], config)
        write_manifest(out, listed)
        summary = summarize(listed, out, len(news), len(known.keys() - everywhere), config)
        write_json(_summary_name(out), asdict(summary))
        journal.remove()
    return summary


def _inspected(clips: list[Clip], config: AuditConfig) -> Generator[tuple[Clip, Clip], None, None]:
    """Clips and what was found in them, as they are done: in processes of this one, or on a cluster."""
    if config.ray is None or not clips:
        yield from zip(clips, _look_through(clips, config), strict=True)
        return
    units = [clips[start : start + CLIPS_PER_UNIT] for start in range(0, len(clips), CLIPS_PER_UNIT)]
    num_cpus = max(1, config.num_workers)
    with connected(config.ray, num_cpus) as cluster:
        for number, found in cluster.map(partial(inspect_clips, config=config), units, num_cpus):
            yield from zip(units[number], found, strict=True)


def inspect_clips(clips: list[Clip], config: AuditConfig) -> list[Clip]:
    """Look at some clips, in processes of their own; duplicates are not found."""
    return list(_look_through(clips, config))


def _look_through(clips: list[Clip], config: AuditConfig) -> Iterator[Clip]:
    inspect = partial(inspect_clip, config=config)
    with closing(map_isolated(inspect, map(fetched, clips), config.num_workers, config.timeout_seconds)) as results:
        for clip, result in zip(clips, results, strict=True):
            if isinstance(result, Casualty):
                result = _judge(clip, [_unreadable(result.cause)], config)
            yield result


def inspect_clip(clip: Clip, config: AuditConfig) -> Clip:
    """Look at one clip: the row with what was found, verdict and reasons. Duplicates are not its to find."""
    from deepavfusion.data.media import MediaError

    reasons = [reason for reason in _reasons(clip) if _is_longer(reason)]
    try:
        clip = replace(clip, digest=media_digest(clip.path))
        with open_media(clip.path) as media:
            info = media.info
            clip = clip.with_info(info)
            duration = info.duration_seconds
            reasons += [
                name for name, there in (("no video", info.has_picture), ("no audio", info.has_sound)) if not there
            ]
            if duration < config.min_seconds:
                reasons.append("too short")
            if info.has_picture:
                reasons += _look(lambda times: media.frames(times, FrameCrop.whole(LOOK)), duration, config)
            if info.has_sound and _is_silent(media.sound, duration, config.num_points):
                reasons.append("silent")
            if media.converted_from is not None:
                reasons.append(f"converted from {media.converted_from.name}")
            if media.seams:
                places = ", ".join(f"{seam.seconds:.1f} s by {seam.leap_seconds:+.1f} s" for seam in media.seams)
                reasons.append(f"joined: its clock leaps at {places}, and is read on across")
            if media.num_refused_packets:
                reasons.append(f"damaged: {media.num_refused_packets} packets could not be decoded where it was read")
    except (MediaError, OSError) as error:
        reasons += [_unreadable(error.cause if isinstance(error, MediaError) else error.strerror or str(error))]
    return _judge(clip, reasons, config)


def _look(frames: Callable[[list[float]], np.ndarray], duration_seconds: float, config: AuditConfig) -> list[str]:
    """`black` or `frozen picture` if it is; too short a clip is not expected to move."""
    for count in (config.num_points, CLOSE_LOOK):
        pictures = frames(moments(duration_seconds, count)).astype(np.float32)  # (count, 48, 48, 3)
        black = pictures.max() <= BLACK_LEVEL
        blocks = pictures.reshape(count, LOOK[0] // 3, 3, LOOK[1] // 3, 3, 3).mean((2, 4))
        if not black and np.abs(blocks - blocks[:1]).max() > FROZEN_LEVEL:
            return []
    if black:
        return ["black"]
    return ["frozen picture"] if duration_seconds >= config.min_seconds else []


def _is_silent(sound: Callable[[float, float], np.ndarray], duration_seconds: float, num_points: int) -> bool:
    starts = [max(0.0, time - SOUND_SECONDS / 2) for time in moments(duration_seconds, num_points)]
    if any(_loud(sound(start, SOUND_SECONDS)) for start in starts):
        return False
    starts = list(np.arange(0, max(duration_seconds, SOUND_SECONDS), CLOSE_SOUND_SECONDS))
    return not any(_loud(sound(float(start), CLOSE_SOUND_SECONDS)) for start in starts)


def _loud(waveform: np.ndarray) -> bool:
    return bool(np.abs(waveform).max(initial=0) > SILENCE_LEVEL)


def moments(duration_seconds: float, count: int) -> list[float]:
    """Ascending times in a clip, one at an irregular place in each of `count` equal stretches."""
    places = np.modf(np.arange(1, count + 1) * 0.6180339887498949)[0]  # golden ratio: no two alike
    return [float(time) for time in (np.arange(count) + places) / count * duration_seconds]


def mark_duplicates(clips: Iterable[Clip], config: AuditConfig) -> list[Clip]:
    """The rows, with `duplicate of` in those whose bytes are those of an earlier readable one."""
    first: dict[str, str] = {}
    marked = []
    for clip in clips:
        reasons = [reason for reason in _reasons(clip) if _kind(reason) != "duplicate of"]
        if clip.digest is not None and not any(_kind(reason) == "unreadable" for reason in reasons):
            original = first.setdefault(clip.digest, clip.id)
            if original != clip.id:
                reasons.append(f"duplicate of {original}")
        marked.append(_judge(clip, reasons, config))
    return marked


def summarize(clips: list[Clip], out: str, num_looked_at: int, num_gone: int, config: AuditConfig) -> AuditSummary:
    """Count what an audit found."""
    reasons = Counter(_kind(reason) for clip in clips for reason in _reasons(clip))
    splits = defaultdict(set)
    for clip in clips:
        if clip.split is not None:
            splits[clip_name(clip.path)].add(clip.split)
    bad = sum(clip.verdict == "quarantined" for clip in clips)
    return AuditSummary(
        out=out,
        num_clips=len(clips),
        num_ok=len(clips) - bad,
        num_quarantined=bad,
        num_looked_at=num_looked_at,
        num_gone=num_gone,
        reasons={name: reasons[name] for name in (*REASONS, *NOTES) if reasons[name]},
        num_labels=len({clip.label for clip in clips} - {None}),
        splits=dict(sorted(Counter(clip.split for clip in clips if clip.split is not None).items())),
        shared_between_splits={name: sorted(parts) for name, parts in sorted(splits.items()) if len(parts) > 1},
        num_without_label=sum(clip.label is None for clip in clips),
        total_seconds=round(sum(clip.duration_seconds or 0.0 for clip in clips), 3),
        settings=config.settings,
    )


def _part_name(out: str, number: int, count: int) -> str:
    return f"{out.removesuffix('.csv')}.part-{number}-of-{count}.csv"


def _summary_name(out: str) -> str:
    return f"{out.removesuffix('.csv')}.json"


def _judge(clip: Clip, reasons: list[str], config: AuditConfig) -> Clip:
    bad = any(_kind(reason) not in (*config.tolerate, *NOTES) for reason in reasons)
    return replace(clip, verdict="quarantined" if bad else "ok", reason="; ".join(reasons) or None)


def _reasons(clip: Clip) -> list[str]:
    return clip.reason.split("; ") if clip.reason else []


def _kind(reason: str) -> str:
    return next((name for name in (*REASONS, *NOTES) if reason.startswith(name)), "")


def _is_longer(reason: str) -> bool:
    return _kind(reason) == LONGER


def _unreadable(cause: str) -> str:
    return f"unreadable: {' '.join(cause.split())}".replace(";", ",")


def _stamped(clip: Clip) -> Clip:
    try:
        status = media_status(clip.path)
    except OSError:  # inspecting it will say why
        status = None
    if status is None:
        return replace(clip, num_bytes=None, modified_ns=None)
    return replace(clip, num_bytes=status.st_size, modified_ns=status.st_mtime_ns)


def _unchanged(clip: Clip, known: Clip) -> bool:
    if never_changes(clip.path):  # but fetching it may have failed
        return not any(_kind(reason) == "unreadable" for reason in _reasons(known))
    return clip.num_bytes is not None and (clip.num_bytes, clip.modified_ns) == (known.num_bytes, known.modified_ns)


def _known(config: AuditConfig, out: str) -> dict[str, Clip]:
    """Rows of earlier audits with the same settings, by path: this one's, its parts', and what journals hold."""
    stem = glob.escape(config.out.removesuffix(".csv"))
    manifests = {*glob.glob(f"{stem}.part-*-of-*.csv"), *(name for name in (config.out, out) if os.path.exists(name))}
    known: dict[str, Clip] = {}
    for manifest in sorted(manifests, key=os.path.getmtime):
        if _read_settings(_summary_name(manifest)) == config.settings:
            known |= {clip.path: clip for clip in read_manifest(manifest) if clip.verdict is not None}
    for journal in sorted(glob.glob(f"{stem}*.csv.journal")):
        known |= {clip.path: clip for clip in AuditJournal(journal, config.settings).read()}
    return known


def _read_settings(path: str) -> object:
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return json.load(file).get("settings")


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
