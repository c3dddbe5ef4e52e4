"""Training samples whose sound is removed or replaced, so that nothing in the image sounds.

A model that is trained only on images with their own sound can do well without listening. Samples with silence, noise
or another clip's sound have an empty mask as their target. Which samples these are, and which sound they get, follows
from the seed and the sample's number, like everything random in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from deepavfusion.data.clips import Clip, ClipError
from deepavfusion.data.dataset import ClipStream, Failure, Sample
from deepavfusion.data.framed_clips import frame_of
from deepavfusion.data.opening import open_clip
from deepavfusion.data.randomness import Purpose, generator
from deepavfusion.data.truth import Truth
from deepavfusion.data.views import TrainingView

REPLACEMENTS = ("silent", "noise", "foreign")
NOISE_DB = (-60.0, -20.0)
"""Range of the noise's root mean square, in decibels of full scale."""
TRIES = 50
"""Draws of a partner of another class before one of any class is taken."""


class ReplacedSoundStream(ClipStream):
    """The endless training stream with masks, some samples with silence, noise or a foreign sound."""

    def __init__(
        self, clips: Sequence[Clip], view: TrainingView, seed: int, truth: Truth, shares: Mapping[str, float]
    ) -> None:
        """
        Args:
            clips: what to read.
            view: how to draw a view.
            seed: decides order, views and sounds.
            truth: where the masks come from.
            shares: probability of each replacement: `silent`; `noise`, white at any level; `foreign`, another clip's
                sound, of another class where clips have labels.

        Raises:
            ValueError: shares that are none, or foreign sounds wanted from one video alone.
        """
        super().__init__(clips, view, seed, truth=truth)
        if any(name not in REPLACEMENTS or share < 0 for name, share in shares.items()) or sum(shares.values()) > 1:
            raise ValueError(f"{dict(shares)} must be shares of 1 of {', '.join(REPLACEMENTS)}")
        self.shares = shares
        # Pictures of one video share their sound.
        self.videos = {c.id: frame_of(c).video.id if c.storage == "framed" else c.id for c in self.clips}
        if shares.get("foreign") and len(set(self.videos.values())) < 2:
            raise ValueError("foreign_share: there is only one video, so no other sound to use")

    def __getitem__(self, number: int) -> Sample:
        sample = super().__getitem__(number)
        rng = generator(self.seed, number, Purpose.REPLACED_SOUND)
        replacement = self._drawn(float(rng.random()))
        if sample.failure is not None or replacement is None:
            return sample
        assert sample.truth is not None
        waveform, empty = np.zeros_like(sample.waveform), np.zeros_like(sample.truth)
        if replacement == "noise":
            level = 10 ** (rng.uniform(*NOISE_DB) / 20)
            waveform = np.clip(rng.normal(0, level, len(waveform)), -1, 1).astype(np.float32)
        elif replacement == "foreign":
            partner = self._partner(sample.clip, rng)
            try:
                with open_clip(partner, self.seek) as media:
                    heard = self.view.read(media, rng).waveform
            except ClipError as error:
                failure = Failure(partner.id, f"as the sound of {sample.clip.id}: {error.cause}")
                return replace(sample, image_present=False, audio_present=False, failure=failure, truth=empty)
            waveform = waveform if heard is None else heard  # a clip without sound is silent
        return replace(sample, waveform=waveform, audio_present=True, truth=empty)

    def _drawn(self, draw: float) -> str | None:
        """The replacement that a number in [0, 1) stands for, None for none."""
        for name, share in self.shares.items():
            if draw < share:
                return name
            draw -= share
        return None

    def _partner(self, clip: Clip, rng: np.random.Generator) -> Clip:
        """A clip of another video and, if one is soon found, of another class."""
        other = None
        for _ in range(TRIES):
            drawn = self.clips[int(rng.integers(len(self.clips)))]
            if self.videos[drawn.id] != self.videos[clip.id]:
                other = drawn
                if clip.label is None or drawn.label != clip.label:
                    break
        return other or next(drawn for drawn in self.clips if self.videos[drawn.id] != self.videos[clip.id])
