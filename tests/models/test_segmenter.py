"""The segmenter: shapes, what it listens to, which weights learn, other picture sizes, files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deepavfusion.models import EarlyFusionEncoder, Segmenter, SegmenterConfig
from deepavfusion.models.picture_size import resampled_positions
from deepavfusion.models.vit import sincos_positions
from deepavfusion.storage.starting_point import load_resized
from tests.models.tiny import TINY, inputs, tiny_encoder

FORMS = ("attentive", "comparing", "release")


def make(seed: int = 0, **changes: object) -> Segmenter:
    encoder = replace(TINY, **changes.pop("encoder", {}))  # type: ignore[arg-type]
    torch.manual_seed(seed)
    settings = {"decoder_dim": 32, **changes}
    model = Segmenter(SegmenterConfig(encoder=encoder, **settings))  # type: ignore[arg-type]
    with torch.no_grad():  # so that a mistake with a bias or norm shows
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def test_layers_are_those_of_the_release_and_few_where_there_are_few() -> None:
    depths = {d: SegmenterConfig(encoder=replace(TINY, depth=d)).layer_numbers for d in (1, 2, 3, 12)}
    assert depths == {1: (0,), 2: (0, 1), 3: (0, 1, 2), 12: (0, 3, 7, 11)}
    for changes, message in (
        ({"layers": (2, 1)}, "ascending layer numbers from 0 to 2"),
        ({"layers": (3,)}, "ascending layer numbers from 0 to 2"),
        ({"classes": ("background",)}, "background and at least one more"),
        ({"decoder": "unet"}, "attentive, comparing or release"),
        ({"decoder": "comparing", "modalities": "image"}, "compares with the sound"),
        ({"decoder_dim": 40}, "multiple of 32"),
        ({"stride": 3}, "power of 2"),
        ({"stride": 32}, "most the patch size 16"),
    ):
        with pytest.raises(ValueError, match=message):
            SegmenterConfig(encoder=TINY, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("patch", [8, 16])
def test_logits_at_the_picture_size(form: str, patch: int) -> None:
    image, audio = inputs()
    binary = make(decoder=form, encoder={"patch_size": patch}).eval()
    assert binary(image, audio).shape == (2, 1, 64, 48)
    semantic = make(decoder=form, classes=("background", "a", "b"), encoder={"patch_size": patch}).eval()
    out = semantic(image, audio)
    assert out.shape == (2, 3, 64, 48)
    assert out.dtype == torch.float32
    torch.testing.assert_close(semantic(image[:1], audio[:1]), out[:1], rtol=1e-4, atol=1e-4)  # no batch statistics


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_logits_between_cells_are_bilinear(stride: int) -> None:
    image, audio = inputs()
    logits = make(stride=stride).eval()(image, audio)
    assert logits.shape == (2, 1, 64, 48)
    half = stride // 2
    if half > 1:  # from one cell's centre to the next a row is a straight line
        between = logits[..., half:-half].unfold(3, stride, stride)
        torch.testing.assert_close(between.diff(n=2), torch.zeros_like(between.diff(n=2)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_masks_depend_on_the_sound_unless_the_model_is_deaf(form: str) -> None:
    image, audio = inputs()
    other = audio.flip(0)
    model = make(decoder=form).eval()
    assert not torch.allclose(model(image, audio), model(image, other), atol=1e-3)
    if form == "comparing":
        return  # with nothing, there is no deaf one
    deaf = make(decoder=form, modalities="image").eval()
    assert torch.equal(deaf(image, audio), deaf(image, other))
    assert torch.equal(deaf(image, audio), deaf(image, None))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layers", ["all", "none"])
def test_absent_sound_is_the_same_with_and_without_others_in_the_batch(form: str, layers: str) -> None:
    image, audio = inputs()
    model = make(decoder=form, encoder={"fusion_layers": layers}).eval()
    mixed = model(image, audio, None, torch.tensor([True, False]))
    torch.testing.assert_close(mixed[:1], model(image[:1], audio[:1]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mixed[1:], model(image[1:], None), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("layers", "modalities"), [("all", "both"), ("none", "both"), ("all", "image")])
def test_a_gradient_reaches_every_parameter_that_is_trained(form: str, layers: str, modalities: str) -> None:
    if form == "comparing" and modalities == "image":
        pytest.skip("compares with the sound")
    model = make(decoder=form, encoder={"fusion_layers": layers}, modalities=modalities)
    model.freeze_unused()
    assert model.training
    image, audio = inputs()
    model(image, audio).square().sum().backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {n for n, p in model.named_parameters() if p.grad is not None} == trained
    without = {n for n, p in model.named_parameters() if p.grad is not None and not p.grad.any()}
    assert without == set()
    if modalities == "image":
        assert not any(name.startswith("encoder.audio.") for name in trained)
    else:
        assert "encoder.audio.patch_embed.proj.weight" in trained
        fuses = "encoder.fusion_blocks.2.mlp.fc1.weight" in trained
        assert fuses == (layers == "all" and form != "release")  # the release's form does not read fusion tokens


def test_only_the_comparing_form_sees_frames_that_are_not_encoded() -> None:
    image, audio = inputs()
    frames = torch.stack([image, image, image.flip(-1)], dim=1)
    model = make(decoder="comparing", encoder={"num_frames": 3, "encode_frames": "reference"}).eval()
    still = frames[:, 1:2].expand_as(frames)
    assert model(frames, audio).shape == (2, 1, 64, 48)
    assert not torch.allclose(model(frames, audio), model(still, audio), atol=1e-4)
    with pytest.raises(ValueError, match="encode_frames reference: only decoder comparing"):
        make(encoder={"num_frames": 3, "encode_frames": "reference"})


def test_fusion_tokens_alone_can_carry_the_sound() -> None:
    # Shown no audio token, the attentive decoder still hears through the fusion tokens of an early-fusion encoder.
    image, audio = inputs()
    model = make().eval()
    assert model.decoder.context.audio is not None
    with torch.no_grad():
        model.decoder.context.audio[-1].weight.zero_()
    assert not torch.allclose(model(image, audio), model(image, audio.flip(0)), atol=1e-4)


def test_frozen_encoders_stay_as_they_are() -> None:
    model = make(encoder={"drop_path": 0.5})
    model.freeze_encoder()
    model.train()
    image, audio = inputs()
    assert torch.equal(model(image, audio), model(image, audio))  # no drop path
    model(image, audio).sum().backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert model.layer_ids().keys() == {name for name, _ in model.named_parameters()}
    assert model.layer_ids()["decoder.queries"] == 4


def test_resampled_positions_by_hand() -> None:
    assert torch.equal(resampled_positions((4, 3), (4, 3), 32), sincos_positions((4, 3), 32))
    fine = resampled_positions((8, 6), (4, 3), 32).view(8, 6, 32)
    # Row 0 of 8 lies at (0 + 1/2) 4/8 - 1/2 = -1/4, column 5 of 6 at (5 + 1/2) 3/6 - 1/2 = 2 1/4.
    assert fine[0, 5, 0].item() == pytest.approx(torch.tensor(2.25).sin().item(), abs=1e-6)
    assert fine[0, 5, 16].item() == pytest.approx(torch.tensor(-0.25).sin().item(), abs=1e-6)
    # Two fine patches lie evenly about the coarse one that they halve.
    coarse = sincos_positions((4, 3), 32).view(4, 3, 32)
    torch.testing.assert_close(fine[0::2, 0::2, 4:8].mean(), coarse[..., 4:8].mean(), rtol=0.05, atol=0.05)


def test_other_picture_sizes_are_kept_in_the_file(tmp_path: Path) -> None:
    model = make().eval()
    image, audio = inputs()
    before = model(image, audio)
    model.set_image_size((96, 80))
    big = torch.nn.functional.interpolate(image, (96, 80), mode="bilinear")
    out = model(big, audio)
    assert out.shape == (2, 1, 96, 80)
    model.save_pretrained(tmp_path / "model")
    loaded = Segmenter.from_pretrained(tmp_path / "model")
    assert loaded.config.positions_grid == (4, 3)
    assert torch.equal(loaded(big, audio), out)
    loaded.set_image_size((64, 48))  # back again: positions are those of the training
    torch.testing.assert_close(loaded(image, audio), before)
    with pytest.raises(ValueError, match=r"image_size \[60, 80\] must be two positive multiples of patch_size 16"):
        model.set_image_size((60, 80))


def test_an_encoder_is_loaded_at_another_picture_size(tmp_path: Path) -> None:
    tiny_encoder().save_pretrained(tmp_path / "encoder")
    config = SegmenterConfig(encoder=replace(TINY, image_size=(96, 96)), decoder_dim=32, positions_grid=(4, 3))
    model = Segmenter(config)
    assert "tensors loaded" in load_resized(model.encoder, str(tmp_path / "encoder"))
    source = EarlyFusionEncoder.from_pretrained(tmp_path / "encoder")
    assert torch.equal(model.encoder.image.blocks[0].mlp.fc1.weight, source.image.blocks[0].mlp.fc1.weight)
    assert torch.equal(model.encoder.image.pos_embed, resampled_positions((6, 6), (4, 3), 32))
