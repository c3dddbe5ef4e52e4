"""Masked pre-training on real little clips."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml  # type: ignore[import-untyped]
from rich.console import Console

from deepavfusion.configuration import DataConfig, OptimConfig, TrainingConfig
from deepavfusion.data.clips import Clip, write_manifest
from deepavfusion.data.loading import StepSampler
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.models import AudioVisualMAE, EarlyFusionConfig, EarlyFusionEncoder
from deepavfusion.models.config import AlignmentConfig, MaskedDecodingConfig
from deepavfusion.models.patch_embed import patchify
from deepavfusion.tasks.pretraining import ALIGNED, MaskedPretraining, denormalize_patches, paste, probe_clips
from deepavfusion.tasks.pretraining_config import InitConfig, PretrainConfig
from deepavfusion.training import checkpoints
from deepavfusion.training.loop import fit
from deepavfusion.training.run_folder import compare_configs
from tests.tasks.stopped_runs import stop_in_step_three

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_sample_clips(folder, 6, duration_seconds=1.0, size=64)
    return folder


def make(clips: Path, run_dir: Path, workers: int = 0, **training: object) -> PretrainConfig:
    settings = {"batch_size": 4, "log_every": 1, "checkpoint_every": 100, **training}
    return PretrainConfig(
        run_dir=str(run_dir),
        data=DataConfig(source=str(clips), num_workers=workers),
        model=EarlyFusionConfig(
            image_size=(32, 48),
            audio_size=(32, 32),
            patch_size=8,
            embed_dim=16,
            depth=2,
            num_heads=2,
            num_tokens=(2, 2, 2),
            drop_path=0.1,
        ),
        autoencoder=MaskedDecodingConfig(
            decoder_dim=16, image_decoder_depth=1, audio_decoder_depth=1, decoder_num_heads=2
        ),
        optim=OptimConfig(epochs=4, warmup_epochs=1, blr=0.1),
        training=TrainingConfig(**settings),  # type: ignore[arg-type]
    )


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_whole_run_stopped_and_continued_equals_one_never_stopped(clips: Path, tmp_path: Path) -> None:
    whole = make(clips, tmp_path / "whole")
    result = fit(MaskedPretraining(whole), whole, quiet())
    assert (result.status, result.step, result.num_failures) == ("finished", 6, 0)

    parts = make(clips, tmp_path / "parts", workers=2)
    task = MaskedPretraining(parts)
    stop_in_step_three(task)
    assert fit(task, parts, quiet()).status == "preempted"
    fit(MaskedPretraining(replace(parts, data=replace(parts.data, num_workers=0))), parts, quiet())

    a, b = (checkpoints.load(tmp_path / name / "checkpoints" / "step_00000006.pt") for name in ("whole", "parts"))
    for name in a["model"]:
        assert torch.equal(a["model"][name], b["model"][name]), name
    encoder = EarlyFusionEncoder.from_pretrained(tmp_path / "parts" / "model")
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, a["model"][f"encoder.{name}"])
    pictures = {p.name for p in (tmp_path / "whole" / "pictures").iterdir()}
    assert pictures == {"reconstruction_00000006.png", "learning_curve.png"}
    same = [(tmp_path / run / "pictures" / "reconstruction_00000006.png").read_bytes() for run in ("whole", "parts")]
    assert same[0] == same[1]


def test_a_run_with_the_cross_decoder_predicts_a_share_and_draws_all(clips: Path, tmp_path: Path) -> None:
    config = make(clips, tmp_path / "run")
    config = replace(config, autoencoder=replace(config.autoencoder, decoder_form="cross", predicted_share=0.5))
    assert fit(MaskedPretraining(config), config, quiet()).status == "finished"
    assert (tmp_path / "run" / "pictures" / "reconstruction_00000006.png").is_file()
    record = checkpoints.load(tmp_path / "run" / "checkpoints" / "step_00000006.pt")
    assert record["model_config"]["decoder_form"] == "cross"


def aligned(config: PretrainConfig, reconstruction: float = 1.0) -> PretrainConfig:
    """The same with alignment of two moments."""
    return replace(
        config,
        alignment=AlignmentConfig(weight=0.5, dim=4, hidden_dim=8),
        autoencoder=replace(config.autoencoder, weight=reconstruction),
        data=replace(config.data, colour=0.4, noise=0.01),
    )


def test_a_run_with_alignment_is_continued_bit_by_bit_and_keeps_its_joint_space(clips: Path, tmp_path: Path) -> None:
    whole = aligned(make(clips, tmp_path / "whole"))
    assert fit(MaskedPretraining(whole), whole, quiet()).status == "finished"
    parts = aligned(make(clips, tmp_path / "parts", workers=2))
    task = MaskedPretraining(parts)
    stop_in_step_three(task)
    assert fit(task, parts, quiet()).status == "preempted"
    fit(MaskedPretraining(parts), parts, quiet())
    a, b = (checkpoints.load(tmp_path / name / "checkpoints" / "step_00000006.pt") for name in ("whole", "parts"))
    assert "alignment.alone.image.before.mean" in a["model"]
    for name in a["model"]:
        assert torch.equal(a["model"][name], b["model"][name]), name
    with open(tmp_path / "whole" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    terms = ("loss_image", "loss_audio", "loss_aligned_image", "loss_aligned_audio", "loss_aligned_pair")
    for row in rows:
        assert float(row["loss"]) == pytest.approx(sum(float(row[name]) for name in terms), rel=1e-5)
        assert all(float(row[name]) > 0 for name in terms)
    model = AudioVisualMAE.from_pretrained(tmp_path / "whole" / "model")
    assert model.alignment is not None


def test_a_run_of_alignment_alone_has_no_decoders(clips: Path, tmp_path: Path) -> None:
    config = aligned(make(clips, tmp_path / "run"), reconstruction=0.0)
    fit(MaskedPretraining(config), config, quiet())
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        assert not {"loss_image", "loss_audio"} & set(next(csv.DictReader(file)))
    assert {p.name for p in (tmp_path / "run" / "pictures").iterdir()} == {"learning_curve.png"}
    torch.manual_seed(config.training.seed)
    start, end = MaskedPretraining(config).build_model(), AudioVisualMAE.from_pretrained(tmp_path / "run" / "model")
    assert not [name for name in end.state_dict() if "decoder" in name]
    assert not torch.equal(end.encoder.fusion_tokens, start.encoder.fusion_tokens)
    idle = replace(config, autoencoder=replace(config.autoencoder, decoder_form="cross")).without_effect()
    assert "--autoencoder.decoder_form has no effect with --autoencoder.weight 0" in idle
    plain = make(clips, tmp_path)
    idle = replace(plain, alignment=AlignmentConfig(dim=8)).without_effect()
    assert idle == ["--alignment.dim has no effect without --alignment.weight"]


@pytest.mark.slow
def test_alignment_over_two_processes_compares_all_clips_of_the_step(clips: Path, tmp_path: Path) -> None:
    config = aligned(make(clips, tmp_path / "one"))
    config = replace(config, model=replace(config.model, drop_path=0.0))  # each process drops paths of its own
    fit(MaskedPretraining(config), config, quiet())
    two = replace(config, run_dir=str(tmp_path / "two"))
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(two.to_dict()))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "deepavfusion", "pretrain", "--config", str(tmp_path / "two.yaml"), "--training.device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    losses = []
    for name in ("one", "two"):
        with open(tmp_path / name / "metrics.csv", newline="") as file:
            losses.append([[float(row[f"loss_aligned_{term}"]) for term in ALIGNED] for row in csv.DictReader(file)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)  # after six updates too


def test_a_run_of_a_version_without_a_choice_of_decoders_is_continued(clips: Path, tmp_path: Path) -> None:
    config = make(clips, tmp_path)
    old = config.to_dict()
    del old["autoencoder"]["decoder_form"], old["autoencoder"]["predicted_share"], old["autoencoder"]["weight"]
    del old["alignment"], old["data"]["colour"], old["data"]["noise"]
    assert compare_configs(old, config.to_dict()) == []
    cross = replace(config, autoencoder=replace(config.autoencoder, decoder_form="cross"))
    assert compare_configs(old, cross.to_dict()) == ["--autoencoder.decoder_form was self, is cross"]


def test_one_batch_is_overfitted(clips: Path, tmp_path: Path) -> None:
    config = make(clips, tmp_path)
    config = replace(config, model=replace(config.model, drop_path=0.0, embed_dim=32))
    task = MaskedPretraining(config)
    torch.manual_seed(0)
    model = task.build_model()
    inputs = task.inputs(next(iter(task.loader(StepSampler(4, 1, 1, 0, 0, 1), 0, CPU))))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(110):
        terms = task.loss_terms(model, inputs)
        loss = terms["image"] + terms["audio"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append([float(terms["image"].detach()), float(terms["audio"].detach())])
    assert losses[-1][0] < 0.2 * losses[0][0]
    assert losses[-1][1] < 0.2 * losses[0][1]


def test_inputs_are_what_the_model_was_promised(clips: Path, tmp_path: Path) -> None:
    task = MaskedPretraining(make(clips, tmp_path))
    batch = next(iter(task.loader(StepSampler(4, 1, 1, 0, 0, 1), 0, CPU)))
    inputs = task.inputs(batch)
    assert inputs["image"].shape == (4, 3, 32, 48)
    assert inputs["audio"].shape == (4, 1, 32, 32)
    assert inputs["image_noise"].shape == (4, 24)
    red = inputs["image"][0, 0] * 0.229 + 0.485
    torch.testing.assert_close(red, batch.image[0, 0] / 255)
    assert task.counts(batch) == {"image": 4, "audio": 4}


def test_hidden_patches_come_back_from_their_own_statistics() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 24) * 5 + 2
    mask = torch.zeros(2, 6)
    mask[0, [1, 4]] = mask[1, [0, 5]] = 1
    target = patchify(x, 8)[mask.bool()].view(2, 2, -1)
    normalised = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    restored = denormalize_patches(normalised, x, mask, 8)
    torch.testing.assert_close(restored, target)
    torch.testing.assert_close(paste(x, restored, mask, 8, (2, 3)), x)
    erased = paste(x, torch.zeros_like(restored), mask, 8, (2, 3))
    assert torch.equal(erased[0, :, :8, 8:16], torch.zeros(3, 8, 8))  # patch 1 of the first
    assert torch.equal(erased[0, :, :8, :8], x[0, :, :8, :8])


def test_held_out_splits_are_not_trained_on(clips: Path, tmp_path: Path) -> None:
    paths = sorted(clips.rglob("*.mp4"))
    splits = ["train", "test", None, "Validation", "train", "val"]
    rows = [Clip(f"c{i}", str(p), split=s) for i, (p, s) in enumerate(zip(paths, splits, strict=True))]
    write_manifest(str(tmp_path / "clips.csv"), rows)
    task = MaskedPretraining(make(tmp_path / "clips.csv", tmp_path / "run"))
    assert [clip.id for clip in task.clips] == ["c0", "c2", "c4"]
    write_manifest(str(tmp_path / "test.csv"), [replace(row, split="test") for row in rows])
    with pytest.raises(ValueError, match=r"all 6 clips belong to a held-out split \(test\)"):
        MaskedPretraining(make(tmp_path / "test.csv", tmp_path / "run"))


def test_pictures_hide_what_the_masks_hide_and_never_change(clips: Path, tmp_path: Path) -> None:
    task = MaskedPretraining(make(clips, tmp_path))
    model = task.build_model().eval()
    with torch.no_grad():
        first, second = (task.pictures(model, CPU)["reconstruction"] for _ in range(2))
    images = [axis.images[0].get_array() for axis in first.axes if axis.images]
    for a, b in zip(images, (axis.images[0].get_array() for axis in second.axes if axis.images), strict=True):
        np.testing.assert_array_equal(a, b)
    masked, target = images[0], images[2]
    visible = ~np.isclose(masked, 0.5).all(axis=-1)
    assert visible.mean() == pytest.approx(0.25)  # 6 of 24 patches
    np.testing.assert_allclose(masked[visible], target[visible], atol=1e-6)


def test_ramp_covers_the_vit_that_starts_from_published_weights(clips: Path, tmp_path: Path) -> None:
    config = make(clips, tmp_path)
    task = MaskedPretraining(replace(config, init=InitConfig(audio="audiomae.pth")))
    model = task.build_model()
    ramped = task.ramped(model)
    assert ramped == {name for name, _ in model.named_parameters() if name.startswith("encoder.audio.")}
    assert MaskedPretraining(config).ramped(model) == set()
    with pytest.raises(ValueError, match=r"audiomae\.pth: no such weight file"):
        task.load_published(model, lambda message: None)


def test_two_separate_encoders_start_one_that_fuses(clips: Path, tmp_path: Path) -> None:
    config, told = make(clips, tmp_path), []
    apart = EarlyFusionEncoder(replace(config.model, fusion_layers="none"))
    apart.save_pretrained(tmp_path / "apart")
    task = MaskedPretraining(replace(config, init=InitConfig(encoder=str(tmp_path / "apart"))))
    model = task.build_model()
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    task.load_published(model, told.append)
    state, vits = model.encoder.state_dict(), apart.state_dict()
    for name, value in state.items():
        assert torch.equal(value, vits[name] if name.startswith(("image.", "audio.")) else before[name]), name
    assert told[0].endswith("tensors of two ViTs loaded; fusion starts at random")

    model.encoder.save_pretrained(tmp_path / "fused")
    onward = replace(config, init=InitConfig(encoder=str(tmp_path / "fused")))
    again = MaskedPretraining(onward).build_model()
    MaskedPretraining(onward).load_published(again, told.append)
    assert all(torch.equal(value, state[name]) for name, value in again.encoder.state_dict().items())
    assert told[1].endswith(f"{len(state)} tensors loaded")

    larger = replace(onward, model=replace(config.model, embed_dim=32))
    with pytest.raises(ValueError, match=r"fused.* wrong shape .*\[1, 6, 16\] instead of \[1, 6, 32\]"):
        MaskedPretraining(larger).load_published(MaskedPretraining(larger).build_model(), told.append)
    with pytest.raises(ValueError, match=r"init\.encoder brings both ViTs: leave out --init\.image and --init\.audio"):
        replace(config, init=InitConfig(encoder="runs/a", image="mae.pth"))


def test_probe_scores_every_stream_on_the_held_out_clips(clips: Path, tmp_path: Path) -> None:
    paths = sorted(clips.rglob("*.mp4"))
    rows = [Clip(f"c{i}", str(p), label="ab"[i % 2], split="test" if i > 1 else None) for i, p in enumerate(paths)]
    write_manifest(str(tmp_path / "clips.csv"), rows)
    task = MaskedPretraining(make(tmp_path / "clips.csv", tmp_path / "run"))
    model = task.build_model().eval()
    with torch.no_grad():
        scores = task.probe(model, CPU)
        assert task.probe(model, CPU) == scores
    worth = {"worth_image", "worth_audio"}
    assert set(scores) == {*worth, "top1_fusion", "top1_audio", "top1_image", "top1_all", "num_clips"}
    assert scores["num_clips"] == 4
    assert all(scores[name] in (0.0, 0.25, 0.5, 0.75, 1.0) for name in scores if name.startswith("top1"))
    assert all(scores[name] != 0 for name in worth)


def test_what_the_other_sense_is_worth_needs_no_labels_but_clips_with_both(clips: Path, tmp_path: Path) -> None:
    write_manifest(str(tmp_path / "all.csv"), [Clip(p.stem, str(p)) for p in sorted(clips.rglob("*.mp4"))])
    config = make(tmp_path / "all.csv", tmp_path / "run")
    task = MaskedPretraining(config)
    model = task.build_model().eval()
    with torch.no_grad():
        assert set(task.probe(model, CPU)) == {"worth_image", "worth_audio"}
        apart = MaskedPretraining(replace(config, model=replace(config.model, fusion_layers="none")))
        assert apart.probe(apart.build_model().eval(), CPU) == {"worth_image": 0.0, "worth_audio": 0.0}
        # One clip of both senses has no other to take a foreign sense from.
        write_manifest(str(tmp_path / "one.csv"), [Clip("c", str(sorted(clips.rglob("*.mp4"))[0]))])
        assert MaskedPretraining(make(tmp_path / "one.csv", tmp_path / "run")).probe(model, CPU) == {}


def test_probe_needs_labels_and_prefers_held_out_clips() -> None:
    def rows(splits: str, labels: str) -> list[Clip]:
        names = {"-": None, "t": "test", "r": "train"}
        return [
            Clip(f"c{i}", "x.mp4", label=None if label == "-" else label, split=names[split])
            for i, (split, label) in enumerate(zip(splits, labels, strict=True))
        ]

    assert probe_clips(rows("rrrr", "----")) == []
    assert probe_clips(rows("rrrr", "abcd")) == []  # no class has two clips
    assert [c.id for c in probe_clips(rows("r-rr", "aab-"))] == ["c0", "c1", "c2"]
    assert [c.id for c in probe_clips(rows("rrttt", "aaab-"))] == []  # held out: one a, one b
    assert [c.id for c in probe_clips(rows("rrttt", "aabb-"))] == ["c2", "c3"]
    assert len(probe_clips(rows("r" * 5000, "ab" * 2500))) == 2000
