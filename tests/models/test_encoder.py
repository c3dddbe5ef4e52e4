"""Streams that may be absent, layers on request, checkpointing, compilation, drop path, layer numbers."""

import pytest
import torch

from deepavfusion.models import EarlyFusionConfig
from tests.models.tiny import FORMS, inputs, tiny_encoder


@pytest.mark.parametrize("fusion", FORMS)
def test_mixed_batch_equals_each_clip_on_its_own(fusion: str) -> None:
    """Clip 0 has both streams, clip 1 no sound, clip 2 no picture."""
    model = tiny_encoder(fusion=fusion).double()
    image, audio = inputs(batch=3, dtype=torch.float64)
    image_present, audio_present = torch.tensor([True, True, False]), torch.tensor([True, False, True])
    out = model(image, audio, image_present=image_present, audio_present=audio_present)
    alone = [model(image[:1], audio[:1]), model(image[1:2], None), model(None, audio[2:])]
    for i, one in enumerate(alone):
        for stream in ("image", "audio", "fusion"):
            expected = getattr(one, stream)
            found = getattr(out, stream)[i : i + 1]
            torch.testing.assert_close(found, torch.zeros_like(found) if expected is None else expected)
    # What stands in the place of an absent stream has no effect.
    other = model(
        image.index_fill(0, torch.tensor([2]), 5.0),
        audio.index_fill(0, torch.tensor([1]), -3.0),
        image_present=image_present,
        audio_present=audio_present,
    )
    torch.testing.assert_close(out.fusion, other.fusion)


@pytest.mark.parametrize("fusion", FORMS)
def test_neither_stream_gives_finite_numbers_and_gradients(fusion: str) -> None:
    """A clip that could not be read stays in its batch without a picture and without sound."""
    model = tiny_encoder(fusion=fusion)
    absent = torch.tensor([True, False])
    out = model(*(x * absent.view(-1, 1, 1, 1) for x in inputs()), image_present=absent, audio_present=absent)
    out.fusion.square().sum().backward()
    assert out.fusion.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_both_streams_absent_is_an_error() -> None:
    with pytest.raises(ValueError, match="both are None"):
        tiny_encoder()(None, None)


def test_wrong_size_is_an_error() -> None:
    image, audio = inputs()
    with pytest.raises(ValueError, match=r"\(B, 3, 64, 48\), got \(2, 3, 48, 64\)"):
        tiny_encoder()(image.mT, audio)


@pytest.mark.parametrize("fusion", FORMS)
def test_gradient_reaches_every_parameter(fusion: str) -> None:
    model = tiny_encoder(fusion=fusion)
    out = model(*inputs())
    (out.image.square().sum() + out.audio.square().sum() + out.fusion.square().sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_layers_on_request() -> None:
    model = tiny_encoder(fusion_layers=(0, 2)).eval()
    out = model(*inputs(), return_layers=True)
    assert len(out.layers) == 3
    torch.testing.assert_close(model.image.norm(out.layers[-1].image), out.image)
    torch.testing.assert_close(out.layers[0].fusion, out.layers[1].fusion)  # layer 1 does not fuse
    assert model(*inputs()).layers is None


def test_no_fusion_is_two_separate_encoders() -> None:
    model = tiny_encoder(fusion_layers="none")
    image, audio = inputs()
    out, other = model(image, audio), model(image, audio + 1)
    torch.testing.assert_close(out.image, other.image)
    fused = tiny_encoder(fusion_layers=(0, 1, 2))
    assert not torch.allclose(fused(image, audio).image, fused(image, audio + 1).image)
    tokens = model.fusion_norm(model.fusion_tokens).expand(2, -1, -1)
    torch.testing.assert_close(out.fusion, tokens)


@pytest.mark.parametrize("fusion", FORMS)
def test_gradient_checkpointing_changes_nothing(fusion: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = tiny_encoder(fusion=fusion, drop_path=0.3).train()
        model.gradient_checkpointing = checkpointing
        torch.manual_seed(5)
        model(*inputs(batch=4)).fusion.square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("fusion", FORMS)
def test_compiles_without_graph_breaks(fusion: str) -> None:
    model = tiny_encoder(fusion=fusion, depth=1)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    image, audio = inputs()
    present = torch.tensor([True, False])
    for kwargs in ({}, {"audio_present": present}):
        torch.testing.assert_close(compiled(image, audio, **kwargs).fusion, model(image, audio, **kwargs).fusion)
    torch.compiler.reset()


def test_drop_path_only_in_training_and_keeps_the_mean() -> None:
    model = tiny_encoder(drop_path=0.5)
    image, audio = inputs()
    model.eval()
    torch.testing.assert_close(model(image, audio).fusion, tiny_encoder(drop_path=0.0).eval()(image, audio).fusion)
    drop = model.image.blocks[0].drop_path.train()
    torch.manual_seed(0)
    dropped = drop(torch.ones(4000, 2, 3))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert (dropped == dropped[:, :1, :1]).all()  # whole samples
    assert abs(dropped.mean().item() - 1) < 0.05


def test_layer_numbers() -> None:
    ids = tiny_encoder(fusion_layers=(0, 2)).layer_ids()
    model = tiny_encoder(fusion_layers=(0, 2))
    assert ids.keys() == dict(model.named_parameters()).keys()
    assert ids["fusion_tokens"] == ids["audio.patch_embed.proj.bias"] == 0
    assert ids["image.blocks.0.mlp.fc1.weight"] == ids["fusion_blocks.0.norm_audio.weight"] == 1
    assert ids["fusion_blocks.2.attn.pairs.v.weight"] == ids["audio.blocks.2.norm1.bias"] == 3
    assert ids["image.norm.weight"] == ids["fusion_norm.bias"] == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 7}, r"num_heads 7 does not divide embed_dim 768: choose one of"),
        ({"image_size": (224, 220)}, r"image_size \[224, 220\] must be two positive multiples of patch_size 16"),
        ({"fusion_layers": (3, 12)}, r"ascending layer numbers from 0 to 11"),
        ({"num_tokens": (16, 0, 8)}, r"the factorized form needs aggregation tokens of both kinds"),
        ({"fusion_attn_ratio": 0.01}, r"fusion_attn_ratio 0.01 gives an attention width of 7.68"),
        ({"fusion": "late"}, r"fusion 'late' must be token, dense, factorized or bilinear"),
        ({"embed_dim": 30, "num_heads": 3}, r"embed_dim 30 must be divisible by 4"),
    ],
)
def test_configuration_names_what_does_not_fit(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EarlyFusionConfig(**changes)
