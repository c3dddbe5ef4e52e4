"""The classifier: heads, their average, missing modalities, probes, the released layout."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from deepavfusion.models import AudioVisualClassifier, ClassifierConfig, EarlyFusionConfig, EarlyFusionEncoder
from deepavfusion.models.classifier import PresentBatchNorm, mean_pool, streams_of
from deepavfusion.storage.weights import convert_release, load_release
from tests.models.tiny import TINY, inputs, randomized

REFERENCE = Path(__file__).parents[1] / "reference"
CLASSES = ("bell", "cat", "dog", "drum", "rain")


def tiny_classifier(seed: int = 0, encoder: EarlyFusionConfig = TINY, **settings) -> AudioVisualClassifier:
    torch.manual_seed(seed)
    return randomized_heads(AudioVisualClassifier(ClassifierConfig(encoder=encoder, classes=CLASSES, **settings)))


def randomized_heads(model: AudioVisualClassifier) -> AudioVisualClassifier:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "_head." in name:
                parameter.normal_()
    randomized(model.encoder)
    return model


def flags(*values: bool) -> torch.Tensor:
    return torch.tensor(values)


def test_logits_are_linear_maps_of_mean_tokens_and_their_mean() -> None:
    model = tiny_classifier().eval()
    out, tokens = model(*inputs()), model.encoder(*inputs())
    for stream in ("image", "audio", "fusion"):
        head = model.get_submodule(f"{stream}_head")
        expected = torch.nn.functional.linear(getattr(tokens, stream).mean(1), head.weight, head.bias)
        torch.testing.assert_close(out.logits[stream], expected)
    torch.testing.assert_close(out.average, sum(out.logits.values()) / 3)


def test_a_missing_modality_leaves_its_head_out() -> None:
    model = tiny_classifier().eval()
    image, audio = inputs(3)
    out = model(image, audio, flags(True, False, True), flags(True, True, False))
    expected = [
        (out.logits["image"] + out.logits["audio"] + out.logits["fusion"])[0] / 3,
        (out.logits["audio"] + out.logits["fusion"])[1] / 2,
        (out.logits["image"] + out.logits["fusion"])[2] / 2,
    ]
    torch.testing.assert_close(out.average, torch.stack(expected))
    # What lies in the place of an absent picture does not matter, nor does it whether the whole input is lacking.
    scrambled = image.clone()
    scrambled[1] = 7.0
    again = model(scrambled, audio, flags(True, False, True), flags(True, True, False))
    torch.testing.assert_close(again.average, out.average)
    alone = model(None, audio[1:2])
    torch.testing.assert_close(alone.average, out.average[1:2])
    assert not alone.present["image"].any()
    nothing = model(image, audio, flags(True, True, False), flags(True, True, False))
    assert torch.equal(nothing.average[2], torch.zeros(len(CLASSES)))
    assert not any(present[2] for present in nothing.present.values())


@pytest.mark.parametrize("pooling", ["mean", "attentive"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_gradients_reach_every_parameter(pooling: str, batch_norm: bool) -> None:
    model = tiny_classifier(pooling=pooling, batch_norm=batch_norm, heads=("image", "audio", "fusion", "concat"))
    model(*inputs()).average.square().sum().backward()
    lacking = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert lacking == []


def test_concatenation_reads_both_streams_and_zeros_for_an_absent_one() -> None:
    model = tiny_classifier(heads=("concat",), encoder=replace(TINY, fusion_layers="none")).eval()
    image, audio = inputs()
    tokens, out = model.encoder(image, audio), model(image, audio)
    both = torch.cat([tokens.image.mean(1), tokens.audio.mean(1)], dim=1)
    torch.testing.assert_close(out.average, model.concat_head(both))
    alone = model(image, None)
    half = torch.cat([tokens.image.mean(1), torch.zeros(2, 32)], dim=1)
    torch.testing.assert_close(alone.average, model.concat_head(half))


def test_one_modality_models_never_look_at_the_other() -> None:
    model = tiny_classifier(heads=("image", "fusion"), modalities="image").eval()
    image, audio = inputs()
    assert torch.equal(model(image, audio).average, model(image, None).average)
    with pytest.raises(ValueError, match="both are None"):
        model(None, audio)


def test_batch_norm_is_the_usual_one_where_all_are_present_and_ignores_the_absent() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 4) * 3 + 1
    ours, usual = PresentBatchNorm(4), nn.BatchNorm1d(4, eps=1e-6, affine=False)
    torch.testing.assert_close(ours(x), usual(x))
    for name, value in usual.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    torch.testing.assert_close(ours.eval()(x), usual.eval()(x))
    present = flags(True, False, True, True, False, True)
    ours, usual = PresentBatchNorm(4), nn.BatchNorm1d(4, eps=1e-6, affine=False)
    torch.testing.assert_close(ours(x, present)[present], usual(x[present]))
    torch.testing.assert_close(ours.running_var, usual.running_var)
    before = ours.running_mean.clone()
    ours(x, torch.zeros(6, dtype=torch.bool))
    assert torch.equal(ours.running_mean, before)


def test_a_frozen_encoder_gets_no_gradient_and_no_drop_path() -> None:
    model = tiny_classifier(encoder=replace(TINY, drop_path=0.5), batch_norm=True)
    model.freeze_encoder()
    model.train()
    assert not model.encoder.training
    assert model.image_norm.training
    model(*inputs()).average.sum().backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert model.image_head.weight.grad is not None


def test_saved_and_loaded_as_classifier_and_as_encoder(tmp_path: Path) -> None:
    model = tiny_classifier(batch_norm=True, heads=("audio", "fusion")).eval()
    model.save_pretrained(tmp_path)
    loaded = AudioVisualClassifier.from_pretrained(tmp_path)
    assert loaded.config == model.config
    assert loaded.config.classes == CLASSES
    assert torch.equal(loaded(*inputs()).average, model(*inputs()).average)
    encoder = EarlyFusionEncoder.from_pretrained(tmp_path)
    ours, theirs = (mean_pool(streams_of(own(*inputs())))["fusion"] for own in (encoder, model.encoder))
    assert torch.equal(ours, theirs)


def test_released_classifier_loads_with_heads_and_norms(tmp_path: Path) -> None:
    with np.load(REFERENCE / "encoder_factorized.npz") as case:
        weights = {f"encoder.{k[3:]}": torch.tensor(case[k]) for k in case.files if k.startswith("sd/")}
        values = json.loads(str(case["config"]))
    del values["loss"]
    encoder = EarlyFusionConfig.from_dict(values)
    config = ClassifierConfig(encoder=encoder, classes=CLASSES, batch_norm=True)
    own = AudioVisualClassifier(config).state_dict()
    heads = {key: torch.randn_like(v.float()).to(v.dtype) for key, v in own.items() if not key.startswith("encoder.")}
    assert set(heads) == {
        f"{s}_{rest}"
        for s in ("image", "audio", "fusion")
        for rest in ("head.weight", "head.bias", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked")
    }
    torch.save({"state_dict": weights | heads}, tmp_path / "probe.pth")
    model = AudioVisualClassifier(config)
    report = load_release(model, tmp_path / "probe.pth")
    assert len(report.loaded) == len(own)
    for key, value in heads.items():
        assert torch.equal(model.state_dict()[key], value)
    bare = {k: v for k, v in heads.items() if "norm" not in k}
    with pytest.raises(ValueError, match=r"missing image_norm\.running_mean"):
        convert_release(weights | bare, config)


def test_layers_count_as_in_the_encoder_and_heads_are_last() -> None:
    ids = tiny_classifier().layer_ids()
    last = TINY.depth + 1
    assert ids["encoder.image.patch_embed.proj.weight"] == ids["encoder.fusion_tokens"] == 0
    assert ids["encoder.audio.blocks.0.mlp.fc1.bias"] == ids["encoder.fusion_blocks.0.norm2.weight"] == 1
    assert ids["encoder.image.blocks.2.attn.qkv.weight"] == 3
    assert ids["encoder.fusion_norm.weight"] == ids["image_head.weight"] == ids["audio_head.bias"] == last


def test_impossible_heads_are_named() -> None:
    with pytest.raises(ValueError, match=r"heads \['image', 'audio'\] must be some of image, fusion"):
        ClassifierConfig(encoder=TINY, classes=CLASSES, heads=("image", "audio"), modalities="image")
    with pytest.raises(ValueError, match="must be some of image, audio, concat"):
        ClassifierConfig(encoder=replace(TINY, fusion_layers="none"), classes=CLASSES)
    with pytest.raises(ValueError, match="holds cat more than once"):
        ClassifierConfig(encoder=TINY, classes=("cat", "dog", "cat"))
