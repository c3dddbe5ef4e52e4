"""Exported models give what the models give, for every batch size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepavfusion.audio import log_mel
from deepavfusion.images import normalize
from deepavfusion.inference.export import export, exportable, write_program
from deepavfusion.inference.export_config import ExportConfig
from deepavfusion.models import Separator, SeparatorConfig
from deepavfusion.stft import stft
from deepavfusion.storage.bundle import Bundle
from tests.inference.tiny_models import ENCODER, randomized, tiny_models

PARTS = ("encoder", "classification", "localization", "separation", "segmentation")


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return tiny_models()


@pytest.fixture(scope="module")
def bundle(models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "bundle"
    Bundle.save(folder, models)
    return str(folder)


def inputs(part: str, batch: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch)
    image = torch.randint(0, 256, (batch, 3, *ENCODER.image_size), dtype=torch.uint8, generator=generator)
    wave = 0.1 * torch.randn(batch, 16000, generator=generator)
    power = torch.log10(stft(wave)[..., :-1].abs().square() + 1e-7)[:, None]
    found = {"image": normalize(image), "audio": log_mel(wave, ENCODER.audio_size[0])}
    return found | ({"log_power": power} if part == "separation" else {})


def expected(part: str, bundle: str, given: dict[str, torch.Tensor]) -> list[np.ndarray]:
    opened = Bundle.open(bundle)
    model = exportable(opened.load_encoder() if part == "encoder" else opened.load(part))  # type: ignore[arg-type]
    with torch.inference_mode():
        out = model.module(*given.values())
    return [tensor.numpy() for tensor in (out if isinstance(out, tuple) else (out,))]


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_exported_programs(part: str, bundle: str, tmp_path: Path) -> None:
    out = tmp_path / "model.pt2"
    line = export(ExportConfig(bundle, str(out), part))  # type: ignore[arg-type]
    assert "image (B, 3, 32, 48)" in line
    program = torch.export.load(out).module()
    for batch in (1, 5):
        given = inputs(part, batch)
        with torch.inference_mode():
            found = program(*given.values())
        found = found if isinstance(found, (tuple, list)) else (found,)
        for one, other in zip(found, expected(part, bundle, given), strict=True):
            np.testing.assert_allclose(one.numpy(), other, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_onnx(part: str, bundle: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    out = tmp_path / "model.onnx"
    export(ExportConfig(bundle, str(out), part))  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    session = runtime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    opened = Bundle.open(bundle)
    model = exportable(opened.load_encoder() if part == "encoder" else opened.load(part))  # type: ignore[arg-type]
    assert [tensor.name for tensor in session.get_inputs()] == list(model.inputs)
    assert [tensor.name for tensor in session.get_outputs()] == list(model.outputs)
    for batch in (1, 5):
        given = inputs(part, batch)
        found = session.run(None, {name: tensor.numpy() for name, tensor in given.items()})
        for one, other in zip(found, expected(part, bundle, given), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"decoder": "release", "condition": "none"}])
def test_the_exported_mask_is_the_separators_own(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = randomized(Separator(SeparatorConfig(encoder=ENCODER, decoder_dim=16, **settings)))
    wave, image = 0.1 * torch.randn(2, 16000), torch.randn(2, 3, *ENCODER.image_size)
    power = torch.log10(stft(wave)[..., :-1].abs().square() + 1e-7)[:, None]
    with torch.inference_mode():
        mask = exportable(model).module(image, log_mel(wave, ENCODER.audio_size[0]), power)
        own = model(image, wave).mask[..., :-1]
    torch.testing.assert_close(mask, own, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["token", "dense", "bilinear"])
def test_every_form_of_fusion_can_be_exported(fusion: str, tmp_path: Path) -> None:
    model = tiny_models(replace(ENCODER, fusion=fusion))["localization"]  # type: ignore[arg-type]
    found = exportable(model)
    write_program(found, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    given = inputs("localization", 3)
    with torch.inference_mode():
        torch.testing.assert_close(program(*given.values())[0], model(**given).maps, atol=1e-5, rtol=1e-4)


def test_what_is_lacking_is_named(bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"must end in \.onnx or \.pt2"):
        ExportConfig(bundle, "model.pb")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs onnx and onnxscript: pip install 'deepavfusion\[export\]'"):
        export(ExportConfig(bundle, str(tmp_path / "model.onnx")))
    tiny_models()["separation"].save_pretrained(tmp_path / "run")
    with pytest.raises(ValueError, match="no head for classification; it has separation"):
        export(ExportConfig(str(tmp_path / "run"), str(tmp_path / "a.pt2"), "classification"))
    assert not list(tmp_path.glob("*.onnx"))
