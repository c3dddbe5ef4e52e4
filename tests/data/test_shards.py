"""Shards: the same clips as in the files, the same bytes however they were written, nothing altered taken for true."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile
import torch

from deepavfusion.cli import main
from deepavfusion.data.clips import SHARDS_MANIFEST, ClipError, find_clips
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.dataset import ClipSet, ClipStream, collate
from deepavfusion.data.jpeg import decode_jpeg, encode_jpeg, installed_decoders
from deepavfusion.data.media import MediaFile
from deepavfusion.data.opening import open_clip
from deepavfusion.data.sample_clips import draw_clip, write_clip, write_sample_clips
from deepavfusion.data.shard_writing import ShardConfig, write_shards
from deepavfusion.data.shards import ShardedClip, ShardError, verify_shards
from deepavfusion.data.views import CentreView, TrainingView


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five good clips, one without sound, one that cannot be read."""
    folder = tmp_path_factory.mktemp("media")
    write_sample_clips(folder, 5, duration_seconds=2.0, size=96)
    frames, sound = draw_clip("ring", np.random.default_rng(1), 2.0, 96)
    write_clip(folder / "mute.mp4", frames, sound[:0])
    (folder / "broken.mp4").write_bytes(b"not a video")
    return folder


@pytest.fixture(scope="module")
def shards(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards")
    summary = write_shards(ShardConfig(str(folder), str(out), frames_per_second=12.5, clips_per_shard=3))
    assert (summary.num_shards, summary.num_written, summary.num_clips, summary.complete) == (3, 3, 6, True)
    assert [name for name, _ in summary.failures] == ["broken"]
    assert "broken.mp4" in summary.failures[0][1]
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".partial")}


def decibels(reference: np.ndarray, other: np.ndarray, peak: float | None = None) -> float:
    error = np.mean((reference.astype(np.float64) - other) ** 2)
    power = np.mean(reference.astype(np.float64) ** 2) if peak is None else peak**2
    return float(10 * np.log10(power / error))


def test_batches_are_those_of_the_files_up_to_the_coding(folder: Path, shards: Path) -> None:
    files = [clip for clip in find_clips(str(folder)) if clip.id != "broken"]
    stored = find_clips(str(shards))
    assert [(clip.id, clip.label, clip.split) for clip in stored] == [(c.id, c.label, c.split) for c in files]
    view = TrainingView((48, 48), 1.0)
    a, b = (collate([ClipStream(clips, view, 0, (9, 8))[n] for n in range(12)]) for clips in (files, stored))
    assert a.ids == b.ids
    for name in ("image_present", "audio_present", "image_noise", "audio_noise"):
        assert torch.equal(a.tensors()[name], b.tensors()[name])
    assert not a.audio_present.all()
    for i in range(12):
        # JPEG at 90 and scaling by Pillow instead of swscale; the shift by a pixel would cost 15 dB and more
        assert decibels(a.image[i].numpy(), b.image[i].numpy(), 255) > 30
        if a.audio_present[i]:  # 16 bit
            assert (a.waveform[i] - b.waveform[i]).abs().max() <= 2**-15  # half a step of 16 bit, times a gain up to 2
            assert decibels(a.waveform[i].numpy(), b.waveform[i].numpy()) > 45


def test_a_clip_in_a_shard_knows_what_the_file_told(folder: Path, shards: Path) -> None:
    for clip in find_clips(str(shards)):
        with MediaFile(folder / f"{clip.id}.mp4") as media, open_clip(clip) as stored:
            for name in ("duration_seconds", "has_picture", "has_sound", "width", "height"):
                assert getattr(stored.info, name) == getattr(media.info, name), name
            assert (clip.width, clip.frame_rate) == (media.info.width, media.info.frame_rate)
            whole = stored.frame(1.0)
            assert whole.shape == (96, 96, 3)  # not enlarged
            if media.info.has_sound:
                expected, got = media.sound(0, 10), stored.sound(0, 10)
                assert len(expected) == len(got)
                assert np.abs(expected - got).max() <= 2**-15
                assert len(stored.sound(10, 1)) == 0
                np.testing.assert_array_equal(stored.sound(0.70001, 0.6), got[11200:20800])
                with pytest.raises(ValueError, match="not 8000"):
                    stored.sound(0, 1, 8000)


