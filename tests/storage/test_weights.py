"""Published weights: every key is loaded, dropped for a stated reason, or named in an error."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from deepavfusion.models import AudioVisualMAE, EarlyFusionEncoder, MaskedAutoencoderConfig
from deepavfusion.models.vit import sincos_positions
from deepavfusion.storage.weights import (
    convert_release,
    fetch,
    load_audiomae,
    load_mae,
    load_release,
    read_state_dict,
    resample_positions,
    summarize,
)
from tests.models.tiny import TINY, inputs, tiny_encoder

REFERENCE = Path(__file__).parents[1] / "reference"


def mae_file(path: Path, channels: int, seed: int = 3) -> dict[str, torch.Tensor]:
    """A file in the layout of the MAE authors: a `model` entry with class token, decoder and longer positions."""
    stream = "image" if channels == 3 else "audio"
    state = {
        key.removeprefix(f"{stream}."): value.clone()
        for key, value in tiny_encoder(seed).state_dict().items()
        if key.startswith(f"{stream}.") and "pos_embed" not in key
    }
    extra = {
        "cls_token": (1, 1, 32),
        "pos_embed": (1, 17, 32),
        "mask_token": (1, 1, 16),
        "decoder_embed.weight": (16, 32),
    }
    state |= {key: torch.randn(shape) for key, shape in extra.items()}
    torch.save({"model": state}, path)
    return state


def test_mae_fills_the_image_stream_and_nothing_else(tmp_path: Path) -> None:
    theirs = mae_file(tmp_path / "mae.pth", channels=3)
    model = tiny_encoder()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = load_mae(model, tmp_path / "mae.pth")
    after = model.state_dict()
    for key, value in after.items():
        if key in report.loaded:
            assert torch.equal(value, theirs[key.removeprefix("image.")])
        else:
            assert torch.equal(value, before[key]), key
    assert all(key.startswith("image.") for key in report.loaded)
    assert set(report.dropped) == {"cls_token", "pos_embed", "mask_token", "decoder_embed.weight"}
    torch.testing.assert_close(model.image.pos_embed, sincos_positions((4, 3), 32))
    assert "dropped" in str(report)


def test_audiomae_kernel_is_turned_unless_asked_not_to(tmp_path: Path) -> None:
    theirs = mae_file(tmp_path / "audiomae.pth", channels=1)
    kernel = theirs["patch_embed.proj.weight"]
    turned, straight = tiny_encoder(), tiny_encoder()
    report = load_audiomae(turned, tmp_path / "audiomae.pth")
    load_audiomae(straight, tmp_path / "audiomae.pth", transpose_patches=False)
    assert torch.equal(turned.audio.patch_embed.proj.weight, kernel.mT)
    assert torch.equal(straight.audio.patch_embed.proj.weight, kernel)
    assert report.reshaped == ("audio.patch_embed.proj.weight (transposed)",)


def test_pooled_timm_models_call_the_norm_fc_norm(tmp_path: Path) -> None:
    theirs = mae_file(tmp_path / "x.pth", channels=3)
    for name in ("weight", "bias"):
        theirs[f"fc_norm.{name}"] = theirs.pop(f"norm.{name}")
    save_file(theirs, tmp_path / "model.safetensors")
    model = tiny_encoder()
    load_mae(model, tmp_path / "model.safetensors")
    assert torch.equal(model.image.norm.weight, theirs["fc_norm.weight"])


def test_keys_that_do_not_fit_are_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    theirs = mae_file(tmp_path / "mae.pth", channels=3)
    del theirs["blocks.1.norm1.weight"]
    theirs["blocks.0.mlp.fc1.weight"] = torch.zeros(5, 32)
    theirs["rel_pos.bias"] = torch.zeros(3)
    torch.save(theirs, tmp_path / "bad.pth")
    model = tiny_encoder()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="does not fit this model") as error:
        load_mae(model, tmp_path / "bad.pth")
    message = str(error.value)
    assert "missing image.blocks.1.norm1.weight" in message
    assert "unexpected image.rel_pos.bias" in message
    assert "image.blocks.0.mlp.fc1.weight [5, 32] instead of [128, 32]" in message
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Trap:
    def __reduce__(self):
        return (print, ("code ran",))


def test_code_in_a_pickle_never_runs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "trap.pth").write_bytes(pickle.dumps({"state_dict": Trap()}))
    torch.save({"state_dict": {"x": torch.zeros(1)}, "args": Trap()}, tmp_path / "trap2.pth")
    for name in ("trap.pth", "trap2.pth"):
        with pytest.raises(ValueError, match=f"{name}: "):
            read_state_dict(tmp_path / name)
    assert "code ran" not in capsys.readouterr().out


def test_unreadable_files_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("hello, I am not a weight file")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    for name in ("text.safetensors", "text.pth", "empty.pth", "absent.pth"):
        with pytest.raises(ValueError, match=name):
            read_state_dict(tmp_path / name)
    with pytest.raises(ValueError, match="found epoch"):
        read_state_dict(tmp_path / "numbers.pth")


def test_hub_names_need_owner_and_name() -> None:
    with pytest.raises(ValueError, match="expected hf:OWNER/NAME"):
        fetch("hf:vit_base")


@pytest.mark.parametrize("name", ["factorized", "dense", "token", "layers_0_2"])
def test_release_file_loads_and_bad_ones_are_named(name: str, tmp_path: Path) -> None:
    import json

    from deepavfusion.models import EarlyFusionConfig

    with np.load(REFERENCE / f"encoder_{name}.npz") as case:
        weights = {f"module.encoder.{k[3:]}": torch.tensor(case[k]) for k in case.files if k.startswith("sd/")}
        values = json.loads(str(case["config"]))
    del values["loss"]
    config = EarlyFusionConfig.from_dict(values)
    heads = {f"module.{s}_head.{p}": torch.zeros(2) for s in ("image", "audio", "fusion") for p in ("weight", "bias")}
    torch.save({"state_dict": weights | heads}, tmp_path / "classifier.pth")
    model = EarlyFusionEncoder(config)
    report = load_release(model, tmp_path / "classifier.pth")
    assert len(report.loaded) == len(model.state_dict())
    assert len(report.dropped) == 6

    key = next(k for k in weights if "fusion_blocks.0.mlp.fc1.weight" in k)
    bad = {k: v for k, v in weights.items() if k != key} | {"module.encoder.fusion_blocks.0.attn.gate": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"missing encoder.fusion_blocks.0.mlp.fc1.weight; unexpected") as error:
        convert_release(bad, config)
    assert "encoder.fusion_blocks.0.attn.gate" in str(error.value)
    with pytest.raises(ValueError, match="the release has no bilinear fusion"):
        convert_release(weights, replace(config, fusion="bilinear"))


def test_release_positions_are_resampled_to_other_sizes() -> None:
    import json

    shapes = json.loads((REFERENCE / "release_keys_vitb.json").read_text())
    small = replace(MaskedAutoencoderConfig().encoder, image_size=(320, 256), audio_size=(128, 256))
    released = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    for key in released:
        if "pos_embed" in key:
            released[key] = torch.randn(shapes[key])
    state = convert_release(released, MaskedAutoencoderConfig(small))
    assert state["encoder.image.pos_embed"].shape == (1, 320, 768)
    assert state["audio_decoder.pos_embed"].shape == (1, 128, 512)


def test_resampling_keeps_a_constant_and_a_ramp() -> None:
    ramp = torch.linspace(0, 1, 8, dtype=torch.float64).repeat(6, 1).view(1, 48, 1)
    wide = resample_positions(ramp, (6, 8), (6, 16)).view(6, 16)
    assert (wide.diff(dim=1)[:, 3:-3] - 1 / 14).abs().max() < 1e-3
    assert torch.allclose(resample_positions(torch.ones(1, 48, 3), (6, 8), (3, 5)), torch.ones(1, 15, 3))
    with pytest.raises(ValueError, match="47 rows is not a 6 x 8 grid"):
        resample_positions(ramp[:, :-1], (6, 8), (6, 16))


def test_summary_folds_layer_numbers() -> None:
    assert summarize(["a.0.w", "a.11.w", "b"]) == "a.*.w (x2), b"


def test_save_and_load(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = MaskedAutoencoderConfig(
        TINY, decoder_dim=32, decoder_num_heads=4, image_decoder_depth=1, audio_decoder_depth=1
    )
    model = AudioVisualMAE(config).eval()
    model.save_pretrained(tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    loaded = AudioVisualMAE.from_pretrained(tmp_path / "model")
    assert loaded.config == config
    noise = torch.rand(2, 12), torch.rand(2, 12)
    assert torch.equal(loaded(*inputs(), *noise).loss, model(*inputs(), *noise).loss)
    encoder = EarlyFusionEncoder.from_pretrained(tmp_path / "model")
    assert torch.equal(encoder(*inputs()).fusion, model.encoder(*inputs()).fusion)

    encoder.save_pretrained(tmp_path / "encoder")
    with pytest.raises(ValueError, match="holds an EarlyFusionEncoder, not an AudioVisualMAE"):
        AudioVisualMAE.from_pretrained(tmp_path / "encoder")
    path = tmp_path / "encoder" / "config.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(ValueError, match="format version 9 is newer"):
        EarlyFusionEncoder.from_pretrained(tmp_path / "encoder")
    path.write_text(path.read_text().replace('"format_version": 9', '"format_version": 1').replace("depth", "deepth"))
    with pytest.raises(ValueError, match="EarlyFusionConfig does not know deepth"):
        EarlyFusionEncoder.from_pretrained(tmp_path / "encoder")
