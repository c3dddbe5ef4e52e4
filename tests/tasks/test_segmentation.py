"""Training segmenters: it learns, it learns to listen, what it trains on, and every source of masks."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deepavfusion.arguments import parse_arguments
from deepavfusion.data.clips import ClipError, find_clips, write_manifest
from deepavfusion.data.framed_clips import read_framed_clips, write_framed_clips
from deepavfusion.data.loading import StepSampler
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.data.scenes.annotation import read_annotation
from deepavfusion.data.scenes.sounding_masks import SoundingLooks, SoundingMasks, sounding_looks
from deepavfusion.models import EarlyFusionEncoder, Segmenter
from deepavfusion.models.token_norm import TokenNorm
from deepavfusion.tasks import encoder_task
from deepavfusion.tasks.segmentation import Segmentation, read_classes
from deepavfusion.tasks.segmentation_config import ListeningConfig, SegmentationConfig
from deepavfusion.training.loop import fit
from tests.data.test_framed import write_table
from tests.tasks.segmentation_runs import make, quiet, write_encoder, write_world

CPU = torch.device("cpu")
NAMES = ("image", "audio", "image_present", "audio_present")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"), 12, "segmentation_train", "segmentation_test")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def first_inputs(task: Segmentation, count: int = 6) -> dict:
    with task.loader(StepSampler(count, 1, 1, 0, 0, 1), 0, CPU) as loader:
        return task.inputs(next(iter(loader)))


def optimize(model: Segmenter, task: Segmentation, inputs: dict, steps: int) -> None:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=6e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.stack(list(task.loss_terms(model, inputs).values())).sum().backward()
        optimizer.step()


def test_one_batch_is_overfitted_and_silence_empties_the_masks(world: Path, encoder: Path, tmp_path: Path) -> None:
    settings = {"listening": ListeningConfig(0.0)}
    task = Segmentation(make(world / "segmentation_train.csv", encoder, tmp_path, **settings))
    assert task.kind == "segmentation"
    torch.manual_seed(0)
    model, inputs = task.build_model(), first_inputs(task, 4)
    silent = {**inputs, "audio": torch.full_like(inputs["audio"], -7.0), "truth": torch.zeros_like(inputs["truth"])}
    both = {name: torch.cat([inputs[name], silent[name]]) for name in (*NAMES, "truth")}
    optimize(model, task, both, 90)
    with torch.no_grad():
        own, unheard = (model(*(part[name] for name in NAMES))[:, 0] > 0 for part in (inputs, silent))
    truth = inputs["truth"] > 0
    assert truth.any()
    assert ((own & truth).sum() / (own | truth).sum()).item() > 0.8
    assert unheard.sum().item() < 0.05 * own.sum().item()


def test_a_run_begins_with_the_scale_of_the_tokens(world: Path, encoder: Path, tmp_path: Path) -> None:
    # Measured on the first training samples, whatever the step's size, and not drawn from the run's chance.
    found = []
    for number, changes in enumerate(({}, {"training": {"batch_size": 8, "accumulation": 2}})):
        task = Segmentation(make(world / "segmentation_train.csv", encoder, tmp_path / str(number), **changes))
        torch.manual_seed(3)
        model = task.build_model()
        task.load_weights(model.encoder)
        before = torch.random.get_rng_state()
        task.measure_tokens(model)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert model.training
        found.append({name: m for name, m in model.named_modules() if isinstance(m, TokenNorm)})
    assert len(found[0]) == 2 + 2  # maps of two layers, audio and fusion tokens
    for name, norm in found[0].items():
        assert not torch.equal(norm.deviation, torch.ones_like(norm.deviation)), name
        torch.testing.assert_close(norm.mean, found[1][name].mean, atol=1e-4, rtol=0)
        torch.testing.assert_close(norm.deviation, found[1][name].deviation, atol=1e-4, rtol=1e-3)


class Share:
    """One of several processes: the shares of those before it are known, its own is kept and ends it."""

    def __init__(self, rank: int, count: int, shares: list[Any]) -> None:
        self.rank, self.count, self.device, self.shares = rank, count, CPU, shares

    def gather(self, value: Any) -> list[Any]:
        self.shares.append(value)
        if len(self.shares) < self.count:
            raise InterruptedError
        return self.shares


@pytest.mark.parametrize("batch_size", [1024, *(pytest.param(size, marks=pytest.mark.slow) for size in (96, 4))])
def test_the_scale_is_that_of_128_samples_for_any_batch_and_any_number_of_processes(
    batch_size: int, world: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_task, "NUM_MEASURED", 128)  # as outside of tests
    task = Segmentation(
        make(world / "segmentation_train.csv", encoder, tmp_path / "run", training={"batch_size": batch_size})
    )
    torch.manual_seed(3)
    model = task.build_model()
    task.load_weights(model.encoder)
    first = {name: buffer.clone() for name, buffer in model.named_buffers()}
    read: list[list[int]] = []
    inputs = task.inputs
    task.inputs = lambda batch: read.append(batch.sample_numbers) or inputs(batch)  # type: ignore[method-assign]
    task.measure_tokens(model)
    assert sorted(number for batch in read for number in batch) == list(range(128))
    assert max(len(batch) for batch in read) <= 32
    alone = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert any(not torch.equal(buffer, first[name]) for name, buffer in alone.items())
    for count in (3, 8):
        model.load_state_dict(first, strict=False)
        read.clear()
        shares: list[Any] = []
        most = 0
        for rank in range(count):
            before = len(read)
            with contextlib.suppress(InterruptedError):
                task.measure_tokens(model, Share(rank, count, shares))
            most = max(most, len(read) - before)
        assert most == -(-len(read) // count)  # evenly
        assert sorted(number for batch in read for number in batch) == list(range(128))  # each once over all
        for name, buffer in model.named_buffers():
            assert torch.equal(buffer, alone[name]), (count, name)


@pytest.mark.parametrize("form", ["attentive", pytest.param("release", marks=pytest.mark.slow)])
def test_runs_end_with_a_model_probes_and_pictures(form: str, world: Path, encoder: Path, tmp_path: Path) -> None:
    config = make(world / "manifest.csv", encoder, tmp_path / "run", decoder={"form": form})
    task = Segmentation(config)
    assert "(split segmentation_train, " in task.summary
    assert {clip.split for clip in task.clips} == {"segmentation_train"}
    result = fit(task, config, quiet())
    assert result.status == "finished"
    assert np.isfinite(result.metrics["loss_cross_entropy"] + result.metrics["loss_dice"])
    model = Segmenter.from_pretrained(tmp_path / "run" / "model")
    before = EarlyFusionEncoder.from_pretrained(encoder).state_dict()
    changed = [name for name, p in model.encoder.named_parameters() if not torch.equal(p, before[name])]
    assert "image.patch_embed.proj.weight" in changed
    (picture,) = (tmp_path / "run" / "pictures").glob("masks_*.png")
    assert Image.open(picture).size[0] > 300
    header = (tmp_path / "run" / "probes.csv").read_text().splitlines()[0]
    assert header.startswith("step,miou,num_pictures")


def test_a_frozen_encoder_and_a_deaf_model(world: Path, encoder: Path, tmp_path: Path) -> None:
    config = make(world / "segmentation_train.csv", encoder, tmp_path / "run", recipe="frozen")
    fit(Segmentation(config), config, quiet())
    model = Segmenter.from_pretrained(tmp_path / "run" / "model")
    for name, value in EarlyFusionEncoder.from_pretrained(encoder).state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], value), name
    deaf = make(world / "segmentation_train.csv", encoder, tmp_path / "deaf", modalities="image")
    assert deaf.replacements == {}
    changed = replace(deaf, listening=ListeningConfig(0.5))
    assert changed.without_effect() == ["--listening has no effect with --modalities image"]
    task = Segmentation(deaf)
    built = task.build_model()
    built(*(first_inputs(task)[name] for name in NAMES)).sum().backward()
    assert {n for n, p in built.named_parameters() if p.requires_grad and p.grad is None} == set()


def test_counts_and_means_agree_over_parts_of_a_batch(world: Path, encoder: Path, tmp_path: Path) -> None:
    rows = list(find_clips(str(world / "segmentation_train.csv")))
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    rows[0] = replace(rows[0], path=str(tmp_path / "broken.mp4"))
    write_manifest(str(tmp_path / "clips.csv"), rows)
    task = Segmentation(make(tmp_path / "clips.csv", encoder, tmp_path / "run"))
    model, totals, sums = (
        task.build_model().eval(),
        {"cross_entropy": 0, "dice": 0},
        {"cross_entropy": 0.0, "dice": 0.0},
    )
    counts = {}
    for size in (len(rows), 2):
        with task.loader(StepSampler(size, 1, 1, 0, 0, len(rows) // size), 0, CPU) as loader:
            for batch in loader:
                counts = task.counts(batch)
                terms = task.loss_terms(model, task.inputs(batch))
                for name in totals:
                    totals[name] += counts[name]
                    sums[name] += terms[name].item() * counts[name]
        if size == len(rows):
            whole, totals, sums = (dict(totals), dict(sums)), dict.fromkeys(totals, 0), dict.fromkeys(sums, 0.0)
    assert (totals, pytest.approx(whole[1], rel=1e-4)) == (whole[0], sums)
    assert totals["cross_entropy"] == len(rows) - 1
    assert 0 < totals["dice"] < totals["cross_entropy"]  # in some nothing sounds


def test_looks_are_the_classes_of_a_world(world: Path, encoder: Path, tmp_path: Path) -> None:
    clips = find_clips(str(world / "segmentation_train.csv"))
    classes = sounding_looks(clips)
    assert classes[0] == "background"
    for clip in clips:
        truth = read_annotation(clip.path)
        number = truth.nearest_annotated(1.0)
        moment = truth.annotated_frames[number] / truth.frame_rate
        binary, semantic = (t.read(clip, moment, 0, 2) for t in (SoundingMasks(), SoundingLooks(classes)))
        assert np.array_equal(binary > 0, semantic > 0)
        seen = {s.look for s in truth.sources if s.visible and s.audible and s.boxes and s.boxes[number]}
        assert {classes[i] for i in np.unique(semantic) if i} <= seen
    sounding = next(c for c in clips if any(s.visible and s.audible for s in read_annotation(c.path).sources))
    with pytest.raises(ClipError, match="is not among background, harp"):
        SoundingLooks(("background", "harp")).read(sounding, 1.0, 0, 2)
    task = Segmentation(make(world / "manifest.csv", encoder, tmp_path / "run", classes="looks"))
    assert task.model_config.classes == classes
    model, inputs = task.build_model(), first_inputs(task, 3)
    assert model(*(inputs[name] for name in NAMES)).shape == (3, len(classes), 32, 32)
    assert all(term.isfinite() for term in task.loss_terms(model, inputs).values())
    assert task.probe(model.eval(), CPU).keys() == {"miou", "num_pictures", "mask_left_in_silence"}


def test_tables_of_pictures_train_on_what_is_labelled(encoder: Path, tmp_path: Path) -> None:
    (video,) = read_framed_clips(write_table(tmp_path, 5))
    first_only = replace(video, split="train", masks=(video.masks[0], None, None, None, None))
    write_framed_clips(str(tmp_path / "s4.csv"), [first_only, replace(video, id="b", split="val")])
    config = make(tmp_path / "s4.csv", encoder, tmp_path / "run", optim={"epochs": 4}, training={"batch_size": 1})
    task = Segmentation(config)
    assert [clip.id for clip in task.clips] == ["a#0"]
    assert "1 pictures of" in task.summary
    assert "4 without mask" in task.summary
    assert fit(task, config, quiet()).num_failures == 0
    unlabelled = replace(first_only, masks=(None,) * 5)
    write_framed_clips(str(tmp_path / "none.csv"), [unlabelled])
    with pytest.raises(ValueError, match="none of 5 frames of split train has a mask"):
        Segmentation(make(tmp_path / "none.csv", encoder, tmp_path / "run"))


def test_other_picture_sizes_start_from_the_same_encoder(world: Path, encoder: Path, tmp_path: Path) -> None:
    task = Segmentation(make(world / "segmentation_train.csv", encoder, tmp_path, image_size=(64, 48)))
    model, told = task.build_model(), []
    task.load_published(model, told.append)
    assert told[0].startswith("encoder from ")
    assert model.config.positions_grid == (4, 4)
    assert first_inputs(task, 2)["image"].shape == (2, 3, 64, 48)
    source = EarlyFusionEncoder.from_pretrained(encoder)
    assert torch.equal(model.encoder.image.blocks[1].mlp.fc2.weight, source.image.blocks[1].mlp.fc2.weight)
    with pytest.raises(ValueError, match=r"image_size \[60, 48\] must be two positive multiples of patch_size 8"):
        Segmentation(make(world / "segmentation_train.csv", encoder, tmp_path, image_size=(60, 48)))


def test_sources_without_masks_are_refused_by_name(world: Path, encoder: Path, tmp_path: Path) -> None:
    write_sample_clips(tmp_path / "clips", 4, duration_seconds=1.0, size=32)
    with pytest.raises(ValueError, match="no annotation beside the clip; segmentation needs a table of frames"):
        Segmentation(make(tmp_path / "clips", encoder, tmp_path))
    with pytest.raises(ValueError, match=r"split val: .* has segmentation_train; choose by --split"):
        Segmentation(make(world / "segmentation_train.csv", encoder, tmp_path, split="val"))
    solos = [replace(clip, split="other") for clip in find_clips(str(world / "segmentation_train.csv"))]
    write_manifest(str(tmp_path / "other.csv"), solos)
    with pytest.raises(ValueError, match=r"split auto: .* has other; choose by --split"):
        Segmentation(make(tmp_path / "other.csv", encoder, tmp_path))
    assert len(Segmentation(make(tmp_path / "other.csv", encoder, tmp_path, split="other")).clips) == len(solos)


def test_class_lists(tmp_path: Path) -> None:
    assert len(read_classes("avss", [])) == 71
    (tmp_path / "own.txt").write_text("background\ndog\ncat\n")
    assert read_classes(str(tmp_path / "own.txt"), []) == ("background", "dog", "cat")
    (tmp_path / "label2idx.json").write_text('{"dog": 2, "background": 1}')
    assert read_classes(str(tmp_path / "label2idx.json"), []) == ("background", "dog")
    (tmp_path / "own.txt").write_text("dog\ncat\n")
    for place, message in (("own.txt", "must begin with background"), ("no.txt", "no such file; give looks, avss")):
        with pytest.raises(ValueError, match=message):
            read_classes(str(tmp_path / place), [])


def test_settings_read_from_the_command_line() -> None:
    words = ["--from", "runs/a", "--run_dir", "r", "--data.source", "x.csv", "--listening.silent_share", "0.3"]
    config = parse_arguments(SegmentationConfig, [*words, "--decoder.form", "release", "--image_size", "[96,64]"])
    assert (config.optim.blr, config.optim.epochs, config.training.batch_size) == (2e-4, 100, 512)
    assert (config.decoder.form, config.image_size) == ("release", (96, 64))
    assert config.replacements == {"silent": 0.3, "noise": 0.0, "foreign": 0.0}
    assert parse_arguments(SegmentationConfig, [*words, "--recipe", "frozen"]).optim.epochs == 60
    with pytest.raises(ValueError, match="together they must not exceed 1"):
        ListeningConfig(0.5, 0.3, 0.4)


@pytest.mark.slow
def test_digits_have_the_same_masks(shared: Path, encoder: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "digits"
    if not folder.is_dir():
        pytest.skip("needs the digits beside the checkout (../shared/data/digits)")
    from deepavfusion.bandstand.config import BandstandConfig
    from deepavfusion.bandstand.generation import generate

    generate(
        BandstandConfig(
            str(tmp_path / "digits"),
            clips=6,
            cast="digits",
            splits=("train",),
            digit_images=str(folder),
            digit_recordings=str(folder / "fsdd_flac.zip"),
            sheets=False,
            num_workers=0,
        )
    )
    task = Segmentation(make(tmp_path / "digits" / "train.csv", encoder, tmp_path, classes="looks"))
    assert set(task.model_config.classes[1:]) <= set("0123456789")
    truth = first_inputs(task)["truth"]
    assert truth.any()
    assert Image.fromarray(truth[0].numpy()).size == (32, 32)


def test_a_picture_that_cannot_be_read_is_named_among_the_drawn(world: Path, encoder: Path, tmp_path: Path) -> None:
    found = find_clips(str(world / "segmentation_train.csv"))[:3]
    annotation = Path(f"{found[1].path}").with_suffix(".json")
    broken = replace(found[1], id="broken", path=str(tmp_path / Path(found[1].path).name))
    Path(broken.path).write_bytes(b"no film")
    Path(broken.path).with_suffix(".json").write_bytes(annotation.read_bytes())
    write_manifest(str(tmp_path / "clips.csv"), [found[0], broken, found[2]])
    task = Segmentation(make(tmp_path / "clips.csv", encoder, tmp_path, split="segmentation_train"))
    figure = task.pictures(task.build_model().eval(), CPU)["masks"]
    names = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert len(names) == 3
    assert [name for name in names if name.startswith("could not be read")] == ["could not be read\nbroken"]
