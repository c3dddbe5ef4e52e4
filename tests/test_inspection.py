"""`inspect` names what it finds and refuses the rest."""

from pathlib import Path

import numpy as np
import pytest
import torch

from deepavfusion.inspection import InspectConfig, inspect, read
from tests.models.tiny import tiny_autoencoder, tiny_encoder

REFERENCE = Path(__file__).parent / "reference"


def test_model_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = tiny_autoencoder()
    model.save_pretrained(tmp_path / "model")
    holding = inspect(InspectConfig(str(tmp_path / "model")))
    printed = capsys.readouterr().out
    assert holding.kind == "model folder"
    assert "AudioVisualMAE" in printed
    assert "encoder.num_tokens" in printed
    assert f"{sum(t.numel() for t in model.state_dict().values()):,}" in printed


def test_weight_files_are_told_apart(tmp_path: Path) -> None:
    for name, form in (("factorized", "factorized"), ("dense", "dense or token")):
        with np.load(REFERENCE / f"encoder_{name}.npz") as case:
            weights = {f"encoder.{k[3:]}": torch.tensor(case[k]) for k in case.files if k.startswith("sd/")}
        torch.save({"state_dict": weights}, tmp_path / "release.pth")
        assert read(tmp_path / "release.pth").facts["layout"] == f"released DeepAVFusion, {form} fusion"
    encoder = tiny_encoder()
    torch.save(encoder.state_dict(), tmp_path / "ours.pth")
    assert read(tmp_path / "ours.pth").facts["layout"] == "deepavfusion"
    torch.save(encoder.audio.state_dict(), tmp_path / "mae.pth")
    assert read(tmp_path / "mae.pth").facts["layout"] == "audio ViT (AudioMAE)"


def test_other_things_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no")
    for path, message in (
        (tmp_path / "absent", "no such file or folder"),
        (tmp_path, "neither a run folder with a checkpoint nor a model folder"),
        (tmp_path / "text.safetensors", "not a readable weight file"),
    ):
        with pytest.raises(ValueError, match=message):
            read(path)
