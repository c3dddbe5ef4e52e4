"""The evaluation of localization: what is scored, against what, by which truth; on little Bandstand worlds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from deepavfusion.data.clips import read_manifest, write_manifest
from deepavfusion.data.dataset import collate
from deepavfusion.data.scenes.annotation import read_annotation
from deepavfusion.data.views import CentreView
from deepavfusion.evaluation.config import EvaluationData
from deepavfusion.evaluation.evaluate import evaluate, results_folder
from deepavfusion.evaluation.frame import show
from deepavfusion.evaluation.localization.config import EvaluateLocalizationConfig
from deepavfusion.evaluation.localization.evaluate import LocalizationEvaluation
from deepavfusion.evaluation.localization.evaluator import LocalizationEvaluator, prior_map, sources_chosen
from deepavfusion.evaluation.localization.items import Item, ItemSet, annotated_items, with_foreign_sounds
from deepavfusion.evaluation.localization.scores import FOREIGN, IMAGE_ONLY, WHOLE, score_table
from deepavfusion.evaluation.localization.sound_mapper import SoundMapper, load_mapper, shifted_maps
from deepavfusion.evaluation.loop import OneProcess, predict_all
from deepavfusion.evaluation.record import read_samples
from deepavfusion.models import Localizer, LocalizerConfig
from deepavfusion.report.results import read_evaluation
from deepavfusion.storage.bundle import Bundle
from tests.tasks.classification_runs import quiet
from tests.tasks.localization_runs import ENCODER, write_encoder, write_world

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"), 20, "localization", "listening", "twins_test", "duets")


@pytest.fixture(scope="module")
def localizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("localizer")
    torch.manual_seed(3)
    model = Localizer(LocalizerConfig(encoder=ENCODER, dim=16))
    torch.nn.init.normal_(model.head.fc2.weight)
    model.save_pretrained(folder)
    return folder


def config(run: Path, source: Path, out: Path, **settings: Any) -> EvaluateLocalizationConfig:
    data = EvaluationData(str(source), split=settings.pop("split", "all"), num_workers=0)
    return EvaluateLocalizationConfig(str(run), data, out=str(out), batch_size=8, **settings)


def test_every_score_of_a_world_with_its_baselines(world: Path, localizer: Path, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder")
    settings = {"baselines": (f"cosine=untrained:{encoder}",)}
    result = evaluate(config(localizer, world, tmp_path / "out", **settings))
    assert result is not None
    show(result, quiet())
    clips, scores = read_manifest(str(world)), result.record.scores
    assert result.record.details["headline"] == "area"
    assert result.record.protocol == "head, whole picture, centre window, bilinear to 224 x 224, sounding masks"
    assert next(iter(scores)) == "cIoU@0.5 area"
    for name in ("AUC fixed", "cIoU@0.3 top50", "source chosen, twins", "extended AP area", "extended max-F1 fixed"):
        assert 0 <= scores[name].value <= 1
    kinds = {name.partition(", ")[2] for name in scores if name.startswith("false positives")}
    assert {"silence", "noise", "foreign", "listening_silence", "listening_noise", "listening_foreign"} <= kinds
    for name in (IMAGE_ONLY, WHOLE):
        rates = {k: v.score.value for k, v in result.record.baselines[name].items() if k.startswith("false positives")}
        assert rates["false positives, silence"] == rates["false positives, noise"] == pytest.approx(0.9)
        assert rates["false positives, listening_noise"] == pytest.approx(0.9)  # the same pictures
    assert set(result.record.baselines) == {IMAGE_ONLY, FOREIGN, "centre prior", WHOLE, "cosine"}
    assert result.record.baselines["cosine"]["AUC area"].difference is not None
    ids, samples, _ = read_samples(str(tmp_path / "out"))
    assert sorted(ids) == sorted(clip.id for clip in clips)
    for name in ("cIoU@0.5 area", "AUC top50", "source chosen", "source chosen, twins"):
        assert np.nanmean(samples[name]) == pytest.approx(scores[name].value)
    types = {clip.id: read_annotation(clip.path).scene_type for clip in clips}
    still = {"off_screen", "silent", "listening_silence", "listening_noise", "listening_foreign"}
    for name, value in zip(ids, samples["AUC area"], strict=True):
        assert np.isnan(value) == (types[name] in still), types[name]
    difference = result.record.baselines[FOREIGN]["AUC area"].difference
    assert difference is not None
    assert difference.num_clips == int((~np.isnan(samples["AUC area"])).sum())
    report = read_evaluation(tmp_path / "out" / "results.json")
    assert report.num_scored == difference.num_clips
    assert [picture.path.name for picture in report.pictures] == ["ranking.png", "sheet.png"]
    assert all(picture.path.stat().st_size > 10_000 for picture in report.pictures)
    assert not any(path.name.startswith(".") for path in (tmp_path / "out").iterdir())


def test_a_map_that_knows_the_truth_wins_everything(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its maps are the truth on the finest grid with the own sound, and nothing with any other."""
    clips = read_manifest(str(world))
    items, failed = annotated_items(clips)
    assert not failed
    items = with_foreign_sounds(items, 0)
    samples = ItemSet(items, CentreView((32, 32), 2.0))
    known = {}
    for i in range(len(items)):
        own = samples[2 * i]
        assert own.truth is not None
        known[own.image.tobytes(), own.waveform.tobytes()] = own.truth > 128

    def maps(image: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    evaluator = LocalizationEvaluator(SoundMapper(maps, ENCODER, (), "oracle", 8), items)
    predict = evaluator.predict

    def oracle(batch: Any, device: torch.device) -> Any:
        calls = iter(("own", "silence", "foreign", "noise"))
        rows = [
            known[picture.permute(1, 2, 0).numpy().tobytes(), wave.numpy().tobytes()]
            for picture, wave in zip(batch.image[::2], batch.waveform[::2], strict=True)
        ]
        truth = torch.from_numpy(np.stack(rows)).float()[:, None]

        def answer(image: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
            return truth if next(calls) == "own" else torch.zeros_like(truth)

        evaluator.mapper = replace(evaluator.mapper, maps=answer)
        return predict(batch, device)

    monkeypatch.setattr(evaluator, "predict", oracle)
    found = predict_all(evaluator, OneProcess(CPU), 4, 0)
    table = score_table(found.values, [items[i].scene for i in found.positions], "area")
    for name in ("cIoU@0.5 area", "AUC area", "AUC fixed", "source chosen", "cIoU@0.5 area, twins"):
        assert np.nanmean(table.samples[name]) == 1, name
    assert np.nanmean(table.samples["AUC top50"]) < 0.5  # half the picture is predicted, whatever the map
    assert {v for k, v in table.pooled.items() if k.startswith("false positives")} == {0.0}
    assert table.pooled["extended precision area"] == 1
    silent = score_table(found.values, [items[i].scene for i in found.positions], "area", "silence")
    assert np.nanmean(silent.samples["cIoU@0.5 area"]) < 0.2
    assert silent.pooled["false positives, foreign"] == pytest.approx(0.9)


def test_scores_do_not_depend_on_batches(world: Path, localizer: Path) -> None:
    items = with_foreign_sounds(annotated_items(read_manifest(str(world))[:5])[0], 0)
    evaluator = LocalizationEvaluator(load_mapper(str(localizer), device=CPU), items)
    one, many = (predict_all(evaluator, OneProcess(CPU), size, 0).values for size in (1, 4))
    for name in ("map", "confidence_own", "confidence_noise", "confidence_foreign", "chosen_own"):
        np.testing.assert_allclose(one[name], many[name], atol=1e-5)
    assert np.abs(one["confidence_own"] - one["confidence_foreign"]).max() > 1e-4


def test_foreign_sounds_are_of_other_classes_and_fixed(world: Path) -> None:
    items = annotated_items(read_manifest(str(world)))[0]
    drawn, again, other = (with_foreign_sounds(items, seed) for seed in (0, 0, 1))
    assert drawn == again
    assert drawn != other
    by_sound = {item.sound.id: item for item in items}
    for item in drawn:
        assert item.foreign is not None
        donor = by_sound[item.foreign.id]
        assert donor.heard
        assert not (donor.heard & item.heard)


def test_the_source_with_the_highest_mean_is_chosen() -> None:
    codes = torch.zeros(4, 4, 4, dtype=torch.uint8)
    codes[:, 0, :2] = 1  # silent
    codes[:, 2, :] = 2 + 128  # sounds
    scores = torch.zeros(4, 4, 4)
    scores[0, 2] = 0.5
    scores[1, 0, :2], scores[1, 2, 0] = 0.6, 1.0  # 0.6 against a mean of 0.25
    scores[2] = 0.3  # equal: half
    codes[3, 0] = 0
    chosen = sources_chosen(scores, codes)
    assert chosen[:3].tolist() == [1.0, 0.0, 0.5]
    assert chosen[3].isnan()


def test_twins_choose_by_sound_alone(world: Path) -> None:
    """What ignores the sound is right on half of the twins, exactly: each picture plays once from either side."""
    twins = [clip for clip in read_manifest(str(world)) if clip.split == "twins_test"][:4]
    items = with_foreign_sounds(annotated_items(twins)[0], 0)

    def bright(image: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(image.mean(dim=1, keepdim=True), 8).sigmoid()

    found = predict_all(LocalizationEvaluator(SoundMapper(bright, ENCODER, (), "x", 8), items), OneProcess(CPU), 4, 0)
    assert found.values["chosen_own"].mean() == 0.5


def test_centre_prior() -> None:
    prior = prior_map("centre", 4, 4)[0]
    assert torch.equal(prior, prior.flip(0))
    assert torch.equal(prior, prior.T)
    assert prior[1, 1] == prior.max()
    assert prior_map("centre", 101, 101)[0, 50, 25].item() == pytest.approx(0.5, abs=0.02)


def test_shifted_maps_by_a_slow_reference() -> None:
    torch.manual_seed(0)
    image, audio = torch.rand(2, 3, 8, 12), torch.zeros(2, 1, 1, 1)

    def maps(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x, 4)[:, :1]

    torch.testing.assert_close(shifted_maps(maps, image, audio, 4, 1), maps(image, audio))
    got = shifted_maps(maps, image, audio, 4, 2)
    assert got.shape == (2, 1, 4, 6)
    offsets = (-1, 1)
    wide = torch.nn.functional.pad(image, (4, 4, 4, 4), mode="replicate")[:, 0]
    pixels = torch.zeros(2, 8, 12)
    for y in range(8):
        for x in range(12):
            found = []
            for down in offsets:
                for right in offsets:
                    a, b = y - down, x - right
                    if 0 <= a < 8 and 0 <= b < 12:
                        top, left = 4 * (a // 4) + down + 4, 4 * (b // 4) + right + 4
                        found.append(wide[:, top : top + 4, left : left + 4].mean(dim=(1, 2)))
            pixels[:, y, x] = torch.stack(found).mean(dim=0)
    torch.testing.assert_close(got[:, 0], torch.nn.functional.avg_pool2d(pixels[:, None], 2)[:, 0])


def test_boxes_missing_clips_and_pairs(world: Path, localizer: Path, tmp_path: Path) -> None:
    clips = [clip for clip in read_manifest(str(world)) if clip.split == "localization"][:4]
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    clips.append(replace(clips[0], id="broken", path=str(tmp_path / "broken.mp4")))
    source = tmp_path / "clips.csv"
    write_manifest(str(source), clips)
    a, b, c, d = (clip.id for clip in clips[:4])
    (tmp_path / "b.csv").write_text(
        "id,label,x1,y1,x2,y2\n"
        f"{a},dog,0.25,0.25,0.75,0.75\n{b},cat,-2.9e16,0,0.5,1\n{c},dog,0.5,0.5,0.5,0.9\n"
        "absent,cat,0,0,1,1\nbroken,cat,0,0,1,1\n"
    )
    (tmp_path / "pairs.csv").write_text(f"video,audio,label\n{a},{d},non-sounding\n{a},gone,non-sounding\n")
    settings = {"boxes": str(tmp_path / "b.csv"), "pairs": str(tmp_path / "pairs.csv")}
    result = evaluate(config(localizer, source, tmp_path / "out", **settings))
    assert result is not None
    assert result.record.details["headline"] == "top50"
    assert result.record.coverage.missing == ("absent", f"{a}+gone")
    assert list(result.record.coverage.failed) == ["broken"]
    assert result.record.coverage.num_official == 7
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["num_scored"] == 2
    assert content["left_out"]["boxes cover no pixel"] == 1
    assert content["without_truth"] == [c]
    assert content["scenes"] == {"boxes": 2, "non-sounding pairs": 1}
    # The whole picture against a quarter and a half of it, 0.25 and 0.5 exactly.
    whole = result.record.baselines[WHOLE]
    assert (whole["cIoU@0.3 top50"].score.value, whole["cIoU@0.5 top50"].score.value) == (0.5, 0.5)
    assert "extended AP top50" in result.record.scores
    assert "false positives, non-sounding pairs" in result.record.scores


def test_one_map_per_class_is_scored_by_class(world: Path, tmp_path: Path) -> None:
    clips = [clip for clip in read_manifest(str(world)) if clip.split == "duets"][:4]
    classes = sorted({s.class_name for clip in clips for s in read_annotation(clip.path).sources if s.class_name})
    torch.manual_seed(0)
    Localizer(LocalizerConfig(encoder=ENCODER, dim=16, classes=tuple(classes))).save_pretrained(tmp_path / "model")
    result = evaluate(config(tmp_path / "model", world, tmp_path / "out", split="duets"))
    assert result is not None
    assert {"CIoU@0.3 classes", "AUC classes", "PIAP", "CAP"} <= set(result.record.scores)
    assert 0 < result.record.scores["PIAP"].value < 1


def test_without_truth_there_are_pictures_and_videos(world: Path, localizer: Path, tmp_path: Path) -> None:
    settings = {"truth": False, "overlay": 2, "shifts": 2, "split": "duets"}
    result = evaluate(config(localizer, world, tmp_path / "out", **settings))
    assert result is not None
    show(result, quiet())
    assert result.record.scores == {}
    assert not (tmp_path / "out" / "results.json").exists()
    assert (tmp_path / "out" / "sheet.png").is_file()
    assert len(result.record.videos) == 2
    with av.open(str(result.out / result.record.videos[0])) as video:
        assert {stream.type for stream in video.streams} == {"video", "audio"}
        assert sum(1 for _ in video.decode(video=0)) == 20
    bare = replace(read_manifest(str(world))[0], path=str(tmp_path / "x.mp4"))
    write_manifest(str(tmp_path / "bare.csv"), [bare])
    with pytest.raises(ValueError, match="no annotation beside the clip; give --boxes, or --truth false"):
        evaluate(config(localizer, tmp_path / "bare.csv", tmp_path / "out"))


def test_methods_and_folders(world: Path, localizer: Path, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder")
    separate = write_encoder(tmp_path / "separate", replace(ENCODER, fusion_layers="none"))
    Bundle.save(tmp_path / "bundle", {"localization": localizer})
    runs = (localizer, tmp_path / "bundle", encoder, separate)
    names = [load_mapper(str(run), device=CPU).name for run in runs]
    assert names == ["head", "head", "rise of layer 1", "audio_cosine of layer 1"]
    assert load_mapper(f"untrained:{encoder}", "attention", device=CPU).name == "attention of layer 1, untrained"
    for run, settings, message in (
        (encoder, {"method": "head"}, "has no trained head"),
        (separate, {"method": "attention"}, r"layers \[1\] do not fuse"),
        (encoder, {"shifts": 3}, "shifts 3 must divide the patch side 8"),
    ):
        with pytest.raises(ValueError, match=message):
            load_mapper(str(run), device=CPU, **settings)  # type: ignore[arg-type]
    same = [load_mapper(f"untrained:{encoder}", device=CPU, seed=seed) for seed in (0, 0, 1)]
    image, audio = torch.randn(1, 3, 32, 32), torch.randn(1, 1, 32, 128)
    with torch.no_grad():
        maps = [mapper(image, audio) for mapper in same]
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])
    plain = EvaluateLocalizationConfig(str(encoder), EvaluationData(str(world)), method="attention", layers=(0, 1))
    duets = replace(plain, data=EvaluationData(str(world), split="duets"))
    folder = results_folder(duets, LocalizationEvaluation(duets, OneProcess(CPU)))
    assert folder == encoder / "evaluation" / "localization-manifest-duets-attention-0_1"


def test_a_clip_without_sound_fails_where_something_should_sound(world: Path) -> None:
    items = annotated_items([c for c in read_manifest(str(world)) if c.split in ("listening", "duets")])[0]
    item = next(item for item in items if item.scene.startswith("duet"))
    samples = ItemSet([item, Item("other", item.picture, items[-1].sound, "x", frozenset())], CentreView((32, 32), 2.0))
    other = samples[2]
    assert other.failure is None
    assert not np.array_equal(other.waveform, samples[0].waveform)
    assert np.array_equal(other.image, samples[0].image) or other.image_present  # without truth the frame is free
    evaluator = LocalizationEvaluator(
        SoundMapper(lambda i, a: torch.zeros(len(i), 1, 4, 4), ENCODER, (), "x", 8), [item]
    )
    batch = collate([replace(samples[0], audio_present=False), samples[1]])
    assert evaluator.predict(batch, CPU).failed == {0: "no sound"}
