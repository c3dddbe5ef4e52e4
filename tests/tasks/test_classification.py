"""Classification on real little clips: recipes, what they leave alone, arms, what they refuse."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deepavfusion.arguments import parse_arguments
from deepavfusion.data.clips import Clip, read_manifest, write_manifest
from deepavfusion.data.loading import StepSampler
from deepavfusion.models import AudioVisualClassifier, EarlyFusionEncoder
from deepavfusion.tasks.classification import Classification, read_classes
from deepavfusion.tasks.classification_config import ClassificationConfig
from deepavfusion.training import checkpoints
from deepavfusion.training.loop import fit
from deepavfusion.training.optimizer import build_optimizer, set_lr
from tests.tasks.classification_runs import make, quiet, write_data, write_encoder
from tests.tasks.stopped_runs import stop_in_step_three

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def first_inputs(task: Classification) -> dict:
    batch = next(iter(task.loader(StepSampler(4, 1, 1, 0, 0, 1), 0, CPU)))
    return task.inputs(batch)


@pytest.mark.parametrize("recipe", ["probe", "attentive"])
def test_a_probe_leaves_the_encoder_bit_for_bit(recipe: str, data: Path, encoder: Path, tmp_path: Path) -> None:
    config = make(recipe, data, encoder, tmp_path)  # type: ignore[arg-type]
    result = fit(Classification(config), config, quiet())
    assert (result.status, result.step) == ("finished", 6)
    model = AudioVisualClassifier.from_pretrained(tmp_path / "model")
    before = EarlyFusionEncoder.from_pretrained(encoder).state_dict()
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    torch.manual_seed(0)
    start = Classification(config).build_model().state_dict()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, start[name])}
    assert {"image_head.weight", "image_head.bias", "fusion_norm.running_mean"} <= changed
    if recipe == "attentive":
        assert "audio_pool.query" in changed
    assert model.config.classes == ("disc", "ring", "square", "triangle")  # sorted, not in the order of the rows


def test_fine_tuning_changes_every_weight_and_resumes_exactly(data: Path, encoder: Path, tmp_path: Path) -> None:
    whole = make("finetune", data, encoder, tmp_path / "whole")
    fit(Classification(whole), whole, quiet())
    parts = make("finetune", data, encoder, tmp_path / "parts", workers=1)
    task = Classification(parts)
    stop_in_step_three(task)
    assert fit(task, parts, quiet()).status == "preempted"
    fit(Classification(parts), parts, quiet())
    a, b = (checkpoints.load(tmp_path / n / "checkpoints" / "step_00000006.pt")["model"] for n in ("whole", "parts"))
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
    before = EarlyFusionEncoder.from_pretrained(encoder)
    for name, _ in before.named_parameters():
        assert not torch.equal(a[f"encoder.{name}"], before.state_dict()[name]), name
    assert AudioVisualClassifier.from_pretrained(tmp_path / "whole" / "model").config.encoder.drop_path == 0.2
    rows = (tmp_path / "whole" / "probes.csv").read_text().splitlines()
    assert rows[0] == "step,top1_average,top1_image,top1_audio,top1_fusion,num_clips"
    assert rows[1].endswith(",2")


def test_fine_tuning_goes_on_from_a_probe(data: Path, encoder: Path, tmp_path: Path) -> None:
    probe = make("attentive", data, encoder, tmp_path / "probe", heads=("image", "audio"))
    fit(Classification(probe), probe, quiet())
    before = AudioVisualClassifier.from_pretrained(tmp_path / "probe" / "model").eval()
    config = make("finetune", data, tmp_path / "probe", tmp_path / "run", keep_heads=True)
    task = Classification(config)
    model = task.build_model()
    task.load_published(model, lambda line: None)
    assert model.config.heads == ("image", "audio")
    assert model.config.pooling == "attentive"
    assert model.encoder.config.drop_path == config.augmentation.drop_path > 0
    picture, sound = torch.randn(2, 3, 32, 48), torch.randn(2, 1, 32, 32)
    assert torch.equal(model.eval()(picture, sound).average, before(picture, sound).average)
    assert all(parameter.requires_grad for parameter in model.encoder.image.parameters())
    with pytest.raises(ValueError, match="has no head for classification"):
        Classification(make("finetune", data, encoder, tmp_path / "none", keep_heads=True))
    (tmp_path / "classes.txt").write_text("ring\nsquare\ntriangle\ndisc\n")
    other = {"keep_heads": True, "classes": str(tmp_path / "classes.txt")}
    with pytest.raises(ValueError, match="not the 4 of this run"):
        Classification(make("finetune", data, tmp_path / "probe", tmp_path / "other", **other))


def test_new_parameters_learn_first_where_the_encoder_is_ramped(data: Path, encoder: Path, tmp_path: Path) -> None:
    config = make("finetune", data, encoder, tmp_path, optim={"pretrained_ramp": 0.5, "epochs": 2, "warmup_epochs": 0})
    task = Classification(config)
    model = task.build_model()
    optimizer = build_optimizer(model, config.optim, task.layer_ids(model), task.ramped(model))
    set_lr(optimizer, config.optim, 4, 0, 8)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["names"]}
    assert {name for name, rate in rates.items() if rate == 0} == {n for n in rates if n.startswith("encoder.")}
    set_lr(optimizer, config.optim, 4, 4, 8)
    assert all(group["lr"] > 0 for group in optimizer.param_groups)
    assert not Classification(replace(config, untrained=True)).ramped(model)
    assert replace(config, untrained=True).without_effect() == [
        "--optim.pretrained_ramp has no effect with --untrained true"
    ]


def test_one_batch_is_overfitted(data: Path, encoder: Path, tmp_path: Path) -> None:
    plain = {"augmentation": {"mixup": 0.0, "label_smoothing": 0.0, "drop_path": 0.0}}
    task = Classification(make("finetune", data, encoder, tmp_path, **plain))
    torch.manual_seed(0)
    model = task.build_model()
    task.load_published(model, lambda message: None)
    inputs, optimizer = first_inputs(task), torch.optim.Adam(model.parameters(), lr=5e-3)
    assert task.loss_terms(model, inputs)["class"].item() == pytest.approx(math.log(4), abs=0.3)
    for _ in range(120):
        loss = task.loss_terms(model, inputs)["class"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01
    with torch.no_grad():
        out = model(*(inputs[name] for name in ("image", "audio", "image_present", "audio_present")))
    assert torch.equal(out.average.argmax(1), inputs["targets"].argmax(1))


def test_heads_start_at_the_log_odds_of_what_is_drawn(data: Path, encoder: Path, tmp_path: Path) -> None:
    rows = [replace(clip, label="rare" if i == 0 else "often") for i, clip in enumerate(read_manifest(str(data)))]
    source = tmp_path / "two.csv"
    write_manifest(str(source), rows)
    biases = {}
    for balance in ("none", "sampling"):
        model = Classification(make("finetune", source, encoder, tmp_path, balance=balance)).build_model()
        assert torch.equal(model.image_head.bias, model.fusion_head.bias)
        biases[balance] = model.audio_head.bias.tolist()
    # Six training clips, classes sorted: 5 of 6 are often (odds 5), 1 of 6 rare; balanced draws are half and half.
    assert biases["none"] == pytest.approx([math.log(5), -math.log(5)], rel=1e-5)
    assert biases["sampling"] == pytest.approx([0, 0], abs=1e-6)
    assert Classification(make("probe", source, encoder, tmp_path)).build_model().image_head.bias.tolist() == [0, 0]


def test_rates_fall_with_depth_by_the_published_rule(data: Path, encoder: Path, tmp_path: Path) -> None:
    config = make("finetune", data, encoder, tmp_path)
    task = Classification(config)
    model = task.build_model()
    optimizer = build_optimizer(model, config.optim, task.layer_ids(model))
    scale = {name: group["lr_scale"] for group in optimizer.param_groups for name in group["names"]}
    # Depth 2: patch embedding and fusion tokens 0, blocks 1 and 2, norms and heads 3.
    by_hand = {
        "encoder.fusion_tokens": 0.75**3,
        "encoder.audio.patch_embed.proj.bias": 0.75**3,
        "encoder.image.blocks.0.attn.qkv.weight": 0.75**2,
        "encoder.fusion_blocks.0.mlp.fc2.weight": 0.75**2,
        "encoder.fusion_blocks.1.norm_fusion.bias": 0.75,
        "encoder.audio.blocks.1.norm1.weight": 0.75,
        "encoder.image.norm.weight": 1.0,
        "encoder.fusion_norm.bias": 1.0,
        "fusion_head.weight": 1.0,
    }
    assert {name: scale[name] for name in by_hand} == pytest.approx(by_hand)
    assert len(scale) == len(list(model.parameters()))


def test_arms_of_one_modality_train_only_what_they_use(data: Path, encoder: Path, tmp_path: Path) -> None:
    for modality, other in (("image", "audio"), ("audio", "image")):
        task = Classification(make("finetune", data, encoder, tmp_path / modality, modalities=modality))
        assert task.model_config.heads == (modality, "fusion")
        model = task.build_model()
        frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        assert {name for name in frozen if f"encoder.{other}." in name} == {
            name for name, _ in model.named_parameters() if f"encoder.{other}." in name
        }
        assert not any(f"encoder.{modality}." in name for name in frozen)
        task.loss_terms(model, first_inputs(task))["class"].backward()
        lacking = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
        assert lacking == set()  # several processes would wait for these for ever


def test_no_fusion_encoder_with_concatenated_features(data: Path, tmp_path: Path) -> None:
    separate = write_encoder(tmp_path / "separate", fusion_layers="none")
    task = Classification(make("probe", data, separate, tmp_path / "run", heads=("concat",)))
    assert set(task.loss_terms(task.build_model(), first_inputs(task))) == {"class"}
    automatic = Classification(make("finetune", data, separate, tmp_path / "run"))
    assert automatic.model_config.heads == ("image", "audio")
    model = automatic.build_model()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"encoder.fusion_tokens", "encoder.fusion_norm.weight", "encoder.fusion_norm.bias"}
    whole = Classification(make("finetune", data, write_encoder(tmp_path / "e"), tmp_path / "run")).build_model()
    whole.freeze_unused()
    assert all(p.requires_grad for p in whole.parameters())


def test_an_untrained_start_takes_the_configuration_alone(data: Path, encoder: Path, tmp_path: Path) -> None:
    task = Classification(make("probe", data, encoder, tmp_path, untrained=True))
    torch.manual_seed(0)
    model, told = task.build_model(), []
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task.load_published(model, told.append)
    assert told == [f"untrained encoder as configured in {encoder}"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_modality_dropout_and_mixup_are_seeded_by_the_step(data: Path, encoder: Path, tmp_path: Path) -> None:
    config = make("finetune", data, encoder, tmp_path, augmentation={"modality_dropout": 0.9})
    task = Classification(config)
    batch = next(iter(task.loader(StepSampler(4, 1, 1, 0, 0, 1), 0, CPU)))
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(task.inputs(batch))
    for name in results[0]:
        assert torch.equal(results[0][name], results[1][name])
    assert not torch.equal(results[0]["image"], results[2]["image"])
    hidden = torch.stack([~results[0]["image_present"], ~results[0]["audio_present"]])
    assert hidden.any()
    assert not hidden.all(dim=0).any()


def test_several_labels_train_with_binary_cross_entropy(data: Path, encoder: Path, tmp_path: Path) -> None:
    rows = read_manifest(str(data))
    rows = [replace(c, label="a|b" if i % 2 else "a") for i, c in enumerate(rows)]
    source = tmp_path / "multi.csv"
    write_manifest(str(source), rows)
    with pytest.raises(ValueError, match=r"has 2 labels, 'a\|b'; train with --labels multi"):
        Classification(make("probe", source, encoder, tmp_path))
    config = make("probe", source, encoder, tmp_path / "run", labels="multi", balance="loss")
    result = fit(Classification(config), config, quiet())
    assert np.isfinite(result.metrics["loss"])
    assert AudioVisualClassifier.from_pretrained(tmp_path / "run" / "model").config.multi_label


def test_unreadable_clips_are_no_part_of_the_loss(data: Path, encoder: Path, tmp_path: Path) -> None:
    rows = list(read_manifest(str(data)))
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    rows[0] = replace(rows[0], path=str(tmp_path / "broken.mp4"))
    source = tmp_path / "clips.csv"
    write_manifest(str(source), rows)
    task = Classification(make("finetune", source, encoder, tmp_path, augmentation={"mixup": 1.0}))
    batch = next(iter(task.loader(StepSampler(6, 1, 1, 0, 0, 1), 0, CPU)))
    assert len(batch.failures) == 1
    assert task.counts(batch) == {"class": 5}
    torch.manual_seed(0)
    model, inputs = task.build_model().eval(), task.inputs(batch)
    usable = inputs["image_present"] | inputs["audio_present"]
    out = model(*(inputs[name] for name in ("image", "audio", "image_present", "audio_present")))
    each = -(inputs["targets"] * out.average.log_softmax(1)).sum(1)
    torch.testing.assert_close(task.loss_terms(model, inputs)["class"], each[usable].mean())


def test_classes_come_from_the_training_labels_or_a_list(data: Path, encoder: Path, tmp_path: Path) -> None:
    assert len(read_classes("vggsound")) == 309
    (tmp_path / "classes.txt").write_text("square\ndisc\nring\ntriangle\nstar\n")
    task = Classification(make("probe", data, encoder, tmp_path, classes=str(tmp_path / "classes.txt")))
    assert task.model_config.classes == ("square", "disc", "ring", "triangle", "star")
    with pytest.raises(ValueError, match="does not name the training labels disc, ring"):
        Classification(make("probe", data, encoder, tmp_path, classes="vggsound"))
    with pytest.raises(ValueError, match="neither a file nor a shipped list"):
        read_classes(str(tmp_path / "none.txt"))
    write_manifest(str(tmp_path / "bare.csv"), [Clip("a", "a.mp4"), Clip("b", "b.mp4", "x", "test")])
    with pytest.raises(ValueError, match="none of 2 clips has a label and is outside the held-out splits"):
        Classification(make("probe", tmp_path / "bare.csv", encoder, tmp_path))


@pytest.mark.parametrize("recipe", ["probe_vggsound", "finetune_vggsound", "probe_audioset", "finetune_audioset"])
def test_published_recipes_start_up(recipe: str, data: Path, encoder: Path, tmp_path: Path) -> None:
    names = read_classes("vggsound" if "vggsound" in recipe else "audioset")
    labels = [names[0], names[7], names[7] if "vggsound" in recipe else f"{names[3]}|{names[7]}"]
    rows = [replace(clip, label=labels[i % 3]) for i, clip in enumerate(read_manifest(str(data)))]
    write_manifest(str(tmp_path / "clips.csv"), rows)
    words = ["--config", recipe, "--from", str(encoder), "--data.source", str(tmp_path / "clips.csv")]
    words += ["--run_dir", str(tmp_path / "run"), "--data.num_workers", "0", "--training.batch_size", "6"]
    words += ["--optim.epochs", "1", "--optim.warmup_epochs", "0", "--training.device", "cpu"]
    config = parse_arguments(ClassificationConfig, words)
    result = fit(Classification(config), config, quiet())
    assert (result.status, result.step) == ("finished", 1)
    saved = AudioVisualClassifier.from_pretrained(tmp_path / "run" / "model").config
    assert saved.classes == names
    assert saved.batch_norm == recipe.startswith("probe")
