"""Which clips can be sources of mixtures, and which recordings can be separated.

The image of a source is the whole frame of a clip with one sound, or, where annotations exist, one source of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence

from deepavfusion.data.clips import Clip, ClipError
from deepavfusion.data.mixtures import Part
from deepavfusion.data.scenes.annotation import ClipTruth, SourceTruth, annotation_of
from deepavfusion.data.scenes.isolation import box_region, only_sounding
from deepavfusion.models.separator_config import SourceImage

NOT_ONE = "not exactly one source sounds and is seen"


def single_sources(clips: Sequence[Clip], pictures: SourceImage) -> tuple[list[Part], dict[str, str]]:
    """Clips as sources of mixtures.

    Args:
        clips: each with one sound.
        pictures: whole; or what sounds alone, the rest painted over (`source`) or its box enlarged (`box`), of clips
            with annotations of which exactly one source sounds and is seen.

    Returns:
        The sources, and by id of every other clip why it is none.
    """
    if pictures == "whole":
        return [Part(clip, label=clip.label) for clip in clips], {}
    parts, others = [], {}
    for clip in clips:
        try:
            truth = annotation_of(clip)
            source = only_sounding(truth)
            if source is None:
                others[clip.id] = NOT_ONE
            else:
                parts.append(_part(clip, truth, source, pictures))
        except ClipError as error:
            others[clip.id] = error.cause
    return parts, others


def recordings(
    clips: Sequence[Clip], num_sources: int, pictures: SourceImage = "source"
) -> tuple[list[tuple[Clip, list[Part]]], dict[str, str]]:
    """Clips in which so many sources sound, are seen and have stems, and why the others have not.

    Args:
        clips: with annotations.
        num_sources: that sound.
        pictures: `box` enlarges the box of each; else the others are painted over.
    """
    found, others = [], {}
    for clip in clips:
        try:
            truth = annotation_of(clip)
            audible = [source for source in truth.sources if source.audible]
            if len(audible) != num_sources or not all(source.visible for source in audible):
                others[clip.id] = f"{len(audible)} sources sound, not {num_sources} that are seen"
            elif any(source.stem is None for source in audible):
                others[clip.id] = "written without stems"
            else:
                found.append((clip, [_part(clip, truth, source, pictures) for source in audible]))
        except ClipError as error:
            others[clip.id] = error.cause
    return found, others


def _part(clip: Clip, truth: ClipTruth, source: SourceTruth, pictures: SourceImage) -> Part:
    region = box_region(clip, truth, source.number) if pictures == "box" else None
    return Part(clip, source.number, source.class_name or clip.label, region)
