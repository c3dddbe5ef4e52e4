"""Our models through transformers' Auto classes: folders open both ways, outputs are ours to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("transformers", reason="needs the extra transformers")

from transformers import AutoConfig, AutoModel, AutoProcessor
from transformers.utils import ModelOutput

from deepavfusion import models
from deepavfusion.audio import log_mel
from deepavfusion.data.clips import Clip
from deepavfusion.data.dataset import ClipSet, collate
from deepavfusion.data.views import CentreView
from deepavfusion.images import normalize
from deepavfusion.integrations.transformers import DeepAVFusionConfig, DeepAVFusionModel, DeepAVFusionProcessor
from deepavfusion.models import AudioVisualMAE, EarlyFusionEncoder, MaskedAutoencoderConfig
from deepavfusion.models.config import AlignmentConfig
from tests.inference.tiny_models import ENCODER, film, randomized, tiny_models, write_film, write_wav


def every_model() -> dict[str, Any]:
    """One of each class, with random weights; the encoder sees two frames, whose times are computed and not saved."""
    torch.manual_seed(0)
    alignment = AlignmentConfig(weight=1.0, dim=8, hidden_dim=16)
    autoencoder = MaskedAutoencoderConfig(encoder=ENCODER, decoder_dim=16, decoder_num_heads=2, alignment=alignment)
    many = ENCODER.from_dict({**ENCODER.record(), "num_frames": 2})
    made = [EarlyFusionEncoder(many), AudioVisualMAE(autoencoder), *tiny_models().values()]
    return {type(model).__name__: randomized(model) for model in made}


MODELS = every_model()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_film(tmp_path_factory.mktemp("clips") / "clip.mp4", 2.0))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", MODELS)
def test_folders_open_both_ways(name: str, tmp_path: Path) -> None:
    ours = MODELS[name]
    ours.save_pretrained(tmp_path / "ours")
    theirs = AutoModel.from_pretrained(tmp_path / "ours")
    assert isinstance(theirs, DeepAVFusionModel)
    assert not theirs.training
    assert same(theirs.model.state_dict(), ours.state_dict())
    unsaved = dict(ours.named_buffers())
    assert all(torch.equal(value, unsaved[key]) for key, value in theirs.model.named_buffers())
    theirs.save_pretrained(tmp_path / "theirs")
    back = getattr(models, name).from_pretrained(tmp_path / "theirs")
    assert same(back.state_dict(), ours.state_dict())
    assert back.config == ours.config
    again = AutoModel.from_pretrained(tmp_path / "theirs")
    assert same(again.model.state_dict(), ours.state_dict())
    assert AutoConfig.from_pretrained(tmp_path / "theirs").build() == ours.config


def test_every_class_is_tried() -> None:
    from deepavfusion.storage.model_configs import CONFIG_CLASSES

    assert set(MODELS) == set(CONFIG_CLASSES)


def test_outputs_are_ours_to_the_bit(clip: str, tmp_path: Path) -> None:
    ours = MODELS["AudioVisualClassifier"]
    ours.save_pretrained(tmp_path)
    model, processor = AutoModel.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(processor, DeepAVFusionProcessor)
    inputs = processor(videos=[clip, clip])
    batch = collate([ClipSet([Clip("a", clip)], CentreView.from_config(ENCODER))[0]])
    image, audio = normalize(batch.image), log_mel(batch.waveform, ENCODER.audio_size[0])
    assert torch.equal(inputs["pixel_values"], image.expand(2, -1, -1, -1))
    assert torch.equal(inputs["audio_values"][:1], audio)
    with torch.no_grad():
        out, tokens = model(**inputs), ours.encoder(inputs["pixel_values"], inputs["audio_values"])
        logits = ours(inputs["pixel_values"], inputs["audio_values"]).average
        assert len(model(**inputs, return_dict=False)) == 4
    assert isinstance(out, ModelOutput)
    for stream in ("image", "audio", "fusion"):
        assert torch.equal(out[f"{stream}_hidden_state"], getattr(tokens, stream))
    assert torch.equal(out.logits, logits)


def test_the_joint_space(clip: str, tmp_path: Path) -> None:
    ours = MODELS["AudioVisualMAE"]
    ours.save_pretrained(tmp_path)
    model, processor = AutoModel.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    inputs = processor(videos=clip)
    with torch.no_grad():
        seen = model.get_image_features(inputs["pixel_values"])
        heard = model.get_audio_features(inputs["audio_values"])
        assert torch.equal(seen, ours.alignment.embed(ours.encoder(inputs["pixel_values"], None)))
        assert torch.equal(heard, ours.alignment.embed(ours.encoder(None, inputs["audio_values"])))
        assert "logits" not in model(**inputs)
    with pytest.raises(ValueError, match="has no joint space"):
        DeepAVFusionModel(DeepAVFusionConfig(model_config=ENCODER.record())).get_image_features(inputs["pixel_values"])


def test_inputs_of_every_kind(clip: str, tmp_path: Path) -> None:
    processor = DeepAVFusionProcessor(ENCODER.record())
    wav = str(write_wav(tmp_path / "tone.wav", 1.5))
    waveform, rate = soundfile.read(wav, dtype="float32")
    by_path, by_array = processor(audio=wav), processor(audio=waveform, sampling_rate=rate)
    assert "pixel_values" not in by_path
    torch.testing.assert_close(by_path["audio_values"], by_array["audio_values"])
    frames, sound = film(2.0)
    both = processor(videos=[frames], audio=[sound], fps=12.5, sampling_rate=16000)
    assert both["pixel_values"].shape == (1, 3, *ENCODER.image_size)
    assert both["image_present"].all()
    assert both["audio_present"].all()
    mixed = processor(videos=[clip, wav])  # of a file its content decides
    assert mixed["image_present"].tolist() == [True, False]
    assert not mixed["pixel_values"][1].isnan().any()
    every = processor(videos=[clip, clip], windows="all", hop_seconds=0.5)
    assert every["start_seconds"].tolist() == [0, 0.5, 1] * 2
    assert every["recording"].tolist() == [0, 0, 0, 1, 1, 1]
    photo = processor(images=np.zeros((40, 56, 3), np.uint8))
    assert list(photo) == ["pixel_values", "image_present"]
    assert processor(images=[frames[0]], audio=[wav])["audio_present"].all()


def test_mistakes_are_named(clip: str, tmp_path: Path) -> None:
    processor = DeepAVFusionProcessor(ENCODER.record())
    wrong: dict[str, dict[str, Any]] = {
        "give videos, images or audio": {},
        "give videos or images, not both": {"videos": clip, "images": clip},
        "2 videos or images and 1 sounds": {"videos": [clip, clip], "audio": clip},
        "windows 'some' must be centre or all": {"videos": clip, "windows": "some"},
        "only tensors of torch": {"videos": clip, "return_tensors": "np"},
        "rate": {"audio": np.zeros(100, np.float32)},
        "fps": {"videos": np.zeros((4, 40, 56, 3), np.uint8)},
    }
    for message, given in wrong.items():
        with pytest.raises(ValueError, match=message):
            processor(**given)
    with pytest.raises(ValueError, match="must be one of EarlyFusionEncoder"):
        DeepAVFusionConfig(model="Bert")
    with pytest.raises(ValueError, match="is newer than this package's"):
        DeepAVFusionConfig(format_version=9)
    with pytest.raises(ValueError, match="holds no model; save the model there"):
        processor.save_pretrained(tmp_path)


def test_a_folder_of_before_has_no_model_type(tmp_path: Path) -> None:
    MODELS["EarlyFusionEncoder"].save_pretrained(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())
    assert record.pop("model_type") == "deepavfusion"
    (tmp_path / "config.json").write_text(json.dumps(record))
    opened = DeepAVFusionModel.from_pretrained(tmp_path)
    assert same(opened.model.state_dict(), MODELS["EarlyFusionEncoder"].state_dict())
