"""Masks, targets, and losses over what is present."""

import pytest
import torch

from deepavfusion.models import EarlyFusionConfig, MaskedAutoencoderConfig
from deepavfusion.models.masked_autoencoder import normalize_patches
from deepavfusion.models.patch_embed import patchify, unpatchify
from deepavfusion.models.patch_mask import random_mask, take
from deepavfusion.models.vit import sincos_positions
from tests.models.tiny import FORMS, inputs, tiny_autoencoder


def test_patches_are_taken_by_their_numbers() -> None:
    patches, ids = torch.randn(3, 7, 5), torch.tensor([[0, 6], [3, 3], [5, 1]])
    taken = take(patches, ids)
    assert taken.shape == (3, 2, 5)
    for sample in range(3):
        for place in range(2):
            assert torch.equal(taken[sample, place], patches[sample, ids[sample, place]])


def test_published_numbers_of_visible_patches() -> None:
    config = MaskedAutoencoderConfig()
    assert (config.num_image_kept, config.num_audio_kept) == (49, 19)


def test_mask_hides_all_but_the_smallest_noise() -> None:
    noise = torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.2, 0.8, 0.1, 0.7]])
    mask = random_mask(noise, 2)
    assert mask.ids_keep.tolist() == [[1, 3], [0, 2]]
    assert mask.ids_masked.tolist() == [[0, 2], [1, 3]]
    assert mask.mask.tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]


def test_patches_come_back_in_place() -> None:
    x = torch.arange(2 * 3 * 6 * 4.0).view(2, 3, 6, 4)
    patches = patchify(x, 2)
    assert patches.shape == (2, 6, 12)
    # Patch 3 is rows 2-3, columns 2-3; its values run over row, column, channel.
    assert patches[0, 3].tolist() == [x[0, c, r, k].item() for r in (2, 3) for k in (2, 3) for c in range(3)]
    assert torch.equal(unpatchify(patches, 2, (3, 2)), x)
    with pytest.raises(ValueError, match="5 x 4 input cannot be cut into patches of 2"):
        patchify(torch.zeros(1, 1, 5, 4), 2)


def test_position_table_by_hand() -> None:
    table = sincos_positions((2, 3), 8)[0].double()
    row, column = 1, 2
    expected = [
        torch.tensor([f(p * 10000 ** (-i / 2)) for f in (torch.sin, torch.cos) for i in range(2)])
        for p in (torch.tensor(column), torch.tensor(row))
    ]
    torch.testing.assert_close(table[row * 3 + column], torch.cat(expected).double(), atol=1e-6, rtol=0)


def test_normalized_targets_use_the_unbiased_variance() -> None:
    patch = torch.tensor([[1.0, 2.0, 3.0, 6.0]], dtype=torch.float64)
    expected = (patch - 3.0) / (14 / 3 + 1e-6) ** 0.5
    torch.testing.assert_close(normalize_patches(patch), expected)


def test_variance_floor_shrinks_flat_patches_and_spares_the_others() -> None:
    flat, rich = 1e-2 * torch.randn(1, 64), 10 * torch.randn(1, 64)
    assert normalize_patches(flat, 0.5).var().item() < 1e-3
    for patch in (flat, rich):
        var = patch.var().item()
        assert normalize_patches(patch, 0.5).var().item() == pytest.approx(var / (var + 0.5), rel=1e-4)


def test_loss_is_the_error_of_the_hidden_patches() -> None:
    model = tiny_autoencoder().eval()
    image, audio = inputs()
    noise = torch.rand(2, 12), torch.rand(2, 12)
    out = model(image, audio, *noise)
    for x, pred, mask, loss in (
        (image, out.pred_image, out.image_mask, out.loss_image),
        (audio, out.pred_audio, out.audio_mask, out.loss_audio),
    ):
        target = normalize_patches(patchify(x, 16))[mask.bool()]
        torch.testing.assert_close(loss, (pred.flatten(0, 1) - target).square().mean())
    assert out.image_mask.sum(dim=1).tolist() == [9, 9]
    assert out.audio_mask.sum(dim=1).tolist() == [10, 10]


@pytest.mark.parametrize("fusion", FORMS)
def test_absent_streams_do_not_enter_the_loss(fusion: str) -> None:
    model = tiny_autoencoder(fusion=fusion).eval()
    image, audio = inputs(batch=3)
    noise = torch.rand(3, 12), torch.rand(3, 12)
    present = torch.tensor([True, False, True])
    out = model(image, audio, *noise, audio_present=present)
    both = [0, 2]
    pair = model(image[both], audio[both], *(n[both] for n in noise))
    single = model(image[1:2], None, noise[0][1:2])
    torch.testing.assert_close(out.loss_audio, pair.loss_audio)
    torch.testing.assert_close(out.loss_image, (2 * pair.loss_image + single.loss_image) / 3)
    assert single.pred_audio is None
    assert single.loss_audio == 0
    none = model(image, audio, *noise, image_present=~present & present, audio_present=~present & present)
    assert none.loss == 0
    none.loss.backward()
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in model.parameters())


def test_visible_patches_are_all_the_model_sees() -> None:
    model = tiny_autoencoder().eval()
    image, audio = inputs()
    noise = torch.rand(2, 12), torch.rand(2, 12)
    out = model(image, audio, *noise)
    patches = patchify(image, 16)
    patches[out.image_mask.bool()] = 7.0
    hidden = model(unpatchify(patches, 16, (4, 3)), audio, *noise)
    torch.testing.assert_close(hidden.pred_image, out.pred_image)
    patches[:, :] = 7.0
    assert not torch.allclose(model(unpatchify(patches, 16, (4, 3)), audio, *noise).pred_image, out.pred_image)


def test_noise_drawn_by_the_model_follows_the_seed() -> None:
    model = tiny_autoencoder().eval()
    masks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        masks.append(model(*inputs()).image_mask)
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_autoencoder_compiles_without_graph_breaks() -> None:
    model = tiny_autoencoder(depth=1)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    noise = torch.rand(2, 12), torch.rand(2, 12)
    torch.testing.assert_close(compiled(*inputs(), *noise).loss, model(*inputs(), *noise).loss)
    torch.compiler.reset()


def test_layer_numbers_put_decoders_last() -> None:
    model = tiny_autoencoder()
    ids = model.layer_ids()
    assert ids.keys() == dict(model.named_parameters()).keys()
    assert ids["encoder.fusion_blocks.1.mlp.fc1.weight"] == 2
    assert ids["image_decoder.blocks.0.norm1.weight"] == ids["audio_decoder.mask_token"] == 4


def test_a_ratio_that_hides_everything_is_refused() -> None:
    with pytest.raises(ValueError, match=r"audio_mask_ratio 0.95 keeps 0 of 12 audio patches"):
        MaskedAutoencoderConfig(EarlyFusionConfig(audio_size=(48, 64)), audio_mask_ratio=0.95)
