"""The alignment of two moments against slow references, and what must not change it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepavfusion.models import AudioVisualMAE, MaskedAutoencoderConfig
from deepavfusion.models.alignment import STREAMS, Alignment, Projection, Standardized
from deepavfusion.models.config import AlignmentConfig
from deepavfusion.models.masked_autoencoder import one_sense
from tests.models.tiny import TINY, inputs, randomized, tiny_encoder

CONFIG = AlignmentConfig(weight=1.0, dim=8, hidden_dim=12)


def autoencoder(fusion_layers: str = "all", weight: float = 1.0) -> AudioVisualMAE:
    torch.manual_seed(0)
    encoder = replace(TINY, fusion_layers=fusion_layers)
    config = MaskedAutoencoderConfig(
        encoder,
        decoder_dim=32,
        decoder_num_heads=4,
        image_decoder_depth=1,
        audio_decoder_depth=1,
        weight=weight,
        alignment=CONFIG,
    )
    return AudioVisualMAE(config)


def moments(batch: int = 6) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs of two moments, all there."""
    found = []
    for seed in (1, 2):
        image, audio = inputs(batch, seed=seed)
        rng = torch.Generator().manual_seed(seed)
        noise = [torch.rand(batch, n, generator=rng) for n in (TINY.num_image_patches, TINY.num_audio_patches)]
        there = torch.ones(batch, dtype=torch.bool)
        names = ("image", "audio", "image_noise", "audio_noise", "image_present", "audio_present")
        found.append(dict(zip(names, (image, audio, *noise, there, there.clone()), strict=True)))
    return found[0], found[1]


def test_info_nce_is_the_mean_over_both_ways_of_telling_the_own_clip() -> None:
    alignment = Alignment(TINY, CONFIG)
    x, y = (torch.randn(5, 8, generator=torch.Generator().manual_seed(n)).double() for n in (1, 2))
    there = torch.tensor([True, True, False, True, True])
    scale, losses = float(alignment.log_scale.detach().exp()), []
    rows = [n for n in range(5) if there[n]]
    for i in rows:
        for a, b in ((x, y), (y, x)):
            similar = [float(a[i] @ b[j] / a[i].norm() / b[j].norm()) * scale for j in rows]
            losses.append(np.log(np.sum(np.exp(similar))) - similar[rows.index(i)])
    assert float(alignment.info_nce(x, y, there, there).detach()) == pytest.approx(np.mean(losses), rel=1e-6)
    assert scale == pytest.approx(10)


def test_terms_average_streams_and_compare_like_with_like() -> None:
    encoder, alignment = tiny_encoder().eval(), Alignment(TINY, CONFIG)
    image, audio = inputs(6)
    with torch.no_grad():
        first, seen, heard = encoder(image, audio), encoder(image, None), encoder(None, audio)
    there = torch.ones(6, dtype=torch.bool)
    alignment.eval()
    terms = alignment(first, seen, heard, there, dict.fromkeys(STREAMS, there))
    queries = [alignment.together[name](getattr(first, name).mean(1)) for name in ("image", "audio", "fusion")]
    target = alignment.alone["image"](torch.cat([seen.image.mean(1), seen.fusion.mean(1)], dim=1))
    expected = torch.stack([alignment.info_nce(query, target, there, there) for query in queries]).mean()
    assert float(terms["image"]) == pytest.approx(float(expected), rel=1e-6)
    assert set(terms) == {"image", "audio", "pair"}
    similar = alignment.embed(seen) @ alignment.embed(heard).T * alignment.log_scale.exp()
    pair = (F.cross_entropy(similar, torch.arange(6)) + F.cross_entropy(similar.T, torch.arange(6))) / 2
    assert float(terms["pair"]) == pytest.approx(float(pair), rel=1e-5)


def test_standardizing_is_batch_norm_over_the_rows_that_are_there() -> None:
    own, theirs = Standardized(4), nn.BatchNorm1d(4, affine=False)
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    there = torch.tensor([True, False, True, True, True, False, True])
    torch.testing.assert_close(own(x, there)[there], theirs(x[there]))
    torch.testing.assert_close(own.mean, theirs.running_mean)
    own.eval()
    torch.testing.assert_close(own(x), (x - own.mean) / (own.variance + 1e-5).sqrt())
    before = own.mean.clone()
    own.train()(x, torch.zeros(7, dtype=torch.bool))
    assert torch.equal(own.mean, before)  # nothing was there to learn from


@pytest.mark.parametrize("fusion_layers", ["all", "none"])
def test_a_clip_that_lacks_a_track_at_one_moment_takes_no_part(fusion_layers: str) -> None:
    model = autoencoder(fusion_layers).train()
    first, second = moments()
    second["audio_present"][2] = False
    terms = model(**first, second=second).alignment
    five = [n for n in range(6) if n != 2]
    alone = model(**{k: x[five] for k, x in first.items()}, second={k: x[five] for k, x in second.items()}).alignment
    for name, value in terms.items():
        assert float(value) == pytest.approx(float(alone[name]), rel=1e-4), name
    second["image"][2] = 100.0
    for name, value in model(**first, second=second).alignment.items():
        assert torch.equal(value, terms[name]), name
    nobody = model(**first, second={**second, "image_present": torch.zeros(6, dtype=torch.bool)}).alignment
    assert all(float(value) == 0 for value in nobody.values())
    sum(nobody.values()).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_share_of_complete_samples_keeps_one_sense() -> None:
    noise = torch.rand(4000, generator=torch.Generator().manual_seed(0))
    lacking = torch.ones(4000, dtype=torch.bool)
    lacking[:1000] = False
    seen, heard = one_sense(0.6, noise, None, lacking)
    assert (seen | heard)[1000:].all()
    assert seen[:1000].all()  # what has one sense keeps it
    assert not heard[:1000].any()
    for own in (~seen, ~heard):
        assert own[1000:].float().mean().item() == pytest.approx(0.3, abs=0.03)
    hidden = noise[1000:][~seen[1000:]]
    assert hidden.mean().item() == pytest.approx(0.5, abs=0.03)  # and so no patch is seen more often in these
    assert all(own.all() for own in one_sense(0.0, noise, None, None))


