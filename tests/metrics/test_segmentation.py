"""Binary segmentation: one prediction file, three families of numbers, each by hand and by a slow reference."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from deepavfusion.metrics.intervals import paired_statistic_interval
from deepavfusion.metrics.segmentation import BinaryScores, BinarySegmentation, at_mask_size


def frames_of(*rows: list[float]) -> Tensor:
    """Frames of one row of pixels: `(B, 1, W)`."""
    return torch.tensor(rows)[:, None]


def accumulated(
    probabilities: Tensor, truth: Tensor, clips: list[int] | None = None, frames: list[int] | None = None
) -> BinarySegmentation:
    scores = BinarySegmentation()
    count = len(truth)
    clips, frames = clips or [0] * count, frames or list(range(count))
    scores.update(probabilities, truth, torch.tensor(clips), torch.tensor(frames))
    return scores


def f_of(tp: float, positives: float, true: float) -> float:
    if not tp:
        return 0.0
    p, r = tp / positives, tp / true
    return 1.3 * p * r / (0.3 * p + r)


def slow(probabilities: Tensor, truth: Tensor, clips: list[int], batch: int | None = None) -> dict[str, float]:
    """All protocols, frame by frame and threshold by threshold."""
    ious, curves, fg, bg, best = [], [], [], [], []
    inter_all = pred_all = true_all = 0
    for p, g in zip(probabilities.double().flatten(1).tolist(), truth.flatten(1).tolist(), strict=True):
        pixels = list(zip(p, g, strict=True))
        inter = sum(1 for s, t in pixels if s > 0.5 and t)
        pred, true, count = sum(1 for s in p if s > 0.5), sum(g), len(g)
        neither = sum(1 for s, t in pixels if s <= 0.5 and not t)
        inter_all, pred_all, true_all = inter_all + inter, pred_all + pred, true_all + true
        ious.append(inter / (pred + true - inter) if true else neither / count)
        if not true:
            curves.append(None)
            continue

        def curve(num: int, pixels: list[tuple[float, float]] = pixels, true: float = true) -> list[float]:
            values = []
            for threshold in np.linspace(0, 1 - 1e-10, num):
                chosen = [t for s, t in pixels if s >= threshold]
                values.append(f_of(sum(chosen), len(chosen), true))
            return values

        curves.append(curve(255))
        fg.append(inter / (pred + true - inter))
        if neither < count - inter:
            bg.append(neither / (count - inter))
        elif neither:
            bg.append(1.0)
        best.append(max(curve(256)))

    def best_mean(some: list[list[float] | None]) -> float:
        some = [c for c in some if c is not None]
        return float(np.mean(some, axis=0).max()) if some else 0.0

    groups = {}
    for i, clip in enumerate(clips):
        groups.setdefault(sorted(set(clips)).index(clip) // (batch or 10**9), []).append(i)
    return {
        "miou": float(np.mean([np.mean([ious[i] for i in g]) for g in groups.values()])),
        "f": float(np.mean([best_mean([curves[i] for i in g]) for g in groups.values()])),
        "pooled_iou": inter_all / (pred_all + true_all - inter_all),
        "pooled_f": f_of(inter_all, pred_all, true_all),
        "with_background": (float(np.mean(fg)) + float(np.mean(bg))) / 2,
        "with_background_f": float(np.mean(best)),
    }


def test_three_families_of_one_file_by_hand() -> None:
    # Eight pixels a frame. Frame 0: half found. Frame 1: found with one too many. Frame 2: nothing sounds, two claimed.
    probabilities = frames_of(
        [0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1],
        [0.9, 0.8, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1],
        [0.7, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1],
    )
    truth = frames_of([1, 1, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0])
    result = accumulated(probabilities, truth).result()

    avsbench = result["avsbench"]
    assert avsbench.miou == pytest.approx((2 / 4 + 1 / 2 + 6 / 8) / 3)
    # In (0.8, 0.9]: frame 0 has P 1 R 1/2, frame 1 P 1 R 1.
    assert avsbench.f_score == pytest.approx((1.3 * 0.5 / (0.3 + 0.5) + 1) / 2)
    assert avsbench.num_scored == 3

    pooled = result["pooled"]
    assert pooled.miou == pytest.approx(3 / (6 + 5 - 3))
    assert pooled.f_score == pytest.approx(1.3 * (3 / 6) * (3 / 5) / (0.3 * 3 / 6 + 3 / 5))

    with_background = result["with_background"]
    assert with_background.class_iou == {
        "foreground": pytest.approx((2 / 4 + 1 / 2) / 2),
        "background": pytest.approx((4 / 6 + 6 / 7) / 2),
    }
    assert with_background.miou == pytest.approx(((2 / 4 + 1 / 2) / 2 + (4 / 6 + 6 / 7) / 2) / 2)
    # Frame 0 at t <= 0.1: P 1/2 R 1, F = 0.65 / 1.15 < 0.8125; frame 1: 1.
    assert with_background.f_score == pytest.approx((0.8125 + 1) / 2)
    assert with_background.left_out == {"empty truth": 1}
    assert with_background.num_scored == 2
    assert len({round(r.miou, 6) for r in result.values()}) == 3


def test_threshold_is_exceeded_not_reached() -> None:
    result = accumulated(frames_of([0.5, 0.5]), frames_of([1, 1])).avsbench()
    assert result.miou == 0
    assert result.f_score == 1  # F takes >= and low thresholds


def test_full_foreground_has_no_background() -> None:
    result = accumulated(frames_of([0.9, 0.9], [0.9, 0.1]), frames_of([1, 1], [1, 0])).with_background()
    assert result.class_iou == {"foreground": 1.0, "background": 1.0}
    alone = accumulated(frames_of([0.9, 0.9]), frames_of([1, 1])).with_background()
    assert math.isnan(alone.class_iou["background"])
    assert alone.miou == 1


def test_batches_of_videos_change_the_maximum() -> None:
    # Clip 0 is best at a high threshold, clip 1 at a low one.
    probabilities = frames_of([0.9, 0.4, 0.1, 0.1], [0.3, 0.2, 0.1, 0.1])
    truth = frames_of([1, 0, 0, 0], [1, 1, 0, 0])
    scores = accumulated(probabilities, truth, clips=[0, 1], frames=[0, 0])
    together = scores.avsbench().f_score
    assert scores.avsbench(1).f_score == pytest.approx(1.0)
    assert scores.avsbench(2).f_score == pytest.approx(together)
    # At 0.1 < t <= 0.2: clip 0 P 1/2 R 1, clip 1 P 1 R 1.
    assert together == pytest.approx((1.3 * 0.5 / (0.15 + 1) + 1) / 2)
    assert scores.avsbench(1).protocol == "avsbench, batches of 1 videos"


def random_file(num_clips: int = 7) -> tuple[Tensor, Tensor, list[int], list[int]]:
    """Clips of 5 and 10 frames; some frames have no truth, one is not finite."""
    generator = torch.Generator().manual_seed(0)
    clips = [c for c in range(num_clips) for _ in range(5 if c % 3 else 10)]
    frames = [f for c in range(num_clips) for f in range(5 if c % 3 else 10)]
    probabilities = torch.rand(len(clips), 6, 5, generator=generator)
    truth = torch.rand(len(clips), 6, 5, generator=generator) < 0.3
    probabilities = (0.4 * probabilities + 0.6 * truth * torch.rand(len(clips), 6, 5, generator=generator)).clamp(0, 1)
    probabilities[3] = (probabilities[3] * 4).round() / 4
    truth[::4] = False
    return probabilities, truth, clips, frames


@pytest.mark.parametrize("batch", [None, 4, 2])
def test_equals_slow_reference(batch: int | None) -> None:
    probabilities, truth, clips, frames = random_file()
    scores = accumulated(probabilities, truth, clips, frames)
    expected = slow(probabilities, truth.long(), clips, batch)
    avsbench = scores.avsbench(batch)
    assert (avsbench.miou, avsbench.f_score) == pytest.approx((expected["miou"], expected["f"]), abs=1e-12)
    pooled, with_background = scores.pooled(), scores.with_background()
    assert (pooled.miou, pooled.f_score) == pytest.approx((expected["pooled_iou"], expected["pooled_f"]), abs=1e-12)
    assert with_background.miou == pytest.approx(expected["with_background"], abs=1e-12)
    assert with_background.f_score == pytest.approx(expected["with_background_f"], abs=1e-12)


def numbers(scores: BinarySegmentation) -> list[float]:
    results: list[BinaryScores] = [*scores.result().values(), scores.avsbench(4)]
    return [number for r in results for number in (r.miou, r.f_score, r.num_scored)]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_any_batch_size_and_process_count_gives_the_same_bits(batch_size: int, num_processes: int) -> None:
    probabilities, truth, clips, frames = random_file()
    probabilities[5, 0, 0] = torch.nan
    whole = accumulated(probabilities, truth, clips, frames)
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(1))
    parts = []
    for process in range(num_processes):
        part = BinarySegmentation()
        for places in order[process::num_processes].split(batch_size):
            part.update(probabilities[places], truth[places], torch.tensor(clips)[places], torch.tensor(frames)[places])
        parts.append(pickle.loads(pickle.dumps(part)))  # as processes hand them over
    merged = parts[0]
    for part in parts[1:]:
        merged.merge(part)
    assert numbers(merged) == numbers(whole)


def test_padding_and_repeats() -> None:
    probabilities, truth, clips, frames = random_file(2)
    whole = accumulated(probabilities, truth, clips, frames)
    padded = BinarySegmentation()
    labelled = torch.arange(len(clips) + 5) < len(clips)
    padded.update(
        torch.cat([probabilities, torch.full((5, 6, 5), torch.nan)]),
        torch.cat([truth.long(), torch.full((5, 6, 5), 255)]),
        torch.tensor([*clips, 1, 1, 1, 1, 1]),
        torch.tensor([*frames, 5, 6, 7, 8, 9]),
        labelled,
    )
    assert numbers(padded) == numbers(whole)
    assert padded.avsbench().left_out == {"unlabelled": 5}
    padded.update(probabilities[:1], truth[:1], torch.tensor([0]), torch.tensor([3]))
    with pytest.raises(ValueError, match="frame 3 of clip 0 was scored twice"):
        padded.result()


def test_a_prediction_that_is_not_finite_is_all_wrong() -> None:
    probabilities = frames_of([0.9, 0.1], [0.9, math.nan], [math.nan, 0.1])
    scores = accumulated(probabilities, frames_of([1, 0], [1, 0], [0, 0]))
    avsbench = scores.avsbench()
    assert avsbench.miou == pytest.approx(1 / 3)
    # The threshold 0 takes every pixel of any prediction: F(1/2, 1) in both, above the (1 + 0) / 2 of higher ones.
    assert avsbench.f_score == pytest.approx(1.3 * 0.5 / (0.15 + 1))
    assert avsbench.counted_as_wrong == {"prediction not finite": 2}
    assert scores.pooled().miou == pytest.approx(1 / (1 + 2 + 2))
    assert scores.with_background().miou == pytest.approx(1 / 2)


def test_nothing_there_and_nothing_claimed() -> None:
    scores = accumulated(frames_of([0.1, 0.2]), frames_of([0, 0]))
    assert scores.avsbench().miou == 1
    assert math.isnan(scores.avsbench().f_score)
    assert math.isnan(scores.pooled().miou)
    assert math.isnan(scores.with_background().miou)


def test_clip_sums_are_the_statistics_of_avsbench() -> None:
    probabilities, truth, clips, frames = random_file()
    sums = accumulated(probabilities, truth, clips, frames).clip_sums()
    whole = accumulated(probabilities, truth, clips, frames).avsbench()
    once = np.ones((1, 7))
    assert sums.clips.tolist() == list(range(7))
    assert (sums.miou(once)[0], sums.f_score(once)[0]) == pytest.approx((whole.miou, whole.f_score))
    # A selection with one clip twice and one left out equals scoring just that.
    weights = np.array([[2.0, 0, 1, 1, 1, 1, 1]])
    picked = [i for c in (0, 0, 2, 3, 4, 5, 6) for i, clip in enumerate(clips) if clip == c]
    expected = slow(probabilities[picked], truth[picked].long(), [0] * len(picked))
    assert (sums.miou(weights)[0], sums.f_score(weights)[0]) == pytest.approx((expected["miou"], expected["f"]))
    worse = accumulated(1 - probabilities, truth, clips, frames).clip_sums()
    for name in ("miou", "f_score"):
        interval = paired_statistic_interval([getattr(sums, name)], [getattr(worse, name)], 7, num_resamples=500)
        assert interval.low > 0


def test_resizing_before_the_threshold() -> None:
    logits = torch.tensor([[[-4.0, 4.0]]])
    assert at_mask_size(logits, (1, 4)).flatten().tolist() == [-4, -2, 2, 4]
    assert at_mask_size(torch.zeros(2, 3, 4, 4).half(), (9, 7)).shape == (2, 3, 9, 7)


def test_what_does_not_fit_is_an_error() -> None:
    one = torch.tensor([0])
    with pytest.raises(ValueError, match=r"probabilities must lie in \[0, 1\], got -1 to 3 \(logits\?\)"):
        BinarySegmentation().update(frames_of([-1.0, 3.0]), frames_of([0, 1]), one, one)
    with pytest.raises(ValueError, match="truth must be 0 or 1"):
        BinarySegmentation().update(frames_of([0.0, 1.0]), frames_of([0, 255]), one, one)
    with pytest.raises(ValueError, match="no labelled frame was scored"):
        BinarySegmentation().result()
    with pytest.raises(ValueError, match="at least 1, got 0"):
        accumulated(frames_of([0.0]), frames_of([1])).avsbench(0)