def test_pictures_are_scaled_down_and_frames_evenly_spaced(folder: Path, tmp_path: Path) -> None:
    frames, sound = draw_clip("disc", np.random.default_rng(0), 2.0, 128)
    (tmp_path / "media").mkdir()
    write_clip(tmp_path / "media/wide.mp4", frames[:, 32:96], sound)
    source, out = str(tmp_path / "media"), str(tmp_path / "out")
    write_shards(ShardConfig(source, out, short_side=32, frames_per_second=2, num_workers=0))
    (clip,) = find_clips(out)
    with tarfile.open(tmp_path / "out/00000.tar") as archive:
        members = ("json", "000.jpg", "001.jpg", "002.jpg", "003.jpg", "wav")
        assert archive.getnames() == [f"00000000.{member}" for member in members]
        about = json.load(archive.extractfile("00000000.json"))  # type: ignore[arg-type]
        assert about["id"] == "wide"
        samples, rate = soundfile.read(archive.extractfile("00000000.wav"))
        assert (len(samples), rate) == (about["sound"]["num_samples"], 16_000)
    assert about["frames"]["times"] == [0.25, 0.75, 1.25, 1.75]
    with open_clip(clip) as stored, MediaFile(tmp_path / "media/wide.mp4") as media:
        assert stored.info.width == 128
        crop = FrameCrop(0.25, 0.125, 0.5, 0.5, (16, 32), flip=True)
        for asked, shown in ((0.0, 0.25), (0.9, 0.75), (9.0, 1.75)):
            got, expected = stored.frame(asked, crop), media.frame(shown, crop)
            assert got.shape == (16, 32, 3)
            assert decibels(expected, got, 255) > 25
        assert stored.frame(0).shape == (32, 64, 3)


def test_flac_holds_the_same_samples(folder: Path, shards: Path, tmp_path: Path) -> None:
    write_shards(ShardConfig(str(folder), str(tmp_path), sound="flac", num_workers=0))
    for wav, flac in zip(find_clips(str(shards)), find_clips(str(tmp_path)), strict=True):
        with open_clip(wav) as a, open_clip(flac) as b:
            assert a.info.has_sound == b.info.has_sound
            if a.info.has_sound:
                np.testing.assert_array_equal(a.sound(0.3, 1.1), b.sound(0.3, 1.1))


def test_parts_and_workers_do_not_change_a_byte(folder: Path, shards: Path, tmp_path: Path) -> None:
    configs = [
        ShardConfig(str(folder), str(tmp_path), f"{part}/2", 12.5, clips_per_shard=3, num_workers=part - 1)
        for part in (2, 1)
    ]
    first = write_shards(configs[0])
    assert (first.complete, first.num_written, first.num_shards) == (False, 1, 3)
    with pytest.raises(ValueError, match="no video files"):
        find_clips(str(tmp_path))  # not finished
    second = write_shards(configs[1])
    assert (second.complete, second.num_written, second.num_clips) == (True, 2, 3)  # one of the four is broken
    assert contents(tmp_path) == contents(shards)
    calls: list[tuple[int, int]] = []
    assert write_shards(replace(configs[0], part="1/1"), lambda *call: calls.append(call)).num_written == 0
    assert calls == [(7, 7)]


