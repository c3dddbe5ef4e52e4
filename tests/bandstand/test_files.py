"""Files against the truth: decoded clips, boxes, masks, stems, energies, resumption, processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from PIL import Image

from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.generation import BandstandSummary, generate, make_cast, make_clip
from deepavfusion.bandstand.stage import boxes
from deepavfusion.data.clips import find_clips
from deepavfusion.data.opening import open_clip
from deepavfusion.data.scenes.annotation import ClipTruth, read_annotation, read_mask


def _decode(path: str) -> tuple[NDArray[np.uint8], list[float], NDArray[np.float32]]:
    """Frames, their times, and the sound on the clip's own time line, by PyAV alone."""
    with av.open(path) as container:
        video = list(container.decode(video=0))
    with av.open(path) as container:
        pieces = [(frame.pts * frame.time_base, frame.to_ndarray()[0]) for frame in container.decode(audio=0)]
    wave = np.zeros(64000 + 4096, np.float32)
    for start, piece in pieces:
        first = round(start * 16000)
        wave[max(first, 0) : first + len(piece)] = piece[max(-first, 0) :]
    return (
        np.stack([frame.to_ndarray(format="rgb24") for frame in video]),
        [frame.time for frame in video],
        wave[:64000],
    )


def _truths(summary: BandstandSummary) -> list[tuple[str, ClipTruth]]:
    return [(clip.path, read_annotation(clip.path)) for clip in find_clips(summary.manifest)]


def test_manifest_has_every_clip_and_no_torch_is_needed(small_band: BandstandSummary) -> None:
    clips = find_clips(small_band.manifest)
    assert len(clips) == 30 == small_band.written
    assert {clip.split for clip in clips} == set(small_band.counts)
    assert all(os.path.getsize(clip.path) == clip.num_bytes for clip in clips)
    assert all(
        (clip.label is not None) == (clip.split in ("train", "val", "test", "twins_train", "twins_test"))
        for clip in clips
    )
    assert not list(Path(small_band.out).rglob("*.partial"))
    code = "import sys, deepavfusion.bandstand.generation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_decoded_pictures_are_those_that_were_drawn(small_band: BandstandSummary) -> None:
    config = BandstandConfig(out=small_band.out)
    cast = make_cast(config)
    for path, truth in _truths(small_band)[::9]:
        frames, times, _ = _decode(path)
        drawn = make_clip(config, cast, truth.split, truth.index).pictures.frames
        assert frames.shape == drawn.shape == (truth.num_frames, 160, 160, 3)
        assert times == pytest.approx([k / truth.frame_rate for k in range(truth.num_frames)])
        # Colour is stored at half the resolution, so brightness tells how good the picture is.
        error = (frames.astype(float) - drawn) @ [0.299, 0.587, 0.114]
        assert 10 * np.log10(255**2 / np.mean(error**2)) > 34
        # Frame k is frame k: its neighbours are farther from it.
        moving = np.argmax(np.abs(np.diff(drawn.astype(float), axis=0)).mean((1, 2, 3))) + 1
        here, before = (np.mean((frames[moving].astype(float) - drawn[moving - back]) ** 2) for back in (0, 1))
        assert here < 0.7 * before


def test_boxes_and_masks_are_those_of_the_sprites(small_band: BandstandSummary) -> None:
    seen = 0
    for path, truth in _truths(small_band):
        assert truth.annotated_frames == tuple(range(0, 50, 5))
        for place in range(len(truth.annotated_frames)):
            mask = read_mask(path, truth, place)
            assert mask.shape == (160, 160)
            assert set(np.unique(mask)) <= {0} | {s.number + 1 for s in truth.sources if s.visible}
            found = boxes(mask, len(truth.sources))
            for source in truth.sources:
                assert (source.boxes is None) == (not source.visible)
                assert source.boxes is None or found[source.number] == source.boxes[place]
        for source in truth.sources:
            if source.boxes is not None and source.boxes[0] is not None:
                x0, y0, x1, y1 = source.boxes[0]
                assert max(x1 - x0, y1 - y0) < 1.45 * source.size_pixels  # type: ignore[operator]
                seen += 1
    assert seen > 40


