"""Both decoder forms: equal to the written-out ones, independent of what else is predicted, seeded losses kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deepavfusion.bench import plain
from deepavfusion.models import AudioVisualMAE, MaskedAutoencoderConfig
from deepavfusion.models.masked_autoencoder import normalize_patches
from deepavfusion.models.patch_embed import patchify
from deepavfusion.models.patch_mask import random_mask
from deepavfusion.training.sharding import units_of
from tests.models.tiny import TINY, inputs, randomized

DECODER_FORMS = ("self", "cross")


def autoencoder(form: str, share: float = 1.0, **changes: object) -> AudioVisualMAE:
    torch.manual_seed(0)
    config = MaskedAutoencoderConfig(
        replace(TINY, **changes),
        decoder_dim=32,
        decoder_num_heads=4,
        image_decoder_depth=2,
        audio_decoder_depth=2,
        decoder_form=form,
        predicted_share=share,
    )
    return randomized(AudioVisualMAE(config))


def noise(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(batch, 12, generator=generator), torch.rand(batch, 12, generator=generator)


def test_predicted_patches_are_the_hidden_ones_with_the_smallest_noise() -> None:
    mask = random_mask(torch.tensor([[0.9, 0.1, 0.5, 0.3, 0.7], [0.2, 0.8, 0.1, 0.7, 0.9]]), 2, 2)
    assert mask.ids_keep.tolist() == [[1, 3], [0, 2]]
    assert mask.ids_masked.tolist() == [[0, 2, 4], [1, 3, 4]]
    assert mask.ids_predicted.tolist() == [[2, 4], [1, 3]]
    assert mask.ids_unpredicted is not None
    assert mask.ids_unpredicted.tolist() == [[0], [4]]


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("form", DECODER_FORMS)
def test_loss_and_gradients_equal_the_written_out_form(form: str, share: float) -> None:
    model = autoencoder(form, share).double().train()
    image, audio = inputs(dtype=torch.float64)
    out = model(image, audio, *noise())
    losses = plain.masked_loss(model, image, audio, *noise())
    leaves = list(model.parameters())
    results = [
        torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True) for loss in (out.loss, sum(losses))
    ]
    torch.testing.assert_close((out.loss_image, out.loss_audio), losses, rtol=1e-10, atol=1e-10)
    for ours, written_out in zip(*results, strict=True):
        torch.testing.assert_close(ours, written_out, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", DECODER_FORMS)
def test_predicting_a_share_gives_the_same_rows(form: str) -> None:
    model = autoencoder(form, 0.4).double().train()
    counts = ((model.config.num_image_kept, 4), (model.config.num_audio_kept, 4))
    assert (model.config.num_image_predicted, model.config.num_audio_predicted) == (4, 4)
    x = inputs(dtype=torch.float64)
    part, full = model(*x, *noise()), model.eval()(*x, *noise())
    for modality, values, (kept, predicted), pixels in zip(("image", "audio"), noise(), counts, x, strict=True):
        mask = random_mask(values, kept, predicted)
        place = (mask.ids_masked[:, None] == mask.ids_predicted[..., None]).long().argmax(dim=-1)  # (B, R)
        whole = getattr(full, f"pred_{modality}")
        rows = whole.gather(1, place[..., None].expand(-1, -1, whole.shape[-1]))
        torch.testing.assert_close(getattr(part, f"pred_{modality}"), rows, rtol=1e-12, atol=1e-12)
        target = normalize_patches(patchify(pixels, 16))
        target = target.gather(1, mask.ids_predicted[..., None].expand(-1, -1, target.shape[-1]))
        torch.testing.assert_close(getattr(part, f"loss_{modality}"), (rows - target).square().mean())
        assert torch.equal(getattr(part, f"{modality}_mask"), getattr(full, f"{modality}_mask"))


def test_a_cross_prediction_does_not_depend_on_the_others() -> None:
    """Changing the position of another mask token changes a prediction of `self`, none of `cross`."""
    changed = {}
    for form in DECODER_FORMS:
        model = autoencoder(form).eval()
        before = model(*inputs(), *noise())
        hidden = before.image_mask.bool().all(dim=0).nonzero()[0, 0]  # hidden in both samples
        row = (before.image_mask[:, :hidden].sum(dim=1)).long()
        with torch.no_grad():
            model.image_decoder.pos_embed[0, hidden] += 1.0
        after = model(*inputs(), *noise())
        rest = torch.ones(before.pred_image.shape[:2], dtype=torch.bool)
        rest[torch.arange(2), row] = False
        assert not torch.allclose(before.pred_image[~rest], after.pred_image[~rest])
        changed[form] = not torch.allclose(before.pred_image[rest], after.pred_image[rest])
    assert changed == {"self": True, "cross": False}


@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("form", DECODER_FORMS)
def test_gradient_reaches_every_parameter(form: str, share: float) -> None:
    model = autoencoder(form, share).train()
    model(*inputs(), *noise()).loss.backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert missing == []


def test_default_losses_are_those_before_there_was_a_choice() -> None:
    """Seeded training losses, recorded in the version that had one decoder."""
    torch.manual_seed(0)
    sizes = {"decoder_dim": 32, "decoder_num_heads": 4, "image_decoder_depth": 2, "audio_decoder_depth": 2}
    model = AudioVisualMAE(MaskedAutoencoderConfig(replace(TINY, drop_path=0.1), **sizes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        out = model(torch.randn(4, 3, 64, 48), torch.randn(4, 1, 48, 64))
        out.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(out.loss.item())
    # Bit-equal on the machine of the record; another machine's kernels may round otherwise.
    expected = [float.fromhex(x) for x in ("0x1.29a0c4p+1", "0x1.20b2e6p+1", "0x1.1c5f28p+1")]
    assert losses == pytest.approx(expected, rel=1e-5)


def test_saved_and_loaded_with_its_decoder(tmp_path: Path) -> None:
    model = autoencoder("cross", 0.25).eval()
    model.save_pretrained(tmp_path / "model")
    loaded = AudioVisualMAE.from_pretrained(tmp_path / "model")
    assert loaded.config == model.config
    assert torch.equal(loaded(*inputs(), *noise()).loss, model(*inputs(), *noise()).loss)


def test_cross_compiles_without_graph_breaks() -> None:
    model = autoencoder("cross", 0.5, depth=1).train()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*inputs(), *noise()).loss, model(*inputs(), *noise()).loss)
    torch.compiler.reset()


@pytest.mark.parametrize("form", DECODER_FORMS)
def test_every_block_is_a_unit_of_sharded_training(form: str) -> None:
    assert len(units_of(autoencoder(form))) == 3 * 3 + 2 + 2  # three streams of the encoder, two decoders


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"predicted_share 0\.0 must be above 0"):
        MaskedAutoencoderConfig(predicted_share=0.0)
    with pytest.raises(
        ValueError, match=r"predicted_share 0.05 predicts none of 9 hidden image patches: raise it to 0.11"
    ):
        autoencoder("cross", 0.05)
    with pytest.raises(ValueError, match="decoder_form 'both' must be self or cross"):
        MaskedAutoencoderConfig(decoder_form="both")