KILLED = """
import os, signal, sys, threading, time
from deepavfusion.data.shard_writing import ShardConfig, write_shards
def progress(done, total):
    if done == 0:
        kill = lambda: (time.sleep(float(sys.argv[3])), os.kill(os.getpid(), signal.SIGKILL))
        threading.Thread(target=kill, daemon=True).start()
write_shards(ShardConfig(sys.argv[1], sys.argv[2], frames_per_second=12.5, clips_per_shard=3, num_workers=1), progress)
"""


def test_a_killed_writer_goes_on_to_the_same_bytes(folder: Path, shards: Path, tmp_path: Path) -> None:
    codes = []
    for seconds in (0.01, 0.08):
        out = tmp_path / str(seconds)
        run = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(out), str(seconds)], check=False)
        codes.append(run.returncode)
        unfinished = {name for name in contents(out) if name.endswith(".tar")}
        assert unfinished <= set(contents(shards))
        write_shards(ShardConfig(str(folder), str(out), frames_per_second=12.5, clips_per_shard=3, num_workers=0))
        assert contents(out) == contents(shards)
        assert not list(out.glob("*.tar.*.partial"))
    assert codes[0] == -signal.SIGKILL


def test_other_settings_do_not_mix(folder: Path, shards: Path, tmp_path: Path) -> None:
    before = contents(shards)
    with pytest.raises(
        ValueError, match=r"00000\.json: was written from other clips or settings; choose an empty folder"
    ):
        write_shards(ShardConfig(str(folder), str(shards), frames_per_second=5, clips_per_shard=3))
    with pytest.raises(ValueError, match="holds shards already"):
        write_shards(ShardConfig(str(shards), str(tmp_path)))
    assert contents(shards) == before


