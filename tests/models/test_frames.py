"""Several frames per clip: order and time of their tokens, weights that serve any number, and the frame maps are of."""

import json
from dataclasses import replace

import pytest
import torch

from deepavfusion.bench import plain
from deepavfusion.models import (
    AudioVisualClassifier,
    EarlyFusionConfig,
    EarlyFusionEncoder,
    Localizer,
    Segmenter,
    Separator,
)
from deepavfusion.models.config import ClassifierConfig
from deepavfusion.models.encoder import EncoderOutput, LayerTokens
from deepavfusion.models.frames import (
    frame_positions,
    reference_picture,
    reference_tokens,
    sound_of_frames,
    token_positions,
)
from deepavfusion.models.localizer_config import LocalizerConfig
from deepavfusion.models.patch_embed import patchify, unpatchify
from deepavfusion.models.segmenter_config import SegmenterConfig
from deepavfusion.models.separator_config import SeparatorConfig
from deepavfusion.models.sound_maps import zero_shot_maps
from tests.models.tiny import FORMS, TINY, inputs, tiny_autoencoder, tiny_encoder

T, N = 3, 12
"""Frames, and patches of a frame of the tiny encoder."""


def film(batch: int = 2, frames: int = T, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, frames, 3, *TINY.image_size, generator=generator, dtype=torch.float64).to(dtype)


def test_times_by_hand() -> None:
    """Three frames over four columns of sound patches: 4 / 3 columns apart, the middle one at zero."""
    config = replace(TINY, num_frames=T)
    found = frame_positions(config, 8)
    assert found is not None
    angles = torch.tensor([[p * 4 / 3 * 10000 ** (-i / 4) for i in range(4)] for p in (-1, 0, 1)])
    torch.testing.assert_close(found, torch.cat([angles.sin(), angles.cos() - 1], dim=1))
    assert not found[1].any()
    assert frame_positions(TINY, 8) is None


def test_positions_are_those_of_patch_and_frame() -> None:
    places, times = torch.randn(4, 6), torch.randn(3, 6)
    every = token_positions(places, times)
    assert torch.equal(every[0, 2 * 4 + 1], places[1] + times[2])
    ids = torch.tensor([[9, 0], [4, 11]])
    assert torch.equal(token_positions(places, times, ids), every[0][ids])
    assert torch.equal(token_positions(places, None, ids % 4), places[ids % 4])


def test_frames_are_cut_one_after_the_other_and_come_back() -> None:
    x = film()
    patches = patchify(x, 16)
    assert torch.equal(patches, torch.cat([patchify(x[:, t], 16) for t in range(T)], dim=1))
    assert torch.equal(unpatchify(patches, 16, (4, 3)), x)


@pytest.mark.parametrize("fusion", FORMS)
def test_frames_equal_the_method_written_out(fusion: str) -> None:
    model, image, audio = tiny_encoder(fusion=fusion, num_frames=T).double(), film(dtype=torch.float64), inputs()[1]
    ids = torch.tensor([[0, 13, 30], [5, 12, 35]]), torch.tensor([[1, 3], [0, 2]])
    out = model(image, audio.double(), *ids)
    for found, expected in zip(
        (out.image, out.audio, out.fusion), plain.encode(model, image, audio.double(), *ids), strict=True
    ):
        torch.testing.assert_close(found, expected)
    assert model(image, audio.double()).image.shape == (2, T * N, 32)
    autoencoder = tiny_autoencoder(fusion=fusion, num_frames=T).double()
    noise = torch.rand(2, T * N), torch.rand(2, 12)
    own = autoencoder(image, audio.double(), *noise)
    loss_image, loss_audio = plain.masked_loss(autoencoder, image, audio.double(), *noise)[:2]
    torch.testing.assert_close((own.loss_image, own.loss_audio), (loss_image, loss_audio))
    own.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in autoencoder.parameters())
    assert autoencoder(image, audio.double()).image_mask.shape == (2, T * N)