def test_what_was_not_encoded_is_compared_with_nothing() -> None:
    encoder, alignment = tiny_encoder().eval(), Alignment(TINY, CONFIG).eval()
    image, audio = inputs(6)
    there = torch.ones(6, dtype=torch.bool)
    seen_too = torch.tensor([True, False, True, True, True, False])
    with torch.no_grad():
        first, seen, heard = encoder(image, audio), encoder(image, None), encoder(None, audio)
        encoded = {"image": seen_too, "audio": there, "fusion": there}
        terms = alignment(first, seen, heard, there, encoded)
        first.image[~seen_too] = 100.0
        again = alignment(first, seen, heard, there, encoded)
        whole = alignment(first, seen, heard, there, dict.fromkeys(STREAMS, there))
    for name in ("image", "audio"):
        assert torch.equal(terms[name], again[name])
        assert not torch.allclose(terms[name], whole[name])
    assert torch.equal(terms["pair"], whole["pair"])


def test_of_two_senses_together_the_fusion_tokens_alone_can_be_compared() -> None:
    encoder, every = tiny_encoder().eval(), Alignment(TINY, CONFIG).eval()
    fused = Alignment(TINY, replace(CONFIG, together="fusion")).eval()
    fused.load_state_dict(every.state_dict())
    image, audio = inputs(6)
    there = torch.ones(6, dtype=torch.bool)
    image_too = torch.tensor([True, True, False, True, True, True])
    sound_too = torch.tensor([True, True, True, False, True, False])
    with torch.no_grad():
        first, seen, heard = encoder(image, audio), encoder(image, None), encoder(None, audio)
        given = {"image": image_too, "audio": sound_too, "fusion": there}
        terms = fused(first, seen, heard, there, given)
        expected = every(first, seen, heard, there, {**given, "image": ~sound_too, "audio": ~image_too})
    assert terms == expected
    with pytest.raises(ValueError, match="together 'image' must be all or fusion"):
        AlignmentConfig(together="image")  # type: ignore[arg-type]


def test_senses_are_hidden_in_training_alone() -> None:
    first, second = moments()
    second["image_noise"][:, 0] = (torch.arange(6) + 0.5) / 6 / 1024  # by which two lose the image, two the audio
    model = autoencoder(weight=0.0)
    hiding = AudioVisualMAE(replace(model.config, alignment=replace(CONFIG, alone_share=2 / 3)))
    hiding.load_state_dict(model.state_dict())
    for training in (False, True):  # training changes what projections standardise by
        model.train(training), hiding.train(training)
        with torch.no_grad():
            whole, parts = (own(**first, second=second).alignment for own in (model, hiding))
        assert torch.equal(whole["image"], parts["image"]) != training
    with pytest.raises(ValueError, match=r"alignment\.alone_share 0\.5 would hide a sense from the reconstruction"):
        replace(model.config, weight=1.0, alignment=replace(CONFIG, alone_share=0.5))


def test_every_trained_weight_has_a_gradient_without_reconstruction_too() -> None:
    for fusion_layers in ("all", "none"):
        for weight in (0.0, 1.0):
            model = autoencoder(fusion_layers, weight).train()
            first, second = moments()
            out = model(**first, second=second)
            assert (out.pred_image is None) == (weight == 0)
            (out.loss + sum(out.alignment.values())).backward()
            idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
            assert idle == [], (fusion_layers, weight)


def test_the_joint_space_takes_one_sense_and_survives_saving(tmp_path) -> None:
    model = randomized(autoencoder()).eval()
    model.save_pretrained(tmp_path)
    again = AudioVisualMAE.from_pretrained(tmp_path)
    image, audio = inputs(3)
    out = model.encoder(image, None)
    z = model.alignment.embed(out)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(3))
    assert torch.equal(again.alignment.embed(again.encoder(image, None)), z)
    with pytest.raises(ValueError, match="encoded alone"):
        model.alignment.embed(model.encoder(image, audio))


def test_a_model_without_alignment_is_as_it_was() -> None:
    plain = replace(autoencoder().config, alignment=AlignmentConfig())
    assert set(plain.record()) == set(AudioVisualMAE(plain).config.record())
    assert not {"weight", "alignment"} & set(plain.record())
    assert MaskedAutoencoderConfig.from_dict(plain.record()) == plain
    aligned = autoencoder().config
    assert MaskedAutoencoderConfig.from_dict(aligned.record()) == aligned
    torch.manual_seed(3)
    a = AudioVisualMAE(plain).state_dict()
    torch.manual_seed(3)
    b = AudioVisualMAE(aligned).state_dict()
    assert all(torch.equal(value, b[name]) for name, value in a.items())
    with pytest.raises(ValueError, match="without alignment"):
        AudioVisualMAE(plain)(**moments()[0], second=moments()[1])
    with pytest.raises(ValueError, match="leaves nothing to learn"):
        replace(plain, weight=0.0)


def test_projections_separate_clips_whose_means_hardly_differ() -> None:
    x = 5 + 1e-3 * torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    z = F.normalize(Projection(32, 12, 8)(x), dim=1)
    assert float((z @ z.T - torch.eye(16)).mean()) < 0.2
