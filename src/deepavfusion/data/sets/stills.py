"""Images and sounds in separate files: the layout of localization test sets, and folders of labelled frames.

Localization sets are distributed as `frames/ID.jpg` and `audio/ID.wav`. Your own segmentation data have a folder per
clip, `.../NAME/{frames/*, masks/*, audio.wav}`, where a mask has the name of its frame and may be missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import PurePath

from deepavfusion.data.clips import layout
from deepavfusion.data.file_kinds import kind_of
from deepavfusion.data.framed_clips import FramedClip
from deepavfusion.data.locations import one_line
from deepavfusion.data.sets.clip_index import ClipIndex
from deepavfusion.data.sets.listing import ListedClip


def has_stills(folder: str) -> bool:
    """Whether a folder is laid out as `frames` and `audio`."""
    return all(os.path.isdir(os.path.join(folder, name)) for name in ("frames", "audio"))


def find_stills(clips: Iterable[ListedClip], folder: str) -> tuple[dict[str, FramedClip], tuple[str, ...]]:
    """The listed clips whose image and sound exist.

    Args:
        clips: of a list.
        folder: holds `frames` and `audio`.

    Returns:
        The clips by id, and the ids that several pictures or sounds have the name of, of which the first was taken.
    """
    pictures = ClipIndex(os.path.join(folder, "frames"), "photo")
    sounds = ClipIndex(os.path.join(folder, "audio"), "sound")
    found, several = {}, []
    for clip in clips:
        frames, sound = pictures.find(clip.names, clip.label), sounds.find(clip.names, clip.label)
        if frames and sound:
            found[clip.id] = FramedClip(clip.id, clip.label, clip.split, sound[0], (frames[0],), (None,))
            if len(frames) > 1 or len(sound) > 1:
                several.append(clip.id)
    return found, tuple(several)


def read_mask_folders(path: str | None, root: str) -> tuple[FramedClip, ...]:
    """The clips of folders of frames, masks and sound; frames in the order of the numbers in their names.

    Args:
        path: must be None, there is no annotation file.
        root: is searched for folders that hold `frames`. Split and label are told by the folders around a clip's, as
            for clips.

    Raises:
        ValueError: none there, a clip without frames or with none or several sound files, or a mask without a frame.
    """
    if path is not None:
        raise ValueError(f"annotations {path}: folders of frames and masks have no annotation file; leave it out")
    clips = []
    for place, folders, names in os.walk(root):
        folders.sort()
        if "frames" not in folders:
            continue
        frames = _pictures(os.path.join(place, "frames"))
        masks = _pictures(os.path.join(place, "masks"))
        sounds = [name for name in names if kind_of(name) == "sound" and not name.startswith(".")]
        if not frames or len(sounds) != 1:
            raise ValueError(
                f"{place}: has {len(frames)} frames and {len(sounds)} sound files; need frames and one sound"
            )
        stray = masks.keys() - frames.keys()
        if stray:
            raise ValueError(f"{place}: mask {min(stray)!r} has no frame of that name")
        relative = PurePath(os.path.relpath(place, root))
        label, split = layout(relative)
        clips.append(
            FramedClip(
                one_line(relative.as_posix()),
                label and one_line(label),
                split,
                os.path.join(place, sounds[0]),
                tuple(frames.values()),
                tuple(masks.get(name) for name in frames),
            )
        )
        folders.clear()
    if not clips:
        raise ValueError(f"{root}: no folder in it holds a folder `frames`")
    return tuple(clips)


def _pictures(folder: str) -> dict[str, str]:
    """Picture files by name without suffix, ordered by the numbers in their names: 2 before 10."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    pictures = {
        os.path.splitext(name)[0]: os.path.join(folder, name)
        for name in names
        if kind_of(name) == "photo" and not name.startswith(".")
    }
    return dict(sorted(pictures.items(), key=lambda item: _natural(item[0])))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