def test_weights_serve_any_number_of_frames() -> None:
    one, several = tiny_encoder(0), tiny_encoder(1, num_frames=T)
    several.load_state_dict(one.state_dict())
    one.load_state_dict(several.state_dict())
    # All of the reference frame alone, so that time and attention to other frames play no part.
    x, ids = film(), torch.arange(N, 2 * N).expand(2, -1)
    torch.testing.assert_close(several(x, inputs()[1], ids).image, one(x[:, 1], inputs()[1]).image)
    tiny_autoencoder(1, num_frames=T).load_state_dict(tiny_autoencoder(0).state_dict())


def test_time_tells_frames_apart() -> None:
    model, x = tiny_encoder(num_frames=T).double(), film(dtype=torch.float64)
    audio = inputs(dtype=torch.float64)[1]
    other = model(x[:, [2, 1, 0]], audio).image
    assert not torch.allclose(model(x, audio).image[:, N : 2 * N], other[:, N : 2 * N])
    model.image.time_embed.zero_()
    other = model(x[:, [2, 1, 0]], audio).image.unflatten(1, (T, N))[:, [2, 1, 0]].flatten(1, 2)
    torch.testing.assert_close(model(x, audio).image, other)


def test_wrong_number_of_frames_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"\(B, 3, 3, 64, 48\), got \(2, 3, 64, 48\)"):
        tiny_encoder(num_frames=T)(*inputs())
    with pytest.raises(ValueError, match=r"\(B, 3, 64, 48\), got \(2, 3, 3, 64, 48\)"):
        tiny_encoder()(film(), None)
    with pytest.raises(ValueError, match="num_frames 0 must be at least 1"):
        EarlyFusionConfig(num_frames=0)


def test_configurations_of_one_frame_are_saved_as_before(tmp_path) -> None:
    assert "num_frames" not in TINY.record()
    assert "num_frames" not in SegmenterConfig(encoder=TINY).record()["encoder"]
    several = replace(TINY, num_frames=T)
    assert EarlyFusionConfig.from_dict(json.loads(json.dumps(several.record()))) == several
    assert EarlyFusionConfig.from_dict(TINY.record()) == TINY
    tiny_encoder(num_frames=T).save_pretrained(tmp_path)
    assert EarlyFusionEncoder.from_pretrained(tmp_path).config.num_frames == T


def test_reference_is_the_middle_frame() -> None:
    config = replace(TINY, num_frames=T)
    tokens = torch.arange(T * N).repeat(2, 1)
    assert torch.equal(reference_tokens(tokens, config), tokens[:, N : 2 * N])
    x = film()
    assert torch.equal(reference_picture(x), x[:, 1])
    assert torch.equal(reference_picture(film(frames=4)), film(frames=4)[:, 2])
    assert torch.equal(reference_picture(x[:, 0]), x[:, 0])


def test_every_model_takes_several_frames() -> None:
    """Maps are of one frame, and all frames have a say in them."""
    encoder, x, audio = replace(TINY, num_frames=T), film().requires_grad_(), inputs()[1]
    torch.manual_seed(0)
    maps = Localizer(LocalizerConfig(encoder=encoder, dim=16)).eval()(x, audio).maps
    assert maps.shape == (2, 1, 4, 3)
    logits = Segmenter(SegmenterConfig(encoder=encoder, decoder_dim=32)).eval()(x, audio)
    assert logits.shape == (2, 1, 64, 48)
    release = Segmenter(SegmenterConfig(encoder=encoder, decoder="release")).eval()(x, audio)
    assert release.shape == (2, 1, 64, 48)
    classes = AudioVisualClassifier(ClassifierConfig(encoder=encoder, classes=("a", "b"))).eval()(x, audio).average
    sound = 0.1 * torch.randn(2, SeparatorConfig(encoder=encoder).num_samples)
    masks = Separator(SeparatorConfig(encoder=encoder)).eval()(x, sound).mask
    for out in (maps, logits, release, classes, masks):
        (gradient,) = torch.autograd.grad(out.square().sum(), x)
        assert (gradient.abs().flatten(2).sum(dim=2) > 0).all()
    model = tiny_encoder(num_frames=T)
    for method in ("audio_cosine", "attention", "rise"):
        assert zero_shot_maps(model, method, (2,), x, audio).shape == (2, 1, 4, 3)


