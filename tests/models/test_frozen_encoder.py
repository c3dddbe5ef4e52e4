"""A frozen encoder stays as it is in every model, whatever the model's mode."""

from dataclasses import replace

import pytest
import torch

from deepavfusion.models import EarlyFusionEncoder
from tests.inference.tiny_models import ENCODER, tiny_models

TASKS = ("classification", "localization", "separation", "segmentation")


def encoded(encoder: EarlyFusionEncoder) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(8, *ENCODER.image_shape, generator=generator)
    return encoder(image, torch.randn(8, 1, *ENCODER.audio_size, generator=generator)).fusion


@pytest.mark.parametrize("task", TASKS)
def test_frozen_encoders_drop_no_path_while_the_rest_trains(task: str) -> None:
    model = tiny_models(replace(ENCODER, drop_path=0.5))[task]
    model.train()
    assert not torch.equal(encoded(model.encoder), encoded(model.encoder))  # drop path, as long as it learns
    model.freeze_encoder()
    expected = encoded(model.eval().encoder)
    for mode in (True, False, True):
        model.train(mode)
        assert model.training == mode
        assert not any(module.training for module in model.encoder.modules())
        assert torch.equal(encoded(model.encoder), expected)
    model.encoder.train()  # asked itself, and as a part of something larger
    torch.nn.Sequential(model).train()
    assert torch.equal(encoded(model.encoder), expected)
    assert not encoded(model.encoder).requires_grad
