"""MUSIC (Zhao et al. 2018) and MUSIC21: YouTube videos of people playing one instrument, or two.

`{"version": .., "videos": {"flute": ["jW_AuF6dQYY", ...]}}`; in the duets' file a key is `flute violin`. A video is
found by its YouTube id. The classes are those of the solos, also for duets, which do not have all of them.
"""

from __future__ import annotations

from deepavfusion.data.annotation_files import read_json
from deepavfusion.data.sets.listing import ListedClip, Listing, unique
from deepavfusion.data.sets.vocabularies import known, shipped_classes


def read_music(path: str) -> Listing:
    """Solos or duets over the 11 instruments of MUSIC; a duet has two labels.

    Raises:
        ValueError: not this form, an unknown instrument, a video listed twice; names file and key.
    """
    return _read(path, shipped_classes("music"))


def read_music21(path: str) -> Listing:
    """Solos or duets over the 21 instruments of MUSIC21. Errors as `read_music`."""
    return _read(path, shipped_classes("music21"))


def _read(path: str, classes: tuple[str, ...]) -> Listing:
    content = read_json(path)
    videos = content.get("videos") if isinstance(content, dict) else None
    if not isinstance(videos, dict):
        raise ValueError(f'{path}: must hold {{"videos": {{"flute": ["jW_AuF6dQYY", ...]}}}}')
    clips = []
    for key, ids in videos.items():
        place = f"{path}, {key!r}"
        labels = tuple(known(name, classes, place) for name in sorted(key.split()))
        if not isinstance(ids, list) or not all(isinstance(video, str) and video for video in ids):
            raise ValueError(f"{place}: must hold a list of YouTube ids")
        clips += [(ListedClip(video, labels, None, (video,)), place) for video in ids]
    return Listing(unique(clips), classes)
