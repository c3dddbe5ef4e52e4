"""The samples that localization is scored on: images with sounds, their ground truth, and another clip's sound for
each.

Items are read as pairs of samples: sample 2 i is the image of item i with its sound, sample 2 i + 1 only the sound of
another clip, to be combined with the same image.

Shape legend: `G` side of the scoring grid, 224.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deepavfusion.data.clips import Clip, ClipError
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.dataset import ClipSet, Failure, Sample
from deepavfusion.data.opening import open_clip
from deepavfusion.data.randomness import Purpose, generator
from deepavfusion.data.scenes.annotation import ClipTruth, annotation_of
from deepavfusion.data.scenes.sounding_masks import SceneSources
from deepavfusion.data.sets.boxes import BoxAnnotation
from deepavfusion.data.sets.listing import split_labels
from deepavfusion.data.sets.pairs import SoundingPair
from deepavfusion.data.sounding_truth import GRID
from deepavfusion.data.truth import crop_mask
from deepavfusion.data.views import CentreView, OpenClip

OWN_SCENE = "boxes"
"""Scene type of clips with boxes."""
PAIR_SCENE = "non-sounding pairs"
"""Scene type of pictures with silent or off-screen sound from a list of pairs."""


@dataclass(frozen=True)
class Item:
    """A picture with a sound."""

    id: str
    picture: Clip
    sound: Clip
    scene: str
    """Kind of scene, by which results are told apart."""
    heard: frozenset[str]
    """Classes (of Bandstand, timbres) that are heard; empty where unknown or silent."""
    boxes: BoxAnnotation | None = None
    annotation: ClipTruth | None = None
    foreign: Clip | None = None
    """Clip whose sound has nothing to do with the picture; None if there is none."""


def annotated_items(clips: Sequence[Clip]) -> tuple[list[Item], dict[str, str]]:
    """Items of clips with annotations beside them, and the clips without, with the cause."""
    items, failed = [], {}
    for clip in clips:
        try:
            truth = annotation_of(clip)
        except ClipError as error:
            failed[clip.id] = error.cause
            continue
        heard = frozenset(source.timbre or "" for source in truth.sources if source.audible)
        items.append(Item(clip.id, clip, clip, truth.scene_type, heard, annotation=truth))
    return items, failed


def boxed_items(clips: Sequence[Clip], boxes: Mapping[str, BoxAnnotation]) -> tuple[list[Item], list[str]]:
    """Items of the clips that have boxes, and the ids of those whose boxes cover no pixel."""
    items, empty = [], []
    for clip in clips:
        own = boxes.get(clip.id)
        if own is None:
            continue
        if not own.has_truth(GRID):
            empty.append(clip.id)
            continue
        heard = frozenset(own.labels) or frozenset(split_labels(clip.label))
        items.append(Item(clip.id, clip, clip, OWN_SCENE, heard, boxes=own))
    return items, empty


def paired_items(clips: Sequence[Clip], pairs: Sequence[SoundingPair]) -> tuple[list[Item], list[str]]:
    """Items of the non-sounding pairs whose clips are there, and the names of the others."""
    by_id = {clip.id: clip for clip in clips}
    items, missing = [], []
    for pair in pairs:
        if pair.sounding:
            continue
        name = f"{pair.image_id}+{pair.audio_id}"
        if pair.image_id in by_id and pair.audio_id in by_id:
            picture, sound = by_id[pair.image_id], by_id[pair.audio_id]
            items.append(Item(name, picture, sound, PAIR_SCENE, frozenset(), boxes=BoxAnnotation(name, ())))
        else:
            missing.append(name)
    return items, missing


def with_foreign_sounds(items: Sequence[Item], seed: int) -> list[Item]:
    """The items, each with another clip's sound: one in which other classes are heard, drawn from a fixed seed.

    Where no class is known, any other clip serves. Partners are clips in which something is heard, if that is known.
    """
    donors = [item for item in items if item.heard] or list(items)
    result = []
    for place, item in enumerate(items):
        rng = generator(seed, place, Purpose.FOREIGN_SOUNDS)
        partner = None
        for candidate in rng.permutation(len(donors)):
            donor = donors[candidate]
            if donor.sound.id not in (item.sound.id, item.picture.id) and not (donor.heard & item.heard):
                partner = donor.sound
                break
        result.append(replace(item, foreign=partner))
    return result


class ItemSet(ClipSet):
    """Sample 2 i is item i, its truth of `SceneSources` on the scoring grid; sample 2 i + 1 its foreign sound."""

    def __init__(self, items: Sequence[Item], view: CentreView) -> None:
        super().__init__([item.picture for item in items], replace(view, whole=True))
        self.items = list(items)

    def __len__(self) -> int:
        return 2 * len(self.items)

    def __getitem__(self, index: int) -> Sample:
        place, is_foreign = divmod(index, 2)
        item = self.items[place]
        return self._foreign(index, item) if is_foreign else self._own(index, item)

    def _own(self, index: int, item: Item) -> Sample:
        truth, failure, image, waveform = np.zeros((GRID, GRID), np.uint8), None, None, None
        try:
            sources = SceneSources() if item.annotation is not None else None
            with open_clip(item.picture, self.seek) as media:
                times = sources.times(item.picture) if sources else ()
                drawn = self.view.read(media if item.sound is item.picture else Muted(media), None, times)
            image, waveform = drawn.image, drawn.waveform
            if image is None:
                raise ClipError(item.id, "no picture")
            if sources is not None:
                end = drawn.start_seconds + self.view.window_seconds
                whole = sources.read(item.picture, drawn.frame_seconds, drawn.start_seconds, end)
                truth = crop_mask(whole, FrameCrop.whole((GRID, GRID)))
            if item.sound is not item.picture:
                waveform = self._sound(item.sound)
        except ClipError as error:
            failure = Failure(item.id, error.cause)
        return self._sample(index, item, image, waveform, truth, failure)

    def _foreign(self, index: int, item: Item) -> Sample:
        waveform = None
        if item.foreign is not None:
            try:
                waveform = self._sound(item.foreign)
            except ClipError:  # told as a sample without foreign sound; the clip fails by itself where it is scored
                waveform = None
        return self._sample(index, item, None, waveform, np.zeros((GRID, GRID), np.uint8), None)

    def _sound(self, clip: Clip) -> NDArray[np.float32] | None:
        with open_clip(clip, self.seek) as media:
            return self.view.read(Unseen(media)).waveform

    def _sample(
        self,
        index: int,
        item: Item,
        image: NDArray[np.uint8] | None,
        waveform: NDArray[np.float32] | None,
        truth: NDArray[np.uint8],
        failure: Failure | None,
    ) -> Sample:
        return Sample(
            number=index,
            clip=replace(item.picture, id=item.id),
            image=np.zeros(self.view.image_shape, np.uint8) if image is None else image,
            waveform=np.zeros(self.view.num_samples, np.float32) if waveform is None else waveform,
            image_present=image is not None,
            audio_present=waveform is not None,
            truth=truth,
            failure=failure,
        )


class Unseen:
    """An opened clip whose frames are not read."""

    def __init__(self, media: OpenClip) -> None:
        self.media, self.info = media, replace(media.info, has_picture=False)

    def frame(self, time_seconds: float, crop: FrameCrop | None = None) -> NDArray[np.uint8]:
        raise AssertionError("nobody looks")

    def frames(self, times_seconds: Sequence[float], crop: FrameCrop) -> NDArray[np.uint8]:
        raise AssertionError("nobody looks")

    def sound(self, start_seconds: float, duration_seconds: float, sample_rate: int = 16_000) -> NDArray[np.float32]:
        return self.media.sound(start_seconds, duration_seconds, sample_rate)


class Muted:
    """An opened clip whose sound is not listened to."""

    def __init__(self, media: OpenClip) -> None:
        self.media, self.info = media, replace(media.info, has_sound=False)

    def frame(self, time_seconds: float, crop: FrameCrop | None = None) -> NDArray[np.uint8]:
        return self.media.frame(time_seconds, crop)

    def frames(self, times_seconds: Sequence[float], crop: FrameCrop) -> NDArray[np.uint8]:
        return self.media.frames(times_seconds, crop)

    def sound(self, start_seconds: float, duration_seconds: float, sample_rate: int = 16_000) -> NDArray[np.float32]:
        raise AssertionError("nobody listens")
