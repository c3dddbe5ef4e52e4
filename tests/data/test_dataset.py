"""Samples addressed by number, and batches of really decoded clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from deepavfusion.data.clips import Clip, find_clips
from deepavfusion.data.dataset import Batch, ClipSet, ClipStream, Failure, collate, epoch_order
from deepavfusion.data.sample_clips import FRAME_RATE, draw_clip, write_sample_clips
from deepavfusion.data.views import CentreView, TrainingView

VIEW = TrainingView((32, 48), 1.0)
CENTRE = CentreView((32, 48), 1.0)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    folder = tmp_path_factory.mktemp("clips")
    write_sample_clips(folder, 5, duration_seconds=2.0)
    return find_clips(str(folder))


def write_track(path: Path, kind: str) -> None:
    """A real clip with one track only."""
    frames, sound = draw_clip("disc", np.random.default_rng(0), 2.0, 64)
    with av.open(str(path), "w") as container:
        if kind == "picture":
            stream = container.add_stream("libx264", rate=FRAME_RATE)
            stream.height = stream.width = 64
            stream.pix_fmt = "yuv420p"
            packets = [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames]
        else:
            stream = container.add_stream("aac", rate=16_000, layout="mono")
            block = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            block.sample_rate = 16_000
            packets = [block]
        for packet in (*packets, None):
            container.mux(stream.encode(packet))


def equal(a: Batch, b: Batch) -> bool:
    others = b.tensors()
    same = all(torch.equal(tensor, others.pop(name)) for name, tensor in a.tensors().items()) and not others
    return same and (a.sample_numbers, a.ids, a.labels) == (b.sample_numbers, b.ids, b.labels)


def test_a_sample_is_a_function_of_seed_and_number(clips: list[Clip]) -> None:
    stream, again = (ClipStream(clips, VIEW, seed=3, num_patches=(6, 8)) for _ in range(2))
    backwards = [again[number] for number in (7, 3, 0)]
    assert equal(collate([stream[number] for number in (0, 3, 7)]), collate(backwards[::-1]))
    other = ClipStream(clips, VIEW, seed=4, num_patches=(6, 8))[0]
    assert not np.array_equal(other.image_noise, stream[0].image_noise)
    # masks do not depend on how much randomness the view took
    plain = ClipStream(clips, TrainingView((32, 48), 0.5, crop_area=(1.0, 1.0)), seed=3, num_patches=(6, 8))
    np.testing.assert_array_equal(plain[3].image_noise, stream[3].image_noise)


def test_an_epoch_shows_every_clip_once_in_a_new_order(clips: list[Clip]) -> None:
    stream = ClipStream(clips, VIEW, seed=0)
    ids = [stream[number].clip.id for number in range(10)]
    assert sorted(ids[:5]) == sorted(ids[5:]) == sorted(clip.id for clip in clips)
    orders = [tuple(epoch_order(0, epoch, 100)) for epoch in range(20)] + [tuple(epoch_order(1, 0, 100))]
    assert len(set(orders)) == 21


def test_the_same_clip_is_seen_anew_in_every_epoch(clips: list[Clip]) -> None:
    stream = ClipStream(clips[:1], VIEW, seed=0, num_patches=(6, 8))
    first, second = stream[0], stream[1]
    assert not np.array_equal(first.image, second.image)
    assert not np.array_equal(first.waveform, second.waveform)
    assert not np.array_equal(first.image_noise, second.image_noise)


def test_batch_fields(clips: list[Clip]) -> None:
    batch = collate([ClipStream(clips, VIEW, seed=0, num_patches=(6, 8))[number] for number in range(4)])
    assert len(batch) == 4
    assert (batch.image.shape, batch.image.dtype) == ((4, 3, 32, 48), torch.uint8)
    assert (batch.waveform.shape, batch.waveform.dtype) == ((4, 16_000), torch.float32)
    assert batch.image_present.all()
    assert batch.audio_present.all()
    assert batch.image_noise is not None
    assert batch.audio_noise is not None
    assert (batch.image_noise.shape, batch.audio_noise.shape) == ((4, 6), (4, 8))
    for noise in (batch.image_noise, batch.audio_noise):
        assert 0 <= noise.min() < noise.max() < 1
    assert batch.failures == []
    assert set(batch.labels) <= {"disc", "square", "triangle", "ring"}
    assert batch.waveform.abs().max() > 0.05
    assert batch.image.float().std() > 10
    half = batch.to("meta")
    assert half.image.device.type == half.image_noise.device.type == "meta"  # type: ignore[union-attr]
    assert half.ids == batch.ids


def test_evaluation_is_the_centre_without_randomness(clips: list[Clip]) -> None:
    first, second = (collate([ClipSet(clips, CENTRE)[i] for i in range(5)]) for _ in range(2))
    assert equal(first, second)
    assert first.ids == [clip.id for clip in clips]
    assert first.image_noise is None
    drawn = {clip.id: i for i, clip in enumerate(clips)}
    frames, _ = draw_clip("disc", np.random.default_rng((0, 0)), 2.0, 160)
    shown = first.image[drawn["disc/0000"]].float().mean((1, 2)).numpy()
    # shown at 1.0 s is the frame that began at 0.96 s; the middle 93 rows of 140 pixels go to 32 x 48
    np.testing.assert_allclose(shown, frames[12, 33:127, 10:150].mean((0, 1)), atol=6)


def test_clips_without_a_track_and_unreadable_ones_stay_in_the_batch(clips: list[Clip], tmp_path: Path) -> None:
    write_track(tmp_path / "picture.mp4", "picture")
    write_track(tmp_path / "sound.mp4", "sound")
    (tmp_path / "broken.mp4").write_bytes(b"<html>not found</html>")
    mixed = [
        clips[0],
        Clip("picture", str(tmp_path / "picture.mp4")),
        Clip("sound", str(tmp_path / "sound.mp4")),
        Clip("broken", str(tmp_path / "broken.mp4")),
        Clip("gone", str(tmp_path / "gone.mp4")),
    ]
    batch = collate([ClipSet(mixed, CENTRE)[i] for i in range(5)])
    assert batch.image_present.tolist() == [True, True, False, False, False]
    assert batch.audio_present.tolist() == [True, False, True, False, False]
    assert batch.ids == ["disc/0000", "picture", "sound", "broken", "gone"]
    for i in range(5):
        assert bool(batch.image[i].any()) == bool(batch.image_present[i])
        assert bool(batch.waveform[i].any()) == bool(batch.audio_present[i])
    assert [failure.clip_id for failure in batch.failures] == ["broken", "gone"]
    assert "broken.mp4" in batch.failures[0].cause
    assert "gone.mp4" in batch.failures[1].cause
    assert all(isinstance(failure, Failure) and "\n" not in failure.cause for failure in batch.failures)
    stream = ClipStream([replace(mixed[3], id="only")], VIEW, seed=0, num_patches=(6, 8))
    assert collate([stream[0]]).image_noise is not None  # masks exist for absent tracks too


def test_nothing_to_read_is_an_error(clips: list[Clip]) -> None:
    with pytest.raises(ValueError, match="at least one clip"):
        ClipStream([], VIEW, seed=0)
    with pytest.raises(ValueError, match="at least one clip"):
        ClipSet([], CENTRE)
    with pytest.raises(ValueError, match="seed -1"):
        ClipStream(clips, VIEW, seed=-1)


def test_two_moments_are_two_views_of_one_clip_and_the_first_is_as_without(clips: list[Clip]) -> None:
    plain, stream = (ClipStream(clips, VIEW, seed=0, num_patches=(6, 8), two_moments=two) for two in (False, True))
    batch, first = collate([stream[n] for n in range(4)]), collate([plain[n] for n in range(4)])
    second = batch.second
    assert second is not None
    assert first.second is None
    for name, value in first.tensors().items():
        assert torch.equal(batch.tensors()[name], value), name
        if name not in ("image_present", "audio_present"):
            assert not torch.equal(second.tensors()[name], value), name
    assert second.ids == batch.ids
    moved = batch.to("cpu", non_blocking=True).second
    assert moved is not None
    assert torch.equal(moved.image, second.image)


def test_a_clip_that_cannot_be_read_is_named_once_for_both_moments(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    batch = collate([ClipStream([Clip("broken", str(tmp_path / "broken.mp4"))], VIEW, seed=0, two_moments=True)[0]])
    assert [failure.clip_id for failure in batch.failures] == ["broken"]
    assert batch.second is not None
    assert batch.second.failures == []
    assert not batch.second.image_present.any()
