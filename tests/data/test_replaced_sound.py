"""Training samples whose sound is taken away: which, what is heard instead, and what is true of them then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepavfusion.data.clips import list_clips
from deepavfusion.data.dataset import ClipStream
from deepavfusion.data.framed import FrameMasks
from deepavfusion.data.framed_clips import read_framed_clips, write_framed_clips
from deepavfusion.data.replaced_sound import ReplacedSoundStream
from deepavfusion.data.views import TrainingView
from tests.data.test_framed import write_table

VIEW = TrainingView((16, 16), 1.0)


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Two videos of two labelled pictures."""
    videos = [video for name in "ab" for video in read_framed_clips(write_table(tmp_path, 2, name))]
    masked = [type(v)(v.id, v.id, v.split, v.sound, v.frames, (v.masks[0],) * 2) for v in videos]
    write_framed_clips(str(tmp_path / "both.csv"), masked)
    return str(tmp_path / "both.csv")


def test_shares_and_what_is_left_alone(table: str) -> None:
    clips = list_clips(table)
    plain = ClipStream(clips, VIEW, seed=4, truth=FrameMasks())
    stream = ReplacedSoundStream(clips, VIEW, 4, FrameMasks(), {"silent": 0.3, "noise": 0.2})
    silent = noisy = 0
    for number in range(120):
        own, sample = plain[number], stream[number]
        assert np.array_equal(own.image, sample.image)
        assert sample.truth is not None
        if np.array_equal(own.waveform, sample.waveform):
            assert np.array_equal(own.truth, sample.truth)  # type: ignore[arg-type]
            continue
        assert not sample.truth.any()
        assert sample.audio_present
        silent += not sample.waveform.any()
        noisy += bool(sample.waveform.any())
    assert 22 < silent < 52
    assert 12 < noisy < 38
    again = ReplacedSoundStream(clips, VIEW, 4, FrameMasks(), {"silent": 0.3, "noise": 0.2})
    assert all(np.array_equal(again[n].waveform, stream[n].waveform) for n in range(10))


def test_foreign_sounds_are_of_another_video(table: str) -> None:
    clips = list_clips(table)
    stream = ReplacedSoundStream(clips, VIEW, 0, FrameMasks(), {"foreign": 1.0})
    for number in range(12):
        sample = stream[number]
        assert sample.truth is not None
        assert not sample.truth.any()
        rng = np.random.default_rng(number)
        assert stream._partner(sample.clip, rng).id[0] != sample.clip.id[0]
    for shares, message in (({"silent": 0.7, "noise": 0.6}, "shares of 1"), ({"loud": 0.1}, "shares of 1")):
        with pytest.raises(ValueError, match=message):
            ReplacedSoundStream(clips, VIEW, 0, FrameMasks(), shares)
    with pytest.raises(ValueError, match="there is only one video"):
        ReplacedSoundStream(clips[:2], VIEW, 0, FrameMasks(), {"foreign": 0.1})


def test_an_unreadable_partner_is_a_named_failure(table: str, tmp_path: Path) -> None:
    clips = list_clips(table)
    (tmp_path / "b.wav").write_bytes(b"not a sound")
    samples = [ReplacedSoundStream(clips[:3], VIEW, 0, FrameMasks(), {"foreign": 1.0})[n] for n in range(6)]
    of_a = [sample for sample in samples if sample.clip.id.startswith("a")]
    assert of_a
    for sample in of_a:
        assert sample.failure is not None
        assert "as the sound of a#" in sample.failure.cause
        assert not sample.image_present