def test_sound_is_divided_among_frames_in_time() -> None:
    """Tokens lie row by row (frequency), column by column (time): four columns for two frames, then for eight."""
    config = replace(TINY, num_frames=2)
    audio = torch.arange(4.0).repeat(3)[None, :, None].expand(1, 12, 5)
    assert sound_of_frames(audio, config)[0, :, 0].tolist() == [0.5, 2.5]
    assert sound_of_frames(audio, replace(TINY, num_frames=8))[0, :, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert sound_of_frames(audio, TINY)[0, :, 0].tolist() == [1.5]


def test_the_localizer_asks_whether_a_place_changes_when_the_sound_does() -> None:
    """Its head on made-up tokens, against the formula written out for one patch."""
    torch.manual_seed(0)
    config = LocalizerConfig(encoder=replace(TINY, num_frames=T), dim=8, layers=(2,), readings=0)
    head = Localizer(config).head.double()
    image, audio, fusion = (torch.randn(1, n, 32, dtype=torch.float64) for n in (T * N, 12, 9))
    tokens = EncoderOutput(image, audio, fusion, (LayerTokens(image, audio, fusion),) * 3)
    with torch.no_grad():
        picture = film(1, dtype=torch.float64)
        found = head(picture, tokens).flatten(2)[0, :, 5]
        own = head.patch[0](head.norms[0](image[0].unflatten(0, (T, N))[:, 5]))  # (T, 16)
        own = own + head.view_linear(torch.cat([head.view(picture[:, t])[:, 5] for t in range(T)]))
        parts = sound_of_frames(audio, config.encoder)[0]
        heard = head.audio(head.audio_norm(parts)) + head.fusion(head.fusion_norm(fusion[0].mean(dim=0)))
        x = own[1, :8] + heard[:, :8].mean(dim=0)
        means = own[:, 8:].mean(dim=0), heard[:, 8:].mean(dim=0)
        x = x + head.patch_factor(means[0]) * head.sound_factor(means[1])
        for t in range(T):
            x = x + head.patch_factor(own[t, 8:] - means[0]) * head.sound_factor(heard[t, 8:] - means[1]) / T
        expected = head.fc2(torch.nn.functional.gelu(head.fc1(head.norm(x))))
    torch.testing.assert_close(found, expected)
    still = EncoderOutput(image, None, fusion, (LayerTokens(image, None, fusion),) * 3)
    assert head(picture, still).isfinite().all()


def test_frames_beside_the_reference_may_be_for_the_head_alone() -> None:
    """The encoder's answer is that of one frame; the map still follows what changes in the others."""
    config = replace(TINY, num_frames=T, encode_frames="reference")
    assert config.num_image_patches == N
    one, watching = tiny_encoder(0).double().eval(), tiny_encoder(0, num_frames=T, encode_frames="reference").double()
    assert one.state_dict().keys() == watching.state_dict().keys()
    x, audio = film(dtype=torch.float64), inputs()[1].double()
    alone, several = one(x[:, 1], audio), watching.eval()(x, audio)
    for name in ("image", "audio", "fusion"):
        assert torch.equal(getattr(alone, name), getattr(several, name)), name
    torch.manual_seed(0)
    model = Localizer(LocalizerConfig(encoder=config, dim=16, stride=8)).eval()
    x, audio = film().requires_grad_(), inputs()[1]
    (gradient,) = torch.autograd.grad(model(x, audio).maps.square().sum(), x)
    assert (gradient.abs().flatten(2).sum(dim=2) > 0).all()
    still = x.detach()[:, 1:2].expand_as(x)
    plain_model = Localizer(LocalizerConfig(encoder=TINY, dim=16, stride=8)).eval()
    plain_model.load_state_dict(model.state_dict())
    assert not torch.allclose(model(x, audio).maps, model(still, audio).maps)
    with torch.no_grad():  # one frame is what frames are that do not change, but for the sound's mean over its parts
        torch.testing.assert_close(model(still, None).maps, plain_model(still[:, 0], None).maps)
    with pytest.raises(ValueError, match="encode_frames reference is for heads"):
        tiny_autoencoder(num_frames=T, encode_frames="reference")
    with pytest.raises(ValueError, match="encode_frames 'some' must be all or reference"):
        replace(TINY, encode_frames="some")
