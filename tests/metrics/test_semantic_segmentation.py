"""Semantic segmentation by hand and by a slow reference; padding, absent classes, splits."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from deepavfusion.metrics.semantic_segmentation import SemanticSegmentation, semantic_labels


def frames_of(*rows: list[int]) -> Tensor:
    return torch.tensor(rows)[:, None]


def accumulated(
    predicted: Tensor, truth: Tensor, num_classes: int, clips: Tensor | None = None, frames: Tensor | None = None
) -> SemanticSegmentation:
    scores = SemanticSegmentation(num_classes)
    count = len(truth)
    clips = torch.zeros(count, dtype=torch.long) if clips is None else clips
    scores.update(predicted, truth, clips, torch.arange(count) if frames is None else frames)
    return scores


def f_of(shared: float, predicted: float, true: float) -> float:
    if not shared:
        return 0.0
    p, r = shared / predicted, shared / true
    return 1.3 * p * r / (0.3 * p + r)


def slow(predicted: Tensor, truth: Tensor, num_classes: int) -> dict[str, float]:
    """Frame by frame, class by class, pixel by pixel."""
    iou, f, count = ([0.0] * num_classes for _ in range(3))
    pool = [[0, 0, 0] for _ in range(num_classes)]
    for p_frame, g_frame in zip(predicted.flatten(1).tolist(), truth.flatten(1).tolist(), strict=True):
        pairs = [(p, g) for p, g in zip(p_frame, g_frame, strict=True) if g >= 0]
        for c in range(num_classes):
            shared = sum(1 for p, g in pairs if p == c and g == c)
            pred, true = sum(1 for p, _ in pairs if p == c), sum(1 for _, g in pairs if g == c)
            pool[c] = [a + b for a, b in zip(pool[c], (shared, pred, true), strict=True)]
            if pred + true:
                iou[c] += shared / (pred + true - shared)
                f[c] += f_of(shared, pred, true)
                count[c] += 1
    there = [c for c in range(num_classes) if count[c]]
    return {
        "miou": sum(iou[c] / count[c] for c in there) / num_classes,
        "f": sum(f[c] / count[c] for c in there) / num_classes,
        "pooled": float(np.mean([pool[c][0] / (pool[c][1] + pool[c][2] - pool[c][0]) for c in there])),
        "pooled_f": float(np.mean([f_of(*pool[c]) for c in there])),
    }


def test_by_hand() -> None:
    predicted = frames_of([0, 0, 1, 1], [0, 0, 0, 2])
    truth = frames_of([0, 0, 1, 0], [0, 0, 0, 0])
    scores = accumulated(predicted, truth, num_classes=5)
    avss = scores.avss()
    # Class 0: 2/3 and 3/4 over two frames; 1: 1/2 in one; 2: claimed only, 0; 3 and 4 absent, 0.
    assert avss.class_iou.tolist() == pytest.approx([(2 / 3 + 3 / 4) / 2, 1 / 2, 0, 0, 0])
    assert avss.miou == pytest.approx(((2 / 3 + 3 / 4) / 2 + 1 / 2) / 5)
    first, second = f_of(2, 2, 3), f_of(3, 3, 4)
    assert avss.class_f_score.tolist() == pytest.approx([(first + second) / 2, f_of(1, 2, 1), 0, 0, 0])
    assert avss.num_frames_of_class.tolist() == [2, 1, 1, 0, 0]
    assert avss.num_absent_classes == 2
    pooled = scores.pooled()
    assert pooled.class_iou.tolist()[:3] == pytest.approx([5 / 7, 1 / 2, 0])
    assert np.isnan(pooled.class_iou[3:]).all()
    assert pooled.miou == pytest.approx((5 / 7 + 1 / 2 + 0) / 3)
    assert pooled.f_score == pytest.approx((f_of(5, 5, 7) + f_of(1, 2, 1) + 0) / 3)
    assert pooled.protocol == "pooled, 5 classes"


def random_file(num_classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    clips = torch.tensor([c for c in range(6) for _ in range(5 if c % 2 else 10)])
    frames = torch.tensor([f for c in range(6) for f in range(5 if c % 2 else 10)])
    truth = torch.randint(0, num_classes - 2, (len(clips), 4, 6), generator=generator)
    truth[:, :, 3:] = 0
    predicted = torch.randint(0, num_classes - 1, truth.shape, generator=generator)
    predicted = torch.where(torch.rand(truth.shape, generator=generator) < 0.6, truth, predicted)
    truth[2, 1] = -1
    predicted[4, 2] = -1
    return predicted, truth, clips, frames


def test_equals_slow_reference() -> None:
    predicted, truth, clips, frames = random_file(9)
    scores = accumulated(predicted, truth, 9, clips, frames)
    expected = slow(predicted, truth, 9)
    avss, pooled = scores.avss(), scores.pooled()
    assert (avss.miou, avss.f_score) == pytest.approx((expected["miou"], expected["f"]), abs=1e-12)
    assert (pooled.miou, pooled.f_score) == pytest.approx((expected["pooled"], expected["pooled_f"]), abs=1e-12)
    assert avss.counted_as_wrong == {"prediction not finite": 1}
    sums = scores.clip_sums()
    assert (sums.miou(np.ones((2, 6))), sums.f_score(np.ones((1, 6)))) == (
        pytest.approx(np.array([avss.miou] * 2)),
        pytest.approx(np.array([avss.f_score])),
    )


@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.parametrize("num_processes", [1, 2])
def test_any_batch_size_and_process_count_gives_the_same_bits(batch_size: int, num_processes: int) -> None:
    predicted, truth, clips, frames = random_file(9)
    whole = accumulated(predicted, truth, 9, clips, frames).result()
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(1))
    merged = SemanticSegmentation(9)
    for process in range(num_processes):
        part = SemanticSegmentation(9)
        for places in order[process::num_processes].split(batch_size):
            part.update(predicted[places], truth[places], clips[places], frames[places])
        merged.merge(pickle.loads(pickle.dumps(part)))
    for name, result in merged.result().items():
        assert (result.miou, result.f_score) == (whole[name].miou, whole[name].f_score)


def test_padding_does_not_count_as_background() -> None:
    predicted, truth, clips, frames = random_file(9)
    whole = accumulated(predicted, truth, 9, clips, frames)
    padded = SemanticSegmentation(9)
    more = torch.zeros(5, 4, 6, dtype=torch.long)
    padded.update(
        torch.cat([predicted, more, more]),
        torch.cat([truth, more, more - 1]),  # five frames beyond the clip, five without a labelled pixel
        torch.cat([clips, torch.full((5,), 1), torch.full((5,), 99)]),
        torch.cat([frames, torch.arange(5, 10), torch.arange(5)]),
        torch.cat([torch.ones(len(clips)), torch.zeros(5), torch.ones(5)]).bool(),
    )
    assert padded.avss().miou == whole.avss().miou
    assert padded.pooled().f_score == whole.pooled().f_score
    assert padded.avss().left_out == {"unlabelled": 10}
    assert padded.avss().num_scored == len(clips)


def test_labels_of_scores() -> None:
    scores = torch.tensor([[[[0.1, 5.0]], [[0.3, math.nan]], [[0.2, 1.0]]]])  # one frame, three classes, two pixels
    assert semantic_labels(scores).tolist() == [[[1, -1]]]
    result = accumulated(semantic_labels(scores), torch.tensor([[[1, 1]]]), 3).avss()
    assert result.class_iou.tolist() == [0, 0.5, 0]
    assert result.num_absent_classes == 2


def test_a_class_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"true class 71 is none of 0\.\.70"):
        accumulated(frames_of([0, 1]), frames_of([71, 1]), 71)
    with pytest.raises(ValueError, match="predicted class 3"):
        accumulated(frames_of([0, 3]), frames_of([0, 1]), 3)
    with pytest.raises(ValueError, match="no labelled frame was scored"):
        SemanticSegmentation().result()
