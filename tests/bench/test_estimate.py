"""The estimate against what a real pass keeps, and against arithmetic by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from deepavfusion.arguments import UsageError, parse_arguments
from deepavfusion.bench.estimate import Estimate, estimate, run
from deepavfusion.bench.estimate_config import EstimateConfig
from deepavfusion.bench.live_memory import LiveMemory, fake_mode
from deepavfusion.bench.model import count_flops, saved_bytes, steps_of
from deepavfusion.bench.reached_share import ASSUMED, ReachedShare, reached_share
from deepavfusion.configuration import OptimConfig, TrainingConfig
from deepavfusion.models.config import AlignmentConfig, EarlyFusionConfig, MaskedDecodingConfig
from deepavfusion.models.masked_autoencoder import AudioVisualMAE

TINY = EstimateConfig(
    model=EarlyFusionConfig(image_size=(64, 64), audio_size=(64, 64), embed_dim=48, depth=1, num_heads=4),
    autoencoder=MaskedDecodingConfig(decoder_dim=32, image_decoder_depth=1, audio_decoder_depth=1, decoder_num_heads=4),
    training=TrainingConfig(batch_size=8, precision="float32"),
)


@pytest.fixture(scope="module")
def tiny() -> Estimate:
    return estimate(TINY)


def with_training(**settings: object) -> EstimateConfig:
    return replace(TINY, training=replace(TINY.training, **settings))


def test_live_memory_by_hand() -> None:
    with fake_mode():
        layer = nn.Linear(100, 100, bias=False)  # 40,000 bytes, and as many of its gradient
        with LiveMemory(layer.parameters(), layer.parameters()) as live:
            x = torch.empty(10, 100)  # 4,000 bytes
            assert live.other == 4000
            y = layer(x)
            z = y * y  # backward keeps x and y
            del y
            assert live.other == 4000 * 3
            loss = z.sum()
            del z
            assert live.other == 4000 * 2 + 4
            loss.backward()
            assert live.gradients == 40_000
            del loss
            assert live.other == 4000
            assert 40_000 + 4000 <= live.peak <= 40_000 + 4000 * 6


def test_a_share_of_gradients() -> None:
    with fake_mode():
        layer = nn.Linear(1000, 1000, bias=False)
        with LiveMemory(layer.parameters(), layer.parameters(), gradient_share=0.25) as live:
            for _ in range(2):
                layer(torch.empty(1, 1000)).sum().backward()
    assert live.gradients == 4_000_000
    assert live.peak == pytest.approx(1.25 * 4_000_000, rel=0.01)  # the second is whole beside a quarter of the first


def test_what_is_kept_is_what_a_real_pass_keeps(tiny: Estimate) -> None:
    model, steps = steps_of(TINY.autoencoder_config, 8, "cpu")
    saved = saved_bytes(steps["pre-training", "ours"], model)
    inputs = 8 * 4 * (3 * 64 * 64 + 64 * 64 + 2 * 16)
    kept = tiny.memory.activations
    assert saved <= kept <= 1.1 * (saved + inputs)


def test_operations_and_days_by_hand(tiny: Estimate) -> None:
    config = replace(TINY, clips=1000, gpus=4, tflops=2.0, mfu=0.5, optim=OptimConfig(epochs=10, warmup_epochs=1))
    result = estimate(config)
    _, steps = steps_of(TINY.autoencoder_config, 1, "meta")
    assert result.flop_per_sample == count_flops(steps["pre-training", "ours"])
    assert result.recomputed_flop_per_sample == 0
    assert result.micro_batch == 2
    assert result.steps == 1250
    assert result.days == pytest.approx(10_000 * result.flop_per_sample / (4 * 1e12) / 86400)
    measured = estimate(replace(config, samples_per_second=50.0))
    assert measured.days == pytest.approx(10_000 / 200 / 86400)
    assert tiny.days is None


def test_what_shares_save() -> None:
    def of(strategy: str, gpus: int) -> Estimate:
        return estimate(replace(with_training(strategy=strategy, batch_size=2 * gpus), gpus=gpus))

    one, ddp, fsdp = of("ddp", 1), of("ddp", 8), of("fsdp", 8)
    weights = 4 * one.num_parameters
    assert ddp.memory.peak - one.memory.peak == pytest.approx(weights, rel=0.01)  # the buckets of gradients
    assert fsdp.memory.optimizer == pytest.approx(one.memory.optimizer / 8)
    assert fsdp.memory.peak < one.memory.peak
    assert one.traffic == 0
    assert ddp.traffic == pytest.approx(2 * weights * 7 / 8)
    assert fsdp.traffic == pytest.approx(3 * weights * 7 / 8)


def test_an_average_is_4_bytes_of_every_weight_and_shared_out(tiny: Estimate) -> None:
    averaged = estimate(replace(with_training(strategy="fsdp", ema=0.999), gpus=8))
    assert tiny.memory.optimizer == 2 * 4 * tiny.num_parameters
    assert averaged.memory.optimizer == 3 * 4 * tiny.num_parameters / 8


def test_recomputation_trades_memory_for_operations(tiny: Estimate) -> None:
    plain, again = tiny, estimate(with_training(gradient_checkpointing=True))
    assert again.memory.activations < plain.memory.activations
    assert again.flop_per_sample == plain.flop_per_sample
    assert 0 < again.recomputed_flop_per_sample < 0.34 * plain.flop_per_sample  # a third is all of the forward pass


def test_the_cross_decoder_saves_operations_and_memory() -> None:
    costs = []
    for settings in ({}, {"decoder_form": "cross"}, {"decoder_form": "cross", "predicted_share": 0.25}):
        result = estimate(replace(TINY, autoencoder=replace(TINY.autoencoder, image_decoder_depth=3, **settings)))
        costs.append((result.flop_per_sample, result.memory.activations))
    assert costs[0][0] > costs[1][0] > costs[2][0]
    assert costs[0][1] > costs[1][1] > costs[2][1]


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_operations_of_alignment_are_those_of_a_real_pass(weight: float) -> None:
    aligned = replace(TINY, alignment=AlignmentConfig(weight=0.5), autoencoder=replace(TINY.autoencoder, weight=weight))
    model, encoder = AudioVisualMAE(aligned.autoencoder_config).train(), TINY.model
    shapes = (encoder.image_shape, (1, *encoder.audio_size), (encoder.num_image_patches,), (encoder.num_audio_patches,))
    names = ("image", "audio", "image_noise", "audio_noise")
    first, second = ({name: torch.rand(1, *shape) for name, shape in zip(names, shapes, strict=True)} for _ in range(2))
    second |= dict.fromkeys(("image_present", "audio_present"), torch.tensor([True]))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        out = model(**first, second=second)
        (weight * out.loss + sum(out.alignment.values())).backward()
    result = estimate(aligned)
    assert result.flop_per_sample == counter.get_total_flops()
    assert result.memory.activations > 0


def test_the_command_takes_a_recipe_and_refuses_what_does_not_divide(tmp_path: Path) -> None:
    path = tmp_path / "estimate.json"
    words = ["--config", "tiny", "--clips", "100", "--gpu", "h100", "--json", str(path), "--model.depth", "1"]
    config = parse_arguments(EstimateConfig, words)
    result = run(config)
    assert json.loads(path.read_text())["peak"] == result.memory.peak
    with pytest.raises(UsageError, match=r"--gpus 3 with --training\.accumulation 1 does not divide"):
        parse_arguments(EstimateConfig, ["--gpus", "3"])


def test_the_share_of_the_speed_is_the_measured_one_where_there_is_one(tmp_path: Path) -> None:
    flop, file = 100e9, tmp_path / "gpu_fast.json"
    assert reached_share(TINY, flop, file) == ReachedShare(ASSUMED, "assumed")
    assert reached_share(replace(TINY, mfu=0.7), flop, file) == ReachedShare(0.7, "as given")
    step = {"fusion": "factorized", "mode": "eager", "size": "vit_b", "gflop_per_sample": 108.0}
    rows = [
        {**step, "step_samples_per_second": 4000.0, "matmul_share": 0.55},
        {**step, "step_samples_per_second": 5000.0, "matmul_share": 0.65, "mode": "compiled"},
        {**step, "step_samples_per_second": 1500.0, "matmul_share": 0.6, "size": "vit_l", "gflop_per_sample": 340.0},
        {**step, "step_samples_per_second": 100.0, "matmul_share": 0.1, "fusion": "dense"},
        {"fusion": "factorized", "mode": "eager", "size": "vit_b", "problem": "no time left"},
    ]
    record = {"quick": False, "device": "NVIDIA H100 80GB HBM3", "rows": rows}
    file.write_text(json.dumps(record))
    found = reached_share(TINY, flop, file)
    assert found.value == pytest.approx(108e9 * 4000 / 989e12)  # of the data sheet
    assert found.source == "measured: vit_b factorized eager on NVIDIA H100 80GB HBM3"
    assert reached_share(TINY, 300e9, file).value == pytest.approx(340e9 * 1500 / 989e12)
    assert reached_share(with_training(compile=True), flop, file).value == pytest.approx(108e9 * 5000 / 989e12)
    assert reached_share(replace(TINY, tflops=800.0), flop, file).value == 0.55  # of a matrix product's rate
    file.write_text(json.dumps({**record, "device": "a card of tomorrow"}))
    assert reached_share(TINY, flop, file).value == 0.55
    file.write_text(json.dumps({**record, "quick": True}))
    assert reached_share(TINY, flop, file).source == "assumed"


def test_the_table_says_where_the_share_is_from(capsys: pytest.CaptureFixture[str]) -> None:
    run(replace(TINY, clips=1000, gpu="h100", mfu=0.25))
    assert "at 25% of the GPU's speed, as given" in " ".join(capsys.readouterr().out.split())