def test_stems_sum_to_the_mixture_and_the_mixture_survives_encoding(small_band: BandstandSummary) -> None:
    ratios = []
    for path, truth in _truths(small_band)[::3]:
        folder = os.path.dirname(path)
        assert truth.noise_stem is not None
        stems = [soundfile.read(os.path.join(folder, s.stem), dtype="int16")[0] for s in truth.sources if s.stem]
        noise = soundfile.read(os.path.join(folder, truth.noise_stem), dtype="int16")[0]
        total = noise.astype(np.int64) + sum((stem.astype(np.int64) for stem in stems), np.zeros(64000, np.int64))
        made = make_clip(
            BandstandConfig(out=small_band.out), make_cast(BandstandConfig(out="")), truth.split, truth.index
        )
        assert np.array_equal(total, made.sounds.mixture)
        if stems:
            error = _decode(path)[2] - total / 32768
            ratios.append(10 * np.log10(np.mean((total / 32768) ** 2) / np.mean(error**2)))
    assert np.median(ratios) > 30, f"SNR after AAC: median {np.median(ratios):.1f} dB"
    assert min(ratios) > 20, f"SNR after AAC: worst {min(ratios):.1f} dB"


def test_sounding_intervals_match_the_energy(small_band: BandstandSummary) -> None:
    inside_all = []
    for path, truth in _truths(small_band):
        for source in truth.sources:
            assert (source.stem is not None) == source.audible == bool(source.sounding)
            if source.stem is None:
                continue
            wave = soundfile.read(os.path.join(os.path.dirname(path), source.stem))[0]
            sounding = np.zeros(len(wave), bool)
            for start, end in source.sounding:
                first, last = round(start * 16000), round(end * 16000)
                sounding[first:last] = True
                onset = np.mean(wave[first : first + 1600] ** 2)
                before = np.mean(wave[max(first - 480, 0) : first] ** 2) if first else 0
                assert onset > before  # a stretch starts with a stroke, not with an echo
                assert onset > 1e-3 * np.max(wave**2)
            inside_all.append(np.sum(wave[sounding] ** 2) / np.sum(wave**2))
    assert min(inside_all) > 0.75  # the rest is echo
    assert np.mean(inside_all) > 0.97


def test_strokes_have_the_pitch_that_the_annotation_says(small_band: BandstandSummary) -> None:
    checked = 0
    for path, truth in _truths(small_band):
        for source in truth.sources:
            if source.stem is None or source.timbre == "chime":
                continue
            wave = soundfile.read(os.path.join(os.path.dirname(path), source.stem))[0]
            stroke = source.details["strokes"][0]
            first, last = (round(stroke[key] * 16000) for key in ("onset_seconds", "end_seconds"))
            piece = wave[first + 800 : last - 640]
            spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), 65536))
            hertz = np.arange(len(spectrum)) * 16000 / 65536
            near = np.abs(hertz / stroke["hertz"] - 1) < 0.03
            below = hertz < 0.8 * stroke["hertz"]
            assert spectrum[near].max() > 2 * spectrum[below].max(initial=0)
            checked += 1
    assert checked > 12


