"""The cheap forms against the method written out, in float64, and what only `bilinear` can do."""

import pytest
import torch

from deepavfusion.bench import plain
from deepavfusion.models.fusion import DenseFusion, Streams, bilinear_attention
from tests.models.tiny import FORMS, TINY, inputs, tiny_autoencoder, tiny_encoder

EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.mark.parametrize("fusion_layers", ["all", "none", (0, 2)])
@pytest.mark.parametrize("fusion", FORMS)
def test_encoder_equals_the_written_out_form(fusion: str, fusion_layers: str | tuple[int, ...]) -> None:
    model = tiny_encoder(fusion=fusion, fusion_layers=fusion_layers).double()
    image, audio = (x.requires_grad_() for x in inputs(dtype=torch.float64))
    ids = torch.tensor([[5, 0, 7], [1, 2, 11]]), torch.tensor([[4, 3], [9, 0]])
    weights = [torch.randn(s, dtype=torch.float64) for s in ((3, 32), (2, 32), (9, 32))]
    leaves = [image, audio, *model.parameters()]
    results = []
    for run in (lambda: model(image, audio, *ids), lambda: plain.encode(model, image, audio, *ids)):
        out = run()
        out = out if isinstance(out, tuple) else (out.image, out.audio, out.fusion)
        loss = sum((x.sin() * w).sum() for x, w in zip(out, weights, strict=True))
        results.append((*out, *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)))
    for ours, written_out in zip(*results, strict=True):
        torch.testing.assert_close(ours, written_out, **EXACT)


