"""Boxes to masks: exact pixels of ordinary, degenerate, out-of-range, width-height and consensus boxes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from deepavfusion.metrics.boxes import (
    as_boxes,
    consensus_mask,
    degenerate,
    from_width_height,
    out_of_range,
    union_mask,
)


def painted(corners: list[tuple[int, int, int, int]], size: int = 224) -> Tensor:
    """Pixel by pixel."""
    count = torch.zeros(size, size, dtype=torch.long)
    for x1, y1, x2, y2 in corners:
        for y in range(y1, y2):
            for x in range(x1, x2):
                count[y, x] += 1
    return count


def test_ends_are_exclusive_and_fractions_truncated() -> None:
    mask = union_mask([[0.403125, 0.253125, 0.6, 0.75]])
    # 90.3, 56.7, 134.4, 168
    assert torch.equal(mask, painted([(90, 56, 134, 168)]) > 0)
    assert int(mask.sum()) == 44 * 112
    assert bool(union_mask([[0, 0, 1, 1]]).all())


def test_union_of_overlapping_boxes() -> None:
    mask = union_mask([[0.0, 0.0, 0.5, 0.5], [0.25, 0.25, 0.75, 0.75]], size=8)
    assert torch.equal(mask, painted([(0, 0, 4, 4), (2, 2, 6, 6)], 8) > 0)
    assert int(mask.sum()) == 16 + 16 - 4


def test_degenerate_and_out_of_range_boxes() -> None:
    boxes = [
        [0.25, 0.25, 0.25, 0.75],  # no width
        [0.75, 0.25, 0.25, 0.75],  # ends before it starts
        [0.5, 0.5, 0.501, 0.75],  # thinner than a pixel
        [0.5, 0.25, -2.88e16, 0.75],  # far outside
        [-0.5, -3.0, 0.25, 0.25],  # partly outside
        [0.5, 0.5, 7.0, 0.75],
    ]
    assert degenerate(boxes).tolist() == [True, True, True, True, False, False]
    assert out_of_range(boxes).tolist() == [False, False, False, True, True, True]
    assert not union_mask(boxes[:4]).any()
    assert torch.equal(union_mask(boxes), painted([(0, 0, 56, 56), (112, 112, 224, 168)]) > 0)


def test_no_boxes_no_truth() -> None:
    assert not union_mask([]).any()
    assert not consensus_mask([]).any()


def test_width_and_height() -> None:
    boxes = [[0.5, 0.25, 0.25, 0.5]]
    assert from_width_height(boxes).tolist() == [[0.5, 0.25, 0.75, 0.75]]
    assert int(union_mask(from_width_height(boxes)).sum()) == 56 * 112
    assert not union_mask(boxes).any()  # taken for corners it has no truth


def test_consensus_of_annotators() -> None:
    # 224 / 256 = 0.875: 9 -> 7.875 -> 7, 100 -> 87.5 -> 87, 200 -> 175, 250 -> 218.75 -> 218
    mask = consensus_mask([[9, 9, 100, 200], [9, 9, 100, 100], [9, 9, 250, 100], [300, 0, 310, 9]])
    count = painted([(7, 7, 87, 175), (7, 7, 87, 87), (7, 7, 218, 87)])
    assert torch.equal(mask, (count / 2).clamp(max=1).double())
    assert sorted(mask.unique().tolist()) == [0, 0.5, 1]
    assert mask[50, 50] == 1  # three annotators count as two
    assert mask[50, 150] == 0.5


def test_what_is_no_box_is_an_error() -> None:
    with pytest.raises(ValueError, match="four numbers"):
        as_boxes([[0.0, 1.0, 2.0]])
    with pytest.raises(ValueError, match="not a number"):
        as_boxes([[0.0, 1.0, 2.0, float("nan")]])


def test_the_odd_boxes_of_vggss(shared: Path) -> None:
    items = json.loads((shared / "annotations" / "vggss.json").read_text())
    boxes = [box for item in items for box in item["bbox"]]
    assert (len(items), len(boxes)) == (5158, 5941)
    assert int(degenerate(boxes).sum()) == 18
    assert int(out_of_range(boxes).sum()) == 12
    without_truth = [item["file"] for item in items if bool(degenerate(item["bbox"]).all())]
    assert len(without_truth) == 2
    for item in items:
        if item["file"] in without_truth:
            assert not union_mask(item["bbox"]).any()


def test_music_boxes_are_width_and_height(shared: Path) -> None:
    items = json.loads((shared / "annotations" / "music_duet.json").read_text())
    boxes = as_boxes([item[key] for item in items for key in ("bbox_src1", "bbox_src2")])
    assert not degenerate(from_width_height(boxes)).any()
    assert not out_of_range(from_width_height(boxes)).any()
    assert degenerate(boxes).double().mean() > 0.5  # taken for corners
