"""Low-rank adapters: what they train, what is left of them in the saved model, stopping and continuing."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from deepavfusion.arguments import parse_arguments
from deepavfusion.cli import main
from deepavfusion.configuration import AdapterConfig
from deepavfusion.data.loading import StepSampler
from deepavfusion.models import AudioVisualClassifier, EarlyFusionEncoder
from deepavfusion.models.config import FusionForm
from deepavfusion.tasks.classification import Classification
from deepavfusion.tasks.classification_config import ClassificationConfig
from deepavfusion.training import checkpoints
from deepavfusion.training.loop import fit
from deepavfusion.training.run_folder import compare_configs
from tests.tasks.classification_runs import ENCODER, make, quiet, write_data, write_encoder
from tests.tasks.stopped_runs import stop_in_step_three

RANK = 3
ADAPTERS = AdapterConfig(rank=RANK)
BASE = ["--run_dir", "a", "--data.source", "x", "--from", "y"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def peft() -> None:
    pytest.importorskip("peft", reason="needs the extra lora")


def started(config: ClassificationConfig) -> tuple[Classification, AudioVisualClassifier]:
    task = Classification(config)
    torch.manual_seed(0)
    model = task.build_model()
    task.load_published(model, lambda line: None)
    return task, model


def test_trained_heads_are_kept_beside_new_adapters(peft: None, data: Path, encoder: Path, tmp_path: Path) -> None:
    probe = make("attentive", data, encoder, tmp_path / "probe")
    fit(Classification(probe), probe, quiet())
    before = AudioVisualClassifier.from_pretrained(tmp_path / "probe" / "model").eval()
    run = make("finetune", data, tmp_path / "probe", tmp_path / "run", keep_heads=True, lora=ADAPTERS)
    _, model = started(run)
    picture, sound = torch.randn(2, 3, 32, 48), torch.randn(2, 1, 32, 32)
    assert_close(model.eval()(picture, sound).average, before(picture, sound).average, atol=1e-6, rtol=1e-5)


def test_only_adapters_and_heads_are_trained(peft: None, data: Path, encoder: Path, tmp_path: Path) -> None:
    plain = make("finetune", data, encoder, tmp_path)
    (_, before), (_, model) = started(plain), started(replace(plain, lora=ADAPTERS))
    picture, sound = torch.randn(2, 3, 32, 48), torch.randn(2, 1, 32, 32)
    assert_close(model.eval()(picture, sound).average, before.eval()(picture, sound).average, atol=1e-6, rtol=1e-5)
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in trained if ".lora_" not in name} == {
        f"{head}_head.{kind}" for head in ("image", "audio", "fusion") for kind in ("weight", "bias")
    }
    dim = ENCODER.embed_dim
    block = [(dim, 3 * dim), (dim, dim), (dim, 4 * dim), (4 * dim, dim)]  # qkv, proj, fc1, fc2
    width, hidden = ENCODER.attn_dim, int(dim * ENCODER.fusion_mlp_ratio)
    aggregation = [(dim, dim), (dim, 2 * dim), (dim, dim)]  # q, kv, proj
    fusion = [*aggregation * 2, (dim, width), (dim, dim), (dim, hidden), (hidden, dim)]  # the pairs' q, proj, fc1, fc2
    maps = (block * 2 + fusion) * ENCODER.depth
    heads = 3 * (dim * 4 + 4)
    assert sum(trained.values()) == RANK * sum(a + b for a, b in maps) + heads


@pytest.mark.parametrize("fusion", ["factorized", "dense", "token", "bilinear"])
def test_every_adapter_counts_and_is_merged(
    fusion: FusionForm, peft: None, data: Path, tmp_path: Path, encoder: Path
) -> None:
    place = write_encoder(tmp_path / "encoder", fusion=fusion)
    task, model = started(replace(make("finetune", data, place, tmp_path / "run"), lora=ADAPTERS))
    for name, parameter in model.named_parameters():
        if ".lora_B." in name or name.endswith("_head.weight"):
            torch.nn.init.normal_(parameter, std=0.3)
    inputs = torch.randn(2, 3, 32, 48), torch.randn(2, 1, 32, 32)
    adapted = model.eval()(*inputs).average
    adapted.sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == parameter.requires_grad, name
    names = AudioVisualClassifier(model.config).state_dict().keys()
    assert names != model.state_dict().keys()
    merged = task.finished(model)
    assert merged.state_dict().keys() == names
    assert_close(merged(*inputs).average, adapted, atol=1e-5, rtol=1e-5)


def test_a_stopped_run_goes_on_exactly_and_ends_in_an_ordinary_model(
    peft: None, data: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = (
        replace(make("finetune", data, encoder, tmp_path / name), lora=ADAPTERS) for name in ("whole", "parts")
    )
    fit(Classification(whole), whole, quiet())
    task = Classification(parts)
    stop_in_step_three(task)
    assert fit(task, parts, quiet()).status == "preempted"
    fit(Classification(parts), parts, quiet())
    a, b = (checkpoints.load(tmp_path / n / "checkpoints" / "step_00000006.pt") for n in ("whole", "parts"))
    assert a["model"].keys() == b["model"].keys()
    for name, value in a["model"].items():
        assert torch.equal(value, b["model"][name]), name
    before = EarlyFusionEncoder.from_pretrained(encoder).state_dict()
    after = EarlyFusionEncoder.from_pretrained(tmp_path / "whole" / "model").state_dict()
    changed = {f"encoder.{name}" for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {name.replace(".base_layer", "") for name in a["model"] if ".base_layer.weight" in name}
    monkeypatch.setitem(sys.modules, "peft", None)  # from here on it is not needed
    model, clip = str(tmp_path / "parts"), next((data.parent / "clips").iterdir())
    words = ["--data.source", str(data), "--data.num_workers", "0", "--device", "cpu"]
    assert main(["predict", "classification", str(clip), "--model", model, "--out", str(tmp_path / "out")]) == 0
    assert main(["evaluate", "classification", model, *words, "--out", str(tmp_path / "scores")]) == 0
    probe = replace(make("probe", data, tmp_path / "parts", tmp_path / "probe"), lora=ADAPTERS)
    assert probe.without_effect() == ["--lora.rank has no effect on a frozen encoder"]
    assert fit(Classification(probe), probe, quiet()).status == "finished"


def test_a_batch_is_learned(peft: None, data: Path, encoder: Path, tmp_path: Path) -> None:
    still = {"augmentation": {"mixup": 0.0, "label_smoothing": 0.0, "drop_path": 0.0}}
    task, model = started(replace(make("finetune", data, encoder, tmp_path, **still), lora=ADAPTERS))
    inputs = next(iter(task.loader(StepSampler(4, 1, 1, 0, 0, 1), 0, torch.device("cpu"))))
    inputs = task.inputs(inputs)
    for name, parameter in model.named_parameters():  # the heads as they are: what is learned is the adapters'
        if "_head." in name:
            torch.nn.init.normal_(parameter, std=0.3).requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(60):
        loss = task.loss_terms(model, inputs)["class"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_mistakes_are_told(data: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    config = replace(make("finetune", data, encoder, tmp_path), lora=ADAPTERS)
    with pytest.raises(ValueError, match=r"^--lora.rank needs peft, .*: pip install 'deepavfusion\[lora\]'$"):
        fit(Classification(config), config, quiet())
    assert not (tmp_path / "config.yaml").exists()
    told = {
        "--lora.alpha 8": "--lora.alpha has no effect without --lora.rank",
        "--lora.rank 4 --optim.pretrained_ramp 0.3": "--optim.pretrained_ramp has no effect with --lora.rank",
        "--recipe attentive --lora.rank 4": "--lora.rank has no effect on a frozen encoder",
        "--recipe attentive --lora.alpha 4": "--lora.alpha has no effect on a frozen encoder",
    }
    for words, line in told.items():
        assert parse_arguments(ClassificationConfig, [*BASE, *words.split()]).without_effect() == [line]
    assert parse_arguments(ClassificationConfig, [*BASE, "--lora.rank", "4"]).without_effect() == []
    for words, message in (("--lora.rank -1", "must not be negative"), ("--lora.alpha 0", "must be positive")):
        with pytest.raises(ValueError, match=message):
            parse_arguments(ClassificationConfig, [*BASE, *words.split()])
    now = config.to_dict()
    earlier = {name: value for name, value in now.items() if name != "lora"}
    assert compare_configs(earlier, now) == [f"--lora.rank was 0, is {RANK}"]