@pytest.mark.parametrize("norm_pix_loss", [True, False])
@pytest.mark.parametrize("fusion", FORMS)
def test_autoencoder_equals_the_written_out_form(fusion: str, norm_pix_loss: bool) -> None:
    model = tiny_autoencoder(fusion=fusion).double()
    model.config = type(model.config)(
        **{**model.config.__dict__, "norm_pix_loss": norm_pix_loss}  # the loss reads it at every call
    )
    image, audio = inputs(dtype=torch.float64)
    noise = [torch.rand(2, 12), torch.rand(2, 12)]
    out = model(image, audio, *noise)
    parameters = list(model.parameters())
    ours = (out.loss_image, out.loss_audio, *torch.autograd.grad(out.loss, parameters))
    losses = plain.masked_loss(model, image, audio, *noise)
    written_out = (*losses, *torch.autograd.grad(sum(losses), parameters))
    for a, b in zip(ours, written_out, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_bilinear_attention_by_loops() -> None:
    torch.manual_seed(0)
    q, k, l, v, u = (torch.randn(1, 2, n, 3, dtype=torch.float64) for n in (4, 5, 6, 5, 6))  # noqa: E741
    out = bilinear_attention(q, k, l, v, u, scale=0.7)
    for h in range(2):
        for f in range(4):
            weight, value = [], []
            for i in range(5):
                for j in range(6):
                    weight.append(torch.exp(0.7 * sum(q[0, h, f, d] * k[0, h, i, d] * l[0, h, j, d] for d in range(3))))
                    value.append(v[0, h, i] * u[0, h, j])
            expected = sum(w * x for w, x in zip(weight, value, strict=True)) / sum(weight)
            torch.testing.assert_close(out[0, h, f], expected, **EXACT)


def mixed_second_difference(values, n: int = 1) -> float:
    """|value(v', a') - value(v', a) - value(v, a') + value(v, a)| for a change of one image and one audio token."""
    torch.manual_seed(3)
    image, audio = torch.randn(1, 5, 32, dtype=torch.float64), torch.randn(1, 4, 32, dtype=torch.float64)
    changed_image, changed_audio = image.clone(), audio.clone()
    changed_image[0, n] += torch.randn(32, dtype=torch.float64)
    changed_audio[0, n] += torch.randn(32, dtype=torch.float64)
    difference = (
        values(changed_image, changed_audio)
        - values(changed_image, audio)
        - values(image, changed_audio)
        + values(image, audio)
    )
    return difference.abs().max().item()


def test_only_bilinear_values_interact_within_a_pair() -> None:
    """At fixed attention weights the output is a weighted mean of values: dense adds the two tokens, bilinear joins."""
    weights = torch.rand(5, 4, dtype=torch.float64).flatten().softmax(0).view(5, 4)
    dense = tiny_encoder(fusion="dense").double().fusion_blocks["0"].attn
    assert isinstance(dense, DenseFusion)
    w_image, w_audio = dense.pairs.v.halves()

    def dense_output(image, audio):
        pairs = (image @ w_image.T)[0, :, None] + (audio @ w_audio.T)[0, None]
        return dense.proj(torch.einsum("ij,ijd->d", weights, pairs))

    bilinear = tiny_encoder(fusion="bilinear").double().fusion_blocks["0"].attn

    def bilinear_output(image, audio):
        v, u = (side(x, None)[1].transpose(1, 2).flatten(2)[0] for side, x in sides(image, audio))
        return bilinear.proj(torch.einsum("ij,id,jd->d", weights, v, u))

    def sides(image, audio):
        return (bilinear.factors_image, image), (bilinear.factors_audio, audio)

    assert mixed_second_difference(dense_output) < 1e-12
    assert mixed_second_difference(bilinear_output) > 1e-4


def test_bilinear_starts_at_the_variance_of_ordinary_attention() -> None:
    from deepavfusion.models import EarlyFusionConfig
    from deepavfusion.models.fusion import PairFactors

    torch.manual_seed(0)
    config = EarlyFusionConfig()
    factors = [PairFactors(config.embed_dim, config.attn_dim, config.num_heads) for _ in range(2)]
    (k, v), (l, u) = (f(torch.randn(4, 50, config.embed_dim), None) for f in factors)  # noqa: E741
    q = torch.randn_like(k)
    for product in (k * l, v * u):
        assert 0.8 < product.square().mean() < 1.25
    logits = config.attn_dim**-0.5 * config.num_heads**0.5 * torch.einsum("bhfd,bhid,bhjd->bhfij", q, k, l)
    assert 0.7 < logits.var() < 1.4


def largest_saved(run) -> int:
    """Elements of the largest tensor that a forward pass keeps for backward."""
    largest = 0

    def pack(tensor):
        nonlocal largest
        largest = max(largest, tensor.untyped_storage().nbytes() // tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        run()
    return largest


@pytest.mark.parametrize("fusion", FORMS)
def test_no_form_keeps_pairs_times_width(fusion: str) -> None:
    model = tiny_encoder(fusion=fusion, image_size=(256, 256), audio_size=(128, 256), fusion_attn_ratio=1.0)
    image, audio = torch.randn(1, 3, 256, 256), torch.randn(1, 1, 128, 256)
    pairs_times_width = 256 * 128 * TINY.embed_dim
    assert largest_saved(lambda: model(image, audio)) < 0.25 * pairs_times_width
    if fusion in ("dense", "bilinear"):
        assert largest_saved(lambda: plain.encode(model, image, audio)) >= pairs_times_width


def test_bilinear_pairs_are_numbers() -> None:
    """Inside the attention too, one number per pair, query and head is the largest thing."""
    q, k, l = (torch.randn(1, 1, n, 64, requires_grad=True) for n in (1, 40, 50))  # noqa: E741
    assert largest_saved(lambda: bilinear_attention(q, k, l, k, l, 1.0)) == max(40 * 50, 40 * 64, 50 * 64)


@pytest.mark.parametrize("fusion", FORMS)
def test_order_of_keys_does_not_matter(fusion: str) -> None:
    block = tiny_encoder(fusion=fusion).double().fusion_blocks["0"]
    torch.manual_seed(0)
    x, image, audio = (torch.randn(2, n, 32, dtype=torch.float64) for n in (9, 7, 5))
    shuffled = block(x, Streams(image[:, torch.randperm(7)], audio[:, torch.randperm(5)]))
    torch.testing.assert_close(block(x, Streams(image, audio)), shuffled, **EXACT)
    assert not torch.allclose(block(x, Streams(image + 1e-3 * torch.randn_like(image), audio)), shuffled)
