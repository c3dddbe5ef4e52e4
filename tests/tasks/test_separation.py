"""Training of separation on real little clips: mixtures, losses, overfitting, runs that go on as if never stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from deepavfusion.arguments import UsageError, parse_arguments
from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.generation import generate
from deepavfusion.data.clips import read_manifest, write_manifest
from deepavfusion.data.loading import StepSampler
from deepavfusion.metrics.separation import si_sdr
from deepavfusion.models import Separator
from deepavfusion.models.separator import SeparatorOutput
from deepavfusion.stft import stft
from deepavfusion.tasks.separation import Separation
from deepavfusion.tasks.separation_config import MixingConfig, SeparationConfig
from deepavfusion.tasks.separation_loss import negative_snr, separation_loss, spectral_error, weighted_cross_entropy
from deepavfusion.training import checkpoints
from deepavfusion.training.loop import fit
from tests.tasks.classification_runs import quiet
from tests.tasks.separation_runs import make, write_encoder, write_shapes
from tests.tasks.stopped_runs import stop_in_step_three

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def first_inputs(task: Separation, batch_size: int = 4, accumulation: int = 1) -> dict[str, torch.Tensor]:
    batches = task.loader(StepSampler(batch_size, accumulation, 1, 0, 0, 1), 0, CPU)
    parts = [task.inputs(batch) for batch in batches]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def test_mixtures_are_sums_whatever_the_division_of_the_batch(data: Path, encoder: Path, tmp_path: Path) -> None:
    mixing = {"sources": (2, 3), "silent": 0.2, "single": 0.2}
    task = Separation(make(data, encoder, tmp_path, mixing=mixing, training={"batch_size": 12}))
    whole = first_inputs(task, 12)
    torch.testing.assert_close(whole["mixture"], whole["source"] + whole["others"].sum(1))
    for accumulation in (2, 4):
        parts = first_inputs(task, 12, accumulation)
        for name, value in whole.items():
            assert torch.equal(value, parts[name]), name
    # Members of a group hear each other: the own sound of one is among the others of the next.
    plain = first_inputs(Separation(make(data, encoder, tmp_path, mixing={"silent": 0, "single": 0})))
    assert torch.equal(plain["others"][:, 0], plain["source"][[1, 0, 3, 2]])
    torch.testing.assert_close(plain["mixture"][::2], plain["mixture"][1::2])
    with pytest.raises(ValueError, match="is 6 clips, which groups of 4 do not fill"):
        Separation(make(data, encoder, tmp_path, mixing={"sources": (2, 4)})).loader(
            StepSampler(12, 1, 2, 0, 0, 1), 0, CPU
        )


def test_one_batch_is_overfitted_by_the_picture(data: Path, encoder: Path, tmp_path: Path) -> None:
    task = Separation(make(data, encoder, tmp_path, mixing={"silent": 0, "single": 0}))
    torch.manual_seed(0)
    model, inputs = task.build_model(), first_inputs(task)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(50):
        loss = task.loss_terms(model, inputs)["separation"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():  # the two of a group have one mixture and unlike answers
        estimates = model(inputs["image"], inputs["mixture"]).waveform()
    gain = si_sdr(inputs["source"], estimates) - si_sdr(inputs["source"], inputs["mixture"])
    assert (gain > 5).all(), gain


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "bce"},
        {"loss": "bce", "decoding": {"target": "dominance"}},
        {"loss": "magnitude"},
        {"loss": "snr"},
        {"decoding": {"decoder": "release", "condition": "none"}},
        {"freeze_encoder": True},
    ],
)
def test_every_loss_and_target_runs_and_reaches_every_weight(
    settings: dict[str, Any], data: Path, encoder: Path, tmp_path: Path
) -> None:
    task = Separation(make(data, encoder, tmp_path, **settings))
    model = task.build_model()
    loss = task.loss_terms(model, first_inputs(task))["separation"]
    assert torch.isfinite(loss)
    loss.backward()
    lacking = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert lacking == set()
    frozen = all(not p.requires_grad for p in model.encoder.parameters())
    assert frozen == settings.get("freeze_encoder", False)


def test_a_frozen_encoder_drops_no_path_of_its_saved_configuration(data: Path, tmp_path: Path) -> None:
    place = write_encoder(tmp_path / "encoder", drop_path=0.5)
    task = Separation(make(data, place, tmp_path, freeze_encoder=True))
    model = task.build_model().train()
    assert model.config.encoder.drop_path == 0.5
    assert model.decoder.training
    for module in model.decoder.modules():  # the decoder's own, which learns
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    inputs = first_inputs(task)
    losses = [task.loss_terms(model, inputs)["separation"].item() for _ in range(3)]
    assert losses[0] == losses[1] == losses[2]


def test_losses_by_hand() -> None:
    source, mixture = torch.zeros(3, 1000), torch.ones(3, 1000)
    source[:2] = 1.0
    estimate = torch.stack([torch.full((1000,), 0.9), torch.ones(1000), torch.full((1000,), 0.1)])
    # Error 1 % of the source's energy, none, and 1 % of the mixture's under a silent source; softly limited at -30 dB.
    by_hand = 10 * torch.log10(torch.tensor([0.011, 0.001, 0.011]))
    torch.testing.assert_close(negative_snr(estimate, source, mixture), by_hand, atol=1e-3, rtol=0)
    spectrum = torch.tensor([[[3.0 + 4j, 0j]]])
    turned = spectral_error(1j * spectrum, spectrum, spectrum, with_phase=False)
    torch.testing.assert_close(turned, torch.zeros(1), atol=1e-5, rtol=0)
    # (-4 + 3j) - (3 + 4j) = -7 - j: 8 over two cells, by a mean magnitude of 2.5.
    torch.testing.assert_close(spectral_error(1j * spectrum, spectrum, spectrum, with_phase=True), torch.tensor([1.6]))
    # One loud cell of weight log(1 + 5) and one of the least weight, 1e-3.
    entropy = weighted_cross_entropy(torch.tensor([[[0.5, 0.9]]]), torch.tensor([[[1.0, 1.0]]]), spectrum)
    loud, soft = torch.log(torch.tensor(6.0)), torch.tensor(1e-3)
    expected = (loud * torch.log(torch.tensor(2.0)) - soft * torch.log(torch.tensor(0.9))) / (loud + soft)
    torch.testing.assert_close(entropy, expected[None])


def test_the_right_mask_has_the_least_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    source, others = 0.1 * torch.randn(2, 4000, generator=generator), 0.1 * torch.randn(2, 1, 4000, generator=generator)
    source[1] = 0
    mixture = source + others[:, 0]
    whole, own = stft(mixture), stft(source)
    right = (own.abs() / whole.abs()).clamp(0, 1)
    for criterion in ("bce", "magnitude", "snr"):
        found = [
            separation_loss(criterion, "ratio", SeparatorOutput(mask, whole, 4000), source, others, mixture)
            for mask in (right, torch.full_like(right, 0.5), 1 - right)
        ]
        assert (found[0] < found[1]).all(), criterion
        assert (found[0] < found[2]).all(), criterion


def test_a_run_goes_on_as_if_never_stopped(data: Path, encoder: Path, tmp_path: Path) -> None:
    whole = make(data, encoder, tmp_path / "whole")
    result = fit(Separation(whole), whole, quiet())
    assert (result.status, result.step) == ("finished", 6)
    parts = make(data, encoder, tmp_path / "parts")
    task = Separation(parts)
    stop_in_step_three(task)
    assert fit(task, parts, quiet()).status == "preempted"
    fit(Separation(parts), parts, quiet())
    a, b = (checkpoints.load(tmp_path / n / "checkpoints" / "step_00000006.pt")["model"] for n in ("whole", "parts"))
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
    rows = (tmp_path / "whole" / "probes.csv").read_text().splitlines()
    assert rows[0] == "step,sdr,sdr_improvement,si_sdr_improvement,num_mixtures"
    assert rows[1].endswith(",4")
    assert [p.stat().st_size > 5000 for p in (tmp_path / "whole" / "pictures").glob("separation*.png")] == [True]
    assert Separator.from_pretrained(tmp_path / "whole" / "model").config == task.model_config


def test_unreadable_clips_are_no_part_of_the_loss(data: Path, encoder: Path, tmp_path: Path) -> None:
    rows = list(read_manifest(str(data)))
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    rows[0] = replace(rows[0], path=str(tmp_path / "broken.mp4"))
    write_manifest(str(tmp_path / "clips.csv"), rows)
    task = Separation(make(tmp_path / "clips.csv", encoder, tmp_path, loss="snr"))
    batch = next(iter(task.loader(StepSampler(12, 1, 1, 0, 0, 1), 0, CPU)))
    absent = {number for number, name in enumerate(batch.ids) if name == rows[0].id}
    assert absent
    assert task.counts(batch) == {"separation": 12 - len(absent)}
    torch.manual_seed(0)
    model, inputs = task.build_model().eval(), task.inputs(batch)
    out = model(inputs["image"], inputs["mixture"])
    each = negative_snr(out.waveform(), inputs["source"], inputs["mixture"])
    kept = [n for n in range(12) if n not in absent]
    torch.testing.assert_close(task.loss_terms(model, inputs)["separation"], each[kept].mean())


def test_other_instruments_are_painted_over(encoder: Path, tmp_path: Path) -> None:
    world = {"out": str(tmp_path / "w"), "splits": ("pretrain",), "stems": False, "masks": False, "sheets": False}
    generate(BandstandConfig(**world, clips=8, num_workers=0))  # type: ignore[arg-type]
    source = tmp_path / "w" / "pretrain.csv"
    inputs = {}
    for pictures in ("whole", "source", "box"):
        task = Separation(make(source, encoder, tmp_path, mixing={"pictures": pictures}))
        task.clips = Separation(make(source, encoder, tmp_path, mixing={"pictures": "source"})).clips
        inputs[pictures] = first_inputs(task)
    assert "not of one source" in task.summary
    grey = (inputs["source"]["image"] == 0).all(dim=1)
    assert 0.02 < grey.float().mean() < 0.9
    assert (inputs["whole"]["image"] == 0).all(dim=1).float().mean() < 0.01
    # An enlarged box is another picture of the same mixture.
    torch.testing.assert_close(inputs["box"]["mixture"], inputs["source"]["mixture"], rtol=0, atol=0)
    assert (inputs["box"]["image"] == 0).all(dim=1).float().mean() < 0.01
    assert (inputs["box"]["image"] - inputs["whole"]["image"]).abs().mean() > 0.1


def test_settings_are_checked_and_told(data: Path, encoder: Path, tmp_path: Path) -> None:
    words = ["--from", str(encoder), "--data.source", str(data), "--run_dir", str(tmp_path)]
    config = parse_arguments(SeparationConfig, [*words, "--optim.epochs", "7", "--optim.warmup_epochs", "1"])
    assert (config.optim.blr, config.optim.epochs, config.training.batch_size) == (3e-4, 7.0, 512)
    assert config.criterion == "spectrum"
    for extra, message in (
        (["--training.batch_size", "9"], "the 9 of a forward pass cannot be divided into"),
        (["--mixing.sources", "[1,2]"], "--mixing.sources .1, 2. must be two ascending counts from 2 to 4"),
        (["--decoding.grid", "mel"], "--decoding.decoder says it: unet has masks on bins, release on mel bands"),
        (["--optim.blr", "0.3"], "separation was tuned with --optim.blr 0.0003"),
        (["--untrained", "true", "--freeze_encoder", "true"], "would keep a random encoder"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_arguments(SeparationConfig, [*words, *extra])
    idle = make(data, encoder, tmp_path, decoding={"target": "dominance"}).without_effect()
    assert len(idle) == 1
    with pytest.raises(ValueError, match="must be probabilities, together at most 1"):
        MixingConfig(silent=0.6, single=0.6)
    lonely = read_manifest(str(data))[:1]
    write_manifest(str(tmp_path / "one.csv"), lonely)
    with pytest.raises(ValueError, match="mixtures of 2 need as many clips to train on, there are 1 of 1"):
        Separation(make(tmp_path / "one.csv", encoder, tmp_path))
