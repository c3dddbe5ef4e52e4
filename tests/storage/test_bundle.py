"""Bundles: each encoder once, every head with the weights it needs, and nothing read that does not belong together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from deepavfusion.models import EarlyFusionEncoder, Segmenter
from deepavfusion.models.picture_size import set_picture_size
from deepavfusion.storage.bundle import Bundle, bundle, digest_state
from deepavfusion.storage.bundle_config import BundleConfig
from deepavfusion.storage.model_card import ModelCard
from deepavfusion.storage.starting_point import encoder_config, load_encoder
from deepavfusion.storage.trained_models import SingleModel, open_models
from tests.inference.tiny_models import ENCODER, shared_encoder, tiny_models


@pytest.fixture
def models() -> dict[str, Any]:
    return tiny_models()


def same(a: torch.nn.Module, b: torch.nn.Module, tolerance: float = 0.0) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(
        torch.allclose(left[k].double(), right[k].double(), rtol=tolerance, atol=tolerance) for k in left
    )


def test_what_is_saved_is_loaded_and_one_encoder_is_stored_once(models: dict[str, Any], tmp_path: Path) -> None:
    encoder = shared_encoder(models)
    saved = Bundle.save(tmp_path / "b", models, encoder=encoder)
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == [
        "README.md", "bundle.json", "classification.safetensors", "config.json", "localization.safetensors",
        "model.safetensors", "segmentation.safetensors", "separation.safetensors",
    ]  # fmt: skip
    assert saved.tasks == ("classification", "localization", "separation", "segmentation")
    opened = open_models(tmp_path / "b")
    assert isinstance(opened, Bundle)
    assert len(opened.encoders) == 1
    for task, model in models.items():
        again = opened.load(task)
        assert type(again) is type(model)
        assert again.config == model.config
        assert same(again, model)
        assert not again.training
    assert same(opened.load_encoder(), encoder)
    own = load_file(tmp_path / "b" / "classification.safetensors")
    assert not any(name.startswith("encoder.") for name in own)


def test_changed_encoders_are_kept_apart_and_the_commonest_is_the_base(models: dict[str, Any], tmp_path: Path) -> None:
    shared_encoder(models)
    with torch.no_grad():
        models["separation"].encoder.fusion_tokens.add_(1)
    saved = Bundle.save(tmp_path / "b", models)
    assert len(saved.encoders) == 2
    assert saved.base == saved.heads["classification"].encoder == saved.heads["segmentation"].encoder
    assert saved.heads["separation"].encoder != saved.base
    for task, model in models.items():
        assert same(saved.load(task), model)
    alone = {"separation": models["separation"]}
    base = EarlyFusionEncoder(ENCODER)
    both = Bundle.save(tmp_path / "c", alone, encoder=base)
    assert len(both.encoders) == 2
    assert same(both.load_encoder(), base)


def test_heads_of_another_picture_size_share_the_encoder_and_keep_their_positions(
    models: dict[str, Any], tmp_path: Path
) -> None:
    shared_encoder(models)
    segmenter = models["segmentation"]
    assert isinstance(segmenter, Segmenter)
    segmenter.set_image_size((64, 64))
    saved = Bundle.save(tmp_path / "b", models)
    assert len(saved.encoders) == 1
    again = saved.load("segmentation")
    assert again.config.encoder.image_size == (64, 64)
    image, audio = torch.randn(1, 3, 64, 64), torch.randn(1, 1, *ENCODER.audio_size)
    assert torch.equal(again(image, audio), segmenter(image, audio))
    wide = EarlyFusionEncoder(ENCODER)
    set_picture_size(wide, (64, 64), ENCODER.image_grid)
    assert digest_state(wide.state_dict()) != saved.base  # other weights, whatever the size


def test_half_precision_halves_matrices_and_leaves_the_rest(models: dict[str, Any], tmp_path: Path) -> None:
    whole = Bundle.save(tmp_path / "whole", models)
    half = Bundle.save(tmp_path / "half", models, float16=True)
    for task, model in models.items():
        again = half.load(task)
        assert same(again, model, tolerance=1e-3)
        assert {k: t.dtype for k, t in again.state_dict().items()} == {
            k: t.dtype for k, t in model.state_dict().items()
        }
    sizes = [sum(p.stat().st_size for p in b.folder.glob("*.safetensors")) for b in (whole, half)]
    assert sizes[1] < 0.75 * sizes[0]
    stored = load_file(half.folder / "model.safetensors")
    assert stored["image.blocks.0.attn.qkv.weight"].dtype == torch.float16
    assert stored["image.blocks.0.attn.qkv.bias"].dtype == torch.float32
    assert stored["image.pos_embed"].dtype == torch.float32
    with torch.no_grad():
        models["separation"].encoder.fusion_tokens.fill_(1e6)
    with pytest.raises(ValueError, match="fusion_tokens holds values that half precision cannot hold"):
        Bundle.save(tmp_path / "never", models, float16=True)
    assert not (tmp_path / "never").exists()


def test_a_bundle_starts_further_training(models: dict[str, Any], tmp_path: Path) -> None:
    encoder = shared_encoder(models)
    Bundle.save(tmp_path / "b", models, float16=True)
    place = str(tmp_path / "b")
    assert encoder_config(place) == encoder.config
    started = EarlyFusionEncoder(encoder.config)
    load_encoder(started, place)
    assert same(started, encoder, tolerance=1e-3)


def test_runs_and_model_folders_are_taken(models: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    models["classification"].save_pretrained(run / "model")
    settings = "recipe: probe\noptim: {blr: 0.3, epochs: 60}\ndata: {source: /somewhere/of/mine}\n"
    (run / "config.yaml").write_text(settings)
    models["localization"].save_pretrained(tmp_path / "folder")
    results = tmp_path / "results.json"
    results.write_text(
        json.dumps(
            {
                "title": "Linear probe",
                "protocol": "single label, centre window",
                "num_scored": 9,
                "coverage": {"line": "9 of 10 clips, 1 missing"},
                "left_out": {"missing": 1},
                "scores": {"top1 average": {"value": 0.5, "low": 0.4, "high": 0.6}},
                "baselines": {"chance": {"top1 average": {"value": 0.1}}},
            }
        )
    )
    config = BundleConfig(
        str(tmp_path / "b"),
        classification=str(run),
        localization=str(tmp_path / "folder"),
        name="A <script>name",
        data="9 clips",
        results=(str(results),),
    )
    saved = bundle(config)
    assert saved.tasks == ("classification", "localization")
    card = (tmp_path / "b" / "README.md").read_text()
    for part in (
        "license: apache-2.0", "# A &lt;script&gt;name", "single label, centre window", "9 of 10 clips, 1 missing",
        "| top1 average | 0.5 [0.4, 0.6] | chance 0.1 |", "recipe probe, optim.blr 0.3, optim.epochs 60", "9 clips",
    ):  # fmt: skip
        assert part in card
    assert "/somewhere" not in card
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match=r"bad\.json: no results\.json of an evaluation"):
        Bundle.save(tmp_path / "c", models, ModelCard(results=(str(tmp_path / "bad.json"),)))
    with pytest.raises(ValueError, match="separation needs Separator"):
        Bundle.save(tmp_path / "c", {"separation": run})
    with pytest.raises(ValueError, match="nothing to put into it; name at least one of --classification"):
        BundleConfig("x")
    assert not (tmp_path / "c").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_single_run_serves_as_well(models: dict[str, Any], tmp_path: Path) -> None:
    models["segmentation"].save_pretrained(tmp_path / "run" / "model")
    opened = open_models(tmp_path / "run")
    assert isinstance(opened, SingleModel)
    assert opened.tasks == ("segmentation",)
    assert same(opened.load("segmentation"), models["segmentation"])
    assert same(opened.load_encoder(), models["segmentation"].encoder)
    with pytest.raises(ValueError, match="no head for separation; it has segmentation"):
        opened.load("separation")
    with pytest.raises(ValueError, match="a model on the hub is hf:OWNER/NAME"):
        open_models("someone/something")
    with pytest.raises(ValueError, match="the package ships"):
        open_models("shipped:nothing")


def test_a_bundle_is_replaced_and_nothing_else_is(models: dict[str, Any], tmp_path: Path) -> None:
    Bundle.save(tmp_path / "b", models)
    again = Bundle.save(tmp_path / "b", {"localization": models["localization"]})
    assert again.tasks == ("localization",)
    assert not (tmp_path / "b" / "separation.safetensors").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(ValueError, match="contains something that is not a bundle"):
        Bundle.save(tmp_path / "mine", models)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_folders_that_do_not_fit_together_are_refused(models: dict[str, Any], tmp_path: Path) -> None:
    one = Bundle.save(tmp_path / "one", {"localization": models["localization"]})
    Bundle.save(tmp_path / "two", {"localization": tiny_models(seed=1)["localization"]})
    (tmp_path / "one" / "model.safetensors").write_bytes((tmp_path / "two" / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="the files do not belong together"):
        one.load("localization")
    record = json.loads((tmp_path / "two" / "bundle.json").read_text())
    path = tmp_path / "two" / "bundle.json"

    def refused(match: str, **changes: Any) -> None:
        path.write_text(json.dumps({**record, **changes}))
        with pytest.raises(ValueError, match=match):
            open_models(tmp_path / "two")

    refused("newer than this package's 1; update", format_version=2)
    refused("plain name", encoders={record["encoder"]: "../one/model.safetensors"})
    refused("plain name", encoders={record["encoder"]: ".hidden"})
    refused("needs the encoder .* which is missing", encoders={"0": "model.safetensors"})
    head = record["heads"]["localization"]
    refused("not known to this version", heads={"levitation": head})
    refused("not known to this version", heads={"localization": {**head, "model": "Separator"}})
    refused("bundle.json", heads=[])
    path.write_text("{")
    with pytest.raises(ValueError, match=r"bundle\.json: "):
        open_models(tmp_path / "two")
    path.write_text(json.dumps(record))
    (tmp_path / "two" / "localization.safetensors").write_bytes(b"what is this")
    with pytest.raises(ValueError, match=r"localization\.safetensors cannot be read"):
        open_models(tmp_path / "two").load("localization")


def test_encoders_that_differ_in_drop_path_alone_are_one(models: dict[str, Any], tmp_path: Path) -> None:
    tuned = tiny_models(replace(ENCODER, drop_path=0.2))
    shared_encoder({**models, **{f"{k}2": v for k, v in tuned.items()}})
    saved = Bundle.save(tmp_path / "b", {**models, "classification": tuned["classification"]})
    assert len(saved.encoders) == 1
    assert saved.load("classification").config.encoder.drop_path == 0.2


def test_a_bundle_comes_from_the_hub(models: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Bundle.save(tmp_path / "b", models)
    asked = []

    def snapshot(name: str, allow_patterns: list[str]) -> str:
        asked.append(name)
        return str(tmp_path / "b")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert same(open_models("hf:me/mine").load("localization"), models["localization"])
    assert asked == ["me/mine"]
    with pytest.raises(ValueError, match="expected hf:OWNER/NAME"):
        open_models("hf:mine")
    monkeypatch.undo()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="hf:me/none: cannot be fetched from the hub"):
        open_models("hf:me/none")
