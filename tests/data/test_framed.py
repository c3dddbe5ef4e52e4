"""Pictures in files beside their sound, read as clips: which stretch of sound belongs to which picture, and masks."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from deepavfusion.data.audit import AuditConfig, audit
from deepavfusion.data.clips import ClipError, find_clips, list_clips
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.dataset import ClipSet, ClipStream, collate
from deepavfusion.data.framed import FrameMasks, OpenFrame
from deepavfusion.data.framed_clips import FramedClip, frame_of, write_framed_clips
from deepavfusion.data.opening import open_clip
from deepavfusion.data.views import CentreView, TrainingView

RATE = 16000


def write_table(folder: Path, num_pictures: int = 5, name: str = "a", side: int = 32) -> str:
    """A video of pictures whose left half shows their number, with masks of it, and a ramp for a sound of n seconds."""
    frames, masks = [], []
    for number in range(num_pictures):
        pixels = np.zeros((side, side + 8, 3), np.uint8)
        pixels[:, : side // 2] = 40 * number + 20
        mask = (pixels[..., 0] > 0).astype(np.uint8) * 255
        for kind, content, places in (("frame", pixels, frames), ("mask", mask, masks)):
            places.append(str(folder / f"{name}_{kind}_{number}.png"))
            Image.fromarray(content).save(places[-1])
    sound = np.arange(num_pictures * RATE) / (num_pictures * RATE)  # 0 to 1: a sample tells its time
    soundfile.write(folder / f"{name}.wav", sound, RATE, subtype="FLOAT")
    video = FramedClip(name, "ramp", "test", str(folder / f"{name}.wav"), tuple(frames), (*masks[:-1], None))
    write_framed_clips(str(folder / "pictures.csv"), [video])
    return str(folder / "pictures.csv")


def test_every_picture_is_a_clip(tmp_path: Path) -> None:
    clips = list_clips(write_table(tmp_path))
    assert [clip.id for clip in clips] == [f"a#{number}" for number in range(5)]
    assert {(clip.label, clip.split, clip.storage) for clip in clips} == {("ramp", "test", "framed")}
    assert find_clips(str(tmp_path / "pictures.csv")) == clips
    single = write_table(tmp_path, 1, "alone")
    assert [clip.id for clip in list_clips(single)] == ["alone"]
    assert frame_of(list_clips(single)[0]).mask is None


def test_each_picture_has_the_stretch_of_sound_around_it(tmp_path: Path) -> None:
    clips = list_clips(write_table(tmp_path))
    for number in range(5):
        with open_clip(clips[number]) as media:
            assert media.frame(0.0)[0, 0, 0] == 40 * number + 20
            waveform = media.sound(0.0, 3.0)
            shifted = media.sound(0.25, 1.0)
        assert waveform.shape == (3 * RATE,)
        middle = (number + 0.5) / 5  # the ramp's value at the picture's moment
        assert waveform[len(waveform) // 2] == pytest.approx(middle, abs=1e-3)
        expected = middle + (np.arange(3 * RATE) / RATE - 1.5) / 5
        # Over the ends it runs back: -x becomes x, 1 + x becomes 1 - x.
        expected = 1 - np.abs(1 - np.abs(expected))
        np.testing.assert_allclose(waveform, expected, atol=1e-3)
        assert shifted[RATE // 2] == pytest.approx(1 - abs(1 - (middle + 0.05)), abs=1e-3)


def test_views_crop_picture_and_mask_alike(tmp_path: Path) -> None:
    clips = [clip for clip in list_clips(write_table(tmp_path)) if frame_of(clip).mask is not None]
    assert len(clips) == 4
    batch = collate([ClipSet(clips, CentreView((16, 20), 1.0, whole=True), truth=FrameMasks())[i] for i in range(4)])
    assert batch.truth is not None
    assert not batch.failures
    assert batch.waveform.shape == (4, RATE)
    for number, (mask, picture) in enumerate(zip(batch.truth, batch.image[:, 0], strict=True)):
        assert bool(((mask > 0) == (picture > 20 * number + 10)).all())  # half the left half's brightness
    stream = ClipStream(clips, TrainingView((16, 20), 1.0), seed=1, truth=FrameMasks())
    for number in range(12):
        sample = stream[number]
        assert sample.truth is not None
        assert set(np.unique(sample.truth)) <= {0, 1}
        level = 40 * int(sample.clip.id[-1]) + 20
        inside = sample.image[..., 0][sample.truth > 0]
        assert (np.abs(inside.astype(int) - level) <= level // 2 + 1).all()


def test_semantic_masks_and_unlabelled_pictures(tmp_path: Path) -> None:
    clips = list_clips(write_table(tmp_path))
    with pytest.raises(ClipError, match="a#4: the frame is not labelled"):
        FrameMasks().times(clips[4])
    Image.fromarray(np.full((8, 8), 2, np.uint8)).save(frame_of(clips[1]).mask or "")
    assert (FrameMasks(("background", "x", "y")).read(clips[1], 0, 0, 3) == 2).all()
    assert (FrameMasks().read(clips[1], 0, 0, 3) == 1).all()
    with pytest.raises(ClipError, match="holds class 2, but there are 2"):
        FrameMasks(("background", "x")).read(clips[1], 0, 0, 3)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    table = write_table(tmp_path)
    clips = list_clips(table)
    (tmp_path / "a_frame_1.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (tmp_path / "a_frame_2.png").unlink()
    (tmp_path / "a_mask_3.png").unlink()
    samples = [ClipSet(clips, CentreView((16, 16), 1.0), truth=FrameMasks())[i] for i in range(5)]
    causes = [sample.failure.cause if sample.failure else None for sample in samples]
    assert causes[0] is None
    for cause, words in zip(
        causes[1:],
        ("a_frame_1.png: not a readable image", "a_frame_2.png: no such", "a_mask_3.png: no such", "not labelled"),
        strict=True,
    ):
        assert cause is not None
        assert words in cause
    (tmp_path / "a.wav").unlink()
    with pytest.raises(ClipError, match=r"a\.wav"):
        OpenFrame(clips[0])
    write_table(tmp_path, 3, "b")  # the table under the same name has changed
    with pytest.raises(ClipError, match="is b#0 now: the table has changed"):
        frame_of(clips[0])


def test_commands_that_need_media_files_say_so(tmp_path: Path) -> None:
    from deepavfusion.data.shard_writing import ShardConfig, write_shards

    table = write_table(tmp_path)
    with pytest.raises(ValueError, match="is a table of frames"):
        audit(AuditConfig(table, str(tmp_path / "out.csv")), lambda *_: None)
    with pytest.raises(ValueError, match="is a table of frames"):
        write_shards(ShardConfig(table, str(tmp_path / "shards")), lambda *_: None)


def test_crops_of_pictures(tmp_path: Path) -> None:
    with open_clip(list_clips(write_table(tmp_path))[2]) as media:
        left = media.frame(9.0, FrameCrop(0.0, 0.0, 1.0, 0.4, (8, 8)))
        assert (left[:, :-1] == 100).all()  # the last column mixes with what lies beside
        assert (media.frame(0.0, FrameCrop(0.0, 0.6, 1.0, 0.4, (8, 8))) == 0).all()


def test_several_frames_are_the_pictures_around_and_the_sound_fits(tmp_path: Path) -> None:
    """Five pictures a second apart: three frames of a window of 3 s are the picture and its neighbours."""
    clips = list_clips(write_table(tmp_path))
    view = CentreView((32, 40), 3.0, whole=True, num_frames=3)
    for number, shown in ((2, [1, 2, 3]), (0, [0, 0, 1]), (4, [3, 4, 4])):
        with open_clip(clips[number]) as media:
            drawn = view.read(media, None, [0.0])
        assert drawn.image is not None
        assert drawn.image[:, 0, 0, 0].tolist() == [40 * n + 20 for n in shown]
        assert (drawn.start_seconds, drawn.frame_seconds) == (0.0, 0.0)
    with open_clip(clips[2]) as media:  # of two frames the later is asked about, in the last quarter of its window
        drawn = CentreView((32, 40), 2.0, whole=True, num_frames=2).read(media)
    assert drawn.image is not None
    assert drawn.image[:, 0, 0, 0].tolist() == [60, 100]
    assert drawn.waveform is not None
    assert drawn.waveform[3 * RATE // 2] == pytest.approx(0.5, abs=1e-3)


def open_files(folder: Path) -> list[str]:
    """Files below a folder that this process holds open."""
    handles = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    return [os.readlink(handle) for handle in handles if os.path.exists(handle) and str(folder) in os.readlink(handle)]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs a list of open files")
def test_what_cannot_be_read_leaves_nothing_open(tmp_path: Path) -> None:
    clips = find_clips(write_table(tmp_path))
    kept = []
    Path(frame_of(clips[0]).path).write_bytes(b"no picture")
    with pytest.raises(ClipError) as error:
        OpenFrame(clips[0])
    kept.append(error)  # with its traceback, so that no collector closes anything
    with pytest.raises(ClipError) as error, open_clip(clips[1]) as media:
        media.frames([-99.0], FrameCrop.whole((8, 8)))
    kept.append(error)
    assert open_files(tmp_path) == []
    sound = Path(frame_of(clips[0]).video.sound)
    sound.write_bytes(sound.read_bytes()[:60])
    with pytest.raises(ClipError) as error:
        OpenFrame(clips[1])
    kept.append(error)
    assert open_files(tmp_path) == []
