"""What a foreign clip's sense costs the reconstruction."""

from __future__ import annotations

import pytest
import torch

from deepavfusion.models.other_sense import other_sense_worth
from tests.models.tiny import inputs, tiny_autoencoder


def noise(batch: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.rand(batch, patches, generator=generator) for patches in (12, 12)]


@torch.no_grad()
def test_it_is_the_loss_of_pairs_torn_apart_minus_that_of_pairs_sample_by_sample() -> None:
    model, (image, audio), (image_noise, audio_noise) = tiny_autoencoder().eval(), inputs(3), noise(3)

    def loss(sense: str, picture: int, sound: int) -> float:
        rows = (image, picture), (audio, sound), (image_noise, picture), (audio_noise, sound)
        return float(getattr(model(*(x[i : i + 1] for x, i in rows)), f"loss_{sense}"))

    worth = other_sense_worth(model, image, audio, image_noise, audio_noise)
    for sense in ("image", "audio"):
        # The foreign sense comes with the mask of the sample that it is joined to.
        rises = []
        for i in range(3):
            picture, sound = (i, i - 1) if sense == "image" else (i - 1, i)
            other = [image[picture % 3][None], audio[sound % 3][None], image_noise[i][None], audio_noise[i][None]]
            rises.append(float(getattr(model(*other), f"loss_{sense}")) - loss(sense, i, i))
        assert float(worth[sense]) == pytest.approx(sum(rises) / 3, abs=1e-5)
        assert abs(float(worth[sense])) > 1e-4


@torch.no_grad()
def test_it_is_nothing_without_fusion_and_where_all_have_the_same_other_sense() -> None:
    image, audio = inputs(3)
    apart = other_sense_worth(tiny_autoencoder(fusion_layers="none").eval(), image, audio, *noise(3))
    assert {name: float(value) for name, value in apart.items()} == {"image": 0.0, "audio": 0.0}
    same = other_sense_worth(tiny_autoencoder().eval(), image, audio[:1].expand_as(audio), *noise(3))
    assert float(same["image"]) == 0.0
    with pytest.raises(ValueError, match="the other modality is taken from another sample"):
        other_sense_worth(tiny_autoencoder().eval(), image[:1], audio[:1], *noise(1))
