"""Mixtures as items of an evaluation: the sounds and images of each mixture.

Shape legend: `N` sources, `H W` pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from deepavfusion.audio import SAMPLE_RATE
from deepavfusion.data.clips import Clip, ClipError
from deepavfusion.data.dataset import ClipSet, Failure, Sample, read_sample
from deepavfusion.data.mixtures import Mixture, Part
from deepavfusion.data.opening import Seek, open_clip
from deepavfusion.data.scenes.isolation import SourceView, read_stem, see_source
from deepavfusion.data.views import CentreView, ClipView, OpenClip
from deepavfusion.data.waveforms import continue_sound


@dataclass(frozen=True)
class RatedView(CentreView):
    """The centre view with sound at any rate."""

    sample_rate: int = SAMPLE_RATE

    @property
    def num_samples(self) -> int:
        """Length of the waveform."""
        return round(self.window_seconds * self.sample_rate)

    def read(self, media: OpenClip, rng: np.random.Generator | None = None, times: Sequence[float] = ()) -> ClipView:
        """As the centre view. Raises MediaError or ClipError if the clip cannot be read."""
        drawn = super().read(media, rng, times)
        if self.sample_rate == SAMPLE_RATE or drawn.waveform is None:
            return drawn
        sound = media.sound(drawn.start_seconds, self.window_seconds, self.sample_rate)
        return replace(drawn, waveform=continue_sound(sound, self.num_samples))


class MixtureSet(ClipSet):
    """Item `i` is part `i % P` of mixture `i // P`.

    The parts are `N` sources with picture and sound, `N` wrong pictures, and, for recordings, the mixture itself as the
    clip has it; `P = 2 N` or `2 N + 1`.
    """

    def __init__(self, mixtures: Sequence[Mixture], view: RatedView, seek: Seek = "exact") -> None:
        """
        Args:
            mixtures: all with equally many sources, and all recordings or none.
            view: window and picture size.
            seek: as in `open_clip`.
        """
        super().__init__([mixture.parts[0].clip for mixture in mixtures], view, seek)
        self.mixtures, self.rated = list(mixtures), view
        first = mixtures[0]
        self.num_sources, self.is_recorded = len(first.parts), first.recording is not None
        kinds = {(len(mixture.parts), mixture.recording is not None) for mixture in mixtures}
        assert len(kinds) == 1, f"mixtures of one kind are needed, got {kinds}"

    @property
    def num_parts(self) -> int:
        """`P`."""
        return 2 * self.num_sources + self.is_recorded

    def __len__(self) -> int:
        return len(self.mixtures) * self.num_parts

    def __getitem__(self, index: int) -> Sample:
        number, place = divmod(index, self.num_parts)
        mixture, count = self.mixtures[number], self.num_sources
        if place == 2 * count:
            assert mixture.recording is not None
            return self._whole(index, mixture.recording)
        part = (mixture.parts + mixture.wrong)[place]
        if part.source is None:
            return self._whole(index, part.clip)
        return self._source(index, part, stem=self.is_recorded and place < count)

    def _whole(self, index: int, clip: Clip) -> Sample:
        return read_sample(index, clip, self.rated, self.seek, None)

    def _see(self, part: Part) -> SourceView:
        """A source's picture: its region enlarged, or all of it with the other sources painted over."""
        assert part.source is not None
        if part.region is None:
            return see_source(part.clip, part.source, self.rated, self.seek)
        with open_clip(part.clip, self.seek) as media:
            drawn = replace(self.rated, region=part.region).read(media)
        assert drawn.image is not None, "a clip with a box has a picture"
        return SourceView(drawn.image, drawn.start_seconds)

    def _source(self, index: int, part: Part, stem: bool) -> Sample:
        """One source's picture, and its stem or the sound of its clip."""
        view, clip, number = self.rated, part.clip, part.source
        assert number is not None
        empty = np.zeros(view.image_shape, np.uint8), np.zeros(view.num_samples, np.float32)
        failure = None
        try:
            seen = self._see(part)
            image, waveform = seen.image, empty[1]
            if stem:
                waveform = read_stem(clip, number, seen.start_seconds, view.num_samples, view.sample_rate)
            else:
                with open_clip(clip, self.seek) as media:
                    sound = media.sound(seen.start_seconds, view.window_seconds, view.sample_rate)
                waveform = continue_sound(sound, view.num_samples)
        except ClipError as error:
            (image, waveform), failure = empty, Failure(clip.id, error.cause)
        return Sample(
            number=index,
            clip=clip,
            image=image,
            waveform=waveform,
            image_present=failure is None,
            audio_present=failure is None,
            failure=failure,
        )
