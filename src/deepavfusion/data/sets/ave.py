"""AVE (Tian et al. 2018): audio-visual events in ten-second videos, 28 classes, with their start and end.

Rows of `Annotations.txt` and of the lists `trainSet.txt`, `valSet.txt`, `testSet.txt`, some with a header:
`Church bell&RUhOCu3LNXM&good&0&10`. A video that holds events of several classes has several rows.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from deepavfusion.data.annotation_files import read_rows
from deepavfusion.data.sets.listing import ListedClip, Listing, Segment
from deepavfusion.data.sets.vocabularies import known, shipped_classes

CLIP_SECONDS = 10.0
"""Every clip of AVE is cut to this; from where in its video the annotations do not tell."""


@dataclass(frozen=True)
class Event:
    """One audio-visual event."""

    clip_id: str
    """YouTube id."""
    label: str
    quality: str
    start_seconds: float
    end_seconds: float
    """From the start of the clip; equal to `start_seconds` in a few rows."""


def read_events(path: str) -> tuple[Event, ...]:
    """Every event, in the file's order.

    Raises:
        ValueError: a row that does not fit, or an unknown label; names file and line.
    """
    events = []
    classes = shipped_classes("ave")
    for number, row in enumerate(read_rows(path, delimiter="&", quotes=False)):
        if number == 0 and row.cells[-1] == "EndTime":
            continue
        if len(row.cells) != 5:
            raise ValueError(f"{row.place}: expected class&id&quality&start&end, found {'&'.join(row.cells)}")
        label, clip, quality = row.cells[:3]
        event = Event(clip, known(label, classes, row.place), quality, row.number(3), row.number(4))
        if event.end_seconds < event.start_seconds:
            raise ValueError(f"{row.place}: the event ends before it starts")
        events.append(event)
    return tuple(events)


def read_ave(path: str) -> Listing:
    """Every video with the classes of its events. Errors as `read_events`."""
    labels: dict[str, set[str]] = defaultdict(set)
    for event in read_events(path):
        labels[event.clip_id].add(event.label)
    clips = tuple(
        ListedClip(clip, tuple(sorted(found)), None, (clip,), segment=Segment(clip, 0.0, CLIP_SECONDS))
        for clip, found in labels.items()
    )
    return Listing(clips, shipped_classes("ave"))
