"""Evaluation of segmenters on small real trees in official layouts and on a small world."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from deepavfusion.arguments import parse_arguments
from deepavfusion.audio import log_mel
from deepavfusion.data.clips import find_clips, list_clips
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.opening import open_clip
from deepavfusion.data.scenes.annotation import read_annotation, read_mask
from deepavfusion.data.sets.manifest import ManifestConfig, build_manifest
from deepavfusion.data.sets.masks import read_binary_mask, read_semantic_mask
from deepavfusion.data.views import CentreView
from deepavfusion.evaluation.config import EvaluationData, named_places
from deepavfusion.evaluation.evaluate import evaluate as evaluate_model
from deepavfusion.evaluation.frame import Evaluated, show
from deepavfusion.evaluation.segmentation.config import EvaluateSegmentationConfig
from deepavfusion.evaluation.segmentation.evaluate import load_segmenter
from deepavfusion.evaluation.segmentation.evaluator import segment
from deepavfusion.evaluation.segmentation.pictures import (
    PictureSet,
    mask_truth,
    partners,
    scene_groups,
    select_pictures,
    twin_regions,
)
from deepavfusion.images import normalize
from deepavfusion.models import EarlyFusionEncoder, Segmenter, SegmenterConfig
from tests.evaluation.segmentation_data import write_avss, write_s4
from tests.tasks.segmentation_runs import ENCODER, quiet, write_world

S4 = {"cat_a": "train", "cat_b": "test", "dog_c": "test", "dog_empty": "test", "dog_gone": "test", "dog_torn": "test"}
CLASSES = ("background", "x", "y", "z")


def manifest(root: Path, dataset: str, annotations: Path) -> Path:
    out = root / "pictures.csv"
    build_manifest(ManifestConfig(dataset, str(root), str(out), str(annotations), num_workers=0, check="decode"))
    return out


@pytest.fixture(scope="module")
def s4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of two whole test videos, one with empty truth, and two that lack something."""
    root = tmp_path_factory.mktemp("s4")
    path = write_s4(root, S4)
    (root / "gt_masks/test/d/dog_gone/dog_gone_2.png").unlink()
    (root / "visual_frames/test/d/dog_torn/dog_torn_4.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return manifest(root, "avsbench_s4", path)


@pytest.fixture(scope="module")
def avss(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("avss")
    return manifest(root, "avsbench_semantic", write_avss(root, {"a": ("v1s", 5), "b": ("v2", 10), "c": ("v1m", 5)}))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    return write_world(folder, 26, "segmentation_test", "twins_test", "listening")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    make_model().save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def semantic_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("semantic")
    make_model(classes=CLASSES).save_pretrained(folder / "model")
    return folder


def make_model(seed: int = 3, **settings: object) -> Segmenter:
    """Random weights, with masks that cover about half of the picture."""
    torch.manual_seed(seed)
    model = Segmenter(SegmenterConfig(encoder=ENCODER, decoder_dim=32, stride=1, **settings))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
        model.decoder.kernel.bias[-1] = 0  # type: ignore[union-attr,index]
    return model.eval()


def evaluate(run: Path, source: Path, out: Path, split: str = "test", **changes: object) -> Evaluated:
    settings = {"batch_size": 4, "pictures": 0, "listening": False, "device": "cpu", **changes}
    data = EvaluationData(str(source), split, 0)
    result = evaluate_model(EvaluateSegmentationConfig(str(run), data, out=str(out), **settings))  # type: ignore[arg-type]
    assert result is not None
    return result


def predictions(run: Path, source: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Id, logits at the mask's size and mask file of every labelled test picture, by other means than the package's."""
    model, rows = load_segmenter(str(run)), []
    with open(source, newline="") as file:
        table = [row for row in csv.DictReader(file) if row["split"] == "test"]
    clips = [clip for clip in list_clips(str(source)) if clip.split == "test"]
    for clip, row in zip(clips, table, strict=True):
        with open_clip(clip) as media:
            image = torch.from_numpy(media.frame(0, FrameCrop.whole((32, 32))).copy()).permute(2, 0, 1)[None]
            waveform = torch.from_numpy(media.sound(0, 2.0))[None]
        with torch.no_grad():
            logits = model(normalize(image), log_mel(waveform, 32))
        path = str(source.parent / row["mask"])
        size = Image.open(path).size[::-1]
        resized = torch.nn.functional.interpolate(logits, size, mode="bilinear")[0].numpy()
        rows.append((row["id"], resized, path))
    return rows


def test_binary_scores_are_those_computed_by_hand(s4: Path, run: Path, tmp_path: Path) -> None:
    result = evaluate(run, s4, tmp_path)
    ious, intersections, unions, foreground, background = [], 0, 0, [], []
    for _, logits, path in predictions(run, s4):
        truth, predicted = read_binary_mask(path), logits[0] > 0
        both, either = (truth & predicted).sum(), (truth | predicted).sum()
        intersections, unions = intersections + both, unions + either
        if truth.any():
            ious.append(both / either)
            foreground.append(both / either)
            background.append((~truth & ~predicted).sum() / (~truth | ~predicted).sum())
        else:
            ious.append((~truth & ~predicted).mean())
    found = {name: score.value for name, score in result.record.scores.items()}
    assert len(ious) == 15
    assert found["avsbench miou"] == pytest.approx(np.mean(ious))
    assert found["pooled miou"] == pytest.approx(intersections / unions)
    assert found["with_background miou"] == pytest.approx((np.mean(foreground) + np.mean(background)) / 2)
    assert len({round(found[f"{name} miou"], 6) for name in ("avsbench", "pooled", "with_background")}) == 3
    # Batches of 4 videos: all 3 are in one, so the mean is the same.
    assert found["avsbench miou, batches of 4 videos"] == pytest.approx(found["avsbench miou"])
    record = json.loads((tmp_path / "results.json").read_text())
    assert record["baselines"]["empty picture"]["pooled miou"]["value"] == 0
    assert record["baselines"]["empty picture"]["avsbench miou"]["value"] == pytest.approx(2 / 15)  # the empty truth
    whole = record["baselines"]["whole picture"]["avsbench miou"]
    assert whole["difference"]["value"] == pytest.approx(found["avsbench miou"] - whole["value"])
    with np.load(tmp_path / "samples.npz") as samples:
        np.testing.assert_allclose(np.sort(samples["avsbench miou"]), np.sort(ious))


def test_coverage_accounts_for_every_video_of_the_list(s4: Path, run: Path, tmp_path: Path) -> None:
    result = evaluate(run, s4, tmp_path)
    assert result.record.coverage.num_official == 5
    assert result.record.coverage.num_scored == 3
    assert result.record.coverage.missing == ("d/dog_gone",)
    assert list(result.record.coverage.failed) == ["d/dog_torn"]
    assert "split test" in result.record.protocol
    console = quiet()
    show(result, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "scored 3 of 5 official clips" in text
    assert "1 missing: d/dog_gone; 1 failed: d/dog_torn" in text
    # Training pictures: one labelled of five.
    train = evaluate(run, s4, tmp_path / "train", split="train")
    assert train.record.coverage.num_scored == 1
    record = json.loads((tmp_path / "train" / "results.json").read_text())
    assert (record["num_scored"], record["left_out"]) == (1, {"unlabelled pictures": 4})
    with pytest.raises(ValueError, match=r"split val: .* has test, train"):
        evaluate(run, s4, tmp_path, split="val")


def test_a_video_of_which_a_picture_is_torn_has_failed_as_a_whole(s4: Path, run: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    table = manifest(root, "avsbench_s4", write_s4(root, {"cat_a": "test", "dog_b": "test"}))
    (root / "gt_masks/test/d/dog_b/dog_b_3.png").write_bytes(b"torn after the manifest was written")
    result = evaluate(run, table, tmp_path / "out")
    assert result.record.coverage.num_scored == 1
    assert list(result.record.coverage.failed) == ["d/dog_b"]
    assert "dog_b_3.png" in result.record.coverage.failed["d/dog_b"]
    assert json.loads((tmp_path / "out" / "results.json").read_text())["num_scored"] == 5


def test_semantic_scores_of_5_and_10_pictures(avss: Path, semantic_run: Path, tmp_path: Path) -> None:
    result = evaluate(semantic_run, avss, tmp_path, pictures=1)
    sums, counts, pooled = np.zeros(4), np.zeros(4), np.zeros((2, 4))
    rows = predictions(semantic_run, avss)
    assert len(rows) == 20
    for _, logits, path in rows:
        truth, predicted = read_semantic_mask(path, 4), logits.argmax(0)
        for number in range(4):
            a, b = truth == number, predicted == number
            if (a | b).any():
                sums[number] += (a & b).sum() / (a | b).sum()
                counts[number] += 1
                pooled[:, number] += (a & b).sum(), (a | b).sum()
    found = {name: score.value for name, score in result.record.scores.items()}
    assert found["avss miou"] == pytest.approx((sums / np.maximum(counts, 1)).mean())
    assert found["pooled miou"] == pytest.approx((pooled[0] / pooled[1]).mean())
    assert "semantic, 4 classes" in result.record.protocol
    with open(tmp_path / "classes.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["class"] for row in table] == list(CLASSES)
    assert [int(row["num_pictures"]) for row in table] == counts.tolist()
    assert (tmp_path / "overlays.png").stat().st_size > 5000
    # Labels counted from another list are an error that names the file, not a wrong number.
    make_model(classes=CLASSES[:2]).save_pretrained(tmp_path / "two" / "model")
    with pytest.raises(ValueError, match="no video could be segmented"):
        evaluate(tmp_path / "two", avss, tmp_path / "out")


def test_flips_and_picture_sizes_are_part_of_the_protocol(s4: Path, run: Path, tmp_path: Path) -> None:
    plain = evaluate(run, s4, tmp_path / "plain")
    flipped = evaluate(run, s4, tmp_path / "flips", flips=True)
    bigger = evaluate(run, s4, tmp_path / "bigger", image_size=(48, 40))
    assert "flips averaged" in flipped.record.protocol
    assert "whole pictures at 48 x 40, positions resampled" in bigger.record.protocol
    assert len({r.record.scores["avsbench f_score"].value for r in (plain, flipped, bigger)}) == 3
    model = load_segmenter(str(run))
    image = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    waveform = torch.randn(2, 32000)
    with torch.no_grad():
        both = segment(model, image, waveform, flips=True)
        mirrored = segment(model, image.flip(-1), waveform, flips=True)
    torch.testing.assert_close(both, mirrored.flip(-1), rtol=1e-4, atol=1e-4)


def test_any_batch_size_gives_the_same_numbers(s4: Path, run: Path, tmp_path: Path) -> None:
    results = [evaluate(run, s4, tmp_path / str(size), batch_size=size).record.scores for size in (1, 4, 32)]
    for name, score in results[0].items():
        for other in results[1:]:
            assert other[name].value == pytest.approx(score.value, abs=2e-3)  # a pixel at the threshold may tip


def test_kinds_of_scenes_listening_and_baselines(world: Path, run: Path, tmp_path: Path) -> None:
    make_model(7, modalities="image").save_pretrained(tmp_path / "deaf" / "model")
    torch.manual_seed(0)
    EarlyFusionEncoder(ENCODER).save_pretrained(tmp_path / "encoder")
    earlier = evaluate(tmp_path / "deaf", world / "segmentation_test.csv", tmp_path / "earlier")
    assert "split segmentation_test" in earlier.record.protocol  # the one whose name ends so
    assert "image alone" in earlier.record.protocol
    baselines = (f"deaf={tmp_path / 'deaf'}", f"before={tmp_path / 'earlier'}", f"map={tmp_path / 'encoder'}")
    result = evaluate(
        run, world / "segmentation_test.csv", tmp_path / "out", listening=True, baselines=baselines, pictures=1
    )
    clips = find_clips(str(world / "segmentation_test.csv"))
    kinds = {clip.id: scene_groups(clip) for clip in clips}
    assert {kind[0] for kind in kinds.values()} == {"one_sounding", "several_sounding", "none_sounding"}
    with np.load(tmp_path / "out" / "samples.npz") as samples:
        values = dict(zip(samples["ids"].tolist(), samples["avsbench miou"].tolist(), strict=True))
        masked = samples["avsbench miou, none_sounding"]
        own_scores = [name for name in samples.files if name in result.record.scores]
        for name in own_scores:  # every score with a value per picture is their mean
            assert result.record.scores[name].value == pytest.approx(np.nanmean(samples[name]), abs=1e-9), name
        for other in ("deaf", "map (map, best threshold)"):  # and of those it is compared with
            for name in ("avsbench miou", "avsbench f_score", "avsbench miou, one_sounding"):
                mean = np.nanmean(samples[f"{name} of {other}"])
                assert result.record.baselines[other][name].score.value == pytest.approx(mean, abs=1e-9), (name, other)
    assert {"avsbench f_score", "avsbench f_score, one_sounding", "mask area, silence"} <= set(own_scores)
    own = [value for name, value in values.items() if kinds[name][0] == "none_sounding"]
    assert result.record.scores["avsbench miou, none_sounding"].value == pytest.approx(np.mean(own))
    assert np.nanmean(masked) == pytest.approx(np.mean(own))
    # A kind without truth has no F.
    assert "avsbench f_score, none_sounding" not in result.record.scores
    areas = {name: score.value for name, score in result.record.scores.items() if name.startswith("mask area")}
    for sound in ("silence", "noise", "foreign"):
        left = areas[f"mask area, {sound}"] / areas["mask area, own sound"]
        assert areas[f"mask area left, {sound}"] == pytest.approx(left)
    names = set(result.record.baselines)
    expected = {
        "deaf",
        "before",
        "map (map, best threshold)",
        "the same, hearing silence",
        "empty picture",
        "whole picture",
    }
    assert names == expected
    again = result.record.baselines["deaf"]["avsbench miou"]
    before = result.record.baselines["before"]["avsbench miou"]
    miou = earlier.record.scores["avsbench miou"].value
    assert again.score.value == pytest.approx(before.score.value) == pytest.approx(miou)
    assert again.difference is not None
    assert before.difference is not None
    assert again.difference.difference == pytest.approx(before.difference.difference)
    silent = result.record.baselines["the same, hearing silence"]["avsbench miou"].score.value
    assert silent != pytest.approx(result.record.scores["avsbench miou"].value)
    assert (tmp_path / "out" / "overlays.png").stat().st_size > 5000


def test_twins_are_told_apart_by_where_more_mask_lies(world: Path, run: Path, tmp_path: Path) -> None:
    result = evaluate(run, world / "twins_test.csv", tmp_path)
    model, right = load_segmenter(str(run)), []
    selection = select_pictures(str(world / "twins_test.csv"), "test")
    pictures = PictureSet(
        selection.pictures,
        range(len(selection.pictures)),
        CentreView((32, 32), 2.0, whole=True),
        mask_truth(selection.videos.clips),
    )
    for i, picture in enumerate(selection.pictures):
        truth, sample = read_annotation(picture.clip.path), pictures[i]
        assert sample.twins is not None
        number = truth.nearest_annotated(1.0)
        sources = read_mask(picture.clip.path, truth, number)
        sounding = next(s.number for s in truth.sources if s.audible)
        assert np.array_equal(sample.twins == 1, sources == 1 + sounding)
        assert np.array_equal(sample.twins == 2, sources == 2 - sounding)
        with torch.no_grad():
            logits = segment(
                model, torch.from_numpy(sample.image).permute(2, 0, 1)[None], torch.from_numpy(sample.waveform)[None]
            )
        p = torch.nn.functional.interpolate(logits, (64, 64), mode="bilinear")[0, 0].sigmoid().numpy()
        right.append(p[sample.twins == 1].mean() > p[sample.twins == 2].mean())
    assert result.record.scores["twins told apart"].value == pytest.approx(np.mean(right))
    other = find_clips(str(world / "segmentation_test.csv"))[0]
    assert twin_regions(other, 1.0) is None


def test_sounds_beside_a_picture(world: Path) -> None:
    selection = select_pictures(str(world / "segmentation_test.csv"), "test")
    truth, view = mask_truth(selection.videos.clips), CentreView((32, 32), 2.0, whole=True)
    chosen = partners(selection.pictures, 0)
    assert all(i != j for i, j in enumerate(chosen))
    assert np.array_equal(chosen, partners(selection.pictures, 0))
    samples = {
        sound: PictureSet(selection.pictures, [1], view, truth, sound, 0.05)[0]  # type: ignore[arg-type]
        for sound in ("own", "silence", "noise", "foreign")
    }
    assert not samples["silence"].waveform.any()
    assert np.sqrt(np.square(samples["noise"].waveform).mean()) == pytest.approx(0.05, rel=0.03)
    foreign = PictureSet(selection.pictures, [int(chosen[1])], view, truth)[0]
    assert np.array_equal(samples["foreign"].waveform, foreign.waveform)
    for sample in samples.values():
        assert np.array_equal(sample.image, samples["own"].image)
        assert np.array_equal(sample.mask, samples["own"].mask)
    with pytest.raises(ValueError, match="has no other video to take"):
        partners(selection.pictures[:1], 0)


def test_overlay_videos_of_clips_and_of_tables(world: Path, s4: Path, run: Path, tmp_path: Path) -> None:
    evaluate(run, world / "segmentation_test.csv", tmp_path / "clips", videos=1)
    evaluate(run, s4, tmp_path / "stills", videos=2)
    (film,) = (tmp_path / "clips").glob("overlay_*.mp4")
    stills = sorted((tmp_path / "stills").glob("overlay_*.mp4"))
    assert len(stills) == 2
    for path, seconds, side in ((film, 2, 64), (stills[0], 5, 48)):
        with av.open(str(path)) as container:
            assert container.streams.audio
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == int(seconds * 12.5)
        assert frames[0].shape == (side, side, 3)


def test_models_and_settings_that_do_not_fit(s4: Path, run: Path, semantic_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"baseline other: .* was trained on other classes"):
        evaluate(run, s4, tmp_path, baselines=(f"other={semantic_run}",))
    with pytest.raises(ValueError, match="neither a finished run nor a model folder"):
        evaluate(tmp_path / "nothing", s4, tmp_path)
    with pytest.raises(ValueError, match="baselines names 'a' twice"):
        EvaluateSegmentationConfig("run", EvaluationData("x"), baselines=("a=b", "a=c"))
    words = ["runs/a", "--data.source", "x.csv", "--image_size", "[96,96]", "--baselines", "[deaf=runs/b]"]
    config = parse_arguments(EvaluateSegmentationConfig, words, positional=("run",))
    assert (config.run, config.data.split, config.image_size) == ("runs/a", "test", (96, 96))
    assert named_places(config.baselines) == {"deaf": "runs/b"}
    assert named_places(("a=x=y",)) == {"a": "x=y"}


@pytest.mark.slow
def test_two_processes_equal_one_exactly(s4: Path, run: Path, tmp_path: Path) -> None:
    program = ["-m", "tests.evaluation.segmentation_program", str(run), str(s4)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, words in (("one", program), ("two", [*torchrun, *program])):
        done = subprocess.run(
            [sys.executable, *words, str(tmp_path / name)],
            capture_output=True,
            text=True,
            timeout=180,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    for part in ("scores", "baselines", "coverage", "num_scored", "left_out"):
        assert one[part] == two[part], part