def test_same_clips_on_one_and_on_three_processes(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    config = BandstandConfig(
        out=str(tmp_path / "one"), clips=9, splits=("pretrain",), seed=5, num_workers=0, size=64, sheets=False
    )
    generate(config)
    generate(
        replace(config, out=str(tmp_path / "three"), num_workers=3), lambda done, total: calls.append((done, total))
    )
    assert calls[0] == (0, 9)
    assert calls[-1] == (9, 9)
    for name in sorted(os.listdir(tmp_path / "one" / "pretrain")):
        if name.endswith((".json", ".mp4")):
            assert (tmp_path / "one/pretrain" / name).read_bytes() == (tmp_path / "three/pretrain" / name).read_bytes()


def test_a_second_run_continues_and_keeps_what_is_there(tmp_path: Path) -> None:
    config = BandstandConfig(out=str(tmp_path), clips=4, splits=("test",), num_workers=0, size=64, sheets=False)
    generate(config)
    (tmp_path / "test/test_000001.json").unlink()  # as if killed before the annotation
    (tmp_path / "test/test_000003.mp4").unlink()
    (tmp_path / "test/.test_000001.4711.partial").mkdir()
    before = (tmp_path / "test/test_000002.mp4").stat().st_mtime_ns
    again = generate(replace(config, clips=6))
    assert (again.written, again.skipped) == (4, 2)
    assert not list(tmp_path.rglob("*.partial"))
    assert (tmp_path / "test/test_000002.mp4").stat().st_mtime_ns == before
    assert [clip.id for clip in find_clips(again.manifest)] == [f"test_{k:06d}" for k in range(6)]
    fewer = generate(replace(config, clips=2))
    assert fewer.skipped == 2
    assert len(find_clips(fewer.manifest)) == 6
    other = generate(replace(config, clips=2, splits=("duets",)))
    assert {clip.split for clip in find_clips(other.manifest)} == {"test", "duets"}


def test_a_killed_run_leaves_no_process_and_can_be_continued(tmp_path: Path) -> None:
    config = BandstandConfig(
        out=str(tmp_path / "killed"), clips=20, splits=("pretrain",), num_workers=1, size=64, seconds=2.0, sheets=False
    )
    script = tmp_path / "run.py"
    script.write_text(
        f"from deepavfusion.bandstand.generation import generate, BandstandConfig\n"
        f"if __name__ == '__main__':\n    generate({config!r}, lambda done, total: print(done, flush=True))\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        while int(run.stdout.readline()) == 0:  # the first batch of clips
            pass
        run.kill()
        run.stdout.read()  # returns when the worker, which inherited the pipe, is gone too
    done = generate(config)
    assert done.skipped >= 8
    whole = generate(replace(config, out=str(tmp_path / "whole")))
    for path in sorted(Path(whole.out).rglob("*.*")):
        if path.is_file():
            assert (tmp_path / "killed" / path.relative_to(whole.out)).read_bytes() == path.read_bytes()


def test_another_world_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    config = BandstandConfig(out=str(tmp_path), clips=1, splits=("test",), num_workers=0, size=64, sheets=False)
    generate(config)
    with pytest.raises(ValueError, match="seed 0, not 1"):
        generate(replace(config, seed=1))
    with pytest.raises(ValueError, match="size 64, not 96"):
        generate(replace(config, size=96))


def test_a_clip_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    config = BandstandConfig(out=str(tmp_path), clips=1, splits=("test",), num_workers=1, size=64, sheets=False)
    (tmp_path / "test").mkdir()
    (tmp_path / "test/test_000000.mp4").mkdir()  # in the way
    with pytest.raises(RuntimeError, match="clip test_000000"):
        generate(config)
    assert not list(tmp_path.rglob("*.partial"))


def test_without_stems_and_masks_only_clip_and_annotation_are_written(tmp_path: Path) -> None:
    config = BandstandConfig(
        out=str(tmp_path), clips=1, splits=("pretrain",), num_workers=0, size=64, stems=False, masks=False, sheets=False
    )
    generate(config)
    assert sorted(os.listdir(tmp_path / "pretrain")) == ["pretrain_000000.json", "pretrain_000000.mp4"]
    path = str(tmp_path / "pretrain/pretrain_000000.mp4")
    truth = read_annotation(path)
    assert all(source.stem is None for source in truth.sources)
    with pytest.raises(ValueError, match="without masks"):
        read_mask(path, truth, 0)


def test_annotation_round_trip_and_errors(small_band: BandstandSummary, tmp_path: Path) -> None:
    for _, truth in _truths(small_band):
        assert ClipTruth.from_json(truth.to_json()) == truth
    assert truth.nearest_annotated(2.05) == 5
    heard = next(s for _, t in _truths(small_band) for s in t.sources if s.audible)
    start = heard.sounding[0][0]
    assert heard.heard_between(start - 1, start + 0.01)
    assert not heard.heard_between(start - 0.02, start)
    bad = tmp_path / "clip.json"
    with pytest.raises(ValueError, match="no annotation"):
        read_annotation(bad)
    bad.write_text(json.dumps({"id": "clip"}))
    with pytest.raises(ValueError, match=r"clip\.json: not an annotation"):
        read_annotation(str(tmp_path / "clip.mp4"))


def test_truth_of_a_mirrored_clip_is_mirrored() -> None:
    config = BandstandConfig(out="", size=64)
    plain, mirrored = (make_clip(config, make_cast(config), "twins_test", index).truth for index in (0, 2))
    for here, there in zip(plain.sources, mirrored.sources, strict=True):
        assert here.centre is not None
        assert there.centre == (pytest.approx(64 - here.centre[0]), here.centre[1])
        assert here.boxes is not None
        assert there.boxes == tuple(box and (64 - box[2], box[1], 64 - box[0], box[3]) for box in here.boxes)


def test_contact_sheets_and_readme(small_band: BandstandSummary) -> None:
    out = Path(small_band.out)
    for name, size in (("classes.png", (1168, 874)), ("scenes.png", (1128, 2158))):
        with Image.open(out / name) as sheet:
            assert sheet.size == size
    text = (out / "README.md").read_text()
    assert all(f"`{split}`" in text for split in small_band.counts)


@pytest.mark.parametrize(
    ("field", "value"),
    [("clips", 0), ("size", 161), ("sample_rate", 12345), ("seconds", 1.0), ("cast", "digits"), ("num_workers", -1)],
)
def test_wrong_settings_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field if field != "cast" else "digit_images"):
        BandstandConfig(out="x", **{field: value})  # type: ignore[arg-type]


def test_shards_hold_the_same_clips(tmp_path: Path) -> None:
    config = BandstandConfig(str(tmp_path), clips=3, splits=("train",), shards=2.5, sheets=False, num_workers=0)
    summary = generate(config)
    stored = find_clips(str(tmp_path / "shards" / "train"))
    written = find_clips(summary.manifest)
    assert [(clip.id, clip.label, clip.split) for clip in stored] == [(c.id, c.label, c.split) for c in written]
    for shard, file in zip(stored, written, strict=True):
        with open_clip(shard) as a, open_clip(file) as b:
            difference = a.frame(1.01).astype(int) - b.frame(1.01)  # near 1.0 s, a moment that is stored
            assert np.abs(difference).mean() < 6
            # AAC fills bands with noise anew at every decoding, so samples agree on average only.
            assert np.abs(a.sound(0.5, 2.0) - b.sound(0.5, 2.0)).mean() < 1e-3


def test_worlds_with_the_same_first_number_are_one(tmp_path: Path) -> None:
    """Clips of earlier splits are the same, so a folder of theirs may be added to; a later split names its version."""
    small = BandstandConfig(str(tmp_path), clips=1, size=32, seconds=2.0, stems=False, sheets=False, num_workers=0)
    generate(replace(small, splits=("twins_train",)))
    world = json.loads((tmp_path / "world.json").read_text())
    (tmp_path / "world.json").write_text(json.dumps({**world, "world": "1"}))
    summary = generate(replace(small, splits=("motion_train",)))
    assert [truth.world for _, truth in _truths(summary)] == ["1", "1.1"]
    assert [truth.scene_type for _, truth in _truths(summary)] == ["twins", "motion"]
    (tmp_path / "world.json").write_text(json.dumps({**world, "world": "2"}))
    with pytest.raises(ValueError, match=r"world '2', not '1\.1'"):
        generate(replace(small, splits=("motion_train",)))
