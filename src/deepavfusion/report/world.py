"""The section on a Bandstand world: its classes, its splits, and a few clips that play."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from deepavfusion.data.clips import Clip, read_manifest
from deepavfusion.data.scenes.annotation import ClipTruth, SourceTruth, read_annotation
from deepavfusion.report.embedding import embed_clip, embed_frame, embed_picture
from deepavfusion.report.sections import ClipPlayer, ClipRow, Facts, Missing, Part, PictureStrip, SoundLine

MAX_CLIPS = 6
MAX_CLIP_BYTES = 300_000
"""Of one clip that is shown; with `MAX_CLIPS` this bounds the page."""


def world_parts(folder: Path) -> list[Part]:
    """What there is to show of a world; what is missing is said."""
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        return [
            Missing("This run has no Bandstand world, so there are no clips to play.", f"{folder.name}/{manifest.name}")
        ]
    clips = read_manifest(str(manifest))
    parts: list[Part] = [_players(clips), _classes(folder / "classes.png")]
    counts = Counter(clip.split or "no split" for clip in clips)
    parts.append(Facts("Clips by split", tuple((split, f"{count:,}") for split, count in counts.items())))
    return parts


def choose_clips(clips: Sequence[Clip], num: int = MAX_CLIPS) -> list[Clip]:
    """Clips of as many splits as possible: the first of each, then the second of each, and so on."""
    places: Counter[str | None] = Counter()
    turns = []
    for order, clip in enumerate(clips):
        turns.append((places[clip.split], order, clip))
        places[clip.split] += 1
    return [clip for _, _, clip in sorted(turns, key=lambda turn: turn[:2])[:num]]


def _players(clips: Sequence[Clip]) -> Part:
    playable = [clip for clip in clips if clip.num_bytes is None or clip.num_bytes <= MAX_CLIP_BYTES]
    chosen = choose_clips([clip for clip in playable if clip.storage == "file"])
    if not chosen:
        return Missing(
            f"None of the {len(clips)} clips is a file of at most {MAX_CLIP_BYTES // 1000} kB, so none plays here.",
            "manifest.csv",
        )
    note = f"{len(chosen)} of {len(clips):,} clips. Under each: when each of its sources sounds."
    return ClipRow(tuple(_player(clip) for clip in chosen), note)


def _player(clip: Clip) -> ClipPlayer:
    truth = read_annotation(clip.path)
    duration = truth.num_frames / truth.frame_rate
    kind = truth.label or truth.scene_type.replace("_", " ")
    return ClipPlayer(
        title=f"{kind}, {truth.split.replace('_', ' ')}",
        description=f"{kind}: {_described(truth)}",
        uri=embed_clip(Path(clip.path)),
        duration_seconds=duration,
        poster=embed_frame(clip.path, duration / 2),
        sources=tuple(SoundLine(_source_name(source), source.sounding) for source in truth.sources),
    )


def _source_name(source: SourceTruth) -> str:
    if source.off_screen:
        return f"off screen, {source.timbre or source.class_name or 'a sound'}"
    seen = source.look or source.class_name or "a source"
    return f"{seen}, {source.timbre}" if source.audible and source.timbre not in (None, seen) else seen


def _described(truth: ClipTruth) -> str:
    return "; ".join(f"{_source_name(s)}{'' if s.audible else ', silent'}" for s in truth.sources) or "no source"


def _classes(path: Path) -> Part:
    if not path.is_file():
        return Missing("The contact sheet of the classes is missing.", path.name)
    alt = "Contact sheet of the classes: a picture of each, and the spectrogram of its sound"
    caption = "Rows are looks, columns timbres: an instrument at a stroke, and the spectrogram of the same short tune."
    return PictureStrip("All classes", (embed_picture(path, alt, caption),))
