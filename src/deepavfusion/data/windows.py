"""Clips seen through several evenly spaced windows of sound, for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from deepavfusion.data.clips import Clip
from deepavfusion.data.dataset import ClipSet, Sample, read_sample
from deepavfusion.data.opening import Seek
from deepavfusion.data.views import CentreView


class WindowSet(ClipSet):
    """Item `i` is window `i % W` of clip `i // W`, `W` windows per clip; one window is the centre view."""

    def __init__(self, clips: Sequence[Clip], view: CentreView, num_windows: int, seek: Seek = "exact") -> None:
        if num_windows < 1:
            raise ValueError(f"windows {num_windows} must be at least 1")
        super().__init__(clips, view, seek)
        self.num_windows = num_windows

    def __len__(self) -> int:
        return len(self.clips) * self.num_windows

    def __getitem__(self, index: int) -> Sample:
        clip, window = divmod(index, self.num_windows)
        view = replace(self.view, num_windows=self.num_windows, window=window)
        return read_sample(index, self.clips[clip], view, self.seek, None)
