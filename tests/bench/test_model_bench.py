"""The counted costs at ViT-B, which the exact forms promise, and counts checked by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deepavfusion.bench.config import ModelBenchConfig
from deepavfusion.bench.model import count_flops, run, saved_bytes, steps_of
from deepavfusion.models import EarlyFusionConfig, EarlyFusionEncoder, MaskedAutoencoderConfig
from tests.models.tiny import FORMS, TINY


def test_flops_of_a_product_and_of_attention() -> None:
    weight = torch.randn(7, 5, requires_grad=True)
    x = torch.randn(3, 5, requires_grad=True)
    assert count_flops(lambda: (x @ weight.T).sum()) == 3 * (2 * 3 * 5 * 7)  # forward, and one product per gradient
    q, k = torch.randn(1, 1, 4, 8, requires_grad=True), torch.randn(1, 1, 6, 8, requires_grad=True)
    attention = torch.nn.functional.scaled_dot_product_attention
    assert count_flops(lambda: attention(q, k, k).sum()) == 3 * 2 * (2 * 4 * 6 * 8)


def test_saved_bytes_leave_parameters_out() -> None:
    layer = torch.nn.Linear(10, 4)
    x = torch.randn(3, 10)
    assert saved_bytes(lambda: (layer(x) ** 2).sum(), layer) == (30 + 12) * 4  # the input and the squared output


@pytest.mark.slow
def test_vit_b_costs() -> None:
    """The figures the identities promise at ViT-B, batch 1, attention counted."""
    flops = {}
    for form in ("factorized", "dense"):
        config = MaskedAutoencoderConfig(EarlyFusionConfig(fusion=form))
        _, steps = steps_of(config, batch_size=1, device="meta")
        flops |= {(form, step): count_flops(steps[step, "ours"]) / 1e9 for step in ("pre-training", "unmasked encoder")}
    assert flops["factorized", "pre-training"] <= 109
    assert flops["dense", "pre-training"] <= 102
    assert flops["dense", "unmasked encoder"] <= 172
    encoder = EarlyFusionEncoder(EarlyFusionConfig(fusion="dense"))
    inputs = torch.randn(1, 3, 224, 224), torch.randn(1, 1, 128, 192)

    def unmasked() -> torch.Tensor:
        out = encoder(*inputs)
        return out.image.mean() + out.audio.mean() + out.fusion.mean()

    assert saved_bytes(unmasked, encoder) <= 215 * 2**20


@pytest.mark.parametrize("fusion", FORMS)
def test_table_and_json(fusion: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from deepavfusion.models.config import MaskedDecodingConfig

    decoding = MaskedDecodingConfig(decoder_dim=32, decoder_num_heads=4, image_decoder_depth=1, audio_decoder_depth=1)
    path = tmp_path / "costs.json"
    costs = run(ModelBenchConfig(replace(TINY, depth=1), decoding, forms=(fusion,), repeats=1, json=str(path)))
    assert len(costs) == 4
    assert all(c.seconds is not None and c.gflop > 0 and c.saved_mib > 0 for c in costs)
    assert len(json.loads(path.read_text())["costs"]) == 4
    assert "written out" in capsys.readouterr().out
