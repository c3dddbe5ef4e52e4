"""Balanced orders: how often each clip is drawn."""

from collections import Counter

import numpy as np
import pytest

from deepavfusion.data.sampling import BalancedOrder, ShuffledOrder, balancing_weights


def test_a_shuffled_epoch_draws_every_clip_once() -> None:
    order = ShuffledOrder(3, 20)
    assert sorted(order(0)) == list(range(20))
    assert (order(0) != order(1)).any()


def test_weights_are_one_over_the_clips_of_a_class() -> None:
    labels = [("a",), ("a",), ("a",), ("b",), ("a", "b")]
    np.testing.assert_allclose(balancing_weights(labels), [0.25, 0.25, 0.25, 0.5, 0.75])


def test_classes_are_drawn_alike_and_clips_as_evenly_as_can_be() -> None:
    labels = ["a"] * 90 + ["b"] * 9 + ["c"]
    weights = balancing_weights([(label,) for label in labels])
    order = BalancedOrder(0, weights)
    drawn = Counter()
    for epoch in range(30):
        epoch_draws = order(epoch)
        assert len(epoch_draws) == 100
        times = np.bincount(epoch_draws, minlength=100)
        expected = 100 * weights / weights.sum()
        assert (times >= np.floor(expected - 1e-9)).all()
        assert (times <= np.ceil(expected + 1e-9)).all()
        drawn.update(labels[i] for i in epoch_draws)
    shares = {label: count / 3000 for label, count in drawn.items()}
    assert shares == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, abs=0.02)


def test_equal_weights_draw_every_clip_once_and_orders_repeat() -> None:
    order = BalancedOrder(7, np.ones(50))
    assert sorted(order(4)) == list(range(50))
    np.testing.assert_array_equal(order(4), BalancedOrder(7, np.full(50, 0.3))(4))
    assert (order(4) != order(5)).any()
    assert (order(4) != BalancedOrder(8, np.ones(50))(4)).any()


def test_weights_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive weights"):
        BalancedOrder(0, np.array([1.0, 0.0]))
