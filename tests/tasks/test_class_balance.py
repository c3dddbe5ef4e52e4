"""Targets, log-odds, class weights and losses against values worked out by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deepavfusion.tasks.class_balance import class_counts, class_weights, classification_loss, log_odds, multi_hot

LABELS = [("a",), ("a",), ("a",), ("c",)]


def test_log_odds_of_the_frequencies() -> None:
    counts = class_counts(LABELS, "abc", np.ones(4))
    assert counts.tolist() == [3, 0, 1]
    found = log_odds(counts, 4).tolist()
    # 3 of 4 are odds of 3; 1 of 4 of 1/3; none counts as half a clip: odds of (1/8) / (7/8).
    assert found == pytest.approx([math.log(3), math.log(1 / 7), math.log(1 / 3)], rel=1e-6)
    assert log_odds(torch.tensor([4.0]), 4).item() == pytest.approx(math.log(7), rel=1e-6)
    assert torch.sigmoid(log_odds(torch.tensor([30.0]), 100)).item() == pytest.approx(0.3)


def test_balanced_draws_have_balanced_log_odds() -> None:
    counts = class_counts(LABELS, "ac", 4 * np.array([1 / 6, 1 / 6, 1 / 6, 1 / 2]))
    assert counts.tolist() == pytest.approx([2, 2])
    assert log_odds(counts, 4).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_class_weights_make_classes_equal() -> None:
    weights = class_weights(torch.tensor([3.0, 0.0, 1.0]), multi_label=False)
    assert weights.tolist() == pytest.approx([2 / 3, 0, 2])  # 3 x 2/3 = 1 x 2, and the mean over the 4 clips is 1
    several = class_weights(torch.tensor([4.0, 1.0]), multi_label=True)
    assert several.tolist() == pytest.approx([0.4, 1.6])  # 1 to 4, mean 1


def test_cross_entropy_weighs_each_class_by_its_own_weight() -> None:
    logits, weights = torch.randn(4, 3), torch.tensor([0.5, 2.0, 1.0])
    hard = F.one_hot(torch.tensor([0, 1, 2, 1]), 3).float()
    plain = classification_loss(logits, hard, False)
    torch.testing.assert_close(plain, F.cross_entropy(logits, torch.tensor([0, 1, 2, 1]), reduction="none"))
    weighted = classification_loss(logits, hard, False, weights)
    torch.testing.assert_close(weighted, plain * weights[[0, 1, 2, 1]])
    soft = torch.tensor([[0.25, 0.75, 0.0]])
    found = classification_loss(logits[:1], soft, False, weights)
    log_p = logits[0].log_softmax(0)
    torch.testing.assert_close(found[0], -(0.25 * 0.5 * log_p[0] + 0.75 * 2.0 * log_p[1]))
    torch.testing.assert_close(found, F.cross_entropy(logits[:1], soft, weights, reduction="none"))


def test_binary_cross_entropy_is_the_mean_over_classes() -> None:
    logits, targets, weights = torch.randn(2, 4), torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0]]), torch.rand(4)
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    torch.testing.assert_close(classification_loss(logits, targets, True), each.mean(1))
    torch.testing.assert_close(classification_loss(logits, targets, True, weights), (each * weights).mean(1))


def test_targets_have_a_one_at_every_label() -> None:
    assert multi_hot([("b",), ("a", "c")], "abc").tolist() == [[0, 1, 0], [1, 0, 1]]
    with pytest.raises(ValueError, match="label 'd' is not among the 3 classes"):
        multi_hot([("d",)], "abc")
