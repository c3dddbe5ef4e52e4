"""Encoders are found in runs, model folders, configurations and files of the published weights."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deepavfusion.models import EarlyFusionEncoder, MaskedAutoencoderConfig
from deepavfusion.storage.starting_point import digest_weights, encoder_config, load_encoder, release_config
from tests.models.test_classifier import tiny_classifier
from tests.models.tiny import TINY, inputs, tiny_autoencoder, tiny_encoder

REFERENCE = Path(__file__).parents[1] / "reference"


def test_every_saved_model_has_an_encoder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    tiny_autoencoder(1).save_pretrained(run / "model")
    tiny_encoder(2).save_pretrained(tmp_path / "encoder")
    tiny_classifier(3).save_pretrained(tmp_path / "classifier")
    expected = {run: tiny_autoencoder(1).encoder, tmp_path / "encoder": tiny_encoder(2)}
    expected[tmp_path / "classifier"] = tiny_classifier(3).encoder
    for place, source in expected.items():
        assert encoder_config(str(place)) == TINY
        encoder = EarlyFusionEncoder(replace(TINY, drop_path=0.3))
        assert "tensors loaded" in load_encoder(encoder, str(place))
        assert digest_weights(encoder) == digest_weights(source)
        assert torch.equal(encoder.eval()(*inputs()).fusion, source.eval()(*inputs()).fusion)


def test_a_configuration_serves_an_untrained_start_alone(tmp_path: Path) -> None:
    tiny_encoder().save_pretrained(tmp_path)
    place = str(tmp_path / "config.json")
    assert encoder_config(place) == TINY
    with pytest.raises(ValueError, match="has no weights"):
        load_encoder(tiny_encoder(), place)


def test_places_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ValueError, match="this run is not finished"):
        encoder_config(str(tmp_path / "run"))
    with pytest.raises(ValueError, match="neither a finished run nor a model folder"):
        encoder_config(str(tmp_path))
    with pytest.raises(ValueError, match="expected hf:OWNER/NAME"):
        encoder_config("hf:alone")
    torch.save({"a": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth: not the published DeepAVFusion weights"):
        encoder_config(str(tmp_path / "x.pth"))


def test_vit_b_release_is_recognised() -> None:
    shapes = json.loads((REFERENCE / "release_keys_vitb.json").read_text())
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    assert release_config(state, "release") == MaskedAutoencoderConfig().encoder


def test_form_and_fused_layers_show_in_the_shapes() -> None:
    def shaped(fusion: dict[str, tuple[int, int]], layers: tuple[int, ...]) -> dict[str, torch.Tensor]:
        shapes: dict[str, tuple[int, ...]] = {"image.patch_embed.proj.weight": (128, 3, 16, 16)}
        shapes |= {f"image.blocks.{i}.norm1.bias": (128,) for i in range(4)} | {"fusion_tokens": (1, 12, 128)}
        shapes |= {f"fusion_blocks.{i}.{name}": shape for i in layers for name, shape in fusion.items()}
        return {f"encoder.{name}": torch.empty(shape, device="meta") for name, shape in shapes.items()}

    mlp = {"mlp.fc1.weight": (256, 128), "attn.q.weight": (64, 128)}
    dense = release_config(shaped(mlp | {"attn.kv.weight": (128, 256)}, (0, 1, 2, 3)), "x")
    assert (dense.fusion, dense.fusion_layers, dense.num_heads, dense.num_tokens) == ("dense", "all", 2, (6, 3, 3))
    assert (dense.fusion_attn_ratio, dense.fusion_mlp_ratio) == (0.5, 2.0)
    token = release_config(shaped(mlp | {"attn.kv.weight": (128, 128)}, (2, 3)), "x")
    assert (token.fusion, token.fusion_layers) == ("token", (2, 3))
