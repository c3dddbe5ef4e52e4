"""The frames that a segmenter is scored on, their masks, and the other sounds that they are combined with.

A video is a clip of the official list. It has one scored frame, or, in a table of frames, all that are labelled. A
video with any unreadable frame is left out as a whole, so that no video counts in part.

Shape legend: `H W` pixels of the model's input, `h w` those of a stored mask, `S` samples of sound.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepavfusion.data.clips import Clip, ClipError, column_of, list_clips
from deepavfusion.data.dataset import ClipSet
from deepavfusion.data.framed import FrameMasks
from deepavfusion.data.framed_clips import frame_of
from deepavfusion.data.locations import open_text
from deepavfusion.data.opening import open_clip
from deepavfusion.data.randomness import Purpose, generator
from deepavfusion.data.scenes.annotation import read_annotation, read_mask
from deepavfusion.data.scenes.sounding_masks import SoundingLooks, SoundingMasks
from deepavfusion.data.sets.manifest_report import LackingClip
from deepavfusion.data.splits import SPELLINGS, spellings_of
from deepavfusion.data.truth import Truth
from deepavfusion.data.views import CentreView, ClipView
from deepavfusion.evaluation.coverage import ClipSelection, select_clips

Sound = Literal["own", "silence", "noise", "foreign"]
TWIN_SCENES = ("twins", "motion")
"""Kinds of scenes of Bandstand in which one of two that look alike is heard."""


@dataclass(frozen=True)
class Picture:
    """One labelled picture."""

    clip: Clip
    """What is opened for it."""
    video: int
    """Number of its video in the official list."""
    number: int
    """Place in its video, from 0."""
    groups: tuple[str, ...] = ()
    """Kinds of scenes it belongs to, to be scored apart."""


@dataclass(frozen=True)
class PictureSelection:
    """The pictures of a split and what the split officially is."""

    videos: ClipSelection
    """`clips` are the pictures; all ids are those of videos."""
    pictures: tuple[Picture, ...]
    num_unlabelled: int
    """Pictures without a mask, which cannot be scored."""

    def video_of(self, picture: Picture) -> str:
        """Id of its video."""
        return self.videos.official[picture.video]


def select_pictures(source: str, split: str) -> PictureSelection:
    """The frames of a split that have a mask, and which videos of the split are missing.

    Args:
        source: a table of pictures, or what holds the clips of a Bandstand world.
        split: as in `coverage.select_clips`; where there is no `test` but one split whose name ends in `_test`, as in
            `segmentation_test.csv` of a world, `test` is that one.

    Raises:
        ValueError: the source has no such split, or no picture of it is labelled.
    """
    rows = list_clips(source)
    names = {name for name in column_of(rows, "split") if name}
    tests = [name for name in names if name.endswith("_test")]
    if split == "test" and not any(name.lower() in SPELLINGS["test"] for name in names) and len(tests) == 1:
        split = tests[0]
    if rows[0].storage == "framed":
        return _select_frames(source, split, rows)
    selection = select_clips(source, split, needs_label=False)
    places = {name: place for place, name in enumerate(selection.official)}
    pictures = tuple(Picture(clip, places[clip.id], 0, scene_groups(clip)) for clip in selection.clips)
    return PictureSelection(selection, pictures, 0)


def _select_frames(source: str, split: str, rows: Sequence[Clip]) -> PictureSelection:
    selection = select_clips(source, split, needs_label=False)
    frames = {clip.id: frame_of(clip) for clip in selection.clips}
    videos = list(dict.fromkeys(frame.video.id for frame in frames.values()))
    spellings = spellings_of(split)
    lacking = [row for row in _lacking(source) if split == "all" or not row.split or row.split.lower() in spellings]
    labelled = [clip for clip in selection.clips if frames[clip.id].mask is not None]
    if not labelled:
        raise ValueError(f"{source}: none of {len(frames)} frames of split {split} has a mask")
    scored = {frames[clip.id].video.id for clip in labelled}
    official = (*videos, *(row.id for row in lacking if row.id not in videos))
    places = {name: place for place, name in enumerate(official)}
    chosen = ClipSelection(
        source=source,
        split=split,
        clips=labelled,
        official=official,
        missing=tuple(row.id for row in lacking if row.cause == "missing"),
        # What the check of the files found unreadable is not in the table; it failed all the same.
        quarantined={row.id: row.cause for row in lacking if row.cause != "missing"},
        unlabelled=tuple(name for name in videos if name not in scored),
    )
    pictures = tuple(Picture(clip, places[(s := frames[clip.id]).video.id], s.number) for clip in labelled)
    return PictureSelection(chosen, pictures, len(frames) - len(labelled))


def _lacking(table: str) -> list[LackingClip]:
    """The videos that the list beside a table names as missing or unusable; none where there is no such list."""
    try:
        with open_text(f"{table.removesuffix('.csv')}.missing.csv") as file:
            return [
                LackingClip(row["id"], row["label"] or None, row["split"] or None, row["cause"])
                for row in csv.DictReader(file)
            ]
    except FileNotFoundError:
        return []


def mask_truth(clips: Sequence[Clip], classes: Sequence[str] = ()) -> Truth:
    """Where the masks of clips come from.

    Args:
        clips: all of one kind.
        classes: names by number, background first, for semantic masks; none for binary ones.

    Raises:
        ValueError: clips that have no masks.
    """
    storages = {clip.storage for clip in clips}
    if storages == {"framed"}:
        return FrameMasks(classes)
    if storages != {"file"}:
        raise ValueError(
            f"clips stored as {', '.join(sorted(storages))} have no masks; give a table of frames (`deepavfusion "
            f"manifest avsbench_s4 ...`) or the clips of a Bandstand world as files"
        )
    causes = []
    for clip in clips:  # one that is annotated is enough: the others fail by name when they are read
        try:
            if read_annotation(clip.path).masks is None:
                raise ValueError(f"{clip.path}: the world was written with --masks false")
            break
        except ValueError as error:
            causes.append(str(error))
    else:
        raise ValueError(
            f"{causes[0]}; segmentation needs a table of frames with masks (`deepavfusion manifest mask_folders "
            f"...`) or a Bandstand world"
        )
    return SoundingLooks(classes) if classes else SoundingMasks()


def scene_groups(clip: Clip) -> tuple[str, ...]:
    """What kind of scene a Bandstand clip shows; empty for others.

    The scene type as annotated, and `silent lookalike` where a silent source on the stage has the look of one that is
    seen and heard.
    """
    if clip.storage != "file":
        return ()
    try:
        truth = read_annotation(clip.path)
    except ValueError:
        return ()  # reading its mask says what is wrong
    heard = {source.look for source in truth.sources if source.visible and source.audible}
    alike = any(source.visible and not source.audible and source.look in heard for source in truth.sources)
    return (truth.scene_type, *(("silent lookalike",) if alike else ()))


def twin_regions(clip: Clip, frame_seconds: float) -> NDArray[np.uint8] | None:
    """`(h, w)`: 1 on the twin that sounds, 2 on the silent one; None unless the scene is one of `TWIN_SCENES`.

    Raises:
        ClipError: its mask cannot be read.
    """
    if clip.storage != "file":
        return None
    try:
        truth = read_annotation(clip.path)
        if truth.scene_type not in TWIN_SCENES:
            return None
        mask = read_mask(clip.path, truth, truth.nearest_annotated(frame_seconds))
    except (ValueError, OSError) as error:
        raise ClipError(clip.id, str(error)) from error
    values = np.zeros(1 + len(truth.sources), np.uint8)
    for source in truth.sources:
        values[1 + source.number] = 1 if source.audible else 2
    return values[mask]


def partners(pictures: Sequence[Picture], seed: int) -> NDArray[np.int64]:
    """For every picture the place of one whose sound is foreign to it: of another video and, if labelled, class.

    Raises:
        ValueError: a picture has no such partner.
    """
    rng, chosen = generator(seed, 0, Purpose.MASK_PARTNERS), np.zeros(len(pictures), np.int64)
    labels = [picture.clip.label for picture in pictures]
    counts = Counter(labels)
    for place, picture in enumerate(pictures):
        own = labels[place]
        other_class = own is not None and counts[own] < len(pictures)
        for other in rng.permutation(len(pictures)).tolist():
            if pictures[other].video != picture.video and (not other_class or labels[other] != own):
                chosen[place] = other
                break
        else:
            raise ValueError(f"{picture.clip.id} has no other video to take a foreign sound from")
    return chosen


@dataclass(frozen=True)
class PictureSample:
    """One picture as it is scored, as arrays."""

    place: int
    """Place among the pictures."""
    image: NDArray[np.uint8]
    """`(H, W, 3)`: all of the picture."""
    waveform: NDArray[np.float32]
    """`(S,)` in [-1, 1]."""
    image_present: bool
    audio_present: bool
    mask: NDArray[np.uint8]
    """`(h, w)` as stored."""
    twins: NDArray[np.uint8] | None
    """As `twin_regions` says."""
    failure: str | None
    """Why there is no prediction to be made."""


@dataclass(frozen=True)
class PictureBatch:
    """Several, the masks of any size."""

    samples: list[PictureSample]
    image: Tensor
    """`(B, 3, H, W)` uint8, of several frames `(B, T, 3, H, W)`."""
    waveform: Tensor
    """`(B, S)` float32."""
    image_present: Tensor
    """`(B,)` bool."""
    audio_present: Tensor

    @classmethod
    def join(cls, samples: Sequence[PictureSample]) -> PictureBatch:
        image = torch.from_numpy(np.stack([sample.image for sample in samples]))
        return cls(
            samples=list(samples),
            image=image.movedim(-1, -3).contiguous(),
            waveform=torch.from_numpy(np.stack([sample.waveform for sample in samples])),
            image_present=torch.tensor([sample.image_present for sample in samples]),
            audio_present=torch.tensor([sample.audio_present for sample in samples]),
        )


class PictureSet(ClipSet):
    """Pictures with a sound beside them: their own, silence, noise, or that of another."""

    def __init__(
        self,
        pictures: Sequence[Picture],
        places: Sequence[int],
        view: CentreView,
        truth: Truth,
        sound: Sound = "own",
        noise_rms: float = 0.0,
        seed: int = 0,
    ) -> None:
        """
        Args:
            pictures: all there are.
            places: which of them the set holds.
            view: how they are seen.
            truth: their masks.
            sound: what is heard.
            noise_rms: root mean square of the noise.
            seed: of noise and partners.
        """
        super().__init__([pictures[place].clip for place in places], view)
        self.pictures, self.places, self.masks = pictures, places, truth
        self.sound, self.noise_rms, self.sound_seed = sound, noise_rms, seed
        self.partners = partners(pictures, seed) if sound == "foreign" else None

    def __getitem__(self, index: int) -> PictureSample:  # type: ignore[override]
        place = self.places[index]
        clip, failure = self.pictures[place].clip, None
        drawn, mask, twins = ClipView(None, None, 0.0, 0.0), np.zeros((1, 1), np.uint8), None
        try:
            times = self.masks.times(clip)
            with open_clip(clip) as media:
                drawn = self.view.read(media, None, times)
            if drawn.image is None:
                raise ClipError(clip.id, "no picture")
            end = drawn.start_seconds + self.view.window_seconds
            mask = self.masks.read(clip, drawn.frame_seconds, drawn.start_seconds, end)
            twins = twin_regions(clip, drawn.frame_seconds)
            waveform = self._heard(place, drawn.waveform)
        except ClipError as error:
            waveform, failure = None, error.cause
        return PictureSample(
            place=place,
            image=np.zeros(self.view.image_shape, np.uint8) if drawn.image is None else drawn.image,
            waveform=np.zeros(self.view.num_samples, np.float32) if waveform is None else waveform,
            image_present=drawn.image is not None,
            audio_present=waveform is not None,
            mask=mask,
            twins=twins,
            failure=failure,
        )

    def _heard(self, place: int, own: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        if self.sound == "own":
            return own
        if self.sound == "silence":
            return np.zeros(self.view.num_samples, np.float32)
        if self.sound == "noise":
            noise = generator(self.sound_seed, place, Purpose.MASK_NOISE).normal(
                0, self.noise_rms, self.view.num_samples
            )
            return np.clip(noise, -1, 1).astype(np.float32)
        assert self.partners is not None
        with open_clip(self.pictures[self.partners[place]].clip) as media:
            return self.view.read(media).waveform