def test_truncated_and_altered_shards_are_found_and_named(shards: Path, tmp_path: Path) -> None:
    assert verify_shards(str(shards)) == []
    out = tmp_path / "copy"
    shutil.copytree(shards, out)
    clips = find_clips(str(out))
    rng = np.random.default_rng(0)
    sound_and_picture = CentreView((32, 32), 2.0)

    def failures(damaged: Path) -> list[str]:
        items = ClipSet([clip for clip in clips if damaged.name in clip.path], sound_and_picture)
        return [f.clip_id for i in range(len(items)) for f in collate([items[i]]).failures]

    intact = ClipSet(find_clips(str(shards)), sound_and_picture)
    expected = collate([intact[i] for i in range(len(intact))])
    shard = out / "00001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    assert verify_shards(str(out)) == [f"{shard}: truncated, has {len(whole) // 2} of {len(whole)} bytes"]
    assert failures(shard) == [clip.id for clip in clips if shard.name in clip.path][1:]
    for _ in range(30):  # whatever is altered: noticed, or in a part that was not read
        place = int(rng.integers(len(whole)))
        altered = bytearray(whole)
        altered[place] ^= 1 << int(rng.integers(8))
        shard.write_bytes(altered)
        assert verify_shards(str(out)) == [f"{shard}: altered, its SHA-256 differs"]
        named = failures(shard)
        batch = collate([ClipSet(clips, sound_and_picture)[i] for i in range(len(clips))])
        for i, name in enumerate(batch.ids):
            if name not in named:
                assert torch.equal(batch.image[i], expected.image[i])
                assert torch.equal(batch.waveform[i], expected.waveform[i])
    shard.unlink()
    assert verify_shards(str(out)) == [f"{shard}: cannot be read (No such file or directory)"]
    with pytest.raises(ShardError, match=r"00009\.tar#512: cannot be read \(No such file"):
        ShardedClip(str(out / "00009.tar#512"))
    with pytest.raises(ShardError, match="no clip starts here"):
        ShardedClip(str(out / "00000.tar#512"))
    with pytest.raises(ValueError, match="no finished shards"):
        verify_shards(str(tmp_path))


def test_the_command_verifies_shards_that_are_there(
    folder: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(shards, out)
    words = ["shard", str(folder), str(out), "--frames_per_second", "12.5", "--clips_per_shard", "3"]
    words += ["--num_workers", "0", "--verify", "true"]
    assert main(words) == 0
    assert f"all shards of {out} are as they were written" in capsys.readouterr().out
    shard = out / "00001.tar"
    altered = bytearray(shard.read_bytes())
    altered[len(altered) // 2] ^= 1
    shard.write_bytes(altered)
    assert main(words) == 1
    assert f"{shard}: altered, its SHA-256 differs" in capsys.readouterr().out


def test_a_shard_of_another_manifest_is_refused(shards: Path) -> None:
    first, second = find_clips(str(shards))[:2]
    with (
        pytest.raises(ClipError, match="differs from the manifest's digest"),
        open_clip(replace(first, path=second.path)),
    ):
        pass


def test_shards_are_read_from_a_url(shards: Path) -> None:
    memory = fsspec.filesystem("memory")
    for name, data in contents(shards).items():
        memory.pipe_file(f"/set/{name}", data)
    local, remote = find_clips(str(shards)), find_clips("memory://set")
    assert [clip.id for clip in remote] == [clip.id for clip in local]
    assert all(clip.path.startswith("memory://set/0000") for clip in remote)
    view = TrainingView((32, 32), 1.0)
    a, b = (collate([ClipStream(clips, view, 0)[n] for n in range(6)]) for clips in (local, remote))
    assert torch.equal(a.image, b.image)
    assert torch.equal(a.waveform, b.waveform)
    assert find_clips(f"memory://set/{SHARDS_MANIFEST}") == remote
    assert verify_shards("memory://set") == []
    memory.pipe_file("/set/00000.tar", b"short")
    assert verify_shards("memory://set")[0].startswith("memory://set/00000.tar: truncated, has 5 of")
    with (
        pytest.raises(ClipError, match=r"memory://set/00000\.tar#0: the shard ends before this clip"),
        open_clip(remote[0]),
    ):
        pass
    with pytest.raises(ValueError, match=r"memory://nothing/clips\.csv: no such manifest"):
        find_clips("memory://nothing")


WITHOUT_PYAV = """
import sys, torch
sys.modules["av"] = None
from deepavfusion.data.clips import find_clips
from deepavfusion.data.dataset import ClipStream
from deepavfusion.data.loading import StepSampler, training_loader
from deepavfusion.data.views import TrainingView
stream = ClipStream(find_clips(sys.argv[1]), TrainingView((32, 32), 1.0), seed=0)
with training_loader(stream, StepSampler(3, 1, 1, 0, 0, 2), 1, torch.device("cpu")) as loader:
    batches = list(loader)
print(sum(int(batch.image_present.sum()) for batch in batches), [f for batch in batches for f in batch.failures])
"""


def test_training_from_shards_needs_no_decoder_of_media_files(shards: Path) -> None:
    run = subprocess.run([sys.executable, "-c", WITHOUT_PYAV, str(shards)], capture_output=True, text=True, check=False)
    assert run.stdout == "6 []\n", run.stderr


def test_all_installed_decoders_agree() -> None:
    frames, _ = draw_clip("ring", np.random.default_rng(0), 0.2, 128)
    data = encode_jpeg(frames[0], 90)
    pictures = {decoder: decode_jpeg(data, decoder) for decoder in installed_decoders()}
    assert decibels(frames[0], pictures["pillow"], 255) > 25
    for decoder, picture in pictures.items():
        assert np.abs(picture.astype(int) - pictures["pillow"]).max() <= 3, decoder
        with pytest.raises(ValueError, match=r"(?i)jpeg"):
            decode_jpeg(b"nonsense", decoder)


def test_settings_that_make_no_sense_are_refused() -> None:
    for name, value in (("frames_per_second", 0.0), ("jpeg_quality", 101), ("sound", "mp3"), ("part", "3/2")):
        with pytest.raises(ValueError, match=str(value)):
            ShardConfig("x", "y", **{name: value})  # type: ignore[arg-type]
